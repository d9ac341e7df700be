//! Writing detached tables: each once, entry by entry in ascending order.

use core::mem::MaybeUninit;
use core::ops::Range;
use core::ptr::NonNull;
use core::slice;

use linmap_vmsa::{Attributes, Decoded, Descriptor, Geometry, Level, Pa, Va, leaf_type};

use crate::fill::{clear, fill_leaves};
use crate::frames::{FrameSource, OutOfFrames};
use crate::mapping::{Cursor, Mapping, contiguous_part};
use crate::reachable_frames::ReachableFrames;
use crate::release::{release_below, release_children};
use crate::window::TableWindow;

/// How much was built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Built {
    /// Tables, each one granule.
    pub tables: u64,
    /// Leaf entries.
    pub entries: u64,
    /// Bytes mapped.
    pub bytes: u64,
}

impl core::ops::AddAssign for Built {
    fn add_assign(&mut self, other: Self) {
        self.tables += other.tables;
        self.entries += other.entries;
        self.bytes += other.bytes;
    }
}

/// A table that was written, with all below it.
#[derive(Debug)]
pub(crate) struct WrittenTable {
    pub table: Pa,
    /// Its entries from the first to the last that translate something.
    pub used: Range<usize>,
    pub built: Built,
}

/// Writes the root of a tree that translates from `base`, one table or several consecutive ones,
/// and everything below it, from the mappings at the cursor. On an error all frames are freed.
///
/// The entries of several tables are counted through.
#[inline(always)]
pub(crate) fn write_root<W: TableWindow, F: FrameSource>(
    mappings: &mut Cursor<'_>,
    base: Va,
    memory: &mut ReachableFrames<'_, W, F>,
) -> Result<WrittenTable, OutOfFrames> {
    let geometry = mappings.geometry();
    let level = geometry.start_level();
    if geometry.regime().is_stage_2() && geometry.root_tables() > 1 {
        return write_tables(mappings, level, base, memory);
    }
    write_table(mappings, level, base, memory)
}

/// Writes the consecutive tables at `level` of a root of stage 2.
#[cold]
#[inline(never)]
fn write_tables<W: TableWindow, F: FrameSource>(
    mappings: &mut Cursor<'_>,
    level: Level,
    base: Va,
    memory: &mut ReachableFrames<'_, W, F>,
) -> Result<WrittenTable, OutOfFrames> {
    let geometry = mappings.geometry();
    let (count, bytes) = (geometry.root_tables(), geometry.page_bytes());
    let entries = geometry.entries(level);
    let root = memory.frames.alloc_consecutive(bytes * count as u64)?;
    let frame = |nth: usize| Pa(root.0 + nth as u64 * bytes);
    let mut written = WrittenTable { table: root, used: 0..0, built: Built::default() };
    for nth in 0..count {
        let base = Va(base.0 + (((nth * entries) as u64) << geometry.shift(level)));
        match write_table_in(frame(nth), mappings, level, base, memory) {
            Ok((used, built)) => {
                written.built += built;
                if !used.is_empty() {
                    let start =
                        if written.used.is_empty() { nth * entries + used.start } else { written.used.start };
                    written.used = start..nth * entries + used.end;
                }
            }
            Err(error) => {
                let ReachableFrames { window, frames } = memory;
                // SAFETY: the tables before this one are written, and what they lead to is in
                // frames of this source, which the window reaches. The root's own frames were
                // allocated above. Nothing leads to any of them.
                unsafe {
                    for nth in 0..nth {
                        release_below(geometry, frame(nth), level, *window, *frames);
                    }
                    for nth in (0..count).rev() {
                        frames.free(frame(nth));
                    }
                }
                return Err(error);
            }
        }
    }
    Ok(written)
}

/// Writes the table at `level` that translates from `base`, and everything below it, from the
/// mappings at the cursor that lie in its reach, the first of which does. The cursor ends at the
/// first byte beyond. On an error all frames are freed.
pub(crate) fn write_table<W: TableWindow, F: FrameSource>(
    mappings: &mut Cursor<'_>,
    level: Level,
    base: Va,
    memory: &mut ReachableFrames<'_, W, F>,
) -> Result<WrittenTable, OutOfFrames> {
    let table = memory.frames.alloc()?;
    match write_table_in(table, mappings, level, base, memory) {
        Ok((used, built)) => Ok(WrittenTable { table, used, built }),
        Err(error) => {
            // SAFETY: the frame was allocated just above, and nothing leads to it.
            unsafe { memory.frames.free(table) };
            Err(error)
        }
    }
}

/// As [`write_table`], in the frame `table`, which is not freed on an error. Returns the entries
/// from the first to the last that translate something, and how much was built.
#[inline(always)]
fn write_table_in<W: TableWindow, F: FrameSource>(
    table: Pa,
    mappings: &mut Cursor<'_>,
    level: Level,
    base: Va,
    memory: &mut ReachableFrames<'_, W, F>,
) -> Result<(Range<usize>, Built), OutOfFrames> {
    let geometry = mappings.geometry();
    let ReachableFrames { window, frames } = memory;
    let first = mappings.peek().map_or(base, |mapping| mapping.va);
    let mut builder = Builder {
        geometry,
        mappings,
        window: &mut **window,
        frames: &mut **frames,
        last: first,
        built: Built::default(),
    };
    builder.table(table, level, base)?;
    let built = builder.built;
    let end = if built.entries == 0 { 0 } else { geometry.index(builder.last, level) + 1 };
    Ok((geometry.index(first, level).min(end)..end, built))
}

