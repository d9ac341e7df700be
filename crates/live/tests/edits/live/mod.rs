//! A machine of host memory for tests of live trees, and a reader of all that its tables say.

pub mod machine;
pub mod segments;

use std::collections::{BTreeMap, BTreeSet};
use std::ptr::{self, NonNull};

use linmap_live::{Half, LiveTree};
use linmap_table::cpu::{Cpu, Dsb, Tlbi, exchange_entry};
use linmap_table::{FrameSource, OffsetWindow, OutOfFrames};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Decoded, Descriptor, Geometry, Level, Pa, Va};

/// Host memory that stands for RAM from physical address `RAM` on, every byte poisoned.
pub struct Arena {
    memory: Vec<u64>,
    granule: u64,
    pub free: BTreeSet<u64>,
    frames: u64,
    pub allowed: usize,
}

pub const RAM: u64 = 0x40_0000_0000;

impl Arena {
    pub fn new(geometry: Geometry, frames: u64) -> Self {
        let granule = geometry.granule().bytes();
        let memory = vec![0xdead_beef_dead_beef; (frames * granule / 8) as usize];
        let free = (0..frames).map(|i| RAM + i * granule).collect();
        Self { memory, granule, free, frames, allowed: usize::MAX }
    }

    pub fn window(&mut self) -> OffsetWindow {
        let address = self.memory.as_mut_ptr().expose_provenance() as u64;
        // SAFETY: every frame the arena hands out lies in `memory` at this offset, and `memory`
        // lives and is not touched otherwise as long as the arena.
        unsafe { OffsetWindow::new(address.wrapping_sub(RAM)) }
    }

    pub fn used(&self) -> u64 {
        self.frames - self.free.len() as u64
    }

    pub fn entry(&self, table: Pa, index: usize) -> u64 {
        let first = (table.0 - RAM) as usize / 8;
        // SAFETY: in bounds by the slice index; volatile, since windows write to the same memory.
        unsafe { ptr::from_ref(&self.memory[first + index]).read_volatile() }
    }

    /// Changes an entry, as hardware or an earlier owner of the tree did.
    pub fn poke(&mut self, table: Pa, index: usize, change: impl FnOnce(u64) -> u64) {
        let first = (table.0 - RAM) as usize / 8;
        let entry = &mut self.memory[first + index];
        *entry = change(*entry);
    }

    pub fn empty_root(&mut self, geometry: Geometry) -> Pa {
        let root = self.alloc().unwrap();
        let first = (root.0 - RAM) as usize / 8;
        let entries = geometry.entries(geometry.start_level());
        // Whatever lies after a short root does not belong to it.
        self.memory[first..first + entries].fill(0);
        root
    }
}

// SAFETY: frames leave the set when handed out and come back when freed; all are multiples of the
// granule from `RAM`.
unsafe impl FrameSource for Arena {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        let none = OutOfFrames { wanted: self.granule, largest_free: 0 };
        self.allowed = self.allowed.checked_sub(1).ok_or(none)?;
        self.free.pop_last().map(Pa).ok_or(none)
    }

    unsafe fn free(&mut self, frame: Pa) {
        assert!(self.free.insert(frame.0), "frame {frame} was freed twice");
    }
}

/// A CPU that stores to host memory and counts the rest.
#[derive(Default)]
pub struct HostCpu {
    pub dsb: u64,
    pub isb: u64,
    pub tlbi: Vec<Tlbi>,
    /// Address and length of each cache maintenance.
    pub cleaned: Vec<(u64, u64)>,
}

// SAFETY: a store is one to memory. Nothing walks the tables, so the rest has no effect.
unsafe impl Cpu for HostCpu {
    type Frames = OffsetWindow;

    unsafe fn store(&mut self, entry: NonNull<u64>, descriptor: Descriptor) {
        // SAFETY: the caller's.
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
        NonNull::new(ptr::with_exposed_provenance_mut(va.0 as usize)).unwrap()
    }

    unsafe fn frames_at(&mut self, offset: u64) -> OffsetWindow {
        // SAFETY: the caller's.
        unsafe { OffsetWindow::new(offset) }
    }

    fn dsb(&mut self, _: Dsb) {
        self.dsb += 1;
    }

    fn isb(&mut self) {
        self.isb += 1;
    }

    fn tlbi(&mut self, tlbi: Tlbi) {
        self.tlbi.push(tlbi);
    }

    unsafe fn clean_and_invalidate(&mut self, va: Va, len: u64) {
        self.cleaned.push((va.0, len));
    }

    unsafe fn write_ttbr0(&mut self, _: u64) {}
    unsafe fn write_ttbr1(&mut self, _: u64) {}
    unsafe fn write_tcr(&mut self, _: u64) {}
}

pub fn live(geometry: Geometry, root: Pa, half: Half, bbm: BbmLevel) -> LiveTree {
    // SAFETY: no hardware walks the tree, and the tests change it through this value alone.
    unsafe { LiveTree::new(geometry, root, half, bbm) }
}

/// A leaf, invalidated ones included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    pub va: u64,
    pub pa: u64,
    pub level: Level,
    pub bits: u64,
}

/// All that a tree holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tables {
    /// Every table, entry by entry.
    pub tables: BTreeMap<u64, Vec<u64>>,
    pub leaves: Vec<Found>,
}

pub fn tables(arena: &Arena, geometry: Geometry, root: Pa, base: u64) -> Tables {
    let mut found = Tables::default();
    collect(arena, geometry, root, geometry.start_level(), base, &mut found);
    found
}

fn collect(arena: &Arena, geometry: Geometry, table: Pa, level: Level, base: u64, found: &mut Tables) {
    let entries: Vec<u64> = (0..geometry.entries(level)).map(|index| arena.entry(table, index)).collect();
    for (index, bits) in entries.iter().enumerate() {
        let va = base + ((index as u64) << geometry.shift(level));
        match Descriptor(bits | u64::from(*bits != 0)).decode(geometry, level) {
            Decoded::Invalid => assert_eq!(*bits, 0, "{va:#x}"),
            Decoded::Table(next) => {
                assert_eq!(bits & 1, 1, "{va:#x}");
                let tables = Descriptor(*bits).table_permissions(geometry.regime());
                assert_eq!(tables, geometry.table_permissions(), "{va:#x}: what new tables take away");
                collect(arena, geometry, next, level.next().unwrap(), va, found);
            }
            Decoded::Leaf(pa) => found.leaves.push(Found { va, pa: pa.0, level, bits: *bits }),
        }
    }
    assert!(found.tables.insert(table.0, entries).is_none(), "the table at {table} is reached twice");
}
