//! The hand-over's table switches on the machine model: the kernel's own sequences, the assembly
//! ones read from its sources.

use linmap::{Layout, identity_geometry};
use linmap_board::{Board, BoardFrames};
use linmap_kexec::Transition;
use linmap_model::event::{Access, Domain, Register, Tlbi, TlbiScope, Use};
use linmap_model::{Config, Event, Rule};
use linmap_table::cpu::{Cpu, Dsb};
use linmap_table::{FrameSource, Leaves, Mapping, Mappings, OutOfFrames, ReachableFrames, Reserved};
use linmap_tests::listing::{self, Instruction};
use linmap_vmsa::registers::{tcr, ttbr};
use linmap_vmsa::{Attributes, Geometry, Pa, PaRange, Va};

const GEOMETRY: Geometry = Geometry::K4_48;
const RELOCATE: &str = include_str!("../../crates/relocate/src/relocate.S");
const RAM: u64 = 0x4000_0000;
const RAM_LEN: u64 = 0x1000_0000;
const RESERVED: u64 = RAM;
const CODE: u64 = RAM + 0x10_0000;
/// Where the kernel's image is mapped, in the same half as the linear map.
const IMAGE: u64 = 0xffff_8000_8000_0000;

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

/// A machine whose kernel runs on a linear map of pages, with the payload loaded and the
/// transitional tables built.
struct Loaded {
    board: Board,
    transition: Transition,
    reserved: Reserved,
    layout: Layout,
}

fn loaded() -> Loaded {
    let config = Config {
        cpus: 1,
        bbm: 0,
        granule: 0x1000,
        va_bits: 48,
        pa_bits: 48,
        ram: vec![(RAM, RAM_LEN)],
        leniency: linmap_model::Leniency::Strict,
    };
    let board = Board::new(&config, true).unwrap();
    let memory = PaRange::new(Pa(RAM), Pa(RAM + RAM_LEN));
    let layout = Layout::new(GEOMETRY, memory).unwrap();
    let mut frames = BoardFrames::new(&board, Pool { next: RAM + RAM_LEN });
    let linear = Mapping {
        va: layout.linear(Pa(RAM)),
        pa: Pa(RAM),
        len: RAM_LEN,
        attributes: Attributes::KERNEL_DATA,
        leaves: Leaves::Pages,
    };
    let image = Mapping {
        va: Va(IMAGE),
        pa: Pa(RAM + 0x20_0000),
        len: 0x20_0000,
        attributes: Attributes::KERNEL_TEXT,
        leaves: Leaves::Pages,
    };
    let list = [linear, image];
    let mappings = Mappings::new(GEOMETRY, &list).unwrap();
    let mut off = board.window(0, None);
    // SAFETY: a window of the board reaches all of its memory.
    let mut off_memory = unsafe { ReachableFrames::new(&mut off, &mut frames) };
    let kernel = linmap_table::DetachedTree::build(&mappings, &mut off_memory).unwrap();
    board.event(Event::Fill { cpu: 0, pa: RESERVED, count: 512, first: 0, step: 0 });
    board.event(Event::Dsb { cpu: 0, domain: Domain::Sy, access: Access::All });
    let mut cpu = board.cpu(0);
    // SAFETY: the CPU is the model's.
    unsafe {
        cpu.write_ttbr0(RESERVED);
        cpu.write_ttbr1(kernel.root().0);
    }
    cpu.isb();
    board.event(Event::Uses { cpu: 0, va: IMAGE, len: 0x20_0000, kind: Use::Execute });

    // SAFETY: the kernel's tree, installed above, maps all of memory at this offset.
    let mut window = unsafe { cpu.frames_at(layout.offset()) };
    let linear = [Transition::mapping(memory, layout.linear(memory.start))];
    let linear = Mappings::new(GEOMETRY, &linear).unwrap();
    let code = identity_geometry(GEOMETRY, Pa(CODE + 0x1000)).unwrap();
    // SAFETY: as above.
    let mut memory = unsafe { ReachableFrames::new(&mut window, &mut frames) };
    let transition = Transition::build(&linear, Pa(CODE), code, &mut memory).unwrap();
    drop(window);
    let reserved = Reserved { ttbr0: RESERVED, tcr: tcr(GEOMETRY, GEOMETRY, true).unwrap() };
    Loaded { board, transition, reserved, layout }
}

