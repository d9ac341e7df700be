//! DSB NSH orders a CPU's stores for its own walks: its domain is the CPU with its table walker.

use crate::scene::*;
use linmap_model::event::{Access, Domain, Register};
use linmap_model::{Config, Event, Leniency, Rule};

/// Two CPUs, of which CPU 0 walks the tree `A`.
fn walked_by_one() -> Scene {
    let config = Config {
        cpus: 2,
        bbm: 0,
        granule: 0x1000,
        va_bits: 48,
        pa_bits: 48,
        ram: vec![(RAM, 0x10_0000)],
        leniency: Leniency::Strict,
    };
    let mut scene = Scene::bare(&config);
    scene.tree(A).zero(SPARE).store(A3, PAGE).ordered().root(0, A).root(1, SPARE).isb(0).isb(1);
    scene
}

fn nsh(scene: &mut Scene) -> &mut Scene {
    scene.event(Event::Dsb { cpu: 0, domain: Domain::Nsh, access: Access::All })
}

/// Another page by break-before-make of CPU 0 for itself.
fn replaced(scene: &mut Scene) -> &mut Scene {
    scene.store(A3, 0);
    nsh(scene).event(Event::Tlbi { cpu: 0, tlbi: ALL_LOCAL, operand: 0 });
    nsh(scene).isb(0).store(A3, PAGE | 0x1000)
}

#[test]
fn a_cpu_that_walks_a_tree_alone_edits_it_by_barriers_for_itself() {
    let mut scene = walked_by_one();
    replaced(&mut scene);
    nsh(&mut scene).isb(0).settled().legal();
    // Without the first DSB the walk may read the old entry behind the TLBI.
    let mut scene = walked_by_one();
    scene.store(A3, 0).event(Event::Tlbi { cpu: 0, tlbi: ALL_LOCAL, operand: 0 });
    nsh(&mut scene).isb(0).store(A3, PAGE | 0x1000).breaks(Rule::OutputAddress);
}

#[test]
fn it_orders_nothing_for_another_cpu_that_walks_the_tree() {
    let mut scene = walked_by_one();
    scene.root(1, A).isb(1);
    replaced(&mut scene).breaks(Rule::OutputAddress);
    // One that begins to.
    let mut scene = walked_by_one();
    replaced(&mut scene);
    nsh(&mut scene).isb(0).root(1, A).breaks(Rule::Unordered);
    let mut scene = walked_by_one();
    replaced(&mut scene);
    scene.ordered().isb(0).root(1, A).isb(1).settled().legal();
}

#[test]
fn a_barrier_of_loads_orders_no_store() {
    let mut scene = walked_by_one();
    scene.store(A3, 0).event(Event::Dsb { cpu: 0, domain: Domain::Ish, access: Access::Loads });
    scene.tlbi(ALL, 0).dsb(Access::All).isb(0).store(A3, PAGE | 0x1000).breaks(Rule::OutputAddress);
}

#[test]
fn it_orders_nothing_for_trees_that_come_to_share_the_table() {
    // The same root under another ASID is another tree.
    let mut scene = walked_by_one();
    replaced(&mut scene);
    nsh(&mut scene).isb(0);
    scene.write(1, Register::Ttbr0, A | asid(2)).breaks(Rule::Unordered);
    // A pointer to the last table.
    let shared = |is_ordered: bool| {
        let mut scene = walked_by_one();
        scene.zero(B).zero(B + 0x1000).zero(B + 0x2000).ordered().root(1, B).isb(1);
        replaced(&mut scene);
        nsh(&mut scene).isb(0);
        if is_ordered {
            scene.ordered();
        }
        scene.store(B + 0x2000, A3 | TABLE).store(B + 0x1000, (B + 0x2000) | TABLE).ordered();
        scene.store(B, (B + 0x1000) | TABLE).ordered();
        scene
    };
    shared(true).legal();
    let mut scene = walked_by_one();
    scene.zero(B).zero(B + 0x1000).zero(B + 0x2000);
    scene.store(B, (B + 0x1000) | TABLE).store(B + 0x1000, (B + 0x2000) | TABLE).ordered();
    scene.root(1, B).isb(1);
    replaced(&mut scene);
    nsh(&mut scene).isb(0).store(B + 0x2000, A3 | TABLE).breaks(Rule::Unordered);
}

#[test]
fn what_another_cpu_stored_over_and_ordered_is_no_store_of_the_first_any_more() {
    // CPU 1 fills a table that it never links; CPU 0 gets the frame, fills it, and orders that.
    let mut scene = walked_by_one();
    let last = B + 0x3000;
    scene.zero(B).zero(B + 0x1000).zero(B + 0x2000).zero(last).ordered();
    scene.event(Event::Store { cpu: 1, pa: last, value: PAGE, via: None });
    scene.store(last, PAGE | 0x1000).store(B + 0x2000, last | TABLE);
    scene.store(B + 0x1000, (B + 0x2000) | TABLE).store(B, (B + 0x1000) | TABLE).ordered().root(1, B);
    scene.event(Event::Dsb { cpu: 1, domain: Domain::Nsh, access: Access::All });
    scene.isb(1).root(0, SPARE).isb(0).tlbi(ALL, 0).dsb(Access::All).isb(0);
    scene.root(0, B).isb(0).settled().legal();
}
