//! linmap's edit of a live tree: planned, checked and applied.

use std::ptr::NonNull;

use anyhow::{Result, anyhow};
use linmap_live::{Change, Half, LiveTree, Step, Target};
use linmap_table::cpu::{Counted, Cpu, Dsb, Tlbi, exchange_entry};
use linmap_table::{Leaves, OffsetWindow};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Access, Descriptor, Va, VaRange};

use crate::arena::{BumpFrames, TableMemory};
use crate::case::Case;
use crate::geometry::GEOMETRY;
use crate::ours;
use crate::run::Run;

/// Steps of a plan beside its one run of stores a table: barriers and invalidations.
const OTHER_STEPS: usize = 16;

/// Builds the map, then makes all of it read-only while it is in use, on CPUs that can't change
/// sizes live.
///
/// # Errors
/// Those of the builder, of the planner and of the check.
pub fn protect(case: Case, memory: &mut TableMemory<'_>) -> Result<Run> {
    let offset = memory.offset();
    let mut frames = BumpFrames::new(memory);
    let root = ours::build(case, Leaves::Pages, offset, &mut frames)?.root;
    let mapping = case.mapping(Leaves::Pages);
    // SAFETY: no hardware walks the tree, and this value alone changes it.
    let mut tree = unsafe { LiveTree::new(GEOMETRY, root, Half::High, BbmLevel::L0) };
    let target = Target::InUse(VaRange::new(mapping.va, mapping.len));
    let change = Change { access: Some(Access::KernelReadOnly), ..Change::default() };
    let mut steps = vec![Step::Isb; case.leaf_tables() as usize + OTHER_STEPS];
    let mut cpu = Counted::<HostCpu>::default();
    // SAFETY: all tables are frames of the memory, which lie at this offset, writable and with
    // exposed provenance, and are borrowed exclusively through `frames`.
    let mut window = unsafe { OffsetWindow::new(offset) };
    let run = Run::timed(|| {
        let plan = tree.plan_protect(target, change, &mut steps, &mut window, &mut frames)?;
        let checked = plan.check(&mut window).map_err(|(_, refused)| anyhow!("{refused}"))?;
        // SAFETY: the window is the plan's, and nothing has written to the tables since the plan
        // was made. No hardware walks the tree, so nothing accesses what it maps.
        let applied = unsafe { checked.apply(&mut window, &mut cpu) };
        applied.free(&mut window, &mut frames);
        Ok::<_, anyhow::Error>(root)
    })?;
    Ok(Run { tlbis: cpu.counts.tlbi, ..run })
}

/// The host, where nothing walks the tables: a store is a store, and there is nothing to order or
/// to invalidate.
#[derive(Debug, Default)]
struct HostCpu;

// SAFETY: a store is one to memory. Nothing walks the tables, so the rest has no effect.
unsafe impl Cpu for HostCpu {
    type Frames = OffsetWindow;

    #[inline]
    unsafe fn store(&mut self, entry: NonNull<u64>, descriptor: Descriptor) {
        // SAFETY: the caller's promise. Volatile, as where a walker may read the entry.
        unsafe { entry.write_volatile(descriptor.0) };
    }

    unsafe fn compare_exchange(
        &mut self,
        entry: NonNull<u64>,
        expected: Descriptor,
        new: Descriptor,
    ) -> Result<(), Descriptor> {
        // SAFETY: the caller's.
        unsafe { exchange_entry(entry, expected, new) }
    }

    unsafe fn reach(&mut self, va: Va) -> NonNull<u64> {
        unreachable!("the arena's frames have no address like {va}")
    }

    unsafe fn frames_at(&mut self, offset: u64) -> OffsetWindow {
        // SAFETY: the caller's.
        unsafe { OffsetWindow::new(offset) }
    }

    fn dsb(&mut self, _: Dsb) {}

    fn isb(&mut self) {}

    fn tlbi(&mut self, _: Tlbi) {}

    unsafe fn clean_and_invalidate(&mut self, _: Va, _: u64) {}

    unsafe fn write_ttbr0(&mut self, _: u64) {}

    unsafe fn write_ttbr1(&mut self, _: u64) {}

    unsafe fn write_tcr(&mut self, _: u64) {}
}