/// What `relocate.S` does to the machine, with its registers as its head says, and the event it
/// starts with.
fn relocation(source: &str, ttbr1: u64, reserved: u64) -> Vec<Event> {
    let value = |operand| match operand {
        "x4" => ttbr1,
        "x5" => reserved,
        other => panic!("{other} holds no root"),
    };
    let mut events = Vec::new();
    // The firmware's calls come after the end of this path.
    let (path, _) = source.split_once("firmware:\n").expect("the calls of PSCI");
    // It ends in the routine that turns the MMU off.
    let instructions = listing::read(path).unwrap();
    let position = |wanted| instructions.iter().position(|instruction| *instruction == wanted).unwrap();
    let last = &instructions[position(Instruction::Label("mmu_off"))..];
    for &instruction in instructions[..position(Instruction::Bl("mmu_off"))].iter().chain(last) {
        events.push(match instruction {
            Instruction::Msr { register: listing::Register::Ttbr1El1, value: operand } => {
                Event::Write { cpu: 0, register: Register::Ttbr1, value: value(operand) }
            }
            Instruction::Tlbi { operation: listing::Tlbi::Vmalle1, operand: None } => {
                Event::Tlbi { cpu: 0, tlbi: Tlbi { scope: TlbiScope::AllEl1, broadcast: false }, operand: 0 }
            }
            Instruction::Dsb(listing::Dsb::Nsh) => {
                Event::Dsb { cpu: 0, domain: Domain::Nsh, access: Access::All }
            }
            Instruction::Dsb(listing::Dsb::Sy) => {
                Event::Dsb { cpu: 0, domain: Domain::Sy, access: Access::All }
            }
            Instruction::Isb => Event::Isb { cpu: 0 },
            // From here on the MMU is off.
            Instruction::Msr { register: listing::Register::SctlrEl1, .. } => break,
            // A barrier before a signal to other CPUs.
            Instruction::Dsb(listing::Dsb::Ish) => {
                Event::Dsb { cpu: 0, domain: Domain::Ish, access: Access::All }
            }
            // EL2's own call, and calls within the routine that change no translation.
            Instruction::Label(_)
            | Instruction::IcIallu
            | Instruction::Dc { .. }
            | Instruction::Hvc(_)
            | Instruction::Bl(_)
            | Instruction::Msr { register: listing::Register::SpSel | listing::Register::CpacrEl1, .. } => {
                continue;
            }
            other => panic!("{other:?} in the relocation code"),
        });
    }
    events
}

/// The whole hand-over with the assembly in `source`.
fn hand_over(source: &str) -> Board {
    let Loaded { board, transition, reserved, layout } = loaded();
    let mut cpu = board.cpu(0);
    // `Departure::go`.
    cpu.dsb(Dsb::Ishst);
    let ttbr1 = ttbr(GEOMETRY, transition.linear.root(), 0).unwrap();
    // SAFETY: TTBR0 and TCR are as `reserved` says; the tables were ordered just now.
    let _installed = unsafe { reserved.install(transition.code, &mut cpu) }.unwrap();
    // The jump: code at VA = PA from here on, and nothing of the kernel's any more.
    board.event(Event::Uses { cpu: 0, va: CODE, len: 0x1000, kind: Use::Execute });
    board.event(Event::Unuses { cpu: 0, va: IMAGE, len: 0x20_0000, kind: Use::Execute });
    let events = relocation(source, ttbr1, RESERVED);
    let switched = events.iter().rposition(
        |event| matches!(event, Event::Write { register: Register::Ttbr1, value, .. } if *value == ttbr1),
    );
    let switched = switched.expect("the switch to the transitional tables");
    for (nth, event) in events.into_iter().enumerate() {
        board.event(event);
        // After the ISB that follows the switch everything is read and written through the
        // transitional map.
        if nth == switched + 1 {
            for pa in [RAM + 0x20_0000, RAM + RAM_LEN - 0x1000] {
                let va = layout.linear(Pa(pa)).0;
                board.event(Event::Access { cpu: 0, va, kind: Use::Write, pa });
            }
            // The old tables may be overwritten from now on: no CPU reaches them.
            board.event(Event::Settled);
        }
    }
    board
}

#[test]
fn the_hand_over_switches_both_roots_without_a_moment_of_doubt() {
    let board = hand_over(RELOCATE);
    if let Err(violation) = board.verdict() {
        panic!("{violation}\n{}", board.trace().unwrap().witness().unwrap().unwrap());
    }
}

#[test]
fn the_hand_over_needs_each_step_of_its_root_switch() {
    // Each line of the switch to TTBR1 in turn, as it stands in the source.
    for (line, rules) in [
        ("msr     ttbr1_el1, x5", &[Rule::NextTable, Rule::Size, Rule::OutputAddress][..]),
        ("tlbi    vmalle1", &[Rule::NextTable, Rule::Size, Rule::OutputAddress]),
        ("dsb     nsh", &[Rule::NextTable, Rule::Size, Rule::OutputAddress]),
    ] {
        let without = RELOCATE.replacen(line, "nop", 1);
        assert_ne!(without, RELOCATE, "{line} stands in the source");
        let violation = hand_over(&without).verdict().expect_err(line);
        assert!(rules.contains(&violation.rule), "without {line}: {violation}");
    }
    // The ISB between the reserved root and the invalidation.
    let isb = "msr     ttbr1_el1, x5\n    isb";
    assert!(RELOCATE.contains(isb));
    let without = RELOCATE.replacen(isb, "msr     ttbr1_el1, x5", 1);
    assert!(hand_over(&without).verdict().is_err());
}

#[test]
fn a_move_executes_a_barrier_for_each_cpu_and_none_for_a_page() {
    let instructions = listing::read(RELOCATE).unwrap();
    let barriers = |from: &str, to: &str| {
        let at = |label: &str| {
            instructions
                .iter()
                .position(|instruction| *instruction == Instruction::Label(label))
                .expect(label)
        };
        let path = &instructions[at(from)..at(to)];
        path.iter().filter(|instruction| matches!(instruction, Instruction::Dsb(_))).count()
    };
    // All that a CPU executes for a record of the list. The only barrier is the GO record's, and
    // there is only one such record.
    assert_eq!(barriers("next", "moved"), 1);
    assert_eq!(barriers("other_kind", "link"), 1);
    // After the last list.
    assert_eq!(barriers("moved", "join"), 1);
    // The switch to the transitional tables, and turning the MMU off. A move by one CPU executes
    // four barriers in all.
    assert_eq!(barriers("linmap_relocate_start", "move"), 1);
    assert_eq!(barriers("mmu_off", "print"), 2);
}
