//! Two trees for the upper half, as of a kernel that unmaps itself while user space runs: each has
//! its own ASIDs.

use linmap_model::event::{Register, TlbiScope};
use linmap_model::{Config, Leniency, Rule};

use crate::scene::*;

/// T0SZ = T1SZ = 16, TG1 = 4K, IPS = 48 bits, AS: ASIDs of 16 bits, A1.
const TCR: u64 = 16 | 16 << 16 | 0b10 << 30 | 0b101 << 32 | 1 << 36 | 1 << 22;

/// `ROOT` maps a page of the kernel with `leaf`, and `OTHER` another one at the
/// same address. CPU 0 leaves `ROOT` under ASID 2 for `OTHER` under ASID `other`.
fn unmapped(leaf: u64, other: u64) -> Scene {
    let mut scene = Scene::new(0, 2);
    for cpu in 0..2 {
        scene.write(cpu, Register::Tcr, TCR).isb(cpu).write(cpu, Register::Ttbr1, ROOT | asid(2)).isb(cpu);
    }
    scene.tlbi(ALL, 0).dsb(linmap_model::event::Access::All).isb(0).isb(1);
    scene.store(L3, leaf);
    for table in [OTHER, SPARE, A, A3] {
        scene.zero(table);
    }
    scene.store(OTHER, SPARE | TABLE).store(SPARE, A | TABLE).store(A, A3 | TABLE);
    scene.store(A3, leaf | 0x1000).ordered();
    scene.write(0, Register::Ttbr1, OTHER | asid(other)).isb(0);
    scene
}

#[test]
fn trees_of_the_upper_half_that_share_no_asid_never_meet() {
    unmapped(PAGE | NON_GLOBAL, 3).legal();
    // Back and forth, at every entry of the kernel.
    let mut scene = unmapped(PAGE | NON_GLOBAL, 3);
    for _ in 0..3 {
        scene.write(0, Register::Ttbr1, ROOT | asid(2)).isb(0);
        scene.write(0, Register::Ttbr1, OTHER | asid(3)).isb(0);
    }
    scene.legal();
    // The tree is used under the other's ASID.
    unmapped(PAGE | NON_GLOBAL, 2).breaks(Rule::NextTable);
    let mut scene = unmapped(PAGE | NON_GLOBAL, 3);
    scene.write(0, Register::Ttbr1, OTHER | asid(2)).breaks(Rule::NextTable);
    // Global leaves have no ASID.
    unmapped(PAGE, 3).breaks(Rule::OutputAddress);
}

#[test]
fn an_invalidation_of_everything_gives_trees_other_asids() {
    let moved = |tlbi| {
        let mut scene = unmapped(PAGE | NON_GLOBAL, 3);
        scene.write(1, Register::Ttbr1, OTHER | asid(3)).isb(1);
        scene.tlbi(tlbi, 0).dsb(linmap_model::event::Access::All).isb(0).isb(1);
        scene.write(0, Register::Ttbr1, OTHER | asid(2)).isb(0);
        scene
    };
    moved(ALL).legal();
    moved(broadcast(TlbiScope::VaAnyAsid)).breaks(Rule::NextTable);
}

/// `A` in TTBR0 under ASID 1 gives way to `B` under ASID 2, whose leaf is another page's.
fn switched(leniency: Leniency, by_reserved: bool, isb: bool) -> Scene {
    let ram = vec![(RAM, 0x10_0000)];
    let config = Config { cpus: 1, bbm: 0, granule: 0x1000, va_bits: 48, pa_bits: 48, ram, leniency };
    let mut scene = Scene::bare(&config);
    scene.zero(ROOT).zero(OTHER).tree(A).tree(B);
    scene.store(A3, PAGE | NON_GLOBAL).store(B3, PAGE | NON_GLOBAL | 0x1000).ordered();
    scene.write(0, Register::Tcr, TCR).isb(0);
    scene.write(0, Register::Ttbr1, ROOT | asid(1)).write(0, Register::Ttbr0, A).isb(0);
    let synchronize = |scene: &mut Scene| {
        if isb {
            scene.isb(0);
        }
    };
    if by_reserved {
        scene.write(0, Register::Ttbr0, OTHER);
        synchronize(&mut scene);
    }
    scene.write(0, Register::Ttbr1, ROOT | asid(2));
    synchronize(&mut scene);
    scene.write(0, Register::Ttbr0, B).isb(0);
    scene
}

#[test]
fn kernels_rely_on_the_order_of_writes_to_base_registers() {
    switched(Leniency::Strict, true, true).legal();
    switched(Leniency::Strict, true, false).breaks(Rule::NextTable);
    switched(Leniency::Kernels, true, false).legal();
    // Between the writes of ASID and table, the old table has the new ASID.
    switched(Leniency::Kernels, false, true).breaks(Rule::NextTable);
    switched(Leniency::Kernels, false, false).breaks(Rule::NextTable);
}
