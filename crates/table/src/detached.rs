//! Detached trees: tables that are in no TTBR, so only their builder reaches them.
//!
//! A table is written once, entry by entry in ascending order. A table descriptor is written after
//! the table that it leads to. Nothing is zeroed first and nothing is read back. No barrier or
//! invalidation is needed until one store or one TTBR write publishes the whole tree.

use core::mem::MaybeUninit;
use core::ops::Range;
use core::ptr::NonNull;
use core::slice;

use linmap_vmsa::{Attributes, Decoded, Descriptor, Geometry, Level, Pa, Va};
use thiserror::Error;

use crate::cpu::{Cpu, Dsb};
use crate::fill::{clear, fill_leaves};
use crate::frames::{FrameSource, OutOfFrames};
use crate::mapping::{Cursor, Leaves, Mapping};
use crate::walk::read;
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

/// A complete tree, or subtree, that no walker can reach.
///
/// Dropping one leaks its frames: publish it or [`release`](Self::release) it.
#[must_use = "a tree that is neither published nor released leaks its frames"]
#[derive(Debug)]
pub struct DetachedTree {
    geometry: Geometry,
    root: Pa,
    level: Level,
    base: Va,
    /// The root's entries from the first to the last that translate something.
    used: Range<usize>,
    built: Built,
}

/// An entry in which a tree was to be published is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("entry {index} of the live table at {table}, for {va}, is in use: {found:?}")]
pub struct EntryInUse {
    /// First address that the entry translates.
    pub va: Va,
    /// The live table.
    pub table: Pa,
    /// The entry's index.
    pub index: usize,
    /// Its content.
    pub found: Descriptor,
}

impl DetachedTree {
    /// Builds the table at `level` that translates from `base`, and everything below it, from the
    /// mappings at the cursor that lie in its reach. The cursor ends at the first byte beyond.
    ///
    /// # Errors
    /// [`OutOfFrames`]. All frames allocated are freed then. The cursor's position is undefined.
    pub fn build<W: TableWindow, F: FrameSource>(
        mappings: &mut Cursor<'_>,
        level: Level,
        base: Va,
        window: &mut W,
        frames: &mut F,
    ) -> Result<Self, OutOfFrames> {
        let geometry = mappings.geometry();
        let root = frames.alloc()?;
        let first = mappings.peek().map_or(base, |mapping| mapping.va);
        let mut builder =
            Builder { geometry, mappings, window, frames, last: first, built: Built::default() };
        match builder.table(root, level, base) {
            Ok(()) => {
                let built = builder.built;
                let end = if built.entries == 0 { 0 } else { geometry.index(builder.last, level) + 1 };
                let used = geometry.index(first, level).min(end)..end;
                Ok(Self { geometry, root, level, base, used, built })
            }
            Err(error) => {
                frames.free(root);
                Err(error)
            }
        }
    }

    /// The root table's frame.
    pub fn root(&self) -> Pa {
        self.root
    }

    /// The tree's geometry.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// How much the tree holds.
    pub fn built(&self) -> Built {
        self.built
    }

    /// Publishes the tree as a part of a live one: copies the root's entries to the live root table
    /// `live`, which translates the same half of the VA space, and frees the detached root.
    ///
    /// Invalid entries become valid, which needs no invalidation (Arm ARM D8.16.1, RWHZWS). A DSB
    /// ISHST stands between the tree's own stores and those of the links, a DSB ISHST and an ISB
    /// before the first access through them.
    ///
    /// # Errors
    /// [`EntryInUse`] and the tree, when one of the live entries is valid. Nothing is published
    /// then.
    ///
    /// # Safety
    /// `live` is the root table of the live tree, and nothing else changes it during the call. What
    /// the tree maps is memory that may be accessed as its attributes say.
    pub unsafe fn publish<W: TableWindow, F: FrameSource, C: Cpu>(
        self,
        live: Pa,
        window: &mut W,
        frames: &mut F,
        cpu: &mut C,
    ) -> Result<Built, (Self, EntryInUse)> {
        let level = self.level;
        for index in self.used.clone() {
            // SAFETY: `used` are entries of a table at this level.
            let found = unsafe { read(window, level, live, index) };
            if found.is_valid() {
                let va = Va(self.base.0 + ((index as u64) << self.geometry.shift(level)));
                return Err((self, EntryInUse { va, table: live, index, found }));
            }
        }
        cpu.dsb(Dsb::Ishst);
        for index in self.used {
            // SAFETY: `used` are entries of a table at this level.
            let link = unsafe { read(window, level, self.root, index) };
            let pointer = window.open(level, live);
            // SAFETY: `open` gives a whole table and `index` is one of its entries; the caller
            // promises what the tree maps.
            unsafe { cpu.store(pointer.add(index), link) };
            window.close(level);
        }
        cpu.dsb(Dsb::Ishst);
        cpu.isb();
        frames.free(self.root);
        Ok(Built { tables: self.built.tables - 1, ..self.built })
    }

