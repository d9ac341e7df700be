//! The surgery root and its windows on the machine model.

use linmap_board::{Board, BoardCpu, BoardFrames, BoardWindow};
use linmap_model::event::{Access, Domain, Use};
use linmap_model::{Config, Event, Rule, Violation};
use linmap_park::{SurgeryError, SurgeryLayout, SurgeryRoot};
use linmap_table::cpu::{Cpu, Dsb, Tlbi};
use linmap_table::{
    DetachedTree, FrameSource, Leaves, Mapping, Mappings, OutOfFrames, ReachableFrames, TableWindow, Walk,
};
use linmap_vmsa::registers::ttbr;
use linmap_vmsa::{Attributes, Geometry, Level, Pa, Va, VaRange};

const GEOMETRY: Geometry = Geometry::K4_48;
const RAM: u64 = 0x4000_0000;
const RAM_LEN: u64 = 0x1000_0000;
const NOTHING: u64 = RAM;
const LINEAR: u64 = u64::MAX << 48;
/// Where a kernel has its image: 1 MiB of code and 1 MiB of data, with all tables at its end.
const IMAGE: u64 = 0xffff_9000_4020_0000;
const IMAGE_PA: u64 = RAM + 0x20_0000;
const PART: u64 = 0x10_0000;
const OFFSET: u64 = IMAGE - IMAGE_PA;
/// The console, in another table of pages than the image, and the windows after it.
const CONSOLE: u64 = IMAGE + 0x8000_0000;
const WINDOWS: u64 = CONSOLE + 0x3000;
const CONSOLE_PA: u64 = RAM + 0x60_0000;

/// Frames of the image's data, from its end down.
struct Pool {
    next: u64,
    left: usize,
}

// SAFETY: every frame is handed out once, a page, none of them frame 0.
unsafe impl FrameSource for Pool {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        self.left = self.left.checked_sub(1).ok_or(OutOfFrames { wanted: 0x1000, largest_free: 0 })?;
        self.next -= 0x1000;
        Ok(Pa(self.next))
    }

    unsafe fn free(&mut self, _frame: Pa) {}
}

struct Kernel {
    board: Board,
    frames: BoardFrames<Pool>,
    live: Pa,
}

fn mapping(va: u64, pa: u64, len: u64, attributes: Attributes) -> Mapping {
    Mapping { va: Va(va), pa: Pa(pa), len, attributes, leaves: Leaves::Pages }
}

fn kernel() -> Kernel {
    let ram = vec![(RAM, RAM_LEN)];
    let config = Config {
        cpus: 1,
        bbm: 0,
        granule: 0x1000,
        va_bits: 48,
        pa_bits: 48,
        ram,
        leniency: linmap_model::Leniency::Strict,
    };
    let board = Board::new(&config, true).unwrap();
    let pool = Pool { next: IMAGE_PA + 2 * PART, left: 200 };
    let mut frames = BoardFrames::new(&board, pool);
    let list = [
        Mapping { leaves: Leaves::Blocks, ..mapping(LINEAR, RAM, RAM_LEN, Attributes::KERNEL_DATA) },
        mapping(IMAGE, IMAGE_PA, PART, Attributes::KERNEL_TEXT),
        mapping(IMAGE + PART, IMAGE_PA + PART, PART, Attributes::KERNEL_DATA),
        mapping(CONSOLE, CONSOLE_PA, 0x1000, Attributes::KERNEL_DATA),
    ];
    let mappings = Mappings::new(GEOMETRY, &list).unwrap();
    let mut window = board.window(0, None);
    // SAFETY: a window of the board reaches all of its memory.
    let mut memory = unsafe { ReachableFrames::new(&mut window, &mut frames) };
    let tree = DetachedTree::build(&mappings, &mut memory).unwrap();
    drop(window);
    board.event(Event::Fill { cpu: 0, pa: NOTHING, count: 512, first: 0, step: 0 });
    board.event(Event::Dsb { cpu: 0, domain: Domain::Ish, access: Access::All });
    let mut cpu = board.cpu(0);
    // SAFETY: the CPU is the model's.
    unsafe {
        cpu.write_ttbr0(NOTHING);
        cpu.write_ttbr1(value(tree.root()));
    }
    cpu.isb();
    Kernel { board, frames, live: tree.root() }
}

