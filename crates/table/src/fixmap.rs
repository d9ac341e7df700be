//! The fixmap: virtual addresses reserved for short mappings of any frame, one page for each slot.
//!
//! Another frame in the same slot is another output address, so it always needs break-before-make:
//! the slot's PTE is cleared and its translation invalidated before the next PTE is stored (Arm ARM
//! D8.16.1, RWHZWS).

use core::ops::Range;
use core::ptr::NonNull;

use linmap_vmsa::tlbi::VaOperand;
use linmap_vmsa::{Attributes, Descriptor, Geometry, Level, Pa, Va};

use crate::cpu::{Cpu, Dsb, Tlbi, store_valid};
use crate::window::TableWindow;

/// The live table of pages whose entries are the slots.
#[derive(Debug)]
pub struct Fixmap {
    geometry: Geometry,
    ptes: NonNull<u64>,
    base: Va,
    /// How many slots there are.
    count: usize,
}

impl Fixmap {
    /// The fixmap whose slots are the entries of the table of pages at `ptes`, mapped from `base`
    /// on.
    ///
    /// # Safety
    /// `ptes` must point to a live table at level 3 that this value alone changes from now on and
    /// that translates from `base`, and all its entries must be invalid and held by no TLB.
    pub const unsafe fn new(geometry: Geometry, ptes: NonNull<u64>, base: Va) -> Self {
        Self { geometry, ptes, base, count: geometry.entries(Level::L3) }
    }

    /// Returns how many slots there are.
    #[inline]
    pub const fn slot_count(&self) -> usize {
        self.count
    }

    /// Returns whether nothing is mapped in `slot`, which must exist.
    ///
    /// # Panics
    /// If the slot does not exist.
    #[inline]
    pub fn is_free(&self, slot: usize) -> bool {
        // SAFETY: `pte` gives an entry of the live table, which walkers may read: one volatile
        // load.
        !Descriptor(unsafe { self.pte(slot).read_volatile() }).is_valid()
    }

    /// Returns the first of `slots` in which something is mapped, or that does not exist.
    #[inline]
    pub fn first_unusable(&self, slots: Range<usize>) -> Option<usize> {
        let end = slots.end.min(self.count);
        // SAFETY: the slots are entries of the live table, which walkers may read: volatile loads.
        let is_free = |slot: usize| !Descriptor(unsafe { self.ptes.add(slot).read_volatile() }).is_valid();
        let used = (slots.start..end).find(|slot| !is_free(*slot));
        used.or_else(|| (end < slots.end).then_some(end.max(slots.start)))
    }

    fn pte(&self, slot: usize) -> NonNull<u64> {
        assert!(slot < self.slot_count(), "fixmap slot {slot} does not exist");
        // SAFETY: the table has this many entries.
        unsafe { self.ptes.add(slot) }
    }

    /// The address at which `slot` is mapped.
    pub fn address(&self, slot: usize) -> Va {
        Va(self.base.0 + (slot as u64 * self.geometry.page_bytes()))
    }

    /// Maps the frame `pa` in the free slot `slot`: one store, DSB ISHST, ISB.
    ///
    /// ```compile_fail,E0133
    /// # use linmap_table::{Fixmap, cpu::Cpu};
    /// # use linmap_vmsa::{Attributes, Pa};
    /// fn map(fixmap: &mut Fixmap, cpu: &mut impl Cpu) {
    ///     let _ = fixmap.map(cpu, 0, Pa(0xdead_0000), Attributes::KERNEL_DATA);
    /// }
    /// ```
    ///
    /// # Safety
    /// The frame is memory that may be accessed as `attributes` say, by speculation too. Nothing
    /// accesses it through a Rust reference as long as the slot is mapped.
    ///
    /// # Panics
    /// If the slot is in use.
    #[inline]
    pub unsafe fn map<C: Cpu>(
        &mut self,
        cpu: &mut C,
        slot: usize,
        pa: Pa,
        attributes: Attributes,
    ) -> NonNull<u64> {
        let pte = self.pte(slot);
        let descriptor = Descriptor::page(self.geometry, pa, attributes);
        // SAFETY: `pte` gives an entry of the live table that only `self` changes, and the caller
        // promises what it maps. From then on something is mapped at the slot's address.
        unsafe {
            assert!(!Descriptor(pte.read_volatile()).is_valid(), "fixmap slot {slot} is in use");
            store_valid(cpu, pte, descriptor);
            cpu.reach(self.address(slot))
        }
    }

