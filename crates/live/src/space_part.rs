//! Parts of a space that several editors change at the same time.
//!
//! A part is a range of one table, its *top*: no table above the top changes while there are parts,
//! since they borrow the space. Parts of one top are divided between entries, and never inside of
//! what can be one contiguous run. So an entry of the top, and every table below it, belongs to one
//! part: its editor reads and stores these alone. The top itself is not freed or replaced, because
//! the plans of a part begin there.

use core::marker::PhantomData;

use linmap_table::cpu::Cpu;
use linmap_table::{FrameSource, Mappings, TableWindow};
use linmap_vmsa::{Geometry, Level, MemoryType, Pa, Va, VaRange};
use thiserror::Error;

use crate::address_space::{AddressSpace, SpaceError, Tools, Translation};
use crate::apply::EditCounts;
use crate::change::Change;
use crate::maintenance::Maintenance;
use crate::tree::LiveTree;
use crate::tree_context::TreeContext;

/// A part of an [`AddressSpace`] with an editor of its own.
///
/// Each part may be changed by another thread or CPU at the same time. A part refuses addresses
/// outside its range, and no edit of a part changes or frees a table that another part uses. An
/// edit of a part does what the same call of [`AddressSpace`] does; the whole space can be edited
/// again when its parts are dropped.
///
/// What an editor needs to be independent of the others:
/// - a window and a CPU of its own. A window that maps tables through slots has its own slots;
/// - frames of the one source of the space. Each editor passes a handle of it, to which the source
///   gives access by a lock, for example: an editor frees tables that another one allocated;
/// - the ASID that the space has: see [`set_asid`](Self::set_asid).
///
/// A fault that must be retried waits for the editor of its address, or for all of them.
///
/// ```
/// use std::sync::{Mutex, PoisonError};
/// use std::thread;
///
/// use linmap_live::{AddressSpace, SpaceError, SpacePart, Step, Tools};
/// use linmap_table::cpu::Cpu;
/// use linmap_table::{FrameSource, Leaves, Mapping, Mappings, OutOfFrames, TableWindow};
/// use linmap_vmsa::{Attributes, Pa, Va};
///
/// /// The frames of all editors.
/// struct Shared<'f, F>(&'f Mutex<F>);
///
/// // SAFETY: passes on what the one source does.
/// unsafe impl<F: FrameSource> FrameSource for Shared<'_, F> {
///     fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
///         self.0.lock().unwrap_or_else(PoisonError::into_inner).alloc()
///     }
///     unsafe fn free(&mut self, frame: Pa) {
///         // SAFETY: the caller's.
///         unsafe { self.0.lock().unwrap_or_else(PoisonError::into_inner).free(frame) };
///     }
/// }
///
/// /// Maps a page at `va`, one of the part, to `pa`.
/// fn map_page(
///     part: &mut SpacePart<'_>,
///     (va, pa): (Va, Pa),
///     mut frames: impl FrameSource,
///     (mut window, mut cpu): (impl TableWindow, impl Cpu),
/// ) -> Result<(), SpaceError> {
///     let attributes = Attributes::USER_DATA;
///     let list = [Mapping { va, pa, len: 4096, attributes, leaves: Leaves::Pages }];
///     let mappings = Mappings::new(part.geometry(), &list).unwrap();
///     let (window, frames, cpu) = (&mut window, &mut frames, &mut cpu);
///     let mut tools = Tools { window, frames, cpu, steps: &mut [Step::Isb; 64] };
///     // SAFETY: the frame is user space's own.
///     unsafe { part.map(&mappings, &mut tools) }.map(drop)
/// }
///
/// /// Two threads fill the space below and above 512 GiB.
/// fn fill<F: FrameSource + Send>(
///     space: &mut AddressSpace,
///     frames: &Mutex<F>,
///     machine: impl Fn() -> (OffsetWindow, HostCpu) + Sync,
/// ) {
///     let (mut low, mut high) = space.divide(Va(1 << 39)).unwrap();
///     thread::scope(|threads| {
///         threads.spawn(|| {
///             let page = (Va(0x40_0000), Pa(0x8000_0000));
///             map_page(&mut low, page, Shared(frames), machine()).unwrap();
///         });
///         threads.spawn(|| {
///             let page = (Va(0x7fff_f000_0000), Pa(0x8000_1000));
///             map_page(&mut high, page, Shared(frames), machine()).unwrap();
///         });
///     });
/// }
/// # use std::ptr::NonNull;
/// # use linmap_table::OffsetWindow;
/// # use linmap_table::cpu::{Dsb, Tlbi};
/// # use linmap_vmsa::id::BbmLevel;
/// # use linmap_vmsa::{Descriptor, Geometry};
/// # #[repr(align(4096))]
/// # struct Frame([u64; 512]);
/// # struct HostFrames;
/// # unsafe impl FrameSource for HostFrames {
/// #     fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
/// #         let frame = Box::leak(Box::new(Frame([0; 512])));
/// #         Ok(Pa(frame.0.as_mut_ptr().expose_provenance() as u64))
/// #     }
/// #     unsafe fn free(&mut self, _frame: Pa) {}
/// # }
/// # struct HostCpu;
/// # unsafe impl Cpu for HostCpu {
/// #     type Frames = OffsetWindow;
/// #     unsafe fn store(&mut self, entry: NonNull<u64>, descriptor: Descriptor) {
/// #         unsafe { entry.write_volatile(descriptor.0) }
/// #     }
/// #     unsafe fn compare_exchange(
/// #         &mut self,
/// #         entry: NonNull<u64>,
/// #         expected: Descriptor,
/// #         new: Descriptor,
/// #     ) -> Result<(), Descriptor> {
/// #         unsafe { linmap_table::cpu::exchange_entry(entry, expected, new) }
/// #     }
/// #     unsafe fn reach(&mut self, va: Va) -> NonNull<u64> {
/// #         NonNull::new(va.0 as *mut u64).unwrap()
/// #     }
/// #     unsafe fn frames_at(&mut self, offset: u64) -> OffsetWindow {
/// #         unsafe { OffsetWindow::new(offset) }
/// #     }
/// #     fn dsb(&mut self, _: Dsb) {}
/// #     fn isb(&mut self) {}
/// #     fn tlbi(&mut self, _: Tlbi) {}
/// #     unsafe fn clean_and_invalidate(&mut self, _: Va, _: u64) {}
/// #     unsafe fn write_ttbr0(&mut self, _: u64) {}
/// #     unsafe fn write_ttbr1(&mut self, _: u64) {}
/// #     unsafe fn write_tcr(&mut self, _: u64) {}
/// # }
/// # let root = HostFrames.alloc().unwrap();
/// # let mut space = unsafe { AddressSpace::user(Geometry::K4_48, root, 1, BbmLevel::L0) };
/// # let host = || (unsafe { OffsetWindow::new(0) }, HostCpu);
/// # fill(&mut space, &Mutex::new(HostFrames), host);
/// # let (mut window, _) = host();
/// # for (va, pa) in [(0x40_0000, 0x8000_0000), (0x7fff_f000_0000, 0x8000_1000)] {
/// #     assert_eq!(space.translate(Va(va), &mut window).unwrap().pa, Pa(pa));
/// # }
/// ```
#[derive(Debug)]
pub struct SpacePart<'s> {
    pub(crate) space: AddressSpace,
    /// While there are parts nobody edits the whole space.
    borrowed: PhantomData<&'s mut AddressSpace>,
}