const PARTS: [VaRange; 2] = [VaRange::new(Va(IMAGE), 2 * PART), VaRange::new(Va(CONSOLE), 0x1000)];
const LAYOUT: SurgeryLayout<'_> =
    SurgeryLayout { geometry: GEOMETRY, mapped_as_live: &PARTS, windows: Va(WINDOWS) };

fn build(kernel: &mut Kernel, layout: &SurgeryLayout<'_>) -> Result<SurgeryRoot<BoardCpu>, SurgeryError> {
    let cpu = kernel.board.cpu(0);
    // SAFETY: all tables lie in the image's data, which both roots map at this offset, and nothing
    // changes them.
    unsafe { SurgeryRoot::build(layout, kernel.live, OFFSET, &mut kernel.frames, cpu) }
}

/// The TTBR1 value of a root.
fn value(root: Pa) -> u64 {
    ttbr(GEOMETRY, root, 0).expect("a frame")
}

/// Walks on the board.
fn walk(root: Pa, va: u64, window: &mut BoardWindow) -> Walk {
    // SAFETY: a window of the board reaches all of its memory.
    unsafe { linmap_table::walk(GEOMETRY, root, Va(va), window) }
}

/// As `park.S` goes from one root to another.
fn go_to(board: &Board, root: u64) {
    let mut cpu = board.cpu(0);
    // SAFETY: the CPU is the model's, as below.
    unsafe { cpu.write_ttbr1(NOTHING) };
    cpu.isb();
    cpu.tlbi(Tlbi::AllLocal);
    cpu.dsb(Dsb::Nsh);
    cpu.isb();
    // SAFETY: as above.
    unsafe { cpu.write_ttbr1(root) };
    cpu.isb();
}

fn access(board: &Board, va: u64, pa: u64, kind: Use) {
    board.event(Event::Access { cpu: 0, va, kind, pa });
}

fn expect_legal(board: &Board) {
    if let Err(violation) = board.verdict() {
        panic!("{violation}\n{}", board.trace().unwrap().witness().unwrap().unwrap());
    }
}

#[test]
fn the_root_maps_what_the_layout_names_as_the_live_tree_does_and_nothing_else() {
    let mut kernel = kernel();
    let surgery = build(&mut kernel, &LAYOUT).unwrap();
    let mut window = kernel.board.window(0, None);
    for va in [IMAGE, IMAGE + PART - 1, IMAGE + PART, IMAGE + 2 * PART - 1, CONSOLE] {
        let live = walk(kernel.live, va, &mut window);
        assert!(matches!(live, Walk::Leaf { .. }));
        assert_eq!(walk(surgery.root, va, &mut window), live, "{va:#x}");
    }
    for va in [LINEAR, LINEAR + RAM_LEN - 1, IMAGE + 2 * PART, CONSOLE + 0x1000, WINDOWS] {
        let walk = walk(surgery.root, va, &mut window);
        assert!(matches!(walk, Walk::Fault { .. }), "{va:#x}");
    }
    drop(window);
    assert_eq!(surgery.ttbr1, value(surgery.root));
    expect_legal(&kernel.board);
}

