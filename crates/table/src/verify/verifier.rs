//! The walk of a verification.

use core::slice;

use linmap_vmsa::{Descriptor, Geometry, LINEAR_SPAN, Level, Pa, TablePermissions, Va};

use super::compare::{CompareEntries, leading_one_by_one};
use super::cursor::{Cursor, Kind, Wanted};
use super::expected::Expected;
use super::tree_error::{EntryPlace, TreeError, WantedEntry};
use crate::mapping::Leaves;
use crate::window::TableWindow;

/// Set in pages, clear in blocks.
const PAGE: u64 = 1 << 1;

/// The access flag of a leaf.
const ACCESSED: u64 = 1 << 10;

/// The contiguous bit of a leaf (Arm ARM D8.7.1).
const CONTIGUOUS: u64 = 1 << 52;

/// Who sets the access flag.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AccessFlag {
    /// Software alone (TCR.HA = 0).
    Software,
    /// Hardware sets it too (FEAT_HAFDBS, TCR.HA = 1), so a leaf that is expected without it may
    /// have it. Nothing clears it.
    ///
    /// With TCR.HD = 1 hardware also clears `AP[2]`, but only in leaves with DBM (bit 51) set. No
    /// [`Attributes`](linmap_vmsa::Attributes) set it, so such a leaf is a difference, whatever its
    /// dirty state.
    Hardware,
}

/// The tree to verify.
#[derive(Clone, Copy, Debug)]
pub struct Tree {
    /// Its geometry.
    pub geometry: Geometry,
    /// The frame of its root table, the first of several.
    pub root: Pa,
    /// The first address that it translates: 0 in TTBR0, −2^va_bits in TTBR1.
    pub base: Va,
    /// Who sets the access flag in its leaves.
    pub access_flag: AccessFlag,
}

/// What was compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Compared {
    /// Tables read, the root included.
    pub tables: u64,
    /// Entries compared: all entries of these tables.
    pub entries: u64,
}

impl Compared {
    /// Returns the sum of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { tables: self.tables + other.tables, entries: self.entries + other.entries }
    }
}

/// Compares every entry of `tree` with `expected`, which ascends and does not overlap.
///
/// Entries must have no bit more or less than what `expected` asks for. Leaves may be of any size
/// that their [`Leaves`] allow; the contiguous bit stands on complete, aligned runs alone. What
/// `expected` does not name has no entry, and no table.
///
/// `is_table` tells whether a frame is a table at a level for the addresses from an address on. It
/// is asked before the frame is read, so that a wrong descriptor leads to no memory that can't be
/// read. The more it knows, the more it finds: a copy of a table that was freed is found by its
/// frame alone.
///
/// The walk reads a table through `window` in ascending order, one table a level, and compares its
/// entries by `compare`: [`PortableLoop`](super::PortableLoop), or a kernel's own.
///
/// # Errors
/// [`TreeError`], the first difference.
///
/// # Safety
/// `window` reaches the root and every frame that `is_table` says is a table. No software writes to
/// these tables during the call, and hardware does as `tree` says at most.
pub unsafe fn verify_tree<W: TableWindow>(
    tree: &Tree,
    expected: impl IntoIterator<Item = Expected>,
    window: &mut W,
    is_table: impl FnMut(Va, Level, Pa) -> bool,
    compare: &impl CompareEntries,
) -> Result<Compared, TreeError> {
    let expected = Cursor::new(tree.geometry, tree.base, expected.into_iter())?;
    let mut verifier = Verifier {
        tree,
        link: Descriptor::table(tree.geometry.in_regime(tree.geometry.regime()), Pa(0)),
        expected,
        window,
        is_table,
        compare,
        compared: Compared::default(),
        above: None,
        error: None,
    };
    let _ = verifier.root();
    verifier.error.map_or(Ok(verifier.compared), Err)
}

struct Verifier<'v, W, I, T, C> {
    tree: &'v Tree,
    /// A table descriptor for address 0 that takes nothing away.
    link: Descriptor,
    expected: Cursor<I>,
    window: &'v mut W,
    is_table: T,
    compare: &'v C,
    compared: Compared,
    /// What the tables on the way to the current one take away; `None` in the root.
    above: Option<TablePermissions>,
    /// The first difference. The walk stops there.
    error: Option<TreeError>,
}

/// The walk found a difference.
#[derive(Clone, Copy, Debug)]
struct Stop;

