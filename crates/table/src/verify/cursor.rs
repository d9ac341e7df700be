//! A place in the list of what a tree must translate.

use linmap_vmsa::{Attributes, Geometry, Level, Pa, TablePermissions, Va};

use super::expected::{Content, Expected, Validity};
use crate::mapping::{Leaves, MappingError};

/// The valid bit of every descriptor.
const VALID: u64 = 1;

/// What the entries of a range have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Leaves.
    Leaves {
        /// Their bits, without the address, the contiguous bit and the bit that tells pages from
        /// blocks.
        bits: u64,
        /// The largest that may stand there.
        leaves: Leaves,
    },
    /// Unused entries of tables of pages that stay.
    FreeSlots,
}

/// A range of the list, in bytes from the first address of the tree.
#[derive(Clone, Copy, Debug)]
struct Piece {
    start: u64,
    end: u64,
    /// The first physical address, 0 for free slots.
    pa: Pa,
    kind: Kind,
    tables: TablePermissions,
}

impl Piece {
    /// Whether both are one mapping, which the same leaf may cover.
    fn joins(&self, next: &Self) -> bool {
        let follows = self.kind == Kind::FreeSlots || self.pa.0 + (self.end - self.start) == next.pa.0;
        self.end == next.start && (self.kind, self.tables) == (next.kind, next.tables) && follows
    }
}

/// What the list says of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    /// Nothing is mapped in it and in the entries behind it, `entries` in all.
    Nothing {
        /// How many.
        entries: u64,
    },
    /// It and the entries behind it lie in one range of the list, `entries` in all.
    One {
        /// What they must be.
        kind: Kind,
        /// The physical address of the entry.
        pa: Pa,
        /// How many.
        entries: u64,
    },
    /// Parts of it must be different.
    Parts,
}

/// A place in the list. It moves on only.
#[derive(Debug)]
pub(super) struct Cursor<I> {
    geometry: Geometry,
    base: u64,
    list: I,
    piece: Option<Piece>,
    /// The range behind, which is not one with it.
    next: Option<Piece>,
}

impl<I: Iterator<Item = Expected>> Cursor<I> {
    /// Returns a cursor at the first range of `list`, for a tree that translates from `base` on.
    pub fn new(geometry: Geometry, base: Va, list: I) -> Result<Self, MappingError> {
        let mut cursor = Self { geometry, base: base.0, list, piece: None, next: None };
        cursor.next = cursor.read(0)?;
        cursor.step()?;
        Ok(cursor)
    }

    /// Reads the next range of the list and checks it. The previous one ends at `previous_end`.
    fn read(&mut self, previous_end: u64) -> Result<Option<Piece>, MappingError> {
        let Some(Expected { va, len, content, tables }) = self.list.next() else { return Ok(None) };
        let (pa, kind) = match content {
            Content::Leaves { pa, attributes, validity, leaves } => {
                let regime = self.geometry.regime();
                if let Err(error) = attributes.check_in(self.geometry).and(tables.check(regime)) {
                    return Err(MappingError::Attributes { va, error });
                }
                if !tables.allows(attributes) {
                    return Err(MappingError::TakenByTables { va, tables });
                }
                let attributes = Attributes { contiguous: false, no_translation: false, ..attributes };
                let valid = if validity == Validity::Valid { VALID } else { 0 };
                (pa, Kind::Leaves { bits: attributes.bits(self.geometry) | valid, leaves })
            }
            Content::FreeSlots => (Pa(0), Kind::FreeSlots),
        };
        let granule = self.geometry.page_bytes();
        if len == 0 || (va.0 | pa.0 | len) & (granule - 1) != 0 {
            return Err(MappingError::Unaligned { va, pa, len, granule });
        }
        let (start, bits) = (va.0.wrapping_sub(self.base), self.geometry.va_bits());
        let end = start.checked_add(len).filter(|end| *end <= 1 << bits);
        let Some(end) = end else { return Err(MappingError::OutsideVaSpace { va, len, bits }) };
        let bits = self.geometry.pa_bits();
        if pa.0.checked_add(len - 1).is_none_or(|last| !self.geometry.holds(Pa(last))) {
            return Err(MappingError::OutsidePaSpace { va, pa, len, bits });
        }
        if start < previous_end {
            let previous_end = Va(self.base.wrapping_add(previous_end));
            return Err(MappingError::OutOfOrder { va, previous_end });
        }
        Ok(Some(Piece { start, end, pa, kind, tables }))
    }

    /// Moves to the next range, joined with those behind it that are one mapping with it.
    fn step(&mut self) -> Result<(), MappingError> {
        self.piece = self.next.take();
        while let Some(piece) = &self.piece {
            let next = self.read(piece.end)?;
            match (&mut self.piece, next) {
                (Some(piece), Some(next)) if piece.joins(&next) => piece.end = next.end,
                _ => {
                    self.next = next;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Returns what a table must take away that leads to the range which the last entry asked for
    /// lies in or begins with.
    pub fn tables(&self) -> TablePermissions {
        self.piece.map_or(TablePermissions::UNRESTRICTED, |piece| piece.tables)
    }

    /// Returns what the entry at `level` must be that begins `at` bytes behind the tree's base, no
    /// less than in the call before.
    pub fn wanted(&mut self, level: Level, at: u64) -> Result<Wanted, MappingError> {
        while self.piece.as_ref().is_some_and(|piece| piece.end <= at) {
            self.step()?;
        }
        let shift = self.geometry.shift(level);
        let end = at + (1 << shift);
        Ok(match &self.piece {
            None => Wanted::Nothing { entries: u64::MAX },
            Some(piece) if end <= piece.start => Wanted::Nothing { entries: (piece.start - at) >> shift },
            Some(piece) if piece.start <= at && end <= piece.end => {
                let pa = Pa(piece.pa.0 + (at - piece.start));
                Wanted::One { kind: piece.kind, pa, entries: (piece.end - at) >> shift }
            }
            Some(_) => Wanted::Parts,
        })
    }
}