/// Switches to the surgery root, opens windows, and returns.
fn operate(closes: bool) -> Result<(), Violation> {
    let mut kernel = kernel();
    let mut surgery = build(&mut kernel, &LAYOUT).unwrap();
    let board = &kernel.board;
    let [first, second, third] = [RAM + 0x80_0000, RAM + 0x90_0000, RAM + 0xa0_0000].map(Pa);
    for _ in 0..2 {
        go_to(board, surgery.ttbr1);
        access(board, IMAGE, IMAGE_PA, Use::Execute);
        access(board, IMAGE + PART, IMAGE_PA + PART, Use::Write);
        board.event(Event::Faults { cpu: 0, va: LINEAR, kind: Use::Read });
        let window = &mut surgery.window;
        for (level, frame) in [
            (Level::L3, first),
            (Level::L2, second),
            (Level::L3, first),
            (Level::L3, third),
            (Level::MINUS_1, third),
            (Level::L2, first),
            (Level::L3, first),
        ] {
            // SAFETY: the frame is memory of the board, which the windows reach.
            let pointer = unsafe { window.open(level, frame) };
            assert_eq!(pointer, board.pointer(frame), "{level:?} {frame}");
            window.close(level);
        }
        if closes {
            window.close_all();
            for above in 0..5 {
                let entry = walk(surgery.root, WINDOWS + above * 0x1000, &mut board.window(0, None));
                assert_eq!(entry, Walk::Fault { level: Level::L3 });
            }
        }
        go_to(board, value(kernel.live));
        access(board, LINEAR, RAM, Use::Write);
    }
    // The frames are freed: nothing translates to them any more but the linear map.
    board.verdict()
}

#[test]
fn windows_reach_frames_by_break_before_make() {
    operate(true).unwrap();
}

#[test]
fn windows_that_stay_open_still_lead_to_their_frames() {
    operate(false).unwrap();
}

#[test]
fn an_address_means_its_frame_on_the_surgery_root_alone() {
    let mut kernel = kernel();
    let mut surgery = build(&mut kernel, &LAYOUT).unwrap();
    // On the live root.
    // SAFETY: what is reached is the board's memory; the model finds what is wrong.
    unsafe { surgery.window.open(Level::L3, Pa(RAM + 0x80_0000)) };
    let violation = kernel.board.verdict().unwrap_err();
    assert_eq!(violation.rule, Rule::MayFault, "{violation}");
}

#[test]
fn windows_need_five_free_pages_of_one_table() {
    for windows in [
        CONSOLE,
        CONSOLE - 0x1000,
        IMAGE + 0x10_0000,
        IMAGE + 2 * PART - 5 * 0x1000,
        // Across the end of the table of pages.
        CONSOLE + 0x1f_c000,
        // No page.
        WINDOWS + 0x800,
    ] {
        let windows = Va(windows);
        let error = build(&mut kernel(), &SurgeryLayout { windows, ..LAYOUT }).map(drop).unwrap_err();
        assert_eq!(error, SurgeryError::Windows { windows });
    }
    let last = Va(CONSOLE + 0x1f_b000);
    assert!(build(&mut kernel(), &SurgeryLayout { windows: last, ..LAYOUT }).is_ok());
}

#[test]
fn windows_have_a_table_of_pages_beside_blocks_and_none_in_their_place() {
    let parts = [VaRange::new(Va(LINEAR), 0x20_0000)];
    let layout = SurgeryLayout { mapped_as_live: &parts, windows: Va(LINEAR + 0x20_0000), ..LAYOUT };
    assert!(build(&mut kernel(), &layout).is_ok());
    // A page of a block stands for all of it.
    let parts = [VaRange::new(Va(LINEAR), 0x1000)];
    let windows = Va(LINEAR + 0x1000);
    let layout = SurgeryLayout { mapped_as_live: &parts, windows, ..LAYOUT };
    let error = build(&mut kernel(), &layout).map(drop).unwrap_err();
    assert_eq!(error, SurgeryError::Windows { windows });
}

#[test]
fn without_frames_there_is_no_root() {
    // Root, one table at level 1, and two at each of the levels 2 and 3.
    for left in 0..6 {
        let mut kernel = kernel();
        kernel.frames.source.left = left;
        let error = build(&mut kernel, &LAYOUT).map(drop).unwrap_err();
        assert!(matches!(error, SurgeryError::Frames(OutOfFrames { wanted: 0x1000, .. })), "{left}: {error}");
    }
    let mut kernel = kernel();
    kernel.frames.source.left = 6;
    assert!(build(&mut kernel, &LAYOUT).is_ok());
}
