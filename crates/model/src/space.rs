//! The address spaces that tables can translate, and the shape of their walks.

use crate::config::Config;

/// The number of spaces.
pub(crate) const SPACES: usize = 6;

/// What one translation table base register translates.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Space {
    /// TTBR0_EL1's half.
    Low,
    /// TTBR1_EL1's half.
    High,
    /// TTBR0_EL2's: all of EL2, or with HCR_EL2.E2H the first half of EL2&0.
    El2,
    /// TTBR1_EL2's half of EL2&0.
    El2High,
    /// TTBR0_EL3's.
    El3,
    /// Intermediate physical addresses: VTTBR_EL2's.
    Stage2,
}

impl Space {
    /// All spaces.
    pub const ALL: [Self; SPACES] =
        [Self::Low, Self::High, Self::El2, Self::El2High, Self::El3, Self::Stage2];

    /// The space's number, its place in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The base register's name.
    pub const fn register(self) -> &'static str {
        match self {
            Self::Low => "ttbr0",
            Self::High => "ttbr1",
            Self::El2 => "ttbr0_el2",
            Self::El2High => "ttbr1_el2",
            Self::El3 => "ttbr0_el3",
            Self::Stage2 => "vttbr_el2",
        }
    }

    /// Whether it is the half at the top of a regime with two.
    pub(crate) const fn is_upper(self) -> bool {
        matches!(self, Self::High | Self::El2High)
    }
}

/// How a space is walked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    /// log2 of the granule.
    pub granule: u32,
    /// Bits of input address.
    pub va_bits: u32,
    /// Bits of physical address of the machine.
    pub pa_bits: u8,
    /// Bits of output address that do not fault: TCR.IPS or VTCR.PS.
    pub out_bits: u8,
    /// The first level of a walk.
    pub start: i8,
    /// TCR.DS: descriptors of the LPA2 form. 64K reaches 52 bits without it. Before TCR is written,
    /// what the machine's sizes need.
    pub has_ds: bool,
    /// Table descriptors restrict what is below them: TCR.HPD0 or HPD1 is 0.
    pub hierarchical: bool,
    /// Hardware sets the access flag of leaves: TCR.HA or VTCR.HA is 1.
    pub sets_accessed: bool,
    /// Hardware makes leaves with DBM writable at a write: HD is 1, too.
    pub sets_dirty: bool,
    /// The regime has an EL0, so that nG, AP[1], PXN and their hierarchical forms have a meaning.
    pub has_el0: bool,
}

impl Shape {
    pub fn of(config: &Config, space: Space) -> Self {
        Self {
            granule: config.granule.trailing_zeros(),
            va_bits: 0,
            start: 0,
            has_ds: config.granule < 0x1_0000 && (config.va_bits > 48 || config.pa_bits > 48),
            pa_bits: config.pa_bits,
            out_bits: config.pa_bits,
            hierarchical: true,
            sets_accessed: false,
            sets_dirty: false,
            has_el0: matches!(space, Space::Low | Space::High),
        }
        .with_input(u32::from(config.va_bits))
    }

    /// The same shape for input addresses of `va_bits`, with the fewest levels that a root of one
    /// table allows.
    pub fn with_input(self, va_bits: u32) -> Self {
        let levels = va_bits.saturating_sub(self.granule).div_ceil(self.index_bits());
        Self { va_bits, start: 4 - levels as i8, ..self }
    }

    /// The same shape with output addresses of `bits`, or of what the machine has if that is less.
    /// `None` where fewer change what a descriptor means: 64K has blocks at level 1 with 52 bits
    /// alone.
    pub fn with_output(self, bits: u8) -> Option<Self> {
        let narrow = self.granule < 16 && !self.has_ds;
        let out_bits = bits.min(self.pa_bits).min(if narrow { 48 } else { 52 });
        let known = self.granule < 16 || self.pa_bits < 52 || out_bits == 52;
        known.then_some(Self { out_bits, ..self })
    }

    /// The same shape with the updates by hardware that HA and HD say.
    pub fn with_updates(self, ha: bool, hd: bool) -> Self {
        Self { sets_accessed: ha, sets_dirty: ha && hd, ..self }
    }

    /// Whether tables are read in the same way, apart from what hardware updates in them.
    pub fn is_read_as(self, other: Self) -> bool {
        self == other.with_updates(self.sets_accessed, self.sets_dirty)
    }

    /// Whether the root has entries, and no more than 16 tables of its level have.
    pub fn has_root(self) -> bool {
        let bits = self.va_bits as i32 - self.shift(self.start) as i32;
        (1..=self.index_bits() as i32 + 4).contains(&bits)
    }

    /// Whether descriptors have the LPA2 form.
    pub fn ds(self) -> bool {
        self.has_ds
    }

    /// The same shape with TCR.DS, for input addresses of `va_bits`. Without DS, 4K and 16K have 48
    /// bits: a larger size counts as 48, or no walk succeeds (Arm ARM D8.2.4), and the model takes
    /// the tables as walked.
    pub fn with_ds(self, ds: bool, va_bits: u32) -> Self {
        let has_ds = ds && self.granule < 16;
        let most = if has_ds || self.granule == 16 { 52 } else { 48 };
        Self { has_ds, ..self }.with_input(va_bits.min(most))
    }

    fn index_bits(self) -> u32 {
        self.granule - 3
    }

    /// log2 of the bytes that an entry at `level` translates.
    pub fn shift(self, level: i8) -> u32 {
        self.granule + self.index_bits() * (3 - i32::from(level)) as u32
    }

    /// The number of entries of a table at `level`; of all tables of a root of several.
    pub fn entries(self, level: i8) -> usize {
        if level == self.start { 1 << (self.va_bits - self.shift(level)) } else { 1 << self.index_bits() }
    }

    /// The number of entries of a contiguous run at `level`; 0 if the bit has no meaning there.
    ///
    /// Arm ARM D8.7.1. Level 1 has runs only with 4K (16 blocks of 1 GiB).
    pub fn run(self, level: i8) -> usize {
        match (self.granule, level) {
            (12, 1..=3) => 16,
            (14, 3) => 128,
            (14, 2) | (16, 2 | 3) => 32,
            _ => 0,
        }
    }

    /// Whether `level`, which is not 3, has blocks.
    pub fn has_block(self, level: i8) -> bool {
        match self.granule {
            12 => level >= 1 || (level == 0 && self.has_ds),
            14 => level == 2 || (level == 1 && self.has_ds),
            _ => level == 2 || (level == 1 && self.pa_bits == 52),
        }
    }

    /// The first address of `space`.
    pub fn base(self, space: Space) -> u64 {
        if space.is_upper() { u64::MAX << self.va_bits } else { 0 }
    }

    /// Whether `va` is one of `space`'s addresses.
    pub fn holds(self, space: Space, va: u64) -> bool {
        va >> self.va_bits == self.base(space) >> self.va_bits
    }
}
