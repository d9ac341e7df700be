//! How tables are read, by TCR and VTCR_EL2.

/// How the tables of one half of the address space, or of stage 2, are read.
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
    is_stage2: bool,
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
        Some(Self::with(granule, 64 - size as u32, tcr >> 59 & 1 == 1))
    }

    /// The shape by the TCR of a regime with one range.
    pub fn of_single(tcr: u64) -> Option<Self> {
        let size = tcr & 0x3f;
        let granule = [Some(12), Some(16), Some(14), None][(tcr >> 14 & 3) as usize];
        let granule = granule.filter(|_| (12..=39).contains(&size))?;
        Some(Self::with(granule, 64 - size as u32, tcr >> 32 & 1 == 1))
    }

    /// The shape of stage 2. SL0 and SL2 choose the level of the root, which may be up to 16 tables
    /// (Arm ARM D8.2.2).
    pub fn of_stage2(vtcr: u64) -> Option<Self> {
        let granule = [Some(12), Some(16), Some(14), None][(vtcr >> 14 & 3) as usize]?;
        let start = match (granule, vtcr >> 33 & 1, (vtcr >> 6 & 3) as i8) {
            (12, 1, 0) => -1,
            (12, 0, sl0 @ 0..=2) => 2 - sl0,
            (12, 0, 3) => 3,
            (14, 0, sl0) | (16, 0, sl0 @ 0..=2) => 3 - sl0,
            _ => return None,
        };
        let size = vtcr & 0x3f;
        let shape = Self::with(granule, 64 - size.min(40) as u32, vtcr >> 32 & 1 == 1);
        let shape = Self { start, is_stage2: true, ..shape };
        let bits = shape.va_bits as i32 - shape.shift(start) as i32;
        (1..=granule as i32 + 1).contains(&bits).then_some(shape)
    }

    /// The shape with the fewest levels.
    fn with(granule: u32, va_bits: u32, has_ds: bool) -> Self {
        // Without DS more count as 48 (Arm ARM D8.2).
        let va_bits = if granule < 16 && !has_ds { va_bits.min(48) } else { va_bits };
        let levels = (va_bits - granule).div_ceil(granule - 3);
        Self { granule, va_bits, start: 4 - levels as i8, has_ds, is_stage2: false }
    }

    /// Whether `now` is `before` with what hardware sets: the access flag, or with DBM the right to
    /// write.
    pub fn is_updated(self, before: u64, now: u64) -> bool {
        const AF: u64 = 1 << 10;
        /// AP[2], which is cleared; S2AP[1], which is set.
        const WRITE: u64 = 1 << 7;
        const DBM: u64 = 1 << 51;
        let af = before | now & AF;
        let written = if self.is_stage2 { af | WRITE } else { af & !WRITE };
        af == now || before & DBM != 0 && written == now
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
        // One range: bit 7 is RES0.
        let single = Shape::of_single(1 << 7 | 16).map(|shape| (shape.start, shape.va_bits));
        assert_eq!(single, Some((0, 48)));
    }

    #[test]
    fn hardware_updates_differ_between_the_stages() {
        let stage1 = Shape::of_single(16).expect("48 bits");
        let stage2 = Shape::of_stage2(24 | 1 << 6).expect("40 bits");
        let (dbm, write, af) = (1 << 51, 1 << 7, 1 << 10);
        for shape in [stage1, stage2] {
            assert!(shape.is_updated(3, 3 | af));
            assert!(!shape.is_updated(3 | af, 3));
            assert!(!shape.is_updated(3, 3 | write) && !shape.is_updated(3 | write, 3), "without DBM");
        }
        assert!(stage1.is_updated(3 | dbm | write, 3 | dbm) && !stage1.is_updated(3 | dbm, 3 | dbm | write));
        assert!(stage2.is_updated(3 | dbm, 3 | dbm | write) && !stage2.is_updated(3 | dbm | write, 3 | dbm));
    }

    #[test]
    fn the_root_of_stage_2_has_the_level_of_sl0_and_up_to_16_tables() {
        let shape = |vtcr| Shape::of_stage2(vtcr).map(|shape| (shape.start, shape.root_entries()));
        // 4K: 40 bits from level 1 (two tables), 43 bits (16 tables), 48 bits from level 0.
        assert_eq!(shape(24 | 1 << 6), Some((1, 1024)));
        assert_eq!(shape(21 | 1 << 6), Some((1, 8192)));
        assert_eq!(shape(16 | 2 << 6), Some((0, 512)));
        assert_eq!(shape(16 | 1 << 6), None, "32 tables and more");
        // 64K: 40 bits from level 2, and not from level 3.
        assert_eq!(shape(24 | 1 << 14), None);
        assert_eq!(shape(24 | 1 << 14 | 1 << 6), Some((2, 2048)));
    }
}
