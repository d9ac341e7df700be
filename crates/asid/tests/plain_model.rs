//! Random switches beside plain TLBs.

mod tlbs;

use linmap_asid::{CpuError, CpuIds, IdAllocator, IdError, Maintenance, SpaceId};
use proptest::prelude::*;
use tlbs::Tlb;

const CPUS: usize = 4;
const SPACES: usize = 24;

#[derive(Clone, Copy, Debug)]
enum Op {
    Switch {
        cpu: usize,
        space: usize,
    },
    /// The CPU goes to the empty root.
    Leave {
        cpu: usize,
    },
    /// The space ends: every CPU that runs it leaves, its entries are invalidated, and another
    /// space is made in its place.
    Replace {
        space: usize,
    },
    /// The CPU goes offline and comes back.
    Offline {
        cpu: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0..CPUS, 0..SPACES).prop_map(|(cpu, space)| Op::Switch { cpu, space }),
        1 => (0..CPUS).prop_map(|cpu| Op::Leave { cpu }),
        1 => (0..SPACES).prop_map(|space| Op::Replace { space }),
        1 => (0..CPUS).prop_map(|cpu| Op::Offline { cpu }),
    ]
}

struct World<'a> {
    ids: &'a IdAllocator<CPUS>,
    cpus: Vec<Option<CpuIds<'a, CPUS>>>,
    tlbs: Vec<Tlb>,
    spaces: Vec<SpaceId>,
    /// A number for each space that ever was.
    names: Vec<usize>,
    next_name: usize,
    reserved: &'static [u16],
    bits: u32,
    /// Whether the CPUs do what they are asked to.
    obedient: bool,
}

impl<'a> World<'a> {
    fn new(ids: &'a IdAllocator<CPUS>, bits: u32, reserved: &'static [u16]) -> Self {
        Self {
            ids,
            cpus: (0..CPUS).map(|cpu| Some(CpuIds::new(ids, cpu).unwrap())).collect(),
            tlbs: vec![Tlb::default(); CPUS],
            spaces: (0..SPACES).map(|_| SpaceId::new()).collect(),
            names: (0..SPACES).collect(),
            next_name: SPACES,
            reserved,
            bits,
            obedient: true,
        }
    }

    fn run(&mut self, op: Op) -> Result<(), String> {
        match op {
            Op::Switch { cpu, space } => self.switch(cpu, space)?,
            Op::Leave { cpu } => self.leave(cpu),
            Op::Replace { space } => {
                for cpu in 0..CPUS {
                    if self.tlbs[cpu].ttbr.is_some_and(|run| run.0 == self.names[space]) {
                        self.leave(cpu);
                    }
                }
                self.spaces[space] = SpaceId::new();
                self.names[space] = self.next_name;
                self.next_name += 1;
            }
            Op::Offline { cpu } => {
                self.leave(cpu);
                self.cpus[cpu] = None;
                self.cpus[cpu] = Some(CpuIds::new(self.ids, cpu).map_err(|error| error.to_string())?);
            }
        }
        self.check()
    }

    fn leave(&mut self, cpu: usize) {
        self.tlbs[cpu].ttbr = None;
        self.cpus[cpu].as_mut().unwrap().leave();
    }

    fn switch(&mut self, cpu: usize, space: usize) -> Result<(), String> {
        let generation = self.ids.generation();
        let before = self.spaces[space].id();
        let is_running = self.tlbs.iter().any(|tlb| tlb.ttbr.is_some_and(|run| run.0 == self.names[space]));
        let mut asked = None;
        let ids = self.cpus[cpu].as_mut().unwrap();
        let id = ids.switch_to(&self.spaces[space], |maintenance| asked = Some(maintenance));
        let has_rolled_over = self.ids.generation() != generation;
        if asked == Some(Maintenance::Invalidation) && self.obedient {
            self.tlbs[cpu].invalidate();
        }
        if has_rolled_over && asked != Some(Maintenance::Invalidation) {
            return Err(format!("CPU {cpu} rolled over and keeps its TLB"));
        }
        if before != Some(id) && (asked.is_none() || is_running) {
            return Err(format!("space {space} had {before:?}, got {id}, running: {is_running}, {asked:?}"));
        }
        if u32::from(id) >= 1 << self.bits
            || self.reserved.contains(&id)
            || self.spaces[space].id() != Some(id)
        {
            return Err(format!("no identifier for space {space}: {id}"));
        }
        self.tlbs[cpu]
            .write((self.names[space], id))
            .map_err(|other| format!("CPU {cpu} runs {space} by {id} and holds entries of {other}"))
    }

    /// CPUs that run one space run it by one identifier, which no other space has.
    fn check(&self) -> Result<(), String> {
        for (cpu, one) in self.tlbs.iter().enumerate() {
            for other in &self.tlbs[..cpu] {
                if one.ttbr.is_some_and(|run| other.disagrees(run)) {
                    return Err(format!("{one:?} and {other:?} run"));
                }
            }
        }
        Ok(())
    }
}