struct Builder<'b, 'm, W, F> {
    geometry: Geometry,
    mappings: &'b mut Cursor<'m>,
    window: &'b mut W,
    frames: &'b mut F,
    /// An address that the last leaf written translates.
    last: Va,
    built: Built,
}

impl<W: TableWindow, F: FrameSource> Builder<'_, '_, W, F> {
    /// Writes the table in frame `table`. On an error all tables below it are freed.
    fn table(&mut self, table: Pa, level: Level, base: Va) -> Result<(), OutOfFrames> {
        // SAFETY: the frame is one of the source's, which the window reaches.
        let pointer = unsafe { self.window.open(level, table) };
        self.built.tables += 1;
        let result = match level.next() {
            None => {
                self.pages(pointer, base);
                Ok(())
            }
            Some(next) => self.upper(pointer, level, next, base),
        };
        self.window.close(level);
        result
    }

    /// The entries of an open table.
    ///
    /// # Safety
    /// `pointer` must come from the window and still be open, and the slice must be dropped before
    /// any entry of the table is reached in another way.
    unsafe fn entries<'t>(&self, pointer: NonNull<u64>, level: Level) -> &'t mut [MaybeUninit<u64>] {
        // SAFETY: an open table is valid for reads and writes of a whole granule, which holds at
        // least this many entries; `MaybeUninit` asks nothing of what the frame held before.
        unsafe { slice::from_raw_parts_mut(pointer.cast().as_ptr(), self.geometry.entries(level)) }
    }

    /// Writes a whole table of pages.
    fn pages(&mut self, pointer: NonNull<u64>, base: Va) {
        // SAFETY: the table is open until `table` closes it, and this function alone writes to it.
        let entries = unsafe { self.entries(pointer, Level::L3) };
        let shift = self.geometry.shift(Level::L3);
        let mut index = 0;
        while index < entries.len() {
            let next = self.mappings.peek();
            let start = match next {
                Some(mapping) => ((mapping.va.0 - base.0) >> shift).min(entries.len() as u64) as usize,
                None => entries.len(),
            };
            clear(&mut entries[index..start]);
            index = start;
            if let Some(mapping) = next.filter(|_| start < entries.len()) {
                index += self.leaves(&mut entries[index..], Level::L3, mapping, mapping.len >> shift);
            }
        }
    }

