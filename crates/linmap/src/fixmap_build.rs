//! The published builders: live tables written through fixmap slots, in five steps of one walk.
//!
//! Every table is mapped in its level's slot before it is written and unmapped afterwards, which
//! costs a broadcast TLBI. The steps differ in how often that happens and where barriers stand.
//! Each step does this for a table of 512 page entries, besides linking it (one store, DSB ISHST,
//! ISB):
//!
//! | step | slot uses | barriers for each entry | zeroed |
//! |---|---|---|---|
//! | base | 1 + 32, one for each contiguous run | DSB ISHST, ISB | in a use of its own |
//! | no-cont-remap | 1 + 1 | DSB ISHST, ISB | in a use of its own |
//! | batch-barriers | 1 + 1 | none | in a use of its own |
//! | no-alloc-remap | 1 | none | in the same use, then DSB ISHST |
//! | lazy-unmap | 1 of several, cleared together | none | in the same use, then DSB ISHST |
//!
//! A slot use begins with a store, DSB ISHST and ISB, and ends with a store, DSB ISHST, TLBI, DSB
//! ISH and ISB. The slots of lazy-unmap share the two DSBs and the last ISB.
//!
//! The steps reproduce published figures. On an error the map stays partly built.

use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::slice;

use linmap_table::cpu::{Cpu, Dsb, store_valid};
use linmap_table::{
    Built, EntryInUse, Fixmap, FrameSource, Leaves, Mapping, Mappings, clear, contiguous_part,
};
use linmap_vmsa::{Attributes, Decoded, Descriptor, Geometry, Level, Pa, Va, leaf_type};

use crate::build_error::BuildError;
use crate::slots::BuilderSlots;
use crate::step::FixmapStep;

/// Builds the linear map into the live root table `root` through fixmap slots.
///
/// # Errors
/// [`BuildError`]. What was mapped before stays mapped.
///
/// # Safety
/// TTBR1 leads to `root`, and nothing else changes the tables below it. The frames of `frames` and
/// the tables that the mappings touch are memory that nothing else accesses. The slots are free.
pub unsafe fn build_by_fixmap<C: Cpu, F: FrameSource>(
    step: FixmapStep,
    mappings: &Mappings<'_>,
    root: Pa,
    slots: &BuilderSlots,
    fixmap: &mut Fixmap,
    cpu: &mut C,
    frames: &mut F,
) -> Result<Built, BuildError> {
    let geometry = mappings.geometry();
    let level = geometry.start_level();
    let mut walk = Walk { geometry, step, slots, fixmap, cpu, frames, lazy: 0, built: Built::default() };
    let table = walk.open(level, root);
    let mut result = Ok(());
    for mapping in mappings.list() {
        result = walk.entries(table, root, level, *mapping);
        walk.clear_lazy();
        if result.is_err() {
            break;
        }
    }
    walk.close(level);
    result.map(|()| walk.built)
}

struct Walk<'a, C, F> {
    geometry: Geometry,
    step: FixmapStep,
    slots: &'a BuilderSlots,
    fixmap: &'a mut Fixmap,
    cpu: &'a mut C,
    frames: &'a mut F,
    /// Slots for leaf tables in use.
    lazy: usize,
    built: Built,
}