/// Why a space can't be divided as asked.
///
/// ```
/// use linmap_live::{AddressSpace, PartError};
/// use linmap_vmsa::id::BbmLevel;
/// use linmap_vmsa::{Geometry, Pa, Va};
///
/// // SAFETY: no CPU of this example walks the tree, and nothing edits it.
/// let mut space = unsafe { AddressSpace::user(Geometry::K4_48, Pa(0x8000_0000), 1, BbmLevel::L0) };
/// // Both parts would use the tables of the first 512 GiB.
/// let refused = space.divide(Va(0x8000_0000)).unwrap_err();
/// assert!(matches!(refused, PartError::SharedTable { unit, .. } if unit == 512 << 30));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum PartError {
    /// The range is empty, or leaves what is divided; or one of two parts would be empty.
    #[error("{range} is empty, or not inside {whole}, which is divided")]
    Outside {
        /// The part asked for.
        range: VaRange,
        /// What is divided.
        whole: VaRange,
    },
    /// Two parts would share an entry, a table below it, or a contiguous run. The boundary must be
    /// a multiple of what an entry of the lowest table for both sides translates, or of what a
    /// contiguous run of its entries does.
    #[error(
        "a boundary at {at} is not a multiple of {unit:#x}, an entry or a contiguous run of the level \
         {level} table that both sides share"
    )]
    SharedTable {
        /// The boundary.
        at: Va,
        /// The bytes that it must be a multiple of.
        unit: u64,
        /// The level of the table.
        level: Level,
    },
}

