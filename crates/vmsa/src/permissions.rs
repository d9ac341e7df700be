//! Who may read, write and execute what a leaf maps.

use crate::{Regime, Stage2};

pub(crate) const USER: u64 = 1 << 6;
pub(crate) const READ_ONLY: u64 = 1 << 7;
pub(crate) const DIRTY_MODIFIER: u64 = 1 << 51;
pub(crate) const PXN: u64 = 1 << 53;
pub(crate) const UXN: u64 = 1 << 54;
/// Where there is no user space (Arm ARM D8.3.1.2), and `XN[1]` of stage 2.
pub(crate) const XN: u64 = 1 << 54;
/// `XN[0]` of stage 2, RES0 without FEAT_XNX.
pub(crate) const XN_OF_STAGE_2_LOW: u64 = 1 << 53;

/// Who may read and write: `AP[2:1]` of stage 1 (Arm ARM D8.4.1.2), or `S2AP[1:0]` of stage 2
/// (D8.4.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// The kernel reads and writes; user space has no access.
    KernelReadWrite = 0b00,
    /// Kernel and user space read and write.
    UserReadWrite = 0b01,
    /// The kernel reads; user space has no access.
    KernelReadOnly = 0b10,
    /// Kernel and user space read.
    UserReadOnly = 0b11,
    /// As [`KernelReadWrite`](Self::KernelReadWrite), and hardware tracks writes (DBM): nobody has
    /// written since the leaf was clean. With [`HardwareUpdates`](crate::HardwareUpdates) the first
    /// write makes it [dirty](Self::KernelReadWriteDirty); without them it faults.
    KernelReadWriteClean = TRACKED | 0b10,
    /// As [`KernelReadWrite`](Self::KernelReadWrite), and hardware tracks writes: somebody has
    /// written.
    KernelReadWriteDirty = TRACKED,
    /// [`UserReadWrite`](Self::UserReadWrite), tracked and clean.
    UserReadWriteClean = TRACKED | 0b11,
    /// [`UserReadWrite`](Self::UserReadWrite), tracked and dirty.
    UserReadWriteDirty = TRACKED | 0b01,
    /// Stage 2: the guest has no access.
    GuestNone = GUEST,
    /// Stage 2: the guest reads.
    GuestReadOnly = GUEST | 0b01,
    /// Stage 2: the guest writes.
    GuestWriteOnly = GUEST | 0b10,
    /// Stage 2: the guest reads and writes.
    GuestReadWrite = GUEST | 0b11,
    /// Stage 2: the guest reads and writes; tracked and clean.
    GuestReadWriteClean = GUEST | TRACKED | 0b01,
    /// Stage 2: the guest reads and writes; tracked and dirty.
    GuestReadWriteDirty = GUEST | TRACKED | 0b11,
}

/// Tells the values of stage 2 from those of stage 1. No bit of a descriptor.
const GUEST: isize = 0b100;

/// Hardware tracks writes: DBM.
const TRACKED: isize = 0b1000;

impl Access {
    /// Whether kernel, user space or guest may write.
    #[inline]
    pub const fn writable(self) -> bool {
        // Bit 7 takes the right away at stage 1, and gives it at stage 2. Hardware makes what is
        // tracked writable.
        (self.bits() & READ_ONLY != 0) == self.is_of_guest() || self.is_tracked()
    }

    /// Returns whether hardware tracks writes: the leaf is writable, and clean or dirty.
    #[inline]
    pub const fn is_tracked(self) -> bool {
        self as isize & TRACKED != 0
    }

    /// Returns whether stage 2 alone can say it.
    #[inline]
    pub const fn is_of_guest(self) -> bool {
        self as isize & GUEST != 0
    }

    /// The bits of a leaf that say who may read and write: `AP[2:1]`, or `S2AP[1:0]` of stage 2 in
    /// the same place, and DBM, which lets hardware make the leaf writable at the first write (Arm
    /// ARM D8.5.4).
    pub const MASK: u64 = USER | READ_ONLY | DIRTY_MODIFIER;

    /// The value of the bits in [`MASK`](Self::MASK), in the regimes with user space and at stage
    /// 2.
    #[inline]
    pub const fn bits(self) -> u64 {
        (self as u64 & 0b11) << 6 | (self as u64 & TRACKED as u64) << (DIRTY_MODIFIER.trailing_zeros() - 3)
    }

    /// The value of the bits in [`MASK`](Self::MASK) in `regime`: `AP[1]` is RES1 where there is no
    /// user space.
    #[inline]
    pub const fn bits_in(self, regime: Regime) -> u64 {
        match regime {
            Regime::El1And0 | Regime::El2And0 | Regime::Stage2(_) => self.bits(),
            Regime::El2 | Regime::El3 => self.bits() | USER,
        }
    }

