//! The allocator's own source on atomics that let another CPU run before each access: in every
//! order of accesses with a bounded number of preemptions, no CPU holds entries of another space
//! under the identifier that it runs by.

#![allow(dead_code, reason = "the sources of the crate, of which the tests use a part")]
#![allow(clippy::needless_pass_by_ref_mut, reason = "their public functions, which count as private here")]

#[path = "../../src/allocator.rs"]
mod allocator;
mod atomic;
#[path = "../../src/claims.rs"]
mod claims;
#[path = "../../src/cpu_ids.rs"]
mod cpu_ids;
#[path = "../../src/id_error.rs"]
mod id_error;
#[path = "../../src/maintenance.rs"]
mod maintenance;
#[path = "../../src/numbers.rs"]
mod numbers;
mod scheduler;
#[path = "../../src/space_id.rs"]
mod space_id;
#[path = "../tlbs/mod.rs"]
mod tlbs;

use std::sync::Mutex;

use allocator::IdAllocator;
use cpu_ids::CpuIds;
use maintenance::Maintenance;
use scheduler::{explore, step};
use space_id::SpaceId;
use tlbs::Tlb;

/// What all CPUs share.
struct World<const CPUS: usize> {
    ids: IdAllocator<CPUS>,
    spaces: [SpaceId; 5],
    tlbs: [Mutex<Tlb>; CPUS],
}

impl<const CPUS: usize> World<CPUS> {
    fn new() -> Self {
        Self {
            ids: IdAllocator::new(2, &[0]).unwrap(),
            spaces: [const { SpaceId::new() }; 5],
            tlbs: std::array::from_fn(|_| Mutex::new(Tlb::default())),
        }
    }

    /// CPU `cpu` runs the spaces in this order.
    fn run(&self, cpu: usize, spaces: &[usize]) {
        let mut ids = CpuIds::new(&self.ids, cpu).unwrap();
        let tlb = |of: usize| self.tlbs[of].lock().unwrap();
        for &space in spaces {
            tlb(cpu).is_switching = true;
            let id = ids.switch_to(&self.spaces[space], |maintenance| {
                step();
                if maintenance == Maintenance::Invalidation {
                    tlb(cpu).invalidate();
                }
            });
            step();
            let written = tlb(cpu).write((space, id));
            assert_eq!(written, Ok(()), "CPU {cpu} runs {space} by {id} and holds entries of another");
            let other = (0..CPUS).find(|other| *other != cpu && tlb(*other).disagrees((space, id)));
            assert_eq!(other, None, "CPU {cpu} runs {space} by {id}");
            step();
            // A space that runs keeps what it has.
            assert_eq!(self.spaces[space].id(), Some(id), "CPU {cpu} runs {space}");
        }
    }
}

/// In how many orders the CPUs run these spaces.
fn orders<const CPUS: usize>(preemptions: usize, torn: bool, programs: [&[usize]; CPUS]) -> usize {
    let orders =
        explore(CPUS, preemptions, torn, World::<CPUS>::new, |world, cpu| world.run(cpu, programs[cpu]));
    println!("{orders} orders");
    orders
}

#[test]
fn two_cpus_with_a_rollover_in_every_order_with_3_preemptions() {
    // Three identifiers: the fourth space is a rollover.
    assert!(orders(3, false, [&[0, 1, 0], &[2, 3]]) > 1_000);
}

#[test]
fn a_space_on_two_cpus_over_two_rollovers_in_every_order_with_2_preemptions() {
    assert!(orders(2, false, [&[0, 0, 1, 0], &[0, 2, 3, 0, 4]]) > 1_000);
}

#[test]
#[should_panic(expected = "runs")]
fn a_rollover_that_reads_and_clears_what_a_cpu_runs_by_in_two_steps_is_found() {
    orders(2, true, [&[0, 1, 0], &[2, 3, 4]]);
}
