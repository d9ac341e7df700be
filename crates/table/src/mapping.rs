//! What a tree translates: a list of ranges, checked once.

use linmap_vmsa::{AttributeError, Attributes, Geometry, Level, Pa, TablePermissions, Va};
use thiserror::Error;

/// Which leaves a mapping may be made of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Leaves {
    /// Pages alone, none with the contiguous bit, so that any one page can be changed at any BBM
    /// level.
    Pages,
    /// Blocks where alignment and length allow, pages elsewhere, none with the contiguous bit.
    Blocks,
    /// Blocks and pages, with the contiguous bit on every aligned run of them.
    ContiguousBlocks,
}

/// A range of virtual addresses that translates to consecutive physical ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// First virtual address; a multiple of the granule.
    pub va: Va,
    /// First physical address; a multiple of the granule.
    pub pa: Pa,
    /// Length in bytes; a multiple of the granule, not 0.
    pub len: u64,
    /// The leaves' attributes. The builder sets the contiguous bit itself.
    pub attributes: Attributes,
    /// Which leaves may be used.
    pub leaves: Leaves,
}

/// Why a list of mappings was refused.
///
/// ```
/// use linmap_table::{Leaves, Mapping, MappingError, Mappings};
/// use linmap_vmsa::{Attributes, Geometry, Pa, Va};
///
/// let half_a_page = Mapping {
///     va: Va(0x1000),
///     pa: Pa(0x4000_1000),
///     len: 0x800,
///     attributes: Attributes::KERNEL_DATA,
///     leaves: Leaves::Pages,
/// };
/// let refused = Mappings::new(Geometry::K4_48, &[half_a_page]).unwrap_err();
/// assert!(matches!(refused, MappingError::Unaligned { granule: 0x1000, .. }));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum MappingError {
    /// An address or the length is not a multiple of the granule, or the length is 0.
    #[error(
        "the mapping of {va} to {pa}, {len:#x} bytes, does not consist of whole pages of {granule:#x} bytes"
    )]
    Unaligned {
        /// The mapping's virtual address.
        va: Va,
        /// The mapping's physical address.
        pa: Pa,
        /// The mapping's length in bytes.
        len: u64,
        /// The granule in bytes.
        granule: u64,
    },
    /// The virtual range leaves the half of the address space that its TTBR translates.
    #[error("the mapping of {va}, {len:#x} bytes, is not inside one {bits}-bit half of the address space")]
    OutsideVaSpace {
        /// The mapping's virtual address.
        va: Va,
        /// The mapping's length in bytes.
        len: u64,
        /// The VA size in bits.
        bits: u8,
    },
    /// The physical range needs more bits than descriptors have.
    #[error("the mapping of {va} to {pa}, {len:#x} bytes, needs more than {bits} bits of physical address")]
    OutsidePaSpace {
        /// The mapping's virtual address.
        va: Va,
        /// The mapping's physical address.
        pa: Pa,
        /// The mapping's length in bytes.
        len: u64,
        /// The PA size in bits.
        bits: u8,
    },
    /// A mapping begins before the previous one ends. The list must ascend and not overlap.
    #[error("the mapping of {va} begins before the previous mapping ends, at {previous_end}")]
    OutOfOrder {
        /// The later mapping's virtual address.
        va: Va,
        /// Where the earlier one ends.
        previous_end: Va,
    },
    /// The regime's descriptors can't say what the mapping's attributes do.
    #[error("the mapping of {va}: {error}")]
    Attributes {
        /// The mapping's virtual address.
        va: Va,
        /// What they can't say.
        error: AttributeError,
    },
    /// The mapping allows what the geometry's tables take away.
    #[error("the mapping of {va} allows what its tables take away: {tables} (D8.4.1.2.5)")]
    TakenByTables {
        /// The mapping's virtual address.
        va: Va,
        /// What the tables take away.
        tables: TablePermissions,
    },
    /// The mapping would be writable and executable, at stage 1.
    #[error("the mapping of {va} would be writable and executable")]
    WritableAndExecutable {
        /// The mapping's virtual address.
        va: Va,
    },
}

/// A list of mappings that ascends, does not overlap, consists of whole pages, fits the geometry,
/// allows no more than its [tables](Geometry::with_table_permissions) do, and at stage 1 makes
/// nothing writable and executable. At stage 2 the guest decides what it writes and executes, by
/// its own stage 1.
#[derive(Clone, Copy, Debug)]
pub struct Mappings<'a> {
    geometry: Geometry,
    list: &'a [Mapping],
}

