//! How the boot loader entered the kernel.

/// The exception level of the entry, and the one that the kernel runs at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entered {
    /// Entered at EL1, where the kernel stays.
    El1,
    /// Entered at EL2 with VHE, where the kernel stays with E2H and TGE set.
    El2Vhe,
    /// Entered at EL2 without VHE. The kernel runs at EL1 and leaves a stub at EL2.
    El2Stub,
}

impl Entered {
    /// The code of [`El1`](Self::El1) in assembly.
    pub const EL1: u64 = 1;
    /// The code of [`El2Vhe`](Self::El2Vhe) in assembly.
    pub const EL2_VHE: u64 = 2;
    /// The code of [`El2Stub`](Self::El2Stub) in assembly.
    pub const EL2_STUB: u64 = 3;

    /// Reads the code that `entry.S` passes on.
    pub fn from_code(code: u64) -> Self {
        match code {
            Self::EL2_VHE => Self::El2Vhe,
            Self::EL2_STUB => Self::El2Stub,
            _ => Self::El1,
        }
    }

    /// The code that `entry.S` uses.
    pub fn code(self) -> u64 {
        match self {
            Self::El1 => Self::EL1,
            Self::El2Vhe => Self::EL2_VHE,
            Self::El2Stub => Self::EL2_STUB,
        }
    }

    /// The exception level of the entry. The next kernel is entered at the same one.
    pub fn el(self) -> u8 {
        match self {
            Self::El1 => 1,
            Self::El2Vhe | Self::El2Stub => 2,
        }
    }
}
