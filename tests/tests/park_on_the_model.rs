//! Parking on the machine model: the kernel's own instructions, read from `park.S`, for three CPUs,
//! around an edit that no running CPU allows. Each instruction is then left out in turn.

use linmap_board::{Board, BoardFrames};
use linmap_live::{Half, LiveTree, Parked, Step, Target};
use linmap_model::event::{Access, Domain, Register, Tlbi, TlbiScope, Use};
use linmap_model::{Config, Event, Rule, Violation};
use linmap_table::{DetachedTree, FrameSource, Leaves, Mapping, Mappings, OutOfFrames, ReachableFrames};
use linmap_tests::listing::{self, Instruction};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::registers::ttbr;
use linmap_vmsa::{Attributes, Descriptor, Geometry, Level, Pa, Va, VaRange};

const GEOMETRY: Geometry = Geometry::K4_48;
const IMAGE: Va = Va(0xffff_8000_8000_0000);
const PARK: &str = include_str!("../../crates/park/src/park.S");
const CPUS: usize = 3;
const RAM: u64 = 0x4000_0000;
const RAM_LEN: u64 = 0x1000_0000;
const NOTHING: u64 = RAM;
/// The image: code and vectors in its first MiB, data in the second.
const IMAGE_PA: u64 = RAM + 0x20_0000;
const PART: u64 = 0x10_0000;
/// The pages of the image that the identity map has too: the code of `.idmap.text`, and the vectors
/// of parked CPUs.
const CODE: u64 = IMAGE_PA + 0x1000;
const PARK_VECTORS: u64 = IMAGE_PA + 0x2000;
/// The vectors of CPUs that run, by their address in the image.
const VECTORS: u64 = IMAGE.0 + 0x8000;
/// The linear map, by blocks of 2 MiB.
const LINEAR: u64 = u64::MAX << 48;
const BLOCK: u64 = 2 << 20;

/// Frames from the top of memory down.
struct Pool {
    next: u64,
}

// SAFETY: every frame is handed out once, a page, none of them frame 0.
unsafe impl FrameSource for Pool {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        self.next -= 0x1000;
        Ok(Pa(self.next))
    }

    unsafe fn free(&mut self, _frame: Pa) {}
}

/// The image as both roots of the upper half have it.
fn image() -> [Mapping; 2] {
    let part = |nth: u64, attributes| Mapping {
        va: Va(IMAGE.0 + nth * PART),
        pa: Pa(IMAGE_PA + nth * PART),
        len: PART,
        attributes,
        leaves: Leaves::Pages,
    };
    [part(0, Attributes::KERNEL_TEXT), part(1, Attributes::KERNEL_DATA)]
}

/// CPUs that run on the live root.
struct Running {
    board: Board,
    frames: BoardFrames<Pool>,
    live: Pa,
    surgery: u64,
    identity: u64,
}

fn running() -> Running {
    let ram = vec![(RAM, RAM_LEN)];
    let config = Config {
        cpus: CPUS,
        bbm: 0,
        granule: 0x1000,
        va_bits: 48,
        pa_bits: 48,
        ram,
        leniency: linmap_model::Leniency::Strict,
    };
    let board = Board::new(&config, true).unwrap();
    let mut frames = BoardFrames::new(&board, Pool { next: RAM + RAM_LEN });
    let mut build = |list: &[Mapping]| {
        let mappings = Mappings::new(GEOMETRY, list).unwrap();
        let mut window = board.window(0, None);
        // SAFETY: a window of the board reaches all of its memory.
        let mut memory = unsafe { ReachableFrames::new(&mut window, &mut frames) };
        DetachedTree::build(&mappings, &mut memory).unwrap().root()
    };
    let linear = Mapping {
        va: Va(LINEAR),
        pa: Pa(RAM),
        len: RAM_LEN,
        attributes: Attributes::KERNEL_DATA,
        leaves: Leaves::Blocks,
    };
    let [text, data] = image();
    let live = build(&[linear, text, data]);
    let surgery = build(&[text, data]);
    let page = |pa: u64| Mapping {
        va: Va(pa),
        pa: Pa(pa),
        len: 0x1000,
        attributes: Attributes::KERNEL_TEXT,
        leaves: Leaves::Pages,
    };
    let root = |pa| ttbr(GEOMETRY, pa, 0).unwrap();
    let identity = build(&[page(CODE), page(PARK_VECTORS)]);
    board.event(Event::Fill { cpu: 0, pa: NOTHING, count: 512, first: 0, step: 0 });
    board.event(Event::Dsb { cpu: 0, domain: Domain::Ish, access: Access::All });
    for cpu in 0..CPUS {
        let roots = [(Register::Ttbr0, NOTHING), (Register::Ttbr1, root(live))];
        for (register, value) in roots {
            board.event(Event::Write { cpu, register, value });
        }
        board.event(Event::Isb { cpu });
        for (va, kind) in [(VECTORS, Use::Execute), (IMAGE.0, Use::Execute), (IMAGE.0 + PART, Use::Write)] {
            uses(&board, cpu, va, kind);
        }
    }
    Running { board, frames, live, surgery: root(surgery), identity: root(identity) }
}

