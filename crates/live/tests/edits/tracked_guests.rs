//! Guests whose pages hardware marks, and whose root is more than one table.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use linmap_live::{AddressSpace, Change, EditCounts, SpaceError, Step, Tools};
use linmap_table::{FrameSource, Leaves, Mapping, Mappings, OffsetWindow};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{
    Access, Attributes, Descriptor, Geometry, Granule, HardwareUpdates, Level, Pa, Stage2, Va, VaRange,
};

use crate::live::{Arena, HostCpu};

const PAGE: u64 = 4096;
const BLOCK: u64 = 2 << 20;
const GIB: u64 = 1 << 30;
/// What each table of the root translates.
const ROOT_BYTES: u64 = 512 * GIB;
/// S2AP[1]: with DBM, the leaf is dirty.
const DIRTY: u64 = 1 << 7;

const CLEAN: Change = Change { access: Some(Access::GuestReadWriteClean), execute: None, valid: None };

struct Guest {
    arena: Arena,
    window: OffsetWindow,
    cpu: HostCpu,
    steps: Vec<Step>,
    space: AddressSpace,
}

impl Guest {
    /// A guest of 40 bits of IPA, which has two root tables, and these ranges of clean memory.
    fn new(bbm: BbmLevel, updates: HardwareUpdates, ranges: &[(u64, u64, Leaves)]) -> Self {
        let geometry = Geometry::stage_2(Granule::K4, 40, 40, Stage2::Base).unwrap();
        assert_eq!(geometry.root_tables(), 2);
        let mut arena = Arena::new(geometry, 64);
        // The arena hands out its frames from the last to the first.
        let (second, root) = (arena.alloc().unwrap(), arena.alloc().unwrap());
        assert_eq!((second.0 - root.0, root.0 % (2 * PAGE)), (PAGE, 0));
        for index in 0..2 * 512 {
            arena.poke(Pa(root.0 + index / 512 * PAGE), index as usize % 512, |_| 0);
        }
        let window = arena.window();
        // SAFETY: nothing walks the tree.
        let space = unsafe { AddressSpace::guest(geometry, root, bbm).with_hardware_updates(updates) };
        let mut guest = Self { arena, window, cpu: HostCpu::default(), steps: vec![Step::Isb; 128], space };
        for &(at, len, leaves) in ranges {
            let attributes = Attributes { access: Access::GuestReadWriteClean, ..Attributes::GUEST_RAM };
            let mapping = Mapping { va: Va(at), pa: Pa(at % GIB), len, attributes, leaves };
            let mapping = [mapping];
            let mappings = Mappings::new(geometry, &mapping).unwrap();
            // SAFETY: no CPU walks the tree.
            guest.edit(|space, tools| unsafe { space.map(&mappings, tools) }).unwrap();
        }
        guest
    }

    fn edit(
        &mut self,
        edit: impl FnOnce(
            &mut AddressSpace,
            &mut Tools<'_, OffsetWindow, Arena, HostCpu>,
        ) -> Result<EditCounts, SpaceError>,
    ) -> Result<EditCounts, SpaceError> {
        let Self { arena, window, cpu, steps, space } = self;
        edit(space, &mut Tools { window, frames: arena, cpu, steps })
    }

    /// Sets the bits `set` in the leaf for `va`, and returns it.
    fn mark(&mut self, va: u64, set: u64) -> Descriptor {
        let geometry = self.space.geometry();
        let (mut level, mut table) = (geometry.start_level(), geometry.root_table(self.space.root(), Va(va)));
        loop {
            let index = geometry.index(Va(va), level);
            let found = Descriptor(self.arena.entry(table, index));
            match (level.next(), found.next_table(geometry)) {
                (Some(next), Some(below)) if level != Level::L3 => (level, table) = (next, below),
                _ => {
                    self.arena.poke(table, index, |bits| bits | set);
                    return Descriptor(self.arena.entry(table, index));
                }
            }
        }
    }

    fn translated(&mut self, va: u64) -> Option<Pa> {
        self.space.translate(Va(va), &mut self.window).map(|found| found.pa)
    }
}

