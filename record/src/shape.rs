//! How tables of EL1&0 are read, by TCR_EL1.

/// How the tables of one half of the address space are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Bits of an address that a page leaves: 12, 14 or 16.
    pub granule: u32,
    /// Bits of address that the tables resolve.
    pub va_bits: u32,
    /// The level of the root.
    pub start: i8,
    /// TCR.DS.
    has_ds: bool,
}

impl Shape {
    /// The shape of a half: TTBR0's, or TTBR1's. `None` if its walks are off, or of no granule.
    pub fn of(tcr: u64, upper: bool) -> Option<Self> {
        let (size, off, tg) = if upper {
            (tcr >> 16 & 0x3f, tcr >> 23 & 1, [None, Some(14), Some(12), Some(16)][(tcr >> 30 & 3) as usize])
        } else {
            (tcr & 0x3f, tcr >> 7 & 1, [Some(12), Some(16), Some(14), None][(tcr >> 14 & 3) as usize])
        };
        let granule = tg.filter(|_| off == 0 && (12..=39).contains(&size))?;
        let va_bits = 64 - size as u32;
        let levels = (va_bits - granule).div_ceil(granule - 3);
        Some(Self { granule, va_bits, start: 4 - levels as i8, has_ds: tcr >> 59 & 1 == 1 })
    }

    /// The bits of address below an entry at `level`.
    pub fn shift(self, level: i8) -> u32 {
        self.granule + (3 - level) as u32 * (self.granule - 3)
    }

    /// The entries of the root.
    pub fn root_entries(self) -> usize {
        1 << (self.va_bits - self.shift(self.start))
    }

    /// The entries of any other table.
    pub fn entries(self) -> usize {
        1 << (self.granule - 3)
    }

    /// The table that a base register names.
    pub fn root(self, ttbr: u64) -> u64 {
        let base = ttbr & 0xffff_ffff_fffe;
        if self.va_bits > 48 && (self.has_ds || self.granule == 16) {
            base & !0x3f | (ttbr >> 2 & 0xf) << 48
        } else {
            base
        }
    }

    /// The address in a descriptor of a table or page.
    pub fn address(self, descriptor: u64) -> u64 {
        let low = descriptor & 0xffff_ffff_ffff & (!0 << self.granule);
        match self.granule {
            16 => low | (descriptor >> 12 & 0xf) << 48,
            _ if self.has_ds => low | (descriptor >> 48 & 3) << 48 | (descriptor >> 8 & 3) << 50,
            _ => low,
        }
    }

    /// The table that `descriptor` at `level` leads to.
    pub fn table(self, level: i8, descriptor: u64) -> Option<u64> {
        (level < 3 && descriptor & 3 == 3).then(|| self.address(descriptor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_s_level_follows_from_granule_and_size() {
        let shape = |tg1: u64, t1sz: u64| {
            Shape::of(tg1 << 30 | t1sz << 16, true).map(|shape| (shape.start, shape.root_entries()))
        };
        assert_eq!(shape(0b10, 16), Some((0, 512)));
        assert_eq!(shape(0b10, 25), Some((1, 512)));
        assert_eq!(shape(0b01, 17), Some((1, 2048)));
        assert_eq!(shape(0b11, 22), Some((2, 8192)));
        assert_eq!(shape(0b11, 12), Some((1, 1024)));
        assert_eq!(shape(0, 16), None);
        assert_eq!(Shape::of(1 << 7 | 16, false), None, "EPD0");
    }
}