/// A page of code, vectors or stack at `va` is in use from here on.
fn uses(board: &Board, cpu: usize, va: u64, kind: Use) {
    board.event(Event::Uses { cpu, va, len: 0x1000, kind });
}

fn unuses(board: &Board, cpu: usize, va: u64, kind: Use) {
    board.event(Event::Unuses { cpu, va, len: 0x1000, kind });
}

/// Where a CPU is that runs the routine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    /// Waits: it continues at this instruction when it is released.
    Waits(usize),
    Returned,
}

/// `park.S`, with its registers as its head says.
struct Routine<'s> {
    listing: Vec<Instruction<'s>>,
}

impl<'s> Routine<'s> {
    fn read(source: &'s str) -> Self {
        Self { listing: listing::read(source).unwrap() }
    }

    fn label(&self, name: &str, from: usize) -> usize {
        let label = |at: &usize| self.listing[*at] == Instruction::Label(name);
        (from..self.listing.len()).find(label).unwrap_or_else(|| panic!("no label {name}"))
    }

    /// Calls `linmap_park` on `cpu` to do what is at the label `there`, and to come back with
    /// `root` in TTBR1.
    fn call(&self, running: &Running, cpu: usize, there: &str, root: u64) -> Stop {
        self.run(running, cpu, self.label("linmap_park", 0), there, root)
    }

    fn run(&self, running: &Running, cpu: usize, from: usize, there: &str, root: u64) -> Stop {
        let board = &running.board;
        let value = |register: &str| match register {
            "x0" => root,
            "x1" => NOTHING,
            "x2" => running.identity,
            other => panic!("{other} holds no root"),
        };
        let write = |register, operand| board.event(Event::Write { cpu, register, value: value(operand) });
        let mut at = from;
        loop {
            match self.listing[at] {
                // The loop that waits, left by a branch to the label 1 after it.
                Instruction::Label("0") => return Stop::Waits(self.label("1", at)),
                Instruction::Label(_) => {}
                Instruction::Msr { register: listing::Register::Ttbr0El1, value } => {
                    write(Register::Ttbr0, value);
                }
                Instruction::Msr { register: listing::Register::Ttbr1El1, value } => {
                    if value == "x1" {
                        // Nothing of the upper half is needed from here on: code and vectors are at
                        // VA = PA.
                        unuses(board, cpu, IMAGE.0 + PART, Use::Write);
                    }
                    write(Register::Ttbr1, value);
                }
                Instruction::Msr { register: listing::Register::VbarEl1, value: "x4" } => {
                    uses(board, cpu, PARK_VECTORS, Use::Execute);
                    unuses(board, cpu, VECTORS, Use::Execute);
                }
                Instruction::Msr { register: listing::Register::VbarEl1, value: "x9" } => {
                    uses(board, cpu, VECTORS, Use::Execute);
                    unuses(board, cpu, PARK_VECTORS, Use::Execute);
                }
                Instruction::Isb => board.event(Event::Isb { cpu }),
                Instruction::Tlbi { operation: listing::Tlbi::Vmalle1, operand: None } => {
                    let tlbi = Tlbi { scope: TlbiScope::AllEl1, broadcast: false };
                    board.event(Event::Tlbi { cpu, tlbi, operand: 0 });
                }
                Instruction::Dsb(listing::Dsb::Nsh) => {
                    board.event(Event::Dsb { cpu, domain: Domain::Nsh, access: Access::All });
                }
                Instruction::Br("x3") => {
                    uses(board, cpu, CODE, Use::Execute);
                    unuses(board, cpu, IMAGE.0, Use::Execute);
                    at = self.label(there, 0);
                }
                Instruction::Br("x10") => {
                    uses(board, cpu, IMAGE.0, Use::Execute);
                    uses(board, cpu, IMAGE.0 + PART, Use::Write);
                    unuses(board, cpu, CODE, Use::Execute);
                    at = self.label("park_back", 0);
                }
                Instruction::Ret("x30") => return Stop::Returned,
                other => panic!("{other:?} in the routine that parks"),
            }
            at += 1;
        }
    }
}