impl<'a> Mappings<'a> {
    /// Checks `list` against `geometry`. All of it must lie in one half of the VA space: that of
    /// the first mapping. At stage 2 a virtual address is a guest's IPA, from 0 up.
    ///
    /// # Errors
    /// The [`MappingError`] of the first mapping that breaks a rule.
    pub fn new(geometry: Geometry, list: &'a [Mapping]) -> Result<Self, MappingError> {
        let granule = geometry.page_bytes();
        let (stage_2, tables) = (geometry.regime().is_stage_2(), geometry.table_permissions());
        // What a kernel asks most needs no look at each mapping.
        let says_all = geometry.regime().has_user_space() && geometry.mair().has_every();
        let mut previous_end: Option<Va> = None;
        let mut half = None;
        for &Mapping { va, pa, len, attributes, .. } in list {
            if len == 0 || (va.0 | pa.0 | len) & (granule - 1) != 0 {
                return Err(MappingError::Unaligned { va, pa, len, granule });
            }
            let bits = geometry.va_bits();
            let last = va.0.checked_add(len - 1).filter(|last| {
                // TTBR0 addresses have zeros above the VA size, TTBR1 addresses ones; both ends
                // must agree.
                let top = va.0 >> bits;
                (top == 0 || top == u64::MAX >> bits && !stage_2)
                    && last >> bits == top
                    && *half.get_or_insert(top) == top
            });
            let Some(last) = last else { return Err(MappingError::OutsideVaSpace { va, len, bits }) };
            let bits = geometry.pa_bits();
            if pa.0.checked_add(len - 1).is_none_or(|last| !geometry.holds(Pa(last))) {
                return Err(MappingError::OutsidePaSpace { va, pa, len, bits });
            }
            if (!says_all || attributes.access.is_of_guest())
                && let Err(error) = attributes.check_in(geometry)
            {
                return Err(MappingError::Attributes { va, error });
            }
            if !tables.is_all() && !tables.allows(attributes) {
                return Err(MappingError::TakenByTables { va, tables });
            }
            // At stage 2 the guest's own stage 1 says what is code.
            if attributes.writable_and_executable() && !stage_2 {
                return Err(MappingError::WritableAndExecutable { va });
            }
            if let Some(previous_end) = previous_end.filter(|end| va < *end) {
                return Err(MappingError::OutOfOrder { va, previous_end });
            }
            // A mapping that ends at the top of the address space ends at 0; nothing can follow it.
            previous_end = Some(Va(last.wrapping_add(1)));
            if last == u64::MAX {
                previous_end = Some(Va(u64::MAX));
            }
        }
        Ok(Self { geometry, list })
    }

    /// The geometry the list was checked against.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The mappings, ascending.
    pub fn list(&self) -> &'a [Mapping] {
        self.list
    }

    /// First address of the half of the address space in which the mappings lie: the lower one if
    /// there is no mapping.
    pub fn base(&self) -> Va {
        match self.list.first() {
            Some(first) if first.va.0 >> self.geometry.va_bits() != 0 => {
                Va(u64::MAX << self.geometry.va_bits())
            }
            _ => Va(0),
        }
    }

    /// A cursor at the first mapping.
    pub fn cursor(&self) -> Cursor<'a> {
        Cursor { geometry: self.geometry, list: self.list, done: 0 }
    }
}

/// A position in a list of mappings: a builder has written everything before it.
///
/// ```
/// use linmap_table::{Cursor, Leaves, Mapping, Mappings};
/// use linmap_vmsa::{Attributes, Geometry, Level, Pa, Va};
///
/// // A page, and 2 MiB behind it that can be one block.
/// let (va, pa, len) = (Va(0x1f_f000), Pa(0x401f_f000), 0x20_1000);
/// let list = [Mapping { va, pa, len, attributes: Attributes::KERNEL_DATA, leaves: Leaves::Blocks }];
/// let mappings = Mappings::new(Geometry::K4_48, &list)?;
///
/// let mut cursor: Cursor<'_> = mappings.cursor();
/// let blocks = |cursor: Cursor<'_>| cursor.peek().map(|rest| cursor.leaves_at(&rest, Level::L2));
/// assert_eq!(blocks(cursor), Some(0));
/// cursor.advance(0x1000);
/// assert_eq!(blocks(cursor), Some(1));
/// # Ok::<(), linmap_table::MappingError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    geometry: Geometry,
    list: &'a [Mapping],
    /// Bytes of the first mapping that are behind the cursor.
    done: u64,
}