    /// Unmaps `slot` and invalidates its translation everywhere: one store, DSB ISHST, TLBI, DSB
    /// ISH, ISB. The first DSB also completes whatever was written through the slot.
    #[inline]
    pub fn clear<C: Cpu>(&mut self, cpu: &mut C, slot: usize) {
        self.clear_all(cpu, slot..slot + 1);
    }

    /// Unmaps the slots in `slots` and invalidates their translations everywhere, one TLBI a slot
    /// between one pair of DSBs.
    #[inline]
    pub fn clear_all<C: Cpu>(&mut self, cpu: &mut C, slots: Range<usize>) {
        for slot in slots.clone() {
            // SAFETY: `pte` gives an entry of the live table that only `self` changes.
            unsafe { cpu.store(self.pte(slot), Descriptor::INVALID) };
        }
        cpu.dsb(Dsb::Ishst);
        for slot in slots {
            cpu.tlbi(Tlbi::LastLevelByVa(VaOperand::any_asid(self.address(slot))));
        }
        cpu.dsb(Dsb::Ish);
        cpu.isb();
    }
}

/// Table frames reached through one fixmap slot a level, cleared after every use.
///
/// ```
/// use linmap_table::cpu::Cpu;
/// use linmap_table::{Fixmap, FixmapWindow, read};
/// use linmap_vmsa::{Descriptor, Level, Pa};
///
/// /// Reads the first entry of the table of pages in `frame`.
/// ///
/// /// # Safety
/// /// There is a table in `frame`, and nothing else accesses it. The slots 0 to 4 are free.
/// unsafe fn first_entry(fixmap: &mut Fixmap, cpu: &mut impl Cpu, frame: Pa) -> Descriptor {
///     // SAFETY: the caller's.
///     unsafe {
///         let mut window = FixmapWindow::new(fixmap, cpu, [0, 1, 2, 3, 4]);
///         read(&mut window, Level::L3, frame, 0)
///     }
/// }
/// ```
#[derive(Debug)]
pub struct FixmapWindow<'f, C> {
    fixmap: &'f mut Fixmap,
    cpu: &'f mut C,
    slots: [usize; 5],
}

impl<'f, C: Cpu> FixmapWindow<'f, C> {
    /// Uses one of `slots` for each level: the first for level 3, the last for level −1.
    ///
    /// The window reaches every frame of memory.
    ///
    /// # Safety
    /// Nothing else accesses the frames that are opened while they are open.
    pub const unsafe fn new(fixmap: &'f mut Fixmap, cpu: &'f mut C, slots: [usize; 5]) -> Self {
        Self { fixmap, cpu, slots }
    }

    fn slot(&self, level: Level) -> usize {
        self.slots[level.above_pages() as usize]
    }
}

// SAFETY: `map` makes the frame readable and writable at the slot's address until `close` clears
// the slot; by the contract of `new` nothing else accesses it.
unsafe impl<C: Cpu> TableWindow for FixmapWindow<'_, C> {
    unsafe fn open(&mut self, level: Level, table: Pa) -> NonNull<u64> {
        let slot = self.slot(level);
        // SAFETY: the frame is one that the window reaches, by the caller's promise: memory.
        unsafe { self.fixmap.map(self.cpu, slot, table, Attributes::KERNEL_DATA) }
    }

    fn close(&mut self, level: Level) {
        let slot = self.slot(level);
        self.fixmap.clear(self.cpu, slot);
    }
}