/// The block that becomes a table of pages, and the one whose output address changes. At BBM level
/// 0 both need break-before-make, the latter at every level.
const SPLIT: u64 = 20 * BLOCK;
const MOVED: u64 = 30 * BLOCK;
const MOVED_TO: u64 = RAM + 40 * BLOCK;

/// All CPUs but those in `stay` park, the boot CPU edits on the surgery root, all return and
/// continue.
fn park_and_edit(source: &str, stay: &[usize]) -> Running {
    let mut running = running();
    let routine = Routine::read(source);
    let board = running.board.clone();
    let live = ttbr(GEOMETRY, running.live, 0).unwrap();

    // SAFETY: on the model; this value alone changes the tree.
    let mut tree = unsafe { LiveTree::new(GEOMETRY, running.live, Half::High, BbmLevel::L0) };
    // SAFETY: on the model; whether it holds is what is tried.
    let target = Target::Parked(unsafe { Parked::new(VaRange::new(Va(LINEAR + SPLIT), BLOCK)) });
    let mut steps = [Step::Isb; 16];
    let mut window = board.window(0, None);
    let plan = tree.plan_split(target, Level::L3, &mut steps, &mut window, &mut running.frames).unwrap();
    let plan = plan.check(&mut window).unwrap();

    let waiters: Vec<usize> = (1..CPUS).filter(|cpu| !stay.contains(cpu)).collect();
    let mut waiting = Vec::new();
    for cpu in waiters {
        waiting.push((cpu, routine.call(&running, cpu, "linmap_park_and_wait", live)));
    }
    assert_eq!(routine.call(&running, 0, "linmap_park_and_go_on", running.surgery), Stop::Returned);

    let moved = Descriptor::leaf(GEOMETRY, Level::L2, Pa(MOVED_TO), Attributes::KERNEL_DATA).unwrap();
    // The tables of the linear map were made first: root, level 1, level 2 from the top of memory
    // down.
    let level_2 = RAM + RAM_LEN - 3 * 0x1000;
    let pa = level_2 + 8 * (MOVED / BLOCK);
    board.event(Event::Store { cpu: 0, pa, value: moved.0, via: None });
    // SAFETY: on the model.
    let applied = unsafe { plan.apply(&mut window, &mut board.cpu(0)) };
    applied.free(&mut window, &mut running.frames);
    drop(window);

    assert_eq!(routine.call(&running, 0, "linmap_park_and_go_on", live), Stop::Returned);
    for (cpu, stop) in waiting {
        let Stop::Waits(at) = stop else { panic!("CPU {cpu} does not wait") };
        assert_eq!(routine.run(&running, cpu, at, "linmap_park_and_wait", live), Stop::Returned);
    }
    // What all rely on now: the upper half as edited, nothing at all in the lower.
    for cpu in 0..CPUS {
        for (offset, pa) in
            [(0, RAM), (SPLIT + 0x3000, RAM + SPLIT + 0x3000), (MOVED + 0x5000, MOVED_TO + 0x5000)]
        {
            board.event(Event::Access { cpu, va: LINEAR + offset, kind: Use::Write, pa });
        }
        for va in [CODE, PARK_VECTORS] {
            board.event(Event::Faults { cpu, va, kind: Use::Execute });
        }
    }
    board.event(Event::Settled);
    running
}

