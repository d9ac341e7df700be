//! Random edits of user spaces on 1 to 4 CPUs: map, unmap, fork, write, exit, with frames that are
//! used again at once and identifiers that roll over.

use linmap_asid::IdAllocator;
use linmap_vmsa::{Geometry, Granule};
use proptest::prelude::*;

use super::kernel::{CPUS, Kernel, PAGES};

/// How many processes there may be: more than the seven identifiers.
const PROCESSES: usize = 9;

#[derive(Clone, Copy, Debug)]
enum Op {
    Switch(usize),
    Rest,
    Map(u64),
    Unmap(u64),
    Write(u64),
    Fork(usize),
    Exit(usize),
    /// Limits how many tables can still be allocated; `None` is no limit.
    Limit(Option<u64>),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..PROCESSES).prop_map(Op::Switch),
        1 => Just(Op::Rest),
        4 => (0..PAGES).prop_map(Op::Map),
        2 => (0..PAGES).prop_map(Op::Unmap),
        4 => (0..PAGES).prop_map(Op::Write),
        2 => (0..PROCESSES).prop_map(Op::Fork),
        1 => (0..PROCESSES).prop_map(Op::Exit),
        1 => prop::option::weighted(0.3, 0..6u64).prop_map(Op::Limit),
    ]
}

fn geometry() -> impl Strategy<Value = Geometry> {
    let sizes = [(Granule::K4, 39), (Granule::K4, 30), (Granule::K16, 33), (Granule::K64, 33)];
    prop::sample::select(sizes.map(|(granule, bits)| Geometry::new(granule, bits, 48).unwrap()).to_vec())
}

fn run(kernel: &mut Kernel<'_>, cpus: usize, cpu: usize, op: Op) -> Result<(), String> {
    match op {
        Op::Switch(process) => kernel.switch(cpu, process)?,
        Op::Rest => kernel.rest(cpu),
        Op::Map(page) => kernel.map(cpu, page)?,
        Op::Unmap(page) => kernel.unmap(cpu, page)?,
        Op::Write(page) => kernel.write(cpu, page)?,
        Op::Fork(into) => kernel.fork(cpu, into)?,
        Op::Exit(process) => kernel.exit(cpu, process)?,
        Op::Limit(left) => kernel.limit_tables(left),
    }
    kernel.memory("an operation")?;
    (0..cpus).try_for_each(|cpu| kernel.look(cpu))
}

/// `LINMAP_SEQUENCES` or, with `LINMAP_SOAK=1`, many.
fn sequences() -> u32 {
    let given = std::env::var("LINMAP_SEQUENCES").ok().and_then(|given| given.parse().ok());
    let is_soak = std::env::var_os("LINMAP_SOAK").is_some_and(|value| !value.is_empty() && value != "0");
    given.unwrap_or(if is_soak { 10_000 } else { 600 })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(sequences()))]

    #[test]
    fn processes_reach_their_own_pages_and_no_other_after_any_edit(
        geometry in geometry(),
        cpus in 1..=CPUS,
        ops in prop::collection::vec((0..CPUS, op()), 1..120),
    ) {
        let ids = IdAllocator::<CPUS>::new(3, &[0]).unwrap();
        let mut kernel = Kernel::new(&ids, geometry, cpus, PROCESSES);
        for (cpu, op) in ops {
            run(&mut kernel, cpus, cpu % cpus, op).map_err(TestCaseError::fail)?;
        }
        // A process ends without a new table.
        kernel.limit_tables(Some(0));
        prop_assert_eq!(kernel.end(), Ok(true));
    }
}
