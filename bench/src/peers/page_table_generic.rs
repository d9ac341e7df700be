//! page-table-generic, which leaves the descriptor format to its user. It zeroes every table
//! itself.

use std::cell::Cell;
use std::mem::ManuallyDrop;

use ::page_table_generic::{
    FrameAllocator, MapConfig, PageTable, PageTableEntry, PageTableRef, PhysAddr, TableMeta, VirtAddr,
};
use anyhow::{Result, anyhow};
use linmap_table::Leaves;
use linmap_vmsa::{Descriptor, Level, Pa, leaf_type};

use super::{ATTRIBUTES, READ_ONLY_ATTRIBUTES};
use crate::arena::TableMemory;
use crate::case::{Case, LeafKind};
use crate::geometry::GEOMETRY;
use crate::run::Run;

const FRAME: u64 = GEOMETRY.granule().bytes();

/// A VMSAv8-64 descriptor.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
struct Pte(u64);

impl PageTableEntry for Pte {
    /// The attribute bits of a leaf.
    type PteConfig = u64;

    #[inline]
    fn new_page(pa: PhysAddr, attributes: u64, is_block: bool) -> Self {
        let kind = leaf_type(if is_block { Level::L2 } else { Level::L3 });
        Self(pa.as_usize() as u64 | attributes | kind)
    }

    #[inline]
    fn new_table(pa: PhysAddr) -> Self {
        Self(Descriptor::table(GEOMETRY, Pa(pa.as_usize() as u64)).0)
    }

    #[inline]
    fn paddr(&self, _is_dir: bool) -> PhysAddr {
        PhysAddr::from_usize((self.0 & ((1 << GEOMETRY.pa_bits()) - FRAME)) as usize)
    }

    #[inline]
    fn config(&self, is_dir: bool) -> u64 {
        let kind = leaf_type(if is_dir { Level::L2 } else { Level::L3 });
        self.0 & !(self.paddr(is_dir).as_usize() as u64) & !kind
    }

    #[inline]
    fn present(&self) -> bool {
        Descriptor(self.0).is_valid()
    }

    #[inline]
    fn huge(&self, is_dir: bool) -> bool {
        is_dir && self.0 & leaf_type(Level::L3) == leaf_type(Level::L2)
    }

    #[inline]
    fn unused(&self) -> bool {
        self.0 == 0
    }

    #[inline]
    fn clear(&mut self) {
        self.0 = 0;
    }
}

/// Four levels of 512 entries, blocks of 1 GiB and 2 MiB.
#[derive(Clone, Copy)]
struct FourLevels;

impl TableMeta for FourLevels {
    type P = Pte;
    const PAGE_SIZE: usize = FRAME as usize;
    const LEVEL_BITS: &[usize] = &[9, 9, 9, 9];
    const MAX_BLOCK_LEVEL: usize = 3;

    /// Nothing is cached on the host. Changing a map asks for an invalidation a page.
    #[inline]
    fn flush(_: Option<VirtAddr>) {
        TLBIS.set(TLBIS.get() + 1);
    }
}

thread_local! {
    /// The frame that is handed out next. The crate clones its allocator at every table and wants
    /// it `Sync`, so the state is here and the allocator itself is two plain words.
    static NEXT: Cell<u64> = const { Cell::new(0) };
    /// Invalidations asked for since the last map began.
    static TLBIS: Cell<u64> = const { Cell::new(0) };
}

/// Frames handed out one after the other.
#[derive(Clone, Copy)]
struct Bump {
    end: u64,
    offset: u64,
}

impl FrameAllocator for Bump {
    #[inline]
    fn alloc_frame(&self) -> Option<PhysAddr> {
        let frame = NEXT.get();
        if frame == self.end {
            return None;
        }
        NEXT.set(frame + FRAME);
        Some(PhysAddr::from_usize(frame as usize))
    }

    fn dealloc_frame(&self, _: PhysAddr) {}

    #[inline]
    fn phys_to_virt(&self, pa: PhysAddr) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut((pa.as_usize() as u64).wrapping_add(self.offset) as usize)
    }
}

/// Maps the case's RAM by one call.
///
/// # Errors
/// The crate's own.
pub fn build(case: Case, memory: &mut TableMemory<'_>) -> Result<Run> {
    let mapping = case.mapping(Leaves::Blocks);
    let config = MapConfig {
        vaddr: VirtAddr::from_usize(mapping.va.0 as usize),
        paddr: PhysAddr::from_usize(mapping.pa.0 as usize),
        size: mapping.len as usize,
        pte: ATTRIBUTES,
        allow_huge: case.leaf == LeafKind::Block,
        flush: false,
    };
    NEXT.set(memory.frames().start.0);
    let frames = Bump { end: memory.frames().end.0, offset: memory.offset() };
    Run::timed(|| {
        let table = PageTable::<FourLevels, _>::new(frames).map_err(named)?;
        // Dropping the table would walk the whole tree to free it, which is not part of building
        // it.
        let mut table = ManuallyDrop::new(table);
        table.map(&config).map_err(named)?;
        Ok(Pa(table.root_paddr().as_usize() as u64))
    })
}

/// Builds the map, then changes it by one call.
///
/// # Errors
/// The crate's own.
pub fn protect(case: Case, memory: &mut TableMemory<'_>) -> Result<Run> {
    let root = build(case, memory)?.root;
    let mapping = case.mapping(Leaves::Blocks);
    let frames = Bump { end: memory.frames().end.0, offset: memory.offset() };
    let root_frame = PhysAddr::from_usize(root.0 as usize);
    // SAFETY: the root table of the tree that was just built with frames of the same memory.
    let mut table = unsafe { PageTableRef::<FourLevels, _>::from_paddr(root_frame, frames) };
    let start = VirtAddr::from_usize(mapping.va.0 as usize);
    TLBIS.set(0);
    let run = Run::timed(|| {
        table.protect_region(start, mapping.len as usize, READ_ONLY_ATTRIBUTES).map_err(named)?;
        Ok::<_, anyhow::Error>(root)
    })?;
    Ok(Run { tlbis: TLBIS.get(), ..run })
}

fn named(error: ::page_table_generic::PagingError) -> anyhow::Error {
    anyhow!("page-table-generic: {error}")
}
