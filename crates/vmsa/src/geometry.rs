//! The geometry of a translation regime: granule, address sizes, and what follows from them at each
//! level.

use thiserror::Error;

use crate::address_form::AddressForm;
use crate::geometry_word as word;
use crate::id::{Mmfr0, Mmfr1, Mmfr2};
use crate::{AttributeError, Granule, Level, Mair, Pa, Regime, Stage2, TablePermissions, Va};

/// The geometry of one half of a translation regime (what one TTBR translates), and which regime
/// it is.
///
/// LPA2 (TCR.DS = 1) is in use exactly when the 4K or 16K granule has more than 48 VA or PA bits;
/// the 64K granule reaches 52 bits without it (FEAT_LVA, FEAT_LPA).
// One word, which goes from function to function in a register. What many functions ask for (the
// level at which a walk starts, the form of descriptors) is computed once, here.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry(u64);

impl core::fmt::Debug for Geometry {
    /// What is not usual comes last.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (tables, mair) = (self.table_permissions(), self.mair());
        let mut shown = f.debug_struct("Geometry");
        shown.field("granule", &self.granule());
        shown.field("va_bits", &self.va_bits()).field("pa_bits", &self.pa_bits());
        shown.field("regime", &self.regime());
        if !tables.is_all() {
            shown.field("tables", &format_args!("{tables}"));
        }
        if mair != Mair::DEFAULT {
            shown.field("mair", &format_args!("{:#x}", mair.value()));
        }
        shown.finish()
    }
}

/// Concatenated tables resolve at most four address bits more than one (Arm ARM D8.2.2).
const CONCATENATED_BITS: u32 = 4;

/// Which physical addresses a geometry has to reach.
///
/// ```
/// use linmap_vmsa::id::{Mmfr0, Mmfr2};
/// use linmap_vmsa::{Geometry, Granule, PaReach};
///
/// // 52 bits of PA, and LPA2 with 4K.
/// let mmfr0 = Mmfr0(0b0001 << 28 | 0b0110);
/// let usual = Geometry::of_cpu(Granule::K4, 48, PaReach::Bits48, mmfr0, Mmfr2(0))?;
/// assert_eq!((usual.pa_bits(), usual.lpa2()), (48, false));
/// let whole = Geometry::of_cpu(Granule::K4, 48, PaReach::Whole, mmfr0, Mmfr2(0))?;
/// assert_eq!((whole.pa_bits(), whole.lpa2()), (52, true));
/// # Ok::<(), linmap_vmsa::GeometryError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PaReach {
    /// Those below 2^48.
    Bits48,
    /// All that the CPU has.
    Whole,
}

/// Why a geometry is invalid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum GeometryError {
    /// TxSZ can't encode this VA size. It encodes 25 (TxSZ 39, without FEAT_TTST) to 52 bits.
    #[error("VA size of {bits} bits is outside 25 to 52")]
    VaBits {
        /// The size asked for.
        bits: u8,
    },
    /// The IPA size exceeds the PA size (Arm ARM D8.2.2).
    #[error("IPA size of {bits} bits is more than the {pa_bits} bits of physical address")]
    IpaBits {
        /// The size asked for.
        bits: u8,
        /// The PA size.
        pa_bits: u8,
    },
    /// The CPU lacks the granule at stage 2.
    #[error("the CPU has no tables of {} KiB at stage 2", granule.bytes() >> 10)]
    Granule {
        /// The granule asked for.
        granule: Granule,
    },
    /// TCR.IPS has no encoding for this PA size.
    #[error("PA size of {bits} bits is not one of 32, 36, 40, 42, 44, 48, 52")]
    PaBits {
        /// The size asked for.
        bits: u8,
    },
}

/// How many levels a walk has (Arm ARM D8.2.2).
const fn levels(granule: Granule, va_bits: u8, regime: Regime) -> u32 {
    let resolved = va_bits as u32 - granule.shift();
    if !regime.is_stage_2() {
        return resolved.div_ceil(granule.index_bits());
    }
    let levels = (resolved - CONCATENATED_BITS).div_ceil(granule.index_bits());
    // A walk of 4K tables starts at level 3 only with FEAT_TTST, which nothing here needs.
    match granule {
        Granule::K4 if levels < 2 => 2,
        Granule::K4 | Granule::K16 | Granule::K64 => levels,
    }
}