impl AddressSpace {
    /// Divides the space at `at` into two parts, each with an editor of its own.
    ///
    /// The boundary is a multiple of what one entry of the root translates, or of what a contiguous
    /// run of its entries does where the root may have leaves: 512 GiB in a space of 48 bits with
    /// pages of 4K, 16 GiB in one of 39 bits. For finer parts see [`part`](Self::part).
    ///
    /// # Errors
    /// [`PartError`]. The space is as it was.
    pub fn divide(&mut self, at: Va) -> Result<(SpacePart<'_>, SpacePart<'_>), PartError> {
        divide(&self.tree.context, at)
    }

    /// Returns the part `range` of the space. Its top is the lowest table that translates all of
    /// it, and the ends of the range are multiples of what an entry of that table translates, or of
    /// what a contiguous run of its entries does. [`SpacePart::divide`] divides it there again: at
    /// multiples of 32 MiB in a range of 1 GiB, with pages of 4K, if it has a table of its own.
    ///
    /// # Errors
    /// [`PartError`]. The space is as it was.
    pub fn part<W: TableWindow>(
        &mut self,
        range: VaRange,
        window: &mut W,
    ) -> Result<SpacePart<'_>, PartError> {
        part(&self.tree.context, range, window)
    }
}

impl SpacePart<'_> {
    /// Divides the part at `at` into two parts, each with an editor of its own. The boundary is a
    /// multiple of what one entry of the part's top translates, or of what a contiguous run of its
    /// entries does.
    ///
    /// # Errors
    /// [`PartError`]. The part is as it was.
    pub fn divide(&mut self, at: Va) -> Result<(SpacePart<'_>, SpacePart<'_>), PartError> {
        divide(&self.space.tree.context, at)
    }

    /// Returns the part `range` of the part, as [`AddressSpace::part`] does.
    ///
    /// # Errors
    /// [`PartError`]. The part is as it was.
    pub fn part<W: TableWindow>(
        &mut self,
        range: VaRange,
        window: &mut W,
    ) -> Result<SpacePart<'_>, PartError> {
        part(&self.space.tree.context, range, window)
    }

    /// Returns the addresses of the part.
    pub const fn range(&self) -> VaRange {
        range_of(&self.space.tree.context)
    }

    /// Returns the geometry of the space.
    pub const fn geometry(&self) -> Geometry {
        self.space.geometry()
    }

    /// Makes invalidations of the part name `asid` from now on. If ASIDs have generations, call
    /// this before every change, with the space's present ASID.
    ///
    /// # Safety
    /// As for [`AddressSpace::set_asid`].
    pub const unsafe fn set_asid(&mut self, asid: u16) {
        // SAFETY: the caller's.
        unsafe { self.space.set_asid(asid) };
    }

    /// Returns what `va`, an address of the part, translates to, as [`AddressSpace::translate`]
    /// does. Other addresses are `None`.
    pub fn translate<W: TableWindow>(&self, va: Va, window: &mut W) -> Option<Translation> {
        self.space.translate(va, window)
    }

    /// Maps `mappings`, as [`AddressSpace::map`] does.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn map<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        mappings: &Mappings<'_>,
        tools: &mut Tools<'_, W, F, C>,
    ) -> Result<EditCounts, SpaceError> {
        // SAFETY: the caller's.
        unsafe { self.space.map(mappings, tools) }
    }

    /// Unmaps a range, as [`AddressSpace::unmap`] does.
    ///
    /// # Errors
    /// As there.
    pub fn unmap<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        range: VaRange,
        tools: &mut Tools<'_, W, F, C>,
    ) -> Result<EditCounts, SpaceError> {
        self.space.unmap(range, tools)
    }

    /// Changes the attributes of a range, as [`AddressSpace::protect`] does.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn protect<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        range: VaRange,
        change: Change,
        tools: &mut Tools<'_, W, F, C>,
    ) -> Result<EditCounts, SpaceError> {
        // SAFETY: the caller's.
        unsafe { self.space.protect(range, change, tools) }
    }

    /// Makes a mapped range translate to other memory, as [`AddressSpace::remap`] does.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn remap<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        range: VaRange,
        to: Pa,
        change: Change,
        tools: &mut Tools<'_, W, F, C>,
    ) -> Result<EditCounts, SpaceError> {
        // SAFETY: the caller's.
        unsafe { self.space.remap(range, to, change, tools) }
    }

    /// Changes the memory type of a range, as [`AddressSpace::set_memory_type`] does.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn set_memory_type<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        range: VaRange,
        memory: MemoryType,
        maintenance: Maintenance,
        tools: &mut Tools<'_, W, F, C>,
    ) -> Result<EditCounts, SpaceError> {
        // SAFETY: the caller's.
        unsafe { self.space.set_memory_type(range, memory, maintenance, tools) }
    }

    /// Splits the leaves in a range, as [`AddressSpace::split`] does.
    ///
    /// # Errors
    /// As there.
    pub fn split<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        range: VaRange,
        to: Level,
        tools: &mut Tools<'_, W, F, C>,
    ) -> Result<EditCounts, SpaceError> {
        self.space.split(range, to, tools)
    }

    /// Folds the leaves in a range, as [`AddressSpace::fold`] does. The top of the part stays.
    ///
    /// # Errors
    /// As there.
    pub fn fold<W: TableWindow, F: FrameSource, C: Cpu>(
        &mut self,
        range: VaRange,
        tools: &mut Tools<'_, W, F, C>,
    ) -> Result<EditCounts, SpaceError> {
        self.space.fold(range, tools)
    }
}

