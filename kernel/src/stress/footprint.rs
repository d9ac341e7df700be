//! What the linear map consists of, to compare it before and after a run.

use core::fmt;

use linmap::Layout;
use linmap_table::LeafIter;

use crate::arch::image::Image;
use crate::memory::live::LiveMap;
use crate::memory::physical::Memory;
use crate::stress::arena::{Arena, PAGE};
use crate::stress::random::mix;

/// What the linear map consists of, to compare it before and after a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footprint {
    /// Leaf entries of the arena.
    entries: u64,
    /// A digest of them, their levels and their attributes.
    digest: u64,
    /// Tables of the kernel's half.
    tables: u64,
    /// Bytes reserved in memblock, except those of the pool and of the run.
    reserved: u64,
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entries, digest, tables, reserved } = self;
        write!(f, "{entries} leaf entries ({digest:#x}), {tables} tables, {reserved:#x} bytes reserved")
    }
}

impl Footprint {
    /// The footprint of the map now.
    pub fn of(memory: &Memory, map: &LiveMap, image: Image, arena: &Arena) -> Self {
        let geometry = memory.geometry();
        let layout = memory.layout;
        let (first, end) = (layout.linear(arena.range.start), layout.linear(arena.range.end));
        let mut window = memory.tables();
        let level = geometry.start_level();
        let base = Layout::base(geometry);
        // SAFETY: the live tree, whose tables the window reaches.
        let mut leaves = unsafe { LeafIter::new(geometry, image.swapper(), level, base, &mut window) };
        let (mut entries, mut digest) = (0, 0);
        for leaf in leaves.by_ref() {
            if first <= leaf.va && leaf.va < end {
                entries += 1;
                digest = mix(digest ^ leaf.descriptor.0 ^ leaf.level.above_pages() as u64);
            }
        }
        let tables = leaves.tables();
        let reserved: u64 = memory.memblock.reserved().iter().map(|range| range.len()).sum();
        let pool = map.pool.len() as u64 * PAGE;
        Self { entries, digest, tables, reserved: reserved - pool - arena.reserved() }
    }
}