impl Geometry {
    /// The 4K granule with 48 bits of VA and PA.
    pub const K4_48: Self = Self::of(Granule::K4, 48, 48, Regime::El1And0);

    /// The geometry with these sizes, whose tables take away nothing.
    const fn of(granule: Granule, va_bits: u8, pa_bits: u8, regime: Regime) -> Self {
        let form = match granule {
            Granule::K4 | Granule::K16 if va_bits > 48 || pa_bits > 48 => AddressForm::Lpa2,
            Granule::K64 if pa_bits > 48 => AddressForm::Lpa,
            Granule::K4 | Granule::K16 | Granule::K64 => AddressForm::Bits48,
        };
        let levels = levels(granule, va_bits, regime);
        let word = word::PAGE_SHIFT.set(0, granule.shift() as u64);
        let word = word::VA_BITS.set(word, va_bits as u64);
        let word = word::PA_BITS.set(word, pa_bits as u64);
        let word = word::LEVELS.set(word, levels as u64);
        let word = word::REGIME.set(word, regime.number());
        let word = word::ADDRESS_FORM.set(word, form as u64);
        Self(word::MAIR.set(word, Mair::DEFAULT.number()))
    }

    /// Returns the geometry with this granule, `va_bits` of virtual and `pa_bits` of physical
    /// address, in the regime [`Regime::El1And0`].
    ///
    /// # Errors
    /// [`GeometryError::VaBits`] unless `va_bits` is 25 to 52, [`GeometryError::PaBits`] unless
    /// `pa_bits` is a size that TCR.IPS encodes (Arm ARM D24.2, TCR_EL1.IPS) of at most 52.
    pub const fn new(granule: Granule, va_bits: u8, pa_bits: u8) -> Result<Self, GeometryError> {
        if va_bits < 25 || va_bits > 52 {
            return Err(GeometryError::VaBits { bits: va_bits });
        }
        if !matches!(pa_bits, 32 | 36 | 40 | 42 | 44 | 48 | 52) {
            return Err(GeometryError::PaBits { bits: pa_bits });
        }
        Ok(Self::of(granule, va_bits, pa_bits, Regime::El1And0))
    }

    /// Returns the geometry of stage 2 with this granule, `ipa_bits` of intermediate physical
    /// address and `pa_bits` of physical address, at most the CPU's PA size.
    ///
    /// # Errors
    /// [`GeometryError::VaBits`] unless `ipa_bits` is 25 to 52, [`GeometryError::PaBits`] as for
    /// [`new`](Self::new), and [`GeometryError::IpaBits`] if `ipa_bits` is more than `pa_bits`:
    /// such a T0SZ or start level faults.
    pub const fn stage_2(
        granule: Granule,
        ipa_bits: u8,
        pa_bits: u8,
        features: Stage2,
    ) -> Result<Self, GeometryError> {
        match Self::new(granule, ipa_bits, pa_bits) {
            Ok(_) if ipa_bits > pa_bits => Err(GeometryError::IpaBits { bits: ipa_bits, pa_bits }),
            Ok(geometry) => Ok(geometry.in_regime(Regime::Stage2(features))),
            Err(error) => Err(error),
        }
    }

    /// Returns the geometry of stage 2 with `granule` and `ipa_bits` of intermediate physical
    /// address on this CPU, with its PA size and the features that [`Stage2::of_cpu`] finds.
    ///
    /// As in [`of_cpu`](Self::of_cpu) the PA size is at most 48 bits unless `wide` asks for more or
    /// the IPAs have more.
    ///
    /// # Errors
    /// [`GeometryError::Granule`], and those of [`stage_2`](Self::stage_2).
    pub const fn stage_2_of_cpu(
        granule: Granule,
        ipa_bits: u8,
        wide: PaReach,
        mmfr0: Mmfr0,
        mmfr1: Mmfr1,
        mmfr2: Mmfr2,
    ) -> Result<Self, GeometryError> {
        if !mmfr0.supports_at_stage_2(granule) {
            return Err(GeometryError::Granule { granule });
        }
        let has_52_bits = matches!(granule, Granule::K64) || mmfr0.lpa2_at_stage_2(granule);
        let wants_52_bits = ipa_bits > 48 || matches!(wide, PaReach::Whole);
        let pa_bits = match mmfr0.pa_bits() {
            52 if !(has_52_bits && wants_52_bits) => 48,
            bits => bits,
        };
        Self::stage_2(granule, ipa_bits, pa_bits, Stage2::of_cpu(mmfr1, mmfr2))
    }

