//! aarch64-paging. Maps are built through its root table: the interface for tables that are not
//! live, without TLB maintenance. They are changed through its `Mapping`, never activated, which
//! maintains no TLBs either.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use ::aarch64_paging::descriptor::{El1Attributes, PhysicalAddress, UpdatableDescriptor};
use ::aarch64_paging::paging::{
    Constraints, El1And0, MemoryRegion, PageTable, RootTable, Translation, VaRange,
};
use ::aarch64_paging::{MapError, Mapping};
use anyhow::{Result, anyhow};
use linmap_table::Leaves;
use linmap_vmsa::Pa;

use super::ATTRIBUTES;
use crate::arena::{BumpFrames, TableMemory};
use crate::case::{Case, LeafKind};
use crate::run::Run;

type Table = PageTable<El1Attributes>;

/// Tables from bump frames, each made ready by `PREPARE`.
struct Tables<'m, P> {
    frames: BumpFrames<'m>,
    offset: u64,
    prepare: P,
}

impl<P: Fn(NonNull<Table>)> Translation<El1Attributes> for Tables<'_, P> {
    #[inline]
    fn allocate_table(&mut self) -> (NonNull<Table>, PhysicalAddress) {
        // The trait has no error; the frames are as many as the map takes.
        let Some((frame, pointer)) = self.frames.take() else { panic!("more tables than the map takes") };
        (self.prepare)(pointer.cast());
        (pointer.cast(), PhysicalAddress(frame.0 as usize))
    }

    unsafe fn deallocate_table(&mut self, _: NonNull<Table>) {}

    #[inline]
    fn physical_to_virtual(&self, pa: PhysicalAddress) -> NonNull<Table> {
        let address = (pa.0 as u64).wrapping_add(self.offset) as usize;
        let Some(pointer) = NonNull::new(std::ptr::with_exposed_provenance_mut(address)) else {
            panic!("a table at address 0");
        };
        pointer
    }
}

/// Each table is zeroed when it is allocated, as the crate asks of a kernel.
///
/// # Errors
/// The crate's own.
pub fn build_zeroing(case: Case, memory: &mut TableMemory<'_>) -> Result<Run> {
    build(case, memory, |table| {
        // SAFETY: the frame was handed out to this table alone and is one table long.
        unsafe { table.write_bytes(0, 1) };
    })
}

/// The tables were zeroed before the clock started.
///
/// # Errors
/// The crate's own.
pub fn build_in_zeroed(case: Case, memory: &mut TableMemory<'_>) -> Result<Run> {
    build(case, memory, |_| {})
}

fn build(case: Case, memory: &mut TableMemory<'_>, prepare: impl Fn(NonNull<Table>)) -> Result<Run> {
    let Request { region, pa, flags, constraints } = Request::of(case);
    let offset = memory.offset();
    let tables = Tables { frames: BumpFrames::new(memory), offset, prepare };
    Run::timed(|| {
        // Dropping the root table would walk the whole tree to free it, which is not part of
        // building it.
        let mut root = ManuallyDrop::new(RootTable::with_va_range(tables, 0, El1And0, VaRange::Upper));
        root.map_range(&region, pa, flags, constraints).map_err(named)?;
        Ok(Pa(root.to_physical().0 as u64))
    })
}

/// Builds the map, then changes every descriptor by one call.
///
/// # Errors
/// The crate's own.
pub fn protect(case: Case, memory: &mut TableMemory<'_>) -> Result<Run> {
    let Request { region, pa, flags, constraints } = Request::of(case);
    memory.set(0);
    let offset = memory.offset();
    let tables = Tables { frames: BumpFrames::new(memory), offset, prepare: |_| {} };
    let mut map = ManuallyDrop::new(Mapping::with_asid_and_va_range(tables, 0, 0, El1And0, VaRange::Upper));
    map.map_range(&region, pa, flags, constraints).map_err(named)?;
    Run::timed(|| {
        map.modify_range(&region, &|_: &MemoryRegion, descriptor: &mut UpdatableDescriptor<'_, _>| {
            descriptor.modify_flags(El1Attributes::READ_ONLY, El1Attributes::empty())
        })
        .map_err(named)?;
        Ok(Pa(map.root_address().0 as u64))
    })
}

/// A case as the crate is asked for it.
struct Request {
    region: MemoryRegion,
    pa: PhysicalAddress,
    flags: El1Attributes,
    constraints: Constraints,
}

impl Request {
    fn of(case: Case) -> Self {
        let mapping = case.mapping(Leaves::Blocks);
        let constraints = match case.leaf {
            LeafKind::Page => Constraints::NO_BLOCK_MAPPINGS | Constraints::NO_CONTIGUOUS_HINT,
            LeafKind::Block => Constraints::NO_CONTIGUOUS_HINT,
        };
        Self {
            region: MemoryRegion::new(mapping.va.0 as usize, (mapping.va.0 + mapping.len) as usize),
            pa: PhysicalAddress(mapping.pa.0 as usize),
            flags: El1Attributes::from_bits_retain(ATTRIBUTES as usize) | El1Attributes::VALID,
            constraints,
        }
    }
}

fn named(error: MapError) -> anyhow::Error {
    anyhow!("aarch64-paging: {error}")
}
