//! The fields of TCR_EL1, TCR_EL2 and TCR_EL3.

use crate::regime::Regime;
use crate::space::Space;

/// TCR.IPS or PS: bits of physical address. The last value is reserved or above all that are
/// modelled.
pub(crate) const OUTPUT_BITS: [u8; 8] = [32, 36, 40, 42, 44, 48, 52, 52];

/// What a TCR says of one half.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Half {
    pub space: Space,
    pub va_bits: u32,
    /// log2 of the granule; `None` for a reserved value.
    pub granule: Option<u32>,
    /// EPD: a miss is a fault.
    pub is_off: bool,
    /// HPD is 0.
    pub hierarchical: bool,
    pub shareability: u64,
}

/// A value of a TCR. TCR_EL2 has the form of TCR_EL1 in a regime with two halves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tcr {
    pub value: u64,
    regime: Regime,
    has_halves: bool,
}

impl Tcr {
    pub fn new(regime: Regime, has_halves: bool, value: u64) -> Self {
        Self { value, regime, has_halves }
    }

    fn bit(self, nth: u32) -> bool {
        self.value >> nth & 1 == 1
    }

    /// The halves: both, or the one that there is.
    pub fn halves(self) -> Vec<Half> {
        let value = self.value;
        let low = |hpd| Half {
            space: self.regime.spaces()[0],
            va_bits: 64 - (value & 0x3f) as u32,
            granule: [Some(12), Some(16), Some(14), None][(value >> 14 & 3) as usize],
            is_off: self.has_halves && self.bit(7),
            hierarchical: !self.bit(hpd),
            shareability: value >> 12 & 3,
        };
        let high = |space: &Space| Half {
            space: *space,
            va_bits: 64 - (value >> 16 & 0x3f) as u32,
            granule: [None, Some(14), Some(12), Some(16)][(value >> 30 & 3) as usize],
            is_off: self.bit(23),
            hierarchical: !self.bit(42),
            shareability: value >> 28 & 3,
        };
        match self.regime.spaces().get(1).filter(|_| self.has_halves) {
            Some(space) => vec![low(41), high(space)],
            None => vec![low(24)],
        }
    }

    pub fn output_bits(self) -> u8 {
        OUTPUT_BITS[(self.value >> if self.has_halves { 32 } else { 16 } & 7) as usize]
    }

    pub fn ds(self) -> bool {
        self.bit(if self.has_halves { 59 } else { 32 })
    }

    pub fn sets_accessed(self) -> bool {
        self.bit(if self.has_halves { 39 } else { 21 })
    }

    pub fn sets_dirty(self) -> bool {
        self.bit(if self.has_halves { 40 } else { 22 })
    }

    /// A1: the ASID is that of TTBR1.
    pub fn names_by_ttbr1(self) -> bool {
        self.has_halves && self.bit(22)
    }

    /// AS: ASIDs have 16 bits.
    pub fn has_wide_ids(self) -> bool {
        self.has_halves && self.bit(36)
    }
}
