//! Spaces with identifiers of `linmap-asid` on the machine model: over rollovers every access of
//! every CPU reaches the space's own memory, whatever the TLBs hold.

use linmap_asid::{CpuIds, IdAllocator, Maintenance, SpaceId};
use linmap_board::{Board, BoardCpu};
use linmap_model::event::Use;
use linmap_model::{Config, Event, Violation};
use linmap_table::cpu::{Cpu, Dsb, Tlbi};
use linmap_table::{DetachedTree, FrameSource, Leaves, Mapping, Mappings, OutOfFrames, ReachableFrames};
use linmap_vmsa::registers::ttbr;
use linmap_vmsa::{Access, Attributes, Geometry, Granule, Pa, Va};
use proptest::prelude::*;

const CPUS: usize = 3;
const SPACES: usize = 16;
/// Where the frames for tables begin.
const TABLES: u64 = 0x8000_0000;
/// Where each space has its page.
const PAGE: u64 = 0x40_0000;

/// A CPU that does what it is asked to, or leaves something out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Maintains {
    Everything,
    /// The TLB is not invalidated after a rollover.
    Nothing,
    /// The invalidation is not completed before the TTBR is written.
    WithoutDsb,
    /// One CPU of several leaves the invalidation out.
    NotOnCpu(usize),
}

struct Frames(u64);

// SAFETY: each frame is handed out once.
unsafe impl FrameSource for Frames {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        self.0 += 0x1000;
        Ok(Pa(self.0 - 0x1000))
    }

    unsafe fn free(&mut self, _: Pa) {}
}

struct Space {
    root: Pa,
    id: SpaceId,
    page: Pa,
}

struct World<'a> {
    board: Board,
    geometry: Geometry,
    spaces: Vec<Space>,
    ids: Vec<CpuIds<'a, CPUS>>,
    maintains: Maintains,
}

impl<'a> World<'a> {
    fn new(ids: &'a IdAllocator<CPUS>, maintains: Maintains) -> Self {
        let geometry = Geometry::new(Granule::K4, 30, 40).unwrap();
        let config = Config {
            cpus: CPUS,
            bbm: 0,
            granule: 0x1000,
            va_bits: geometry.va_bits(),
            pa_bits: geometry.pa_bits(),
            ram: vec![(TABLES, 0x1000 * 4 * SPACES as u64)],
            leniency: linmap_model::Leniency::Strict,
        };
        let board = Board::new(&config, false).unwrap();
        let mut frames = Frames(TABLES);
        let attributes =
            Attributes { access: Access::UserReadWrite, global: false, ..Attributes::KERNEL_DATA };
        let spaces = (0..SPACES as u64).map(|nth| {
            let page = Pa(0x10_0000 + nth * 0x1000);
            let va = Va(PAGE);
            let list = [Mapping { va, pa: page, len: 0x1000, attributes, leaves: Leaves::Pages }];
            let mut window = board.window(0, None);
            // SAFETY: a window of the board reaches all of its memory.
            let mut memory = unsafe { ReachableFrames::new(&mut window, &mut frames) };
            let tree = DetachedTree::build(&Mappings::new(geometry, &list).unwrap(), &mut memory);
            Space { root: tree.unwrap().root(), id: SpaceId::new(), page }
        });
        let spaces = spaces.collect();
        board.cpu(0).dsb(Dsb::Ish);
        let ids = (0..CPUS).map(|cpu| CpuIds::new(ids, cpu).unwrap()).collect();
        Self { board, geometry, spaces, ids, maintains }
    }

    /// CPU `cpu` switches to `space` and uses its page.
    fn run(&mut self, cpu: usize, space: usize) -> Result<(), Violation> {
        let Space { root, id, page } = &self.spaces[space];
        let mut processor = self.board.cpu(cpu);
        let maintains = self.maintains;
        let execute = |maintenance| maintain(&mut processor, cpu, maintains, maintenance);
        let asid = self.ids[cpu].switch_to(id, execute);
        let value = ttbr(self.geometry, *root, asid).unwrap();
        // SAFETY: on the model.
        unsafe { processor.write_ttbr0(value) };
        processor.isb();
        self.board.event(Event::Access { cpu, va: PAGE, kind: Use::Write, pa: page.0 });
        self.board.event(Event::Faults { cpu, va: PAGE + 0x1000, kind: Use::Read });
        self.board.verdict()
    }
}

fn maintain(cpu: &mut BoardCpu, number: usize, maintains: Maintains, maintenance: Maintenance) {
    match maintenance {
        Maintenance::Barrier => cpu.dsb(Dsb::Ish),
        Maintenance::Invalidation => {
            if maintains != Maintains::Nothing && maintains != Maintains::NotOnCpu(number) {
                cpu.tlbi(Tlbi::AllLocal);
            }
            if maintains != Maintains::WithoutDsb {
                cpu.dsb(Dsb::Ish);
            }
            cpu.isb();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_cpu_reaches_the_memory_of_the_space_it_runs_over_rollovers(
        bits in 3..5u32,
        switches in prop::collection::vec((0..CPUS, 0..SPACES), 1..150),
    ) {
        let ids = IdAllocator::<CPUS>::new(bits, &[0]).unwrap();
        let mut world = World::new(&ids, Maintains::Everything);
        for (cpu, space) in switches {
            let run = world.run(cpu, space);
            prop_assert!(run.is_ok(), "{}", run.unwrap_err());
        }
        world.board.event(Event::Settled);
        prop_assert!(world.board.verdict().is_ok());
    }
}

/// The first violation when all CPUs run all spaces in turn, and how many rollovers there were.
fn rounds(maintains: Maintains) -> (Result<(), Violation>, u64) {
    let ids = IdAllocator::<CPUS>::new(3, &[0]).unwrap();
    let mut world = World::new(&ids, maintains);
    let run = (0..200).try_for_each(|i| world.run(i * 7 % 5 % CPUS, i * 11 % SPACES));
    (run, ids.generation() - 1)
}

#[test]
fn a_cpu_that_leaves_its_invalidation_out_is_found_by_the_model() {
    let (run, rollovers) = rounds(Maintains::Everything);
    assert!(run.is_ok() && rollovers > 10, "{run:?}, {rollovers}");
    for maintains in [Maintains::Nothing, Maintains::WithoutDsb, Maintains::NotOnCpu(1)] {
        let (run, rollovers) = rounds(maintains);
        assert!(run.is_err(), "{maintains:?} after {rollovers} rollovers");
    }
}