impl Cursor<'_> {
    /// The geometry of the tree being built.
    #[inline]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// What remains of the mapping at the cursor, or `None` at the end.
    #[inline]
    pub fn peek(&self) -> Option<Mapping> {
        self.list.first().map(|first| Mapping {
            va: Va(first.va.0 + self.done),
            pa: Pa(first.pa.0 + self.done),
            len: first.len - self.done,
            ..*first
        })
    }

    /// Moves on by `bytes`, whole pages and no more than what remains of the mapping at the cursor.
    /// Parts of a page and what is beyond are left out.
    #[inline]
    pub fn advance(&mut self, bytes: u64) {
        let page = self.geometry.page_bytes() - 1;
        let left = self.list.first().map_or(0, |first| first.len - self.done);
        self.done += (bytes & !page).min(left);
        if let Some((first, rest)) = self.list.split_first()
            && self.done >= first.len
        {
            self.list = rest;
            self.done = 0;
        }
    }

    /// Returns how many leaves `mapping`, which begins at the cursor, can have at `level` from its
    /// first address on. 0 when it needs smaller leaves.
    #[inline]
    pub fn leaves_at(&self, mapping: &Mapping, level: Level) -> u64 {
        let geometry = self.geometry;
        if level != Level::L3 && (mapping.leaves == Leaves::Pages || !geometry.has_leaf(level)) {
            return 0;
        }
        let bytes = geometry.entry_bytes(level);
        if (mapping.va.0 | mapping.pa.0) & (bytes - 1) != 0 {
            return 0;
        }
        mapping.len >> geometry.shift(level)
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
    let run = geometry.new_run_entries(level)?;
    let run_bytes = (run as u64) << geometry.shift(level);
    if (mapping.va.0 ^ mapping.pa.0) & (run_bytes - 1) != 0 {
        return None;
    }
    let head = (mapping.va.0.wrapping_neg() & (run_bytes - 1)) >> geometry.shift(level);
    let head = usize::try_from(head).ok().filter(|head| *head < count)?;
    let body = (count - head) / run * run;
    (body > 0).then_some((head, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use linmap_vmsa::{Access, Execute};

    const G: Geometry = Geometry::K4_48;

    fn mapping(va: u64, pa: u64, len: u64) -> Mapping {
        Mapping { va: Va(va), pa: Pa(pa), len, attributes: Attributes::KERNEL_DATA, leaves: Leaves::Pages }
    }

    fn refused(list: &[Mapping]) -> MappingError {
        Mappings::new(G, list).unwrap_err()
    }

    #[test]
    fn parts_of_pages_and_empty_ranges_are_refused() {
        assert!(matches!(refused(&[mapping(0x1800, 0, 0x1000)]), MappingError::Unaligned { .. }));
        assert!(matches!(refused(&[mapping(0, 0x10, 0x1000)]), MappingError::Unaligned { .. }));
        assert!(matches!(refused(&[mapping(0, 0, 0)]), MappingError::Unaligned { .. }));
    }

    #[test]
    fn a_range_that_leaves_its_half_of_the_va_space_is_refused() {
        let top = 0xffff_ffff_ffff_f000;
        assert!(Mappings::new(G, &[mapping(top, 0, 0x1000)]).is_ok());
        assert!(matches!(refused(&[mapping(top, 0, 0x2000)]), MappingError::OutsideVaSpace { .. }));
        assert!(matches!(
            refused(&[mapping(0xffff_ffff_f000, 0, 0x2000)]),
            MappingError::OutsideVaSpace { .. }
        ));
        assert!(matches!(refused(&[mapping(0xfffe << 48, 0, 0x1000)]), MappingError::OutsideVaSpace { .. }));
    }

    #[test]
    fn a_physical_range_beyond_the_pa_size_is_refused() {
        let error = refused(&[mapping(0, (1 << 48) - 0x1000, 0x2000)]);
        assert!(matches!(error, MappingError::OutsidePaSpace { bits: 48, .. }));
    }

    #[test]
    fn overlapping_and_descending_ranges_are_refused() {
        let list = [mapping(0x1000, 0, 0x2000), mapping(0x2000, 0x10_0000, 0x1000)];
        assert_eq!(refused(&list), MappingError::OutOfOrder { va: Va(0x2000), previous_end: Va(0x3000) });
        assert!(Mappings::new(G, &[mapping(0x1000, 0, 0x1000), mapping(0x2000, 0, 0x1000)]).is_ok());
    }

    #[test]
    fn writable_and_executable_is_refused() {
        let mut both = mapping(0x1000, 0, 0x1000);
        both.attributes = Attributes { execute: Execute::Kernel, ..both.attributes };
        assert_eq!(refused(&[both]), MappingError::WritableAndExecutable { va: Va(0x1000) });
        both.attributes = Attributes { access: Access::KernelReadOnly, ..both.attributes };
        assert!(Mappings::new(G, &[both]).is_ok());
    }
}