    /// Frees every table of the tree, depth first.
    pub fn release<W: TableWindow, F: FrameSource>(self, window: &mut W, frames: &mut F) {
        // SAFETY: the tree owns its tables, whose frames the builder allocated, and no walker can
        // reach them.
        unsafe { release_below(self.geometry, self.root, self.level, window, frames) };
        frames.free(self.root);
    }
}

/// Frees all tables below `table`, the deepest first.
///
/// # Safety
/// `table` is a table at `level` of this geometry. Every table below it is in a frame that `frames`
/// handed out, and no walker can reach it any more.
pub unsafe fn release_below<W: TableWindow, F: FrameSource>(
    geometry: Geometry,
    table: Pa,
    level: Level,
    window: &mut W,
    frames: &mut F,
) {
    if level.next().is_some() {
        let pointer = window.open(level, table);
        // SAFETY: the table is open, it has this many entries, and the rest is the caller's
        // contract.
        unsafe { release_children(geometry, pointer, level, geometry.entries(level), window, frames) };
        window.close(level);
    }
}

/// Frees all tables that the first `entries` entries of an open table lead to, and those below.
///
/// # Safety
/// `pointer` is an open table at `level` whose first `entries` entries are written. The contract of
/// [`release_below`] holds for the tables that they lead to.
unsafe fn release_children<W: TableWindow, F: FrameSource>(
    geometry: Geometry,
    pointer: NonNull<u64>,
    level: Level,
    entries: usize,
    window: &mut W,
    frames: &mut F,
) {
    let Some(next) = level.next() else { return };
    for index in 0..entries {
        // SAFETY: the caller's table is open and stays open while deeper levels are; `index` is one
        // of its entries, and the builder wrote it.
        let descriptor = Descriptor(unsafe { pointer.add(index).read() });
        // Most entries are leaves or invalid.
        if !descriptor.may_be_table() {
            continue;
        }
        if let Decoded::Table(child) = descriptor.decode(geometry, level) {
            // SAFETY: the caller's contract holds of the tables further down too.
            unsafe { release_below(geometry, child, next, window, frames) };
            frames.free(child);
        }
    }
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
        let pointer = self.window.open(level, table);
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
                            self.frames.free(child);
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
        let leaf = Descriptor::leaf(geometry, Level::L3, Pa(0), attributes);
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
            let pages = self.window.open(Level::L3, self.child(pointer, index + table));
            let pa = Pa(mapping.pa.0 + table as u64 * table_bytes);
            // SAFETY: the child is open until it is closed below, and this loop alone writes to it.
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
        let single = Attributes { contiguous: false, ..mapping.attributes };
        let single = Descriptor::leaf(geometry, level, Pa(0), single);
        let entries = &mut entries[..count];
        match contiguous_part(geometry, level, mapping, count) {
            None => fill_leaves(geometry, shift, entries, single, mapping.pa),
            Some((head, body)) => {
                let (before, rest) = entries.split_at_mut(head);
                let (run, after) = rest.split_at_mut(body);
                let contiguous = Attributes { contiguous: true, ..mapping.attributes };
                let contiguous = Descriptor::leaf(geometry, level, Pa(0), contiguous);
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

/// Returns where contiguous runs lie among the first `count` leaves of `mapping` at `level`: how
/// many leaves come before the first run, and how many leaves the runs have together. `None` if
/// there is no run. A run is aligned to its own size in VA and PA (Arm ARM D8.7.1).
pub fn contiguous_part(
    geometry: Geometry,
    level: Level,
    mapping: Mapping,
    count: usize,
) -> Option<(usize, usize)> {
    if mapping.leaves != Leaves::ContiguousBlocks {
        return None;
    }
    debug_assert!(
        mapping.va.0.is_multiple_of(geometry.entry_bytes(level)),
        "{} begins within a leaf",
        mapping.va
    );
    let run = geometry.contiguous_entries(level)?;
    let run_bytes = (run as u64) << geometry.shift(level);
    if (mapping.va.0 ^ mapping.pa.0) & (run_bytes - 1) != 0 {
        return None;
    }
    let head = (mapping.va.0.wrapping_neg() & (run_bytes - 1)) >> geometry.shift(level);
    let head = usize::try_from(head).ok().filter(|head| *head < count)?;
    let body = (count - head) / run * run;
    (body > 0).then_some((head, body))
}