    /// Returns the same geometry in another regime. Its tables take away nothing.
    #[must_use]
    pub const fn in_regime(self, regime: Regime) -> Self {
        let geometry = Self::of(self.granule(), self.va_bits(), self.pa_bits(), regime);
        geometry.with_mair(self.mair())
    }

    /// Returns the same geometry for a tree whose table descriptors take away `tables` from
    /// everything below them. All code that writes tables by this geometry writes such descriptors,
    /// and refuses mappings that they would restrict. Readers use the descriptors that they find.
    ///
    /// # Errors
    /// [`AttributeError::TablesOfStage2`], [`AttributeError::TablesOfUser`].
    pub const fn with_table_permissions(self, tables: TablePermissions) -> Result<Self, AttributeError> {
        match tables.check(self.regime()) {
            Ok(()) => Ok(Self(word::TABLES.set(self.0, tables.number()))),
            Err(error) => Err(error),
        }
    }

    /// Returns the same geometry for a tree whose leaves name memory types by the slots of `mair`.
    /// A geometry of stage 2 does not change: its leaves contain the memory type itself.
    #[must_use]
    pub const fn with_mair(self, mair: Mair) -> Self {
        if self.regime().is_stage_2() { self } else { Self(word::MAIR.set(self.0, mair.number())) }
    }

    /// Returns the MAIR slots of the memory types, which stage 2 does not use.
    #[inline]
    pub const fn mair(self) -> Mair {
        Mair::from_number(word::MAIR.of(self.0))
    }

    /// Returns what new table descriptors take away from everything below them.
    #[inline]
    pub const fn table_permissions(self) -> TablePermissions {
        TablePermissions::from_number(word::TABLES.of(self.0))
    }

    /// The regime.
    #[inline]
    pub const fn regime(self) -> Regime {
        Regime::from_number(word::REGIME.of(self.0))
    }

    /// Returns the geometry with `granule` that has `va_bits` of virtual address, or as many below
    /// as the CPU has, and the PA size of the CPU.
    ///
    /// More than 48 bits of virtual address take LPA2 with 4K and 16K, and FEAT_LVA with 64K; a CPU
    /// without gets 48. The PA size is at most 48 bits unless `wide` asks for more or the virtual
    /// addresses have more: LPA2, which is then in use, gives every descriptor another form.
    ///
    /// # Errors
    /// [`GeometryError::VaBits`] unless `va_bits` is 25 to 52.
    pub const fn of_cpu(
        granule: Granule,
        va_bits: u8,
        wide: PaReach,
        mmfr0: Mmfr0,
        mmfr2: Mmfr2,
    ) -> Result<Self, GeometryError> {
        let (wide_va, wide_pa) = match granule {
            Granule::K64 => (mmfr2.va52(), true),
            Granule::K4 | Granule::K16 => (mmfr0.lpa2(granule), mmfr0.lpa2(granule)),
        };
        let va_bits = if va_bits > 48 && !wide_va { 48 } else { va_bits };
        let wants_wide_pa = va_bits > 48 || matches!(wide, PaReach::Whole);
        let pa_bits = match mmfr0.pa_bits() {
            52 if !(wide_pa && wants_wide_pa) => 48,
            bits => bits,
        };
        Self::new(granule, va_bits, pa_bits)
    }

    /// Page and table size.
    #[inline]
    pub const fn granule(self) -> Granule {
        match self.page_shift() {
            12 => Granule::K4,
            14 => Granule::K16,
            _ => Granule::K64,
        }
    }

    /// log2 of the bytes in a page.
    #[inline(always)]
    pub const fn page_shift(self) -> u32 {
        word::PAGE_SHIFT.of(self.0) as u32
    }

    /// Bytes in a page and in a full table, those of the [granule](Self::granule).
    #[inline(always)]
    pub const fn page_bytes(self) -> u64 {
        1 << self.page_shift()
    }

    /// Address bits that one full table resolves.
    #[inline(always)]
    const fn index_bits(self) -> u32 {
        self.page_shift() - 3
    }

    /// Bits of virtual address that the tables resolve; of intermediate physical address at stage
    /// 2.
    #[inline]
    pub const fn va_bits(self) -> u8 {
        word::VA_BITS.of(self.0) as u8
    }

    /// Bits of physical address that descriptors can hold.
    #[inline]
    pub const fn pa_bits(self) -> u8 {
        word::PA_BITS.of(self.0) as u8
    }