impl<C: Cpu, F: FrameSource> Walk<'_, C, F> {
    fn slot(&self, level: Level) -> usize {
        self.slots.tables[level.above_pages() as usize]
    }

    fn open(&mut self, level: Level, table: Pa) -> NonNull<u64> {
        let slot = if level == Level::L3 && self.step == FixmapStep::LazyUnmap {
            if self.lazy == self.slots.leaf_tables.len() {
                self.clear_lazy();
            }
            self.lazy += 1;
            self.slots.leaf_tables.start + self.lazy - 1
        } else {
            self.slot(level)
        };
        // SAFETY: the walk opens tables of the tree and frames fresh from the source, which nothing
        // else accesses (the contract of `build_by_fixmap`).
        unsafe { self.fixmap.map(self.cpu, slot, table, Attributes::KERNEL_DATA) }
    }

    fn close(&mut self, level: Level) {
        if level != Level::L3 || self.step != FixmapStep::LazyUnmap {
            let slot = self.slot(level);
            self.fixmap.clear(self.cpu, slot);
        }
    }

    fn clear_lazy(&mut self) {
        if self.lazy > 0 {
            let first = self.slots.leaf_tables.start;
            self.fixmap.clear_all(self.cpu, first..first + self.lazy);
            self.lazy = 0;
        }
    }

    /// Zeroes the open table at `table`.
    fn zero(&self, table: NonNull<u64>) {
        let entries = self.geometry.granule().entries();
        // SAFETY: a slot maps a whole granule, which no tree holds yet.
        clear(unsafe { slice::from_raw_parts_mut(table.cast::<MaybeUninit<u64>>().as_ptr(), entries) });
    }

    /// Makes one entry valid.
    ///
    /// # Safety
    /// `entry` must be an invalid entry of an open table. The stores to a table that it leads to
    /// must have been ordered.
    #[inline]
    unsafe fn store(&mut self, entry: NonNull<u64>, descriptor: Descriptor) {
        // SAFETY: the caller's; the mappings are memory that may be mapped (the contract of
        // `build_by_fixmap`).
        unsafe { store_valid(self.cpu, entry, descriptor) };
    }

    /// Maps `part`, which the open table at `level` translates, by its entries or by tables below.
    fn entries(
        &mut self,
        table: NonNull<u64>,
        frame: Pa,
        level: Level,
        part: Mapping,
    ) -> Result<(), BuildError> {
        let size = self.geometry.entry_bytes(level);
        if level == Level::L3 {
            return self.pages(table, frame, part);
        }
        let (run_start, run_len) = runs(self.geometry, level, part);
        let single = Descriptor(part.attributes.bits(self.geometry) | leaf_type(level));
        let mut rest = part;
        while rest.len > 0 {
            let here = first(rest, size);
            let index = self.geometry.index(here.va, level);
            // SAFETY: an index is below the number of entries of the open table.
            let entry = unsafe { table.add(index) };
            let aligned = here.len == size && here.pa.0 & (size - 1) == 0;
            if aligned && rest.leaves != Leaves::Pages && self.geometry.has_leaf(level) {
                let contiguous = here.va.0.wrapping_sub(run_start.0) < run_len;
                let leaf = if contiguous { single.contiguous() } else { single };
                // SAFETY: one entry, of the open table.
                unsafe { check_vacant(entry, 1, frame, index, here.va, size) }?;
                // SAFETY: as above.
                unsafe { self.store(entry, leaf.at(self.geometry, here.pa)) };
                self.built.entries += 1;
                self.built.bytes += size;
            } else if let Some(next) = level.next() {
                self.below(entry, frame, index, level, next, here)?;
            }
            rest = advance(rest, here.len);
        }
        Ok(())
    }

    /// Maps `part` in the table that `entry` leads to. Makes the table if the entry is invalid.
    fn below(
        &mut self,
        entry: NonNull<u64>,
        frame: Pa,
        index: usize,
        level: Level,
        next: Level,
        part: Mapping,
    ) -> Result<(), BuildError> {
        // SAFETY: `entry` is an entry of an open table; walkers may read it, so it is one volatile
        // load.
        let descriptor = Descriptor(unsafe { entry.read_volatile() });
        let (child, fresh) = match descriptor.decode(self.geometry, level) {
            Decoded::Table(child) => (child, false),
            Decoded::Leaf(_) => {
                return Err(EntryInUse { va: part.va, table: frame, index, found: descriptor }.into());
            }
            Decoded::Invalid => (self.frames.alloc()?, true),
        };
        let link = Descriptor::table(self.geometry, child);
        self.built.tables += u64::from(fresh);
        if self.step >= FixmapStep::NoAllocRemap {
            let table = self.open(next, child);
            if fresh {
                self.zero(table);
                self.cpu.dsb(Dsb::Ishst);
                // SAFETY: `entry` is an entry of an open table.
                unsafe { self.store(entry, link) };
            }
            let result = self.entries(table, child, next, part);
            self.close(next);
            return result;
        }
        if fresh {
            let table = self.open(Level::L3, child);
            self.zero(table);
            self.close(Level::L3);
            // SAFETY: as above.
            unsafe { self.store(entry, link) };
        }
        // The base step maps the table again for every contiguous run that it could hold.
        let chunk = match self.geometry.new_run_entries(next) {
            Some(run) if self.step == FixmapStep::Base => run as u64 * self.geometry.entry_bytes(next),
            _ => self.geometry.entry_bytes(level),
        };
        let mut rest = part;
        while rest.len > 0 {
            let now = first(rest, chunk);
            let table = self.open(next, child);
            let result = self.entries(table, child, next, now);
            self.close(next);
            result?;
            rest = advance(rest, now.len);
        }
        Ok(())
    }

    /// Maps `part` by pages in the open table.
    fn pages(&mut self, table: NonNull<u64>, frame: Pa, part: Mapping) -> Result<(), BuildError> {
        let geometry = self.geometry;
        let size = geometry.entry_bytes(Level::L3);
        let index = geometry.index(part.va, Level::L3);
        let count = (part.len / size) as usize;
        // SAFETY: the part lies in what this table translates, so its first entry is one of the
        // open table's.
        let entries = unsafe { table.add(index) };
        // SAFETY: the whole part lies in this table, so these are `count` entries of the open
        // table.
        unsafe { check_vacant(entries, count, frame, index, part.va, size) }?;
        let (head, body) = contiguous_part(geometry, Level::L3, part, count).unwrap_or((count, 0));
        let single = Descriptor::page(geometry, Pa(0), part.attributes);
        for (from, to, contiguous) in
            [(0, head, false), (head, head + body, true), (head + body, count, false)]
        {
            if from == to {
                continue;
            }
            let pa = Pa(part.pa.0 + from as u64 * size);
            let leaf = if contiguous { single.contiguous() } else { single }.at(geometry, pa).0;
            // SAFETY: `from..to` lies within the `count` entries.
            let run = unsafe { entries.add(from) };
            if self.step < FixmapStep::BatchBarriers {
                for i in 0..to - from {
                    // SAFETY: as above.
                    unsafe { self.store(run.add(i), Descriptor(leaf + i as u64 * size)) };
                }
            } else {
                // SAFETY: as above. The entries are invalid, so a walker may see the stores at any
                // time before the barriers at the end of the slot's use.
                unsafe { self.cpu.store_run(run, to - from, Descriptor(leaf), size) };
            }
        }
        self.built.entries += count as u64;
        self.built.bytes += part.len;
        Ok(())
    }
}

