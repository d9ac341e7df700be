//! Hardware updates a leaf while an edit is planned, checked and applied, at any of its steps: the
//! edit is carried out, and everything that was mapped still is.

use std::ptr::NonNull;

use linmap_live::{AddressSpace, Change, Marks, Retried, Step, Target, Tools};
use linmap_table::{Leaves, Mapping, Mappings, OffsetWindow, TableWindow};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{
    Access, Attributes, Descriptor, Geometry, Granule, HardwareUpdates, Level, Pa, Stage2, Va, VaRange,
};

use crate::live::{Arena, HostCpu};

const PAGE: u64 = 0x1000;
const BLOCK: u64 = 2 << 20;
const ACCESSED: u64 = 1 << 10;
/// S2AP[1]: set in a dirty leaf.
const DIRTY: u64 = 1 << 7;
/// DBM: hardware makes the leaf dirty.
const DIRTY_MODIFIER: u64 = 1 << 51;
const MAPPED: u64 = 2 * BLOCK;

/// A window in which hardware updates one leaf when a table is opened for the nth time.
struct Raced {
    inner: OffsetWindow,
    nth: usize,
    opened: usize,
    leaf: NonNull<u64>,
}

// SAFETY: passes on what the window does.
unsafe impl TableWindow for Raced {
    unsafe fn open(&mut self, level: Level, table: Pa) -> NonNull<u64> {
        if self.opened == self.nth {
            // SAFETY: an entry of a table of the arena.
            unsafe {
                let found = self.leaf.read_volatile();
                let dirty = if found & DIRTY_MODIFIER != 0 { DIRTY } else { 0 };
                if Descriptor(found).is_valid() {
                    self.leaf.write_volatile(found | ACCESSED | dirty);
                }
            }
        }
        self.opened += 1;
        // SAFETY: the caller's.
        unsafe { self.inner.open(level, table) }
    }

    fn close(&mut self, level: Level) {
        self.inner.close(level);
    }
}

/// A guest that all CPUs run and whose leaves hardware updates: two blocks of memory, clean.
struct Guest {
    arena: Arena,
    window: OffsetWindow,
    cpu: HostCpu,
    steps: Vec<Step>,
    space: AddressSpace,
}

impl Guest {
    fn new(bbm: BbmLevel, leaves: Leaves, accessed: bool) -> Self {
        let geometry = Geometry::stage_2(Granule::K4, 39, 40, Stage2::Base).unwrap();
        let mut arena = Arena::new(geometry, 32);
        let mut window = arena.window();
        let root = arena.empty_root(geometry);
        // SAFETY: no CPU walks the tree.
        let mut space = unsafe {
            AddressSpace::guest(geometry, root, bbm).with_hardware_updates(HardwareUpdates::AccessedAndDirty)
        };
        let mut cpu = HostCpu::default();
        let mut steps = vec![Step::Isb; 256];
        let attributes =
            Attributes { access: Access::GuestReadWriteClean, accessed, ..Attributes::GUEST_RAM };
        let list = [Mapping { va: Va(0), pa: Pa(0), len: MAPPED, attributes, leaves }];
        let mappings = Mappings::new(geometry, &list).unwrap();
        let mut tools = Tools { window: &mut window, frames: &mut arena, cpu: &mut cpu, steps: &mut steps };
        // SAFETY: no CPU walks the tree.
        unsafe { space.map(&mappings, &mut tools) }.unwrap();
        Self { arena, window, cpu, steps, space }
    }

    fn leaf(&mut self, va: u64) -> NonNull<u64> {
        let geometry = self.space.geometry();
        let (mut level, mut table) = (geometry.start_level(), self.space.root());
        loop {
            // SAFETY: the window reaches all tables.
            let entry = unsafe { self.window.open(level, table).add(geometry.index(Va(va), level)) };
            // SAFETY: as above.
            let found = Descriptor(unsafe { entry.read() });
            match (level.next(), found.next_table(geometry)) {
                (Some(next), Some(below)) if level != Level::L3 => (level, table) = (next, below),
                _ => return entry,
            }
        }
    }

    fn missing(&mut self) -> u64 {
        let Self { space, window, .. } = self;
        (0..MAPPED / PAGE).filter(|page| space.translate(Va(page * PAGE), window).is_none()).count() as u64
    }
}

type RacedTools<'t> = Tools<'t, Raced, Arena, HostCpu>;