/// The addresses of a context. No half is as large as the address space.
const fn range_of(context: &TreeContext) -> VaRange {
    VaRange::new(Va(context.first), context.last.wrapping_sub(context.first).wrapping_add(1))
}

/// The part with this context.
const fn with_context<'s>(context: TreeContext) -> SpacePart<'s> {
    SpacePart { space: AddressSpace { tree: LiveTree { context } }, borrowed: PhantomData }
}

/// Refuses a boundary at `at` between entries that a table at `level` of the context can't have
/// apart.
fn check_boundary(context: &TreeContext, level: Level, at: u64) -> Result<(), PartError> {
    // Also where plans make no runs: an entry that has the contiguous bit is read with its run.
    let run = context.geometry.contiguous_entries(level).unwrap_or(1) as u64;
    let unit = run << context.shift(level);
    if at & (unit - 1) == 0 { Ok(()) } else { Err(PartError::SharedTable { at: Va(at), unit, level }) }
}

fn divide<'s>(context: &TreeContext, at: Va) -> Result<(SpacePart<'s>, SpacePart<'s>), PartError> {
    let TreeContext { top, first, last, .. } = *context;
    if at.0 <= first || last < at.0 {
        let range = VaRange::new(at, last.wrapping_sub(at.0).wrapping_add(1));
        return Err(PartError::Outside { range, whole: range_of(context) });
    }
    check_boundary(context, top.level, at.0)?;
    let (below, from) = (context.part(top, first, at.0 - 1), context.part(top, at.0, last));
    Ok((with_context(below), with_context(from)))
}

fn part<'s, W: TableWindow>(
    context: &TreeContext,
    range: VaRange,
    window: &mut W,
) -> Result<SpacePart<'s>, PartError> {
    let (first, last) = (range.start.0, range.start.0.wrapping_add(range.len).wrapping_sub(1));
    if range.len == 0 || last < first || first < context.first || context.last < last {
        return Err(PartError::Outside { range, whole: range_of(context) });
    }
    let top = context.lowest_of_all(window, first, last);
    check_boundary(context, top.level, first)?;
    // The end of the space is the end of its last entry.
    if last != context.last {
        check_boundary(context, top.level, last.wrapping_add(1))?;
    }
    Ok(with_context(context.part(top, first, last)))
}