    /// Whether descriptors have the LPA2 form (TCR.DS = 1): `OA[51:50]` in bits 9:8 and
    /// shareability in TCR.
    #[inline]
    pub const fn lpa2(self) -> bool {
        word::ADDRESS_FORM.of(self.0) == AddressForm::Lpa2 as u64
    }

    /// How descriptors hold an address.
    #[inline(always)]
    pub(crate) const fn address_form(self) -> AddressForm {
        AddressForm::from_number(word::ADDRESS_FORM.of(self.0))
    }

    /// Returns the level at which a walk starts (Arm ARM D8.2.2). At stage 2 a walk has the fewest
    /// levels for which [`root_tables`](Self::root_tables) is at most 16.
    #[inline]
    pub const fn start_level(self) -> Level {
        // At most five levels: 52 bits with the smallest granule take 12 bits, and 9 a level.
        match Level::new(4 - word::LEVELS.of(self.0) as i8) {
            Some(level) => level,
            None => Level::MINUS_1,
        }
    }

    /// Returns the number of tables in the root: 1, or at stage 2 up to 16 consecutive ones,
    /// aligned to their total size (Arm ARM D8.2.2, "Concatenated translation tables"). Each
    /// translates as many addresses as one table at the start level.
    #[inline]
    pub const fn root_tables(self) -> usize {
        match self.regime() {
            Regime::Stage2(_) => 1 << self.root_table_bits(),
            _ => 1,
        }
    }

    /// Returns the table at the start level that translates `va`, where the root is at `root`: the
    /// root itself, unless it consists of several tables.
    #[inline]
    pub const fn root_table(self, root: Pa, va: Va) -> Pa {
        match self.regime() {
            Regime::Stage2(_) => {
                let table_shift = self.shift(self.start_level()) + self.index_bits();
                let nth = va.0 >> table_shift & ((1 << self.root_table_bits()) - 1);
                Pa(root.0 + nth * self.page_bytes())
            }
            _ => root,
        }
    }

    /// The address bits that choose one of the root's tables at stage 2.
    #[cold]
    #[inline(never)]
    const fn root_table_bits(self) -> u32 {
        let table_shift = self.shift(self.start_level()) + self.index_bits();
        (self.va_bits() as u32).saturating_sub(table_shift)
    }

    /// log2 of the bytes that one entry at `level` covers.
    #[inline(always)]
    pub const fn shift(self, level: Level) -> u32 {
        self.page_shift() + self.index_bits() * level.above_pages()
    }

    /// Bytes that one entry at `level` covers.
    #[inline]
    pub const fn entry_bytes(self, level: Level) -> u64 {
        1 << self.shift(level)
    }

    /// Entries in one table at `level`: fewer than a full table at the start level when the VA size
    /// cuts it short.
    #[inline]
    pub const fn entries(self, level: Level) -> usize {
        // Only at the start level a full table would resolve more bits than are left.
        let left = (self.va_bits() as u32).saturating_sub(self.shift(level));
        let full = self.index_bits();
        1 << if left < full { left } else { full }
    }

    /// The index of the entry for `va` in its table at `level`.
    #[inline]
    pub const fn index(self, va: Va, level: Level) -> usize {
        (va.0 >> self.shift(level)) as usize & (self.entries(level) - 1)
    }

    /// Whether a leaf may be at `level`: a page at level 3, and the blocks of Arm ARM D8.3.1
    /// (level 1 with 4K, or with 16K under LPA2, or with 64K and 52-bit PA; level 0 with 4K under
    /// LPA2; level 2 always).
    #[inline(always)]
    pub const fn has_leaf(self, level: Level) -> bool {
        match level.number() {
            3 | 2 => true,
            1 => match self.granule() {
                Granule::K4 => true,
                Granule::K16 => self.lpa2(),
                Granule::K64 => self.pa_bits() == 52,
            },
            0 => matches!(self.granule(), Granule::K4) && self.lpa2(),
            _ => false,
        }
    }

    /// Returns how many entries at `level` make a contiguous run (Arm ARM D8.7.1, "The Contiguous
    /// bit"). `None` where the bit has no meaning: in pages and blocks of the other levels it is
    /// RES0.
    #[inline]
    pub const fn contiguous_entries(self, level: Level) -> Option<usize> {
        match (self.granule(), level.number()) {
            (Granule::K4, 1..=3) => Some(16),
            (Granule::K16, 3) => Some(128),
            (Granule::K16, 2) | (Granule::K64, 2 | 3) => Some(32),
            _ => None,
        }
    }