fn setting() -> impl Strategy<Value = (u32, &'static [u16])> {
    let setting = |bits, reserved: &'static [u16]| Just((bits, reserved));
    prop_oneof![
        setting(3, &[0]),
        setting(3, &[]),
        setting(3, &[0, 7, 3]),
        setting(4, &[0]),
        setting(4, &[1, 1, 15, 8]),
        setting(8, &[0]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_cpu_holds_entries_of_another_space_under_the_identifier_it_runs_by(
        (bits, reserved) in setting(),
        ops in prop::collection::vec(op(), 1..200),
    ) {
        let ids = IdAllocator::<CPUS>::new(bits, reserved).unwrap();
        let mut world = World::new(&ids, bits, reserved);
        for op in ops {
            world.run(op).map_err(TestCaseError::fail)?;
        }
    }
}

/// Switches that reach each CPU and each space in turn, as often as there are rollovers to see.
fn rounds() -> impl Iterator<Item = Op> {
    (0..400).map(|i| Op::Switch { cpu: i * 7 % 5 % CPUS, space: i * 11 % SPACES })
}

#[test]
fn a_cpu_that_does_not_invalidate_its_tlb_uses_entries_of_another_space() {
    let ids = IdAllocator::<CPUS>::new(3, &[0]).unwrap();
    let mut world = World::new(&ids, 3, &[0]);
    rounds().try_for_each(|op| world.run(op)).unwrap();
    assert!(ids.generation() > 20, "{}", ids.generation());
    let ids = IdAllocator::<CPUS>::new(3, &[0]).unwrap();
    let mut world = World { obedient: false, ..World::new(&ids, 3, &[0]) };
    let found = rounds().try_for_each(|op| world.run(op)).unwrap_err();
    assert!(found.contains("holds entries of"), "{found}");
}

#[test]
fn while_the_generation_holds_nothing_is_executed_and_nothing_changes() {
    let ids = IdAllocator::<1>::new(8, &[0]).unwrap();
    let mut cpu = CpuIds::new(&ids, 0).unwrap();
    let spaces = [const { SpaceId::new() }; 255];
    for space in &spaces {
        let _ = cpu.switch_to(space, |maintenance| assert_eq!(maintenance, Maintenance::Barrier));
    }
    for (at, space) in spaces.iter().enumerate() {
        assert_eq!(usize::from(cpu.switch_to(space, |_| panic!("the generation holds"))), at + 1);
    }
    assert_eq!(ids.generation(), 1);
    // The 256th: a rollover, in which the space that runs keeps what it has.
    let more = SpaceId::new();
    assert_eq!(cpu.switch_to(&more, |asked| assert_eq!(asked, Maintenance::Invalidation)), 1);
    assert_eq!((ids.generation(), spaces[254].id()), (2, Some(255)));
    assert_eq!(cpu.switch_to(&spaces[254], |asked| assert_eq!(asked, Maintenance::Barrier)), 255);
}

#[test]
fn sixteen_bits_are_all_used_before_a_rollover() {
    static IDS: IdAllocator<2> = match IdAllocator::new(16, &[0, 0xffff]) {
        Ok(ids) => ids,
        Err(_) => panic!("2 CPUs"),
    };
    let mut cpu = CpuIds::new(&IDS, 1).unwrap();
    for nth in 1..0xffff {
        assert_eq!(cpu.switch_to(&SpaceId::new(), |_| ()), nth);
    }
    assert_eq!(IDS.generation(), 1);
    assert_eq!(cpu.switch_to(&SpaceId::new(), |_| ()), 1);
    assert_eq!(IDS.generation(), 2);
}

#[test]
fn widths_reserved_identifiers_and_cpus_that_do_not_exist_are_errors() {
    for bits in [0, 17, 64] {
        assert_eq!(IdAllocator::<1>::new(bits, &[]).unwrap_err(), IdError::Width { bits });
    }
    assert_eq!(IdAllocator::<1>::new(3, &[0, 8]).unwrap_err(), IdError::NoSuchId { id: 8, bits: 3 });
    assert_eq!(IdAllocator::<4>::new(2, &[]).unwrap_err(), IdError::TooFew { usable: 4, cpus: 4 });
    assert_eq!(IdAllocator::<1>::new(1, &[1, 1]).unwrap_err(), IdError::TooFew { usable: 1, cpus: 1 });
    assert!(IdAllocator::<1>::new(1, &[]).is_ok());
    assert!(IdAllocator::<3>::new(2, &[]).is_ok());
    let ids = IdAllocator::<2>::new(8, &[0]).unwrap();
    assert_eq!(CpuIds::new(&ids, 2).unwrap_err(), CpuError::NoSuchCpu { cpu: 2, cpus: 2 });
    let part = CpuIds::new(&ids, 1).unwrap();
    assert_eq!(CpuIds::new(&ids, 1).unwrap_err(), CpuError::Claimed { cpu: 1 });
    drop(part);
    assert!(CpuIds::new(&ids, 1).is_ok());
}