    /// Returns the access that the bits of a leaf say.
    #[inline(always)]
    pub const fn from_bits(bits: u64, regime: Regime) -> Self {
        if regime.is_stage_2() {
            return Self::from_bits_of_guest(bits);
        }
        if bits & DIRTY_MODIFIER != 0 {
            return Self::from_tracked(bits, regime);
        }
        match (bits & USER != 0 && regime.has_user_space(), bits & READ_ONLY != 0) {
            (false, false) => Self::KernelReadWrite,
            (false, true) => Self::KernelReadOnly,
            (true, false) => Self::UserReadWrite,
            (true, true) => Self::UserReadOnly,
        }
    }

    #[cold]
    const fn from_tracked(bits: u64, regime: Regime) -> Self {
        match (bits & USER != 0 && regime.has_user_space(), bits & READ_ONLY != 0) {
            (false, false) => Self::KernelReadWriteDirty,
            (false, true) => Self::KernelReadWriteClean,
            (true, false) => Self::UserReadWriteDirty,
            (true, true) => Self::UserReadWriteClean,
        }
    }

    const fn from_bits_of_guest(bits: u64) -> Self {
        match (bits & READ_ONLY != 0, bits & USER != 0) {
            (true, true) if bits & DIRTY_MODIFIER != 0 => Self::GuestReadWriteDirty,
            (false, true) if bits & DIRTY_MODIFIER != 0 => Self::GuestReadWriteClean,
            (false, false) => Self::GuestNone,
            (false, true) => Self::GuestReadOnly,
            (true, false) => Self::GuestWriteOnly,
            (true, true) => Self::GuestReadWrite,
        }
    }
}

const _: () = assert!(USER == 1 << 6 && READ_ONLY == 1 << 7, "AP[2:1] are bits 7:6 (Arm ARM D8.3.1.2)");

/// Who may execute: PXN and UXN of stage 1 (Arm ARM D8.4.1.2.3), XN of stage 2 (D8.4.2.2), where
/// the kernel is the guest's EL1 and user space its EL0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Execute {
    /// Neither kernel nor user space.
    Never,
    /// Only the kernel.
    Kernel,
    /// Only user space.
    User,
    /// Both.
    Both,
}

impl Execute {
    /// The bits of a leaf that say who may execute.
    pub const MASK: u64 = PXN | UXN;

    /// The value of the bits in [`MASK`](Self::MASK), in the regimes with user space.
    #[inline]
    pub const fn bits(self) -> u64 {
        match self {
            Self::Never => PXN | UXN,
            Self::Kernel => UXN,
            Self::User => PXN,
            Self::Both => 0,
        }
    }

    /// The value of the bits in [`MASK`](Self::MASK) in `regime`. Where one bit says who executes,
    /// memory that only one of two may execute counts as executable:
    /// [`check`](crate::Attributes::check) refuses it there.
    #[inline]
    pub const fn bits_in(self, regime: Regime) -> u64 {
        match regime {
            Regime::El1And0 | Regime::El2And0 => self.bits(),
            // XN, with PXN RES0.
            Regime::El2 | Regime::El3 => match self {
                Self::Never | Self::User => XN,
                Self::Kernel | Self::Both => 0,
            },
            // XN[1:0] in bits 54:53.
            Regime::Stage2(_) => match self {
                Self::Never => XN,
                Self::Both => 0,
                Self::User => XN_OF_STAGE_2_LOW,
                Self::Kernel => XN | XN_OF_STAGE_2_LOW,
            },
        }
    }

    /// Returns who executes by the bits of a leaf.
    #[inline(always)]
    pub const fn from_bits(bits: u64, regime: Regime) -> Self {
        if let Regime::Stage2(features) = regime {
            return Self::from_bits_of_guest(bits, features);
        }
        match (bits & PXN != 0, bits & UXN != 0) {
            (_, true) if !regime.has_user_space() => Self::Never,
            (_, false) if !regime.has_user_space() => Self::Kernel,
            (true, true) => Self::Never,
            (false, true) => Self::Kernel,
            (true, false) => Self::User,
            (false, false) => Self::Both,
        }
    }

    const fn from_bits_of_guest(bits: u64, features: Stage2) -> Self {
        match (bits & XN != 0, bits & XN_OF_STAGE_2_LOW != 0 && features.has_xnx()) {
            (true, false) => Self::Never,
            (false, false) => Self::Both,
            (false, true) => Self::User,
            (true, true) => Self::Kernel,
        }
    }
}