fn verdict(source: &str, stay: &[usize]) -> Result<(), Violation> {
    park_and_edit(source, stay).board.verdict()
}

#[test]
fn parked_cpus_allow_what_no_running_cpu_does() {
    let running = park_and_edit(PARK, &[]);
    if let Err(violation) = running.board.verdict() {
        panic!("{violation}\n{}", running.board.trace().unwrap().witness().unwrap().unwrap());
    }
}

#[test]
fn a_cpu_that_stays_does_not_allow_it() {
    for stay in [&[1][..], &[2], &[1, 2]] {
        let violation = verdict(PARK, stay).expect_err("a running CPU walks what is edited");
        assert!(matches!(violation.rule, Rule::OutputAddress | Rule::Size), "{stay:?}: {violation}");
    }
}

/// The system instructions of the source, by line.
fn instructions() -> Vec<(usize, &'static str)> {
    let is = |line: &str| ["msr ", "isb", "tlbi ", "dsb "].iter().any(|start| line.starts_with(start));
    let lines = PARK.lines().enumerate().map(|(nth, line)| {
        let line = line.trim().trim_start_matches("1:").trim();
        (nth, line)
    });
    lines.filter(|(_, line)| is(line)).collect()
}

/// The source without the instruction of a line.
fn without(nth: usize) -> String {
    let keep = |(at, line): (usize, &str)| {
        let label = if line.starts_with("1:") { "1: nop" } else { "nop" };
        format!("{}\n", if at == nth { label } else { line })
    };
    PARK.lines().enumerate().map(keep).collect()
}

/// What `leave.S` does to roots and TLBs is what `park.S` does before it waits.
#[test]
fn a_cpu_that_goes_off_leaves_the_live_root_as_one_that_parks() {
    let lines = |source: &'static str, label: &str| {
        let body = source.split_once(label).expect("the routine").1;
        body.lines().map(str::trim).skip(1).take_while(|line| !line.starts_with("stlr")).collect::<Vec<_>>()
    };
    let leaves = lines(include_str!("../../crates/park/src/leave.S"), "\nlinmap_park_for_good:");
    assert_eq!(leaves, lines(PARK, "\nlinmap_park_and_wait:"));
    assert_eq!(leaves.len(), 6, "{leaves:?}");
}

#[test]
fn no_instruction_of_the_routine_can_be_left_out() {
    let all = instructions();
    assert_eq!(all.len(), 22);
    for (nth, line) in all {
        let number = nth + 1;
        match verdict(&without(nth), &[]) {
            Ok(()) => panic!("line {number}, {line}, is not missed"),
            Err(violation) => println!("{number:3} {line:24} {violation}"),
        }
    }
}

/// Without FEAT_ETS2 an invalidation is complete for the TLB of the CPU that issued it only with
/// the context synchronization after the DSB (Arm ARM D8.17, RBLDZX).
#[test]
fn the_isb_behind_each_invalidation_is_missed_where_the_routine_relies_on_it() {
    let all = instructions();
    let behind = all.windows(3).filter(|three| {
        three[0].1.starts_with("tlbi") && three[1].1.starts_with("dsb") && three[2].1.starts_with("isb")
    });
    let missed: Vec<_> = behind
        .map(|three| {
            let violation = verdict(&without(three[2].0), &[]).expect_err(three[2].1);
            (violation.rule, violation.cpu)
        })
        .collect();
    // Without each ISB in turn: a CPU that came back may still use the identity map; a waiting CPU
    // may cache the live tree while it is edited; the boot CPU may cache it when it switches to the
    // surgery root.
    assert_eq!(
        missed,
        [(Rule::MayPass, Some(0)), (Rule::OutputAddress, Some(1)), (Rule::NextTable, Some(0))]
    );
}