    /// [`contiguous_entries`](Self::contiguous_entries) where linmap makes runs: at levels 2 and 3.
    ///
    /// A run of sixteen 1 GiB blocks, at level 1 with the 4K granule, is only understood: 1 GiB is
    /// the largest TLB entry of the CPUs that we know of, and a change of one page in the run would
    /// first have to clear the bit in all its blocks.
    #[inline]
    pub const fn new_run_entries(self, level: Level) -> Option<usize> {
        match level.number() {
            2 | 3 => self.contiguous_entries(level),
            _ => None,
        }
    }

    /// Whether a descriptor can hold `pa`.
    #[inline]
    pub const fn holds(self, pa: Pa) -> bool {
        pa.0 >> self.pa_bits() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn geometry(granule: Granule, va: u8, pa: u8) -> Geometry {
        match Geometry::new(granule, va, pa) {
            Ok(geometry) => geometry,
            Err(_) => panic!("no such geometry"),
        }
    }

    #[test]
    fn the_start_level_follows_the_va_size() {
        for (granule, va, level) in [
            (Granule::K4, 52, -1),
            (Granule::K4, 49, -1),
            (Granule::K4, 48, 0),
            (Granule::K4, 40, 0),
            (Granule::K4, 39, 1),
            (Granule::K4, 31, 1),
            (Granule::K4, 30, 2),
            (Granule::K16, 52, 0),
            (Granule::K16, 48, 0),
            (Granule::K16, 47, 1),
            (Granule::K16, 36, 2),
            (Granule::K64, 52, 1),
            (Granule::K64, 43, 1),
            (Granule::K64, 42, 2),
        ] {
            assert_eq!(geometry(granule, va, 48).start_level().number(), level, "{granule:?} {va}");
        }
    }

    #[test]
    fn the_root_table_is_as_short_as_the_va_size_makes_it() {
        assert_eq!(geometry(Granule::K4, 33, 48).entries(Level::L1), 8);
        assert_eq!(geometry(Granule::K4, 48, 48).entries(Level::L0), 512);
        assert_eq!(geometry(Granule::K4, 52, 52).entries(Level::MINUS_1), 16);
        assert_eq!(geometry(Granule::K16, 48, 48).entries(Level::L0), 2);
        assert_eq!(geometry(Granule::K64, 52, 52).entries(Level::L1), 1024);
        assert_eq!(geometry(Granule::K64, 48, 48).entries(Level::L2), 8192);
    }

    #[test]
    fn leaf_sizes_match_the_architecture() {
        let size = |granule, level| geometry(granule, 48, 48).entry_bytes(level);
        assert_eq!(size(Granule::K4, Level::L1), 1 << 30);
        assert_eq!(size(Granule::K4, Level::L2), 2 << 20);
        assert_eq!(size(Granule::K16, Level::L2), 32 << 20);
        assert_eq!(size(Granule::K64, Level::L2), 512 << 20);
        assert!(!geometry(Granule::K4, 48, 48).has_leaf(Level::L0));
        assert!(geometry(Granule::K4, 52, 52).has_leaf(Level::L0));
        assert!(!geometry(Granule::K16, 48, 48).has_leaf(Level::L1));
        assert!(geometry(Granule::K16, 48, 52).has_leaf(Level::L1));
        assert!(!geometry(Granule::K64, 48, 48).has_leaf(Level::L1));
        assert!(geometry(Granule::K64, 48, 52).has_leaf(Level::L1));
    }

    #[test]
    fn contiguous_runs_have_the_published_sizes() {
        let run = |granule, level| {
            let g = geometry(granule, 48, 48);
            g.contiguous_entries(level).map(|n| n as u64 * g.entry_bytes(level))
        };
        assert_eq!(run(Granule::K4, Level::L3), Some(64 << 10));
        assert_eq!(run(Granule::K4, Level::L2), Some(32 << 20));
        assert_eq!(run(Granule::K4, Level::L1), Some(16 << 30));
        assert_eq!(run(Granule::K16, Level::L3), Some(2 << 20));
        assert_eq!(run(Granule::K16, Level::L2), Some(1 << 30));
        assert_eq!(run(Granule::K64, Level::L3), Some(2 << 20));
        assert_eq!(run(Granule::K64, Level::L2), Some(16 << 30));
        let lpa2 = geometry(Granule::K16, 52, 52);
        assert_eq!(lpa2.contiguous_entries(Level::L1), None);
        assert_eq!(geometry(Granule::K4, 52, 52).contiguous_entries(Level::L0), None);
        assert_eq!(geometry(Granule::K64, 52, 52).contiguous_entries(Level::L1), None);
    }

    #[test]
    fn runs_are_made_at_levels_2_and_3() {
        for granule in [Granule::K4, Granule::K16, Granule::K64] {
            let g = geometry(granule, 52, 52);
            for level in [Level::MINUS_1, Level::L0, Level::L1] {
                assert_eq!(g.new_run_entries(level), None);
            }
            for level in [Level::L2, Level::L3] {
                assert!(g.new_run_entries(level).is_some());
            }
        }
    }

    #[test]
    fn the_index_ignores_the_bits_above_the_va_size() {
        let g = Geometry::K4_48;
        assert_eq!(g.index(Va(0xffff_8000_8020_3000), Level::L0), 256);
        assert_eq!(g.index(Va(0xffff_8000_8020_3000), Level::L1), 2);
        assert_eq!(g.index(Va(0xffff_8000_8020_3000), Level::L2), 1);
        assert_eq!(g.index(Va(0xffff_8000_8020_3000), Level::L3), 3);
    }

    #[test]
    fn lpa2_is_for_the_small_granules_beyond_48_bits() {
        assert!(!Geometry::K4_48.lpa2());
        assert!(geometry(Granule::K4, 48, 52).lpa2());
        assert!(geometry(Granule::K16, 52, 48).lpa2());
        assert!(!geometry(Granule::K64, 52, 52).lpa2());
    }

    #[test]
    fn a_cpu_gets_the_sizes_that_it_has() {
        const MAX: Mmfr0 = Mmfr0(6 | 1 << 28 | 2 << 20);
        const NO_LPA2: Mmfr0 = Mmfr0(6 | 1 << 20);
        const N1: Mmfr0 = Mmfr0(5 | 1 << 20);
        const LVA: Mmfr2 = Mmfr2(1 << 16);
        const NONE: Mmfr2 = Mmfr2(0);
        use Granule::{K4, K16, K64};
        use PaReach::{Bits48, Whole};
        for (granule, va, reach, mmfr0, mmfr2, expected) in [
            (K4, 52, Bits48, MAX, LVA, (52, 52, true)),
            (K16, 52, Bits48, MAX, LVA, (52, 52, true)),
            (K64, 52, Bits48, MAX, LVA, (52, 52, false)),
            (K4, 48, Bits48, MAX, LVA, (48, 48, false)),
            (K4, 48, Whole, MAX, LVA, (48, 52, true)),
            (K64, 48, Whole, MAX, LVA, (48, 52, false)),
            (K4, 39, Bits48, MAX, LVA, (39, 48, false)),
            // FEAT_LVA is for the 64K granule alone.
            (K4, 52, Whole, NO_LPA2, LVA, (48, 48, false)),
            (K16, 52, Whole, NO_LPA2, LVA, (48, 48, false)),
            (K64, 52, Bits48, NO_LPA2, LVA, (52, 52, false)),
            (K64, 52, Bits48, N1, NONE, (48, 48, false)),
            (K16, 52, Bits48, N1, NONE, (48, 48, false)),
            // LPA2 with fewer bits of physical address.
            (K4, 52, Whole, Mmfr0(MAX.0 - 2), LVA, (52, 44, true)),
            (K4, 48, Whole, Mmfr0(MAX.0 - 2), LVA, (48, 44, false)),
        ] {
            let g = Geometry::of_cpu(granule, va, reach, mmfr0, mmfr2).unwrap();
            assert_eq!((g.va_bits(), g.pa_bits(), g.lpa2()), expected, "{granule:?} {va} {reach:?}");
        }
        assert!(Geometry::of_cpu(K4, 53, Whole, MAX, LVA).is_err());
    }

    #[test]
    fn sizes_that_no_register_can_say_are_refused() {
        assert_eq!(Geometry::new(Granule::K4, 24, 48), Err(GeometryError::VaBits { bits: 24 }));
        assert_eq!(Geometry::new(Granule::K4, 53, 48), Err(GeometryError::VaBits { bits: 53 }));
        assert_eq!(Geometry::new(Granule::K4, 48, 47), Err(GeometryError::PaBits { bits: 47 }));
    }
}
