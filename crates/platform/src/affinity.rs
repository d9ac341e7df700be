//! How an arm64 machine names its CPUs.

use core::fmt;

use arrayvec::ArrayString;

/// A CPU's affinity: the affinity fields of its MPIDR_EL1, Aff3 in bits 39:32 and Aff2 to Aff0 in
/// bits 23:0 (Arm ARM D24.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Affinity(u64);

impl Affinity {
    /// The bits of MPIDR_EL1 that are affinity fields.
    pub const MASK: u64 = 0xff_00ff_ffff;

    /// Returns the affinity fields of an MPIDR_EL1 value.
    pub const fn of_mpidr(mpidr: u64) -> Self {
        Self(mpidr & Self::MASK)
    }

    /// Returns the fields where MPIDR_EL1 has them; all other bits are 0.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Returns Aff3, Aff2, Aff1 and Aff0 as one 32-bit number, as GICR_TYPER has them.
    pub const fn packed(self) -> u32 {
        (self.0 >> 32 << 24 | self.0 & 0xff_ffff) as u32
    }
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = ArrayString::<18>::new();
        // 0x and at most 16 digits.
        let _ = fmt::Write::write_fmt(&mut text, format_args!("{:#x}", self.0));
        f.pad(&text)
    }
}
