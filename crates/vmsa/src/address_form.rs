//! How descriptors hold an output address.

/// How descriptors hold an output address (Arm ARM D8.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AddressForm {
    /// `OA[47:12]` in place, and nothing above.
    Bits48,
    /// 64K: as `Bits48`, and `OA[51:48]` in bits 15:12.
    Lpa,
    /// LPA2 (TCR.DS = 1): `OA[49:12]` in place, `OA[51:50]` in bits 9:8.
    Lpa2,
}

impl AddressForm {
    /// The form with this number.
    #[inline(always)]
    pub(crate) const fn from_number(number: u64) -> Self {
        match number {
            0 => Self::Bits48,
            1 => Self::Lpa,
            _ => Self::Lpa2,
        }
    }
}