/// An entry, and the entries behind it in the same table.
#[derive(Clone, Copy)]
struct Here<'t> {
    level: Level,
    table: Pa,
    index: usize,
    /// Bytes from the base of the tree.
    at: u64,
    /// The entry and all behind it.
    entries: &'t [u64],
}

impl<W, I, T, C> Verifier<'_, W, I, T, C>
where
    W: TableWindow,
    I: Iterator<Item = Expected>,
    T: FnMut(Va, Level, Pa) -> bool,
    C: CompareEntries,
{
    /// Compares the tables of the root, and all below.
    fn root(&mut self) -> Result<(), Stop> {
        let (geometry, level) = (self.tree.geometry, self.tree.geometry.start_level());
        let reach = (geometry.entries(level) as u64) << geometry.shift(level);
        for nth in 0..geometry.root_tables() as u64 {
            let table = Pa(self.tree.root.0 + nth * geometry.page_bytes());
            self.table(level, table, nth * reach)?;
        }
        Ok(())
    }

    /// Compares the table in frame `table` at `level`, which translates from `base` on, and all
    /// tables below it.
    fn table(&mut self, level: Level, table: Pa, base: u64) -> Result<(), Stop> {
        let count = self.tree.geometry.entries(level);
        // SAFETY: the caller of `verify_tree` promises that the window reaches the root and every
        // frame that `is_table` says is a table.
        let pointer = unsafe { self.window.open(level, table) };
        // SAFETY: an open table is valid for reads of a whole granule, initialised by whoever built
        // the tree. Nothing writes to it during the call but hardware that sets an access flag: it
        // changes one bit of a word that is read once.
        let entries = unsafe { slice::from_raw_parts(pointer.as_ptr().cast_const(), count) };
        self.compared.tables += 1;
        self.compared.entries += count as u64;
        let result = self.entries(level, table, base, entries);
        self.window.close(level);
        result
    }

    fn entries(&mut self, level: Level, table: Pa, base: u64, entries: &[u64]) -> Result<(), Stop> {
        let shift = self.tree.geometry.shift(level);
        let mut index = 0;
        while let Some(rest @ [_, ..]) = entries.get(index..) {
            let at = base + ((index as u64) << shift);
            let here = Here { level, table, index, at, entries: rest };
            let wanted = match self.expected.wanted(level, at) {
                Ok(wanted) => wanted,
                Err(error) => return Err(self.stop(error.into())),
            };
            index += match wanted {
                Wanted::Nothing { entries } => self.unused(here, entries)?,
                Wanted::One { kind: Kind::FreeSlots, entries, .. } if level == Level::L3 => {
                    self.tables(here)?;
                    self.unused(here, entries)?
                }
                Wanted::One { kind: Kind::FreeSlots, .. } | Wanted::Parts => self.below(here)?,
                Wanted::One { kind: Kind::Leaves { bits, leaves }, pa, entries } => {
                    self.leaves(here, entries, pa, bits, leaves)?
                }
            };
        }
        Ok(())
    }

    /// Compares an entry, and those behind it, that must be unused: `wanted` at most. Returns how
    /// many are, at least one.
    fn unused(&mut self, here: Here<'_>, wanted: u64) -> Result<usize, Stop> {
        match self.compare.leading(first_of(here.entries, wanted), 0, 0) {
            0 => Err(self.differs(here, WantedEntry::Unused)),
            unused => Ok(unused),
        }
    }

    /// Compares an entry, and those behind it, in which the memory from `pa` on is mapped with the
    /// attributes `bits`: `wanted` at most. Returns how many are right, at least one.
    fn leaves(
        &mut self,
        here: Here<'_>,
        wanted: u64,
        pa: Pa,
        bits: u64,
        leaves: Leaves,
    ) -> Result<usize, Stop> {
        let geometry = self.tree.geometry;
        let found = here.entries[0];
        let is_pages = here.level == Level::L3;
        if !is_pages && Descriptor(found).may_be_table() {
            return self.below(here);
        }
        self.tables(here)?;
        let shift = geometry.shift(here.level);
        let size_is_allowed = is_pages || leaves != Leaves::Pages && geometry.has_leaf(here.level);
        if !size_is_allowed || pa.0 & ((1 << shift) - 1) != 0 {
            return Err(self.differs(here, WantedEntry::Table));
        }
        let leaf = Descriptor(if is_pages { bits | PAGE } else { bits }).at(geometry, pa).0;
        // Beyond a multiple of LINEAR_SPAN the bits of consecutive addresses are not consecutive.
        let in_span = (LINEAR_SPAN - pa.0 % LINEAR_SPAN) >> shift;
        let entries = first_of(here.entries, wanted.min(in_span));
        let ignored = match self.tree.access_flag {
            AccessFlag::Hardware if bits & ACCESSED == 0 => ACCESSED,
            _ => 0,
        };
        let compare = self.compare;
        let matches_leaf = |entries: &[u64], leaf| match ignored {
            0 => compare.leading(entries, leaf, 1 << shift),
            _ => leading_one_by_one(entries, leaf, 1 << shift, 0, ignored),
        };
        match (found ^ leaf) & !ignored {
            0 => Ok(matches_leaf(entries, leaf)),
            CONTIGUOUS if leaves == Leaves::ContiguousBlocks => {
                // A run ends within a span, which is a multiple of every run.
                let count = matches_leaf(entries, leaf | CONTIGUOUS);
                self.complete_runs(here, pa, count)
            }
            _ => Err(self.differs(here, WantedEntry::Leaf(Descriptor(leaf)))),
        }
    }

    /// Returns how many of the `count` entries from `here` on, all contiguous and consecutive from
    /// `pa` on, make complete runs.
    fn complete_runs(&mut self, here: Here<'_>, pa: Pa, count: usize) -> Result<usize, Stop> {
        let geometry = self.tree.geometry;
        let run = geometry.contiguous_entries(here.level).filter(|run| *run <= geometry.entries(here.level));
        let complete = run.map_or(0, |run| {
            let bytes = (run as u64) << geometry.shift(here.level);
            let is_aligned = here.index.is_multiple_of(run) && pa.0.is_multiple_of(bytes);
            if is_aligned { count - count % run } else { 0 }
        });
        if complete > 0 {
            return Ok(complete);
        }
        let (place, found) = (self.place(here), Descriptor(here.entries[0]));
        Err(self.stop(TreeError::Run { place, found }))
    }

    /// Compares what the tables on the way to an entry take away. They lead to other ranges too,
    /// by the first of which they were compared.
    fn tables(&mut self, here: Here<'_>) -> Result<(), Stop> {
        let wanted = self.expected.tables();
        match self.above {
            Some(found) if found != wanted => {
                let place = self.place(here);
                Err(self.stop(TreeError::Tables { place, found, wanted }))
            }
            _ => Ok(()),
        }
    }

    /// Compares the table that the entry must lead to. Returns one entry.
    fn below(&mut self, here: Here<'_>) -> Result<usize, Stop> {
        let (geometry, found) = (self.tree.geometry, Descriptor(here.entries[0]));
        let (Some(next), Some(frame)) = (here.level.next(), found.next_table(geometry)) else {
            return Err(self.differs(here, WantedEntry::Table));
        };
        let permissions = self.expected.tables();
        let link = self.link.at(geometry, frame);
        let table = Descriptor(link.0 | permissions.bits(geometry.regime()));
        if found != table {
            let place = self.place(here);
            return Err(self.stop(TreeError::TableBits { place, found, wanted: table }));
        }
        let va = self.va(here.at);
        if !(self.is_table)(va, next, frame) {
            let place = self.place(here);
            return Err(self.stop(TreeError::NotTable { place, found, frame }));
        }
        let above = self.above.replace(permissions);
        self.table(next, frame, here.at)?;
        self.above = above;
        Ok(1)
    }

    fn va(&self, at: u64) -> Va {
        Va(self.tree.base.0.wrapping_add(at))
    }

    fn place(&self, here: Here<'_>) -> EntryPlace {
        EntryPlace { va: self.va(here.at), level: here.level, table: here.table, index: here.index }
    }

    #[cold]
    fn differs(&mut self, here: Here<'_>, wanted: WantedEntry) -> Stop {
        let (place, found) = (self.place(here), Descriptor(here.entries[0]));
        self.stop(TreeError::Entry { place, found, wanted })
    }

    /// Notes `error` here, so that no call has to hand it on.
    #[cold]
    fn stop(&mut self, error: TreeError) -> Stop {
        self.error = Some(error);
        Stop
    }
}

/// The first of `entries`, `count` at most.
fn first_of(entries: &[u64], count: u64) -> &[u64] {
    entries.get(..usize::try_from(count).unwrap_or(usize::MAX)).unwrap_or(entries)
}