/// Checks that the `count` entries from `entries` on are invalid. They begin at `index` of the
/// table in `frame`; the first is for `va`, and each for `size` bytes.
///
/// # Safety
/// All must be entries of an open table.
unsafe fn check_vacant(
    entries: NonNull<u64>,
    count: usize,
    frame: Pa,
    index: usize,
    va: Va,
    size: u64,
) -> Result<(), EntryInUse> {
    for i in 0..count {
        // SAFETY: the caller's.
        let found = Descriptor(unsafe { entries.add(i).read_volatile() });
        if found.is_valid() {
            let va = Va(va.0 + i as u64 * size);
            return Err(EntryInUse { va, table: frame, index: index + i, found });
        }
    }
    Ok(())
}

/// Returns the beginning of `mapping`, up to the next multiple of `size` in VA.
fn first(mapping: Mapping, size: u64) -> Mapping {
    Mapping { len: mapping.len.min(size - (mapping.va.0 & (size - 1))), ..mapping }
}

/// Returns `mapping` without its first `bytes`.
pub(crate) fn advance(mapping: Mapping, bytes: u64) -> Mapping {
    Mapping {
        va: Va(mapping.va.0.wrapping_add(bytes)),
        pa: Pa(mapping.pa.0 + bytes),
        len: mapping.len - bytes,
        ..mapping
    }
}

/// Returns where the whole contiguous runs of blocks of `part` at `level` begin, and how many bytes
/// they cover. The part may begin and end within an entry of that level, which then gets smaller
/// leaves.
fn runs(geometry: Geometry, level: Level, part: Mapping) -> (Va, u64) {
    let none = (part.va, 0);
    let size = geometry.entry_bytes(level);
    let skip = part.va.0.wrapping_neg() & (size - 1);
    if skip >= part.len {
        return none;
    }
    let blocks = advance(part, skip);
    let shift = geometry.shift(level);
    match contiguous_part(geometry, level, blocks, (blocks.len >> shift) as usize) {
        Some((head, body)) => (Va(blocks.va.0.wrapping_add((head as u64) << shift)), (body as u64) << shift),
        None => none,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_contiguous_only_when_all_of_it_lies_in_the_part() {
        let part = |va, len| Mapping {
            va: Va(va),
            pa: Pa(va),
            len,
            attributes: Attributes::KERNEL_DATA,
            leaves: Leaves::ContiguousBlocks,
        };
        let found = |va, len| {
            let (start, len) = runs(Geometry::K4_48, Level::L2, part(va, len));
            (len > 0).then_some((start.0, len))
        };
        const RUN: u64 = 32 << 20;
        // The part begins and ends within a block. If both ends were rounded in the same direction,
        // it would be one run longer.
        assert_eq!(found(RUN - 0x30_0000, RUN + 0x20_0000), None);
        assert_eq!(found(RUN - 0x30_0000, RUN + 0x30_0000), Some((RUN, RUN)));
        assert_eq!(found(RUN, 3 * RUN + 0x1000), Some((RUN, 3 * RUN)));
        assert_eq!(found(RUN + 0x1000, 0x1000), None);
        assert_eq!(found(RUN - 0x1000, 0x800), None);
    }
}