/// Carries out `edit` with an update of the leaf for `va` at each of the times when a table is
/// opened. `after` looks at the result.
fn at_any_time(
    what: &str,
    (bbm, leaves, accessed): (BbmLevel, Leaves, bool),
    va: u64,
    edit: impl Fn(&mut AddressSpace, &mut RacedTools<'_>) -> Result<(), String>,
    after: impl Fn(&mut Guest, &str),
) {
    for nth in 0.. {
        let mut guest = Guest::new(bbm, leaves, accessed);
        let leaf = guest.leaf(va);
        let mut raced = Raced { inner: guest.window, nth, opened: 0, leaf };
        let Guest { arena, cpu, steps, space, .. } = &mut guest;
        let mut tools = Tools { window: &mut raced, frames: arena, cpu, steps };
        let done = edit(space, &mut tools);
        let what = format!("{what} of {leaves:?} at {bbm:?}, update at {nth}");
        assert_eq!(done, Ok(()), "{what}");
        assert_eq!(guest.missing(), 0, "{what}: pages are no longer mapped");
        after(&mut guest, &what);
        if raced.opened <= nth {
            return;
        }
    }
}

const LEVELS: [BbmLevel; 4] = [BbmLevel::L0, BbmLevel::L1, BbmLevel::L2, BbmLevel::L3];

fn said<T, E: ToString>(result: Result<T, E>) -> Result<(), String> {
    result.map(drop).map_err(|error| error.to_string())
}

fn to(access: Access) -> Change {
    Change { access: Some(access), ..Change::default() }
}

/// The access of a page after an edit.
fn access_at(guest: &mut Guest, va: u64) -> Access {
    let Guest { space, window, .. } = guest;
    space.translate(Va(va), window).unwrap().attributes.access
}

#[test]
fn a_fold_keeps_what_is_written_while_it_is_planned() {
    for bbm in LEVELS {
        for (len, leaves) in [
            (0x1_0000, Leaves::ContiguousBlocks),
            (BLOCK, Leaves::ContiguousBlocks),
            (BLOCK, Leaves::Blocks),
            (MAPPED, Leaves::ContiguousBlocks),
        ] {
            at_any_time(
                &format!("a fold of {len:#x} bytes to {leaves:?}"),
                (bbm, Leaves::Pages, true),
                0x5000,
                |space, tools| {
                    // SAFETY: the leaves are chosen, and nothing else.
                    unsafe { space.tree() }.set_leaves(leaves);
                    said(space.fold(VaRange::new(Va(0), len), tools))
                },
                |_, _| {},
            );
        }
    }
}

#[test]
fn a_protection_keeps_what_is_written_while_it_is_planned() {
    for bbm in LEVELS {
        for leaves in [Leaves::Pages, Leaves::Blocks, Leaves::ContiguousBlocks] {
            for (at, len) in [(0x5000, PAGE), (0x4000, 0x2_4000), (BLOCK - PAGE, 2 * PAGE)] {
                for access in
                    [Access::GuestReadWriteDirty, Access::GuestReadWriteClean, Access::GuestReadOnly]
                {
                    at_any_time(
                        &format!("{access:?} for {len:#x} bytes at {at:#x}"),
                        (bbm, leaves, true),
                        at,
                        |space, tools| {
                            let range = VaRange::new(Va(at), len);
                            // SAFETY: no CPU walks the tree.
                            said(unsafe { space.protect(range, to(access), tools) })
                        },
                        |guest, what| {
                            let found = access_at(guest, at);
                            let may_be_dirty =
                                access == Access::GuestReadWriteClean && found == Access::GuestReadWriteDirty;
                            assert!(found == access || may_be_dirty, "{what}: {found:?}");
                        },
                    );
                }
            }
        }
    }
}

#[test]
fn a_remap_keeps_what_is_written_while_it_is_planned() {
    for bbm in LEVELS {
        for leaves in [Leaves::Pages, Leaves::Blocks, Leaves::ContiguousBlocks] {
            for pa in [Pa(0), Pa(64 << 20)] {
                at_any_time(
                    &format!("a remap to {pa}"),
                    (bbm, leaves, true),
                    0x5000,
                    |space, tools| {
                        let range = VaRange::new(Va(0), MAPPED);
                        // SAFETY: no CPU walks the tree.
                        said(unsafe { space.remap(range, pa, to(Access::GuestReadWriteDirty), tools) })
                    },
                    |guest, what| {
                        assert_eq!(access_at(guest, 0x5000), Access::GuestReadWriteDirty, "{what}");
                        assert_eq!(access_at(guest, BLOCK), Access::GuestReadWriteDirty, "{what}");
                    },
                );
            }
        }
    }
}

#[test]
fn a_mark_keeps_what_is_accessed_while_it_is_planned() {
    for bbm in LEVELS {
        for leaves in [Leaves::Pages, Leaves::Blocks, Leaves::ContiguousBlocks] {
            for accessed in [true, false] {
                at_any_time(
                    &format!("accessed: {accessed}"),
                    (bbm, leaves, !accessed),
                    0x5000,
                    |space, Tools { window, frames, cpu, steps }| {
                        // SAFETY: a plan of this space, which is applied at once.
                        let tree = unsafe { space.tree() };
                        // SAFETY: no CPU walks the tree.
                        let target = Target::Retried(unsafe { Retried::new(VaRange::new(Va(0x5000), PAGE)) });
                        let marks = Marks { accessed: Some(accessed), software: None };
                        let plan = tree.plan_mark(target, marks, steps, *window, *frames);
                        let checked = match plan.map_err(|error| error.to_string())?.check(*window) {
                            Ok(checked) => checked,
                            Err((plan, refused)) => {
                                plan.abandon(*window, *frames);
                                return Err(refused.to_string());
                            }
                        };
                        // SAFETY: no CPU walks the tree.
                        unsafe { checked.apply(*window, *cpu) }.free(*window, *frames);
                        Ok(())
                    },
                    |_, _| {},
                );
            }
        }
    }
}

#[test]
fn a_split_or_unmap_keeps_what_is_written_while_it_is_planned() {
    for bbm in LEVELS {
        for leaves in [Leaves::Blocks, Leaves::ContiguousBlocks] {
            at_any_time(
                "a split",
                (bbm, leaves, false),
                0x5000,
                |space, tools| said(space.split(VaRange::new(Va(0x5000), BLOCK), Level::L3, tools)),
                |_, _| {},
            );
            at_any_time(
                "a page mapped again",
                (bbm, leaves, false),
                0x5000,
                |space, tools| {
                    let page = VaRange::new(Va(0x5000), PAGE);
                    said(space.unmap(page, tools))?;
                    let list = [Mapping {
                        va: page.start,
                        pa: Pa(0x5000),
                        len: PAGE,
                        attributes: Attributes::GUEST_RAM,
                        leaves: Leaves::Pages,
                    }];
                    let mappings = Mappings::new(space.geometry(), &list).unwrap();
                    // SAFETY: no CPU walks the tree.
                    said(unsafe { space.map(&mappings, tools) })
                },
                |_, _| {},
            );
        }
    }
}