#[test]
fn a_part_beyond_the_first_root_table_changes_what_lies_there() {
    let (low, high) = (GIB, ROOT_BYTES + GIB);
    let updates = HardwareUpdates::Off;
    let ranges = [(low, PAGE, Leaves::Pages), (high, PAGE, Leaves::Pages)];
    let mut guest = Guest::new(BbmLevel::L0, updates, &ranges);
    let Guest { arena, window, cpu, steps, space } = &mut guest;
    let geometry = space.geometry();
    let mut part = space.part(VaRange::new(Va(high), GIB), window).unwrap();
    let attributes = Attributes::GUEST_RAM;
    let mapping =
        [Mapping { va: Va(high + 7 * BLOCK), pa: Pa(0x5000), len: PAGE, attributes, leaves: Leaves::Pages }];
    let mappings = Mappings::new(geometry, &mapping).unwrap();
    // SAFETY: no CPU walks the tree.
    unsafe { part.map(&mappings, &mut Tools { window, frames: arena, cpu, steps }) }.unwrap();
    assert_eq!(guest.translated(high + 7 * BLOCK), Some(Pa(0x5000)));
    assert_eq!(guest.translated(low + 7 * BLOCK), None);
    assert_eq!(guest.translated(low), Some(Pa(0)));
}

#[test]
fn a_run_that_is_dirty_by_any_of_its_entries_is_cleaned_and_reported() {
    let updates = HardwareUpdates::AccessedAndDirty;
    let run = VaRange::new(Va(0), 16 * PAGE);
    for bbm in [BbmLevel::L0, BbmLevel::L1, BbmLevel::L2, BbmLevel::L3] {
        for nth in [0, 5, 15] {
            let mut guest = Guest::new(bbm, updates, &[(0, 16 * PAGE, Leaves::ContiguousBlocks)]);
            assert!(guest.mark(nth * PAGE, DIRTY).is_contiguous());
            let mut reported = Vec::new();
            // SAFETY: no CPU walks the tree.
            guest
                .edit(|space, tools| unsafe {
                    space.protect_reporting(run, CLEAN, tools, |range| reported.push(range))
                })
                .unwrap();
            assert_eq!(reported, [run], "{bbm:?}, entry {nth}");
            assert_eq!(guest.mark(nth * PAGE, 0).0 & DIRTY, 0, "{bbm:?}, entry {nth}");
        }
    }
}

#[test]
fn a_table_beyond_the_first_root_table_is_removed_under_hardware_updates() {
    // A block of the first root table ends the walk for the same place there.
    let ranges = [(ROOT_BYTES, BLOCK, Leaves::Pages), (0, BLOCK, Leaves::Blocks)];
    for bbm in [BbmLevel::L0, BbmLevel::L3] {
        let mut guest = Guest::new(bbm, HardwareUpdates::AccessedAndDirty, &ranges);
        guest.edit(|space, tools| space.unmap(VaRange::new(Va(ROOT_BYTES), BLOCK), tools)).unwrap();
        assert_eq!((guest.translated(ROOT_BYTES), guest.translated(0)), (None, Some(Pa(0))));
    }
}

#[test]
fn a_page_is_clean_where_asked_unless_hardware_makes_pages_dirty() {
    for updates in [HardwareUpdates::Off, HardwareUpdates::Accessed, HardwareUpdates::AccessedAndDirty] {
        let mut guest = Guest::new(BbmLevel::L0, updates, &[(0, PAGE, Leaves::Pages)]);
        guest.mark(0, DIRTY);
        let page = VaRange::new(Va(0), PAGE);
        // SAFETY: no CPU walks the tree.
        guest.edit(|space, tools| unsafe { space.remap(page, Pa(0x9000_0000), CLEAN, tools) }).unwrap();
        let is_dirty = guest.mark(0, 0).0 & DIRTY != 0;
        assert_eq!(is_dirty, updates == HardwareUpdates::AccessedAndDirty, "{updates:?}");
    }
}

/// In a program of its own: the edit is half done when the report panics, so nobody may go on.
#[test]
fn a_report_that_panics_aborts() {
    const HERE: &str = "LINMAP_TEST_PANICKING_REPORT";
    if std::env::var_os(HERE).is_none() {
        let mut test = Command::new(std::env::current_exe().unwrap());
        test.args(["--exact", "tracked_guests::a_report_that_panics_aborts", "--nocapture"]);
        let output = test.env(HERE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && output.status.code().is_none(), "{said}");
        assert!(said.contains("in the middle of an edit"), "{said}");
        return;
    }
    let updates = HardwareUpdates::AccessedAndDirty;
    let mut guest = Guest::new(BbmLevel::L0, updates, &[(0, 4 * PAGE, Leaves::Pages)]);
    guest.mark(PAGE, DIRTY);
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let page = VaRange::new(Va(PAGE), PAGE);
        guest.edit(|space, tools| space.unmap_reporting(page, tools, |_| panic!("by the caller")))
    }));
}