    /// Writes a whole table above the level of pages.
    fn upper(
        &mut self,
        pointer: NonNull<u64>,
        level: Level,
        next_level: Level,
        base: Va,
    ) -> Result<(), OutOfFrames> {
        let shift = self.geometry.shift(level);
        let count = self.geometry.entries(level);
        let mut index = 0;
        while index < count {
            let next = self.mappings.peek();
            // The first entry that the next mapping has a part in.
            let start = match next {
                Some(mapping) => ((mapping.va.0 - base.0) >> shift).min(count as u64) as usize,
                None => count,
            };
            if index < start {
                // SAFETY: the table is open until `table` closes it; the slice ends with this
                // block.
                let entries = unsafe { self.entries(pointer, level) };
                clear(&mut entries[index..start]);
                index = start;
            }
            let Some(mapping) = next.filter(|_| start < count) else { continue };
            let leaves = self.mappings.leaves_at(&mapping, level);
            if leaves > 0 {
                // SAFETY: as above.
                let entries = unsafe { self.entries(pointer, level) };
                index += self.leaves(&mut entries[index..], level, mapping, leaves);
                continue;
            }
            if next_level == Level::L3 && mapping.va.0 & ((1 << shift) - 1) == 0 && mapping.len >> shift > 0 {
                match self.full_page_tables(pointer, index, count - index, mapping) {
                    Ok(tables) => index += tables,
                    Err((tables, error)) => {
                        let written = index + tables;
                        // SAFETY: the table is open, and the builder wrote these entries and what
                        // they lead to.
                        unsafe {
                            release_children(
                                self.geometry,
                                pointer,
                                level,
                                written,
                                self.window,
                                self.frames,
                            );
                        }
                        return Err(error);
                    }
                }
                continue;
            }
            let below = match self.frames.alloc() {
                Ok(child) => {
                    let child_base = Va(base.0 + ((index as u64) << shift));
                    match self.table(child, next_level, child_base) {
                        Ok(()) => Ok(child),
                        Err(error) => {
                            // SAFETY: the frame was allocated just above, and nothing leads to it.
                            unsafe { self.frames.free(child) };
                            Err(error)
                        }
                    }
                }
                Err(error) => Err(error),
            };
            match below {
                Ok(child) => {
                    // SAFETY: the table is open and `index` is below the number of its entries.
                    unsafe { pointer.add(index).write(Descriptor::table(self.geometry, child).0) };
                    index += 1;
                }
                Err(error) => {
                    // SAFETY: as above.
                    unsafe {
                        release_children(self.geometry, pointer, level, index, self.window, self.frames);
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Writes as many whole tables of pages as `mapping` fills, up to `limit`, and links them from
    /// the entry `index` of the open table on: almost all the work of a map made of pages. Returns
    /// how many.
    ///
    /// A whole table begins at a multiple of every contiguous run, so either all its entries make
    /// runs or none does.
    fn full_page_tables(
        &mut self,
        pointer: NonNull<u64>,
        index: usize,
        limit: usize,
        mapping: Mapping,
    ) -> Result<usize, (usize, OutOfFrames)> {
        let geometry = self.geometry;
        let shift = geometry.shift(Level::L3);
        let entries = geometry.entries(Level::L3);
        let table_bytes = (entries as u64) << shift;
        let count = (mapping.len / table_bytes).min(limit as u64) as usize;
        let contiguous = contiguous_part(geometry, Level::L3, mapping, entries).is_some();
        let attributes = Attributes { contiguous, ..mapping.attributes };
        let leaf = Descriptor::page(geometry, Pa(0), attributes);
        let link = Descriptor::table(geometry, Pa(0));
        let mut result = Ok(count);
        for table in 0..count {
            match self.frames.alloc() {
                // SAFETY: `index + table` is below the number of entries of the open table.
                Ok(child) => unsafe { pointer.add(index + table).write(link.at(geometry, child).0) },
                Err(error) => {
                    result = Err((table, error));
                    break;
                }
            }
        }
        let linked = match result {
            Ok(linked) | Err((linked, _)) => linked,
        };
        // Frames that come from the top of memory downwards are filled from the last to the first:
        // then all tables are one ascending stream of stores, which prefetchers follow from page to
        // page.
        let descending = linked > 1 && self.child(pointer, index) > self.child(pointer, index + linked - 1);
        for nth in 0..linked {
            let table = if descending { linked - 1 - nth } else { nth };
            let child = self.child(pointer, index + table);
            let pa = Pa(mapping.pa.0 + table as u64 * table_bytes);
            // SAFETY: the frame is one of the source's, which the window reaches. It is open until
            // it is closed below, and this loop alone writes to it.
            let pages = unsafe { self.window.open(Level::L3, child) };
            // SAFETY: as above.
            fill_leaves(geometry, shift, unsafe { self.entries(pages, Level::L3) }, leaf, pa);
            self.window.close(Level::L3);
        }
        let tables = linked as u64;
        if tables > 0 {
            self.last = Va(mapping.va.0 + (tables * table_bytes - 1));
            self.built.tables += tables;
            self.built.entries += tables * entries as u64;
            self.built.bytes += tables * table_bytes;
            self.mappings.advance(tables * table_bytes);
        }
        result
    }

    /// The table of pages that an entry of an open table leads to, which
    /// [`full_page_tables`](Self::full_page_tables) has linked.
    fn child(&self, pointer: NonNull<u64>, index: usize) -> Pa {
        // SAFETY: the entry is one of the open table's, and has been written.
        let link = Descriptor(unsafe { pointer.add(index).read() });
        match link.decode(self.geometry, Level::L2) {
            Decoded::Table(child) => child,
            Decoded::Leaf(_) | Decoded::Invalid => unreachable!("the entry was linked to a table"),
        }
    }

    /// Writes leaves of `mapping` from the first of `entries` on, as many as fit and at most
    /// `leaves`; returns how many.
    fn leaves(
        &mut self,
        entries: &mut [MaybeUninit<u64>],
        level: Level,
        mapping: Mapping,
        leaves: u64,
    ) -> usize {
        let geometry = self.geometry;
        let shift = geometry.shift(level);
        let count = leaves.min(entries.len() as u64) as usize;
        let single = template(geometry, level, Attributes { contiguous: false, ..mapping.attributes });
        let entries = &mut entries[..count];
        match contiguous_part(geometry, level, mapping, count) {
            None => fill_leaves(geometry, shift, entries, single, mapping.pa),
            Some((head, body)) => {
                let (before, rest) = entries.split_at_mut(head);
                let (run, after) = rest.split_at_mut(body);
                let contiguous = single.contiguous();
                let run_pa = Pa(mapping.pa.0 + ((head as u64) << shift));
                let after_pa = Pa(run_pa.0 + ((body as u64) << shift));
                fill_leaves(geometry, shift, before, single, mapping.pa);
                fill_leaves(geometry, shift, run, contiguous, run_pa);
                fill_leaves(geometry, shift, after, single, after_pa);
            }
        }
        let bytes = (count as u64) << shift;
        self.last = Va(mapping.va.0 + (bytes - 1));
        self.built.entries += count as u64;
        self.built.bytes += bytes;
        self.mappings.advance(bytes);
        count
    }
}

/// The leaf for address 0 at `level`, where the geometry has leaves: that of every other address
/// but for the address.
fn template(geometry: Geometry, level: Level, attributes: Attributes) -> Descriptor {
    Descriptor(attributes.bits(geometry) | leaf_type(level))
}
