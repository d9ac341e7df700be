//! The attributes of a leaf descriptor, by meaning.

use thiserror::Error;

use crate::{Geometry, Regime};

/// The memory type of a mapping. Each has its own MAIR slot; see [`crate::registers::MAIR`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MemoryType {
    /// Write-back cacheable memory.
    Normal,
    /// Write-back cacheable memory with MTE allocation tags. Only for CPUs with FEAT_MTE2:
    /// elsewhere its MAIR encoding is reserved.
    NormalTagged,
    /// Memory that is not cached.
    NormalNonCacheable,
    /// Device-nGnRE: registers of a device; early write acknowledgement allowed.
    DeviceNgnre,
    /// Device-nGnRnE: the strictest type, also that of data accesses with the MMU off.
    DeviceNgnrne,
}

impl MemoryType {
    /// The type's MAIR slot, as `AttrIndx[2:0]` names it.
    pub const fn mair_index(self) -> u64 {
        match self {
            Self::Normal => 0,
            Self::NormalTagged => 1,
            Self::NormalNonCacheable => 2,
            Self::DeviceNgnre => 3,
            Self::DeviceNgnrne => 4,
        }
    }

    const fn from_mair_index(index: u64) -> Option<Self> {
        match index {
            0 => Some(Self::Normal),
            1 => Some(Self::NormalTagged),
            2 => Some(Self::NormalNonCacheable),
            3 => Some(Self::DeviceNgnre),
            4 => Some(Self::DeviceNgnrne),
            _ => None,
        }
    }
}

/// Who may read and write: `AP[2:1]` (Arm ARM D8.4.1.2).
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
}

impl Access {
    /// Whether kernel or user space may write.
    #[inline]
    pub const fn writable(self) -> bool {
        self.bits() & READ_ONLY == 0
    }

    /// The bits of a leaf that say who may read and write: `AP[2:1]`, and DBM, which lets hardware
    /// clear `AP[2]` at the first write (Arm ARM D8.5.4). No [`Access`] sets DBM.
    pub const MASK: u64 = USER | READ_ONLY | DIRTY_MODIFIER;

    /// The value of the bits in [`MASK`](Self::MASK).
    #[inline]
    pub const fn bits(self) -> u64 {
        (self as u64) << 6
    }
}

const _: () = assert!(USER == 1 << 6 && READ_ONLY == 1 << 7, "AP[2:1] are bits 7:6 (Arm ARM D8.3.1.2)");

/// Who may execute (PXN and UXN, Arm ARM D8.4.1.2.3).
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

    /// The value of the bits in [`MASK`](Self::MASK).
    #[inline]
    pub const fn bits(self) -> u64 {
        match self {
            Self::Never => PXN | UXN,
            Self::Kernel => UXN,
            Self::User => PXN,
            Self::Both => 0,
        }
    }
}

/// Who keeps the memory coherent (`SH[1:0]`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Shareability {
    /// This CPU alone.
    Non,
    /// The outer domain.
    Outer,
    /// The inner domain: all CPUs that run one kernel.
    Inner,
}

/// Everything in a leaf descriptor but its address.
///
/// Two leaves with equal attributes at consecutive addresses can be one larger leaf.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Attributes {
    /// Memory type: an index into MAIR.
    pub memory: MemoryType,
    /// Who may read and write.
    pub access: Access,
    /// Who may execute.
    pub execute: Execute,
    /// Shareability. Under LPA2 it lies in TCR and is not encoded.
    pub shareability: Shareability,
    /// Whether the translation holds for every ASID (nG = 0).
    pub global: bool,
    /// The access flag: without it the first access faults.
    pub accessed: bool,
    /// The contiguous bit: one of a run that a TLB may hold as a single entry.
    pub contiguous: bool,
    /// nT: the block is being split or merged by the FEAT_BBM level 1 procedure, and accesses may
    /// fault. Blocks only.
    pub no_translation: bool,
}

/// Attributes that a regime's descriptors can't say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum AttributeError {
    /// There is no user space.
    #[error("user space may access the memory, and the {regime} regime has none: its AP[1] is RES1")]
    UserAccess {
        /// The regime.
        regime: Regime,
    },
    /// There is no user space.
    #[error("user space may execute the memory, and the {regime} regime has none: bit 54 is XN there")]
    UserExecute {
        /// The regime.
        regime: Regime,
    },
    /// There are no address space identifiers.
    #[error("the translation is not global, and the {regime} regime has no ASIDs: its nG is RES0")]
    NotGlobal {
        /// The regime.
        regime: Regime,
    },
}

pub(crate) const USER: u64 = 1 << 6;
pub(crate) const READ_ONLY: u64 = 1 << 7;
pub(crate) const SHAREABILITY_SHIFT: u32 = 8;
pub(crate) const ACCESSED: u64 = 1 << 10;
pub(crate) const NOT_GLOBAL: u64 = 1 << 11;
pub(crate) const NO_TRANSLATION: u64 = 1 << 16;
pub(crate) const DIRTY_MODIFIER: u64 = 1 << 51;
pub(crate) const CONTIGUOUS: u64 = 1 << 52;
pub(crate) const PXN: u64 = 1 << 53;
pub(crate) const UXN: u64 = 1 << 54;
/// Where there is no user space (Arm ARM D8.3.1.2).
const XN: u64 = 1 << 54;

impl Attributes {
    /// Kernel memory that is read and written: the linear map's own attributes.
    pub const KERNEL_DATA: Self = Self {
        memory: MemoryType::Normal,
        access: Access::KernelReadWrite,
        execute: Execute::Never,
        shareability: Shareability::Inner,
        global: true,
        accessed: true,
        contiguous: false,
        no_translation: false,
    };

    /// Kernel memory that is only read: read-only data, and the linear alias of the kernel image.
    pub const KERNEL_RODATA: Self = Self { access: Access::KernelReadOnly, ..Self::KERNEL_DATA };

    /// Kernel code.
    pub const KERNEL_TEXT: Self = Self { execute: Execute::Kernel, ..Self::KERNEL_RODATA };

    /// Registers of a device.
    pub const DEVICE: Self = Self { memory: MemoryType::DeviceNgnre, ..Self::KERNEL_DATA };

    /// Whether the mapping is writable and executable, which linmap refuses.
    pub const fn writable_and_executable(self) -> bool {
        self.access.writable() && !matches!(self.execute, Execute::Never)
    }

    /// Checks that the descriptors of `regime` can say this.
    ///
    /// # Errors
    /// [`AttributeError`], for the first that they can't.
    pub const fn check(self, regime: Regime) -> Result<(), AttributeError> {
        if regime.has_user_space() {
            return Ok(());
        }
        if matches!(self.access, Access::UserReadWrite | Access::UserReadOnly) {
            return Err(AttributeError::UserAccess { regime });
        }
        if matches!(self.execute, Execute::User | Execute::Both) {
            return Err(AttributeError::UserExecute { regime });
        }
        if !self.global {
            return Err(AttributeError::NotGlobal { regime });
        }
        Ok(())
    }

    /// The attribute bits of a leaf descriptor (Arm ARM D8.3.2, "Block and Page descriptor
    /// attributes") without type and address. nT is encoded as asked; at level 3 the bit is part of
    /// the address, so it must be unset.
    #[inline]
    pub const fn bits(self, geometry: Geometry) -> u64 {
        let mut bits = self.memory.mair_index() << 2 | self.access.bits() | self.execute.bits();
        if !geometry.lpa2() {
            bits |= match self.shareability {
                Shareability::Non => 0,
                Shareability::Outer => 0b10,
                Shareability::Inner => 0b11,
            } << SHAREABILITY_SHIFT;
        }
        if !self.global {
            bits |= NOT_GLOBAL;
        }
        if self.accessed {
            bits |= ACCESSED;
        }
        if self.contiguous {
            bits |= CONTIGUOUS;
        }
        if self.no_translation {
            bits |= NO_TRANSLATION;
        }
        if geometry.regime().has_user_space() { bits } else { Self::without_user_space(bits) }
    }

    /// The bits where there is no user space: `AP[1]` is RES1, and XN takes the place of UXN. What
    /// the kernel may not execute is what nobody may.
    #[cold]
    const fn without_user_space(bits: u64) -> u64 {
        let never = if bits & PXN != 0 { XN } else { 0 };
        bits & !Execute::MASK | USER | never
    }

    /// Returns the attributes in the bits of a leaf descriptor, or `None` for a memory type or
    /// shareability that linmap never writes. `block` is whether the leaf is above level 3.
    pub const fn from_bits(bits: u64, geometry: Geometry, block: bool) -> Option<Self> {
        let has_user_space = geometry.regime().has_user_space();
        let Some(memory) = MemoryType::from_mair_index(bits >> 2 & 0b111) else { return None };
        let shareability = if geometry.lpa2() {
            Shareability::Inner
        } else {
            match bits >> SHAREABILITY_SHIFT & 0b11 {
                0b00 => Shareability::Non,
                0b10 => Shareability::Outer,
                0b11 => Shareability::Inner,
                _ => return None,
            }
        };
        Some(Self {
            memory,
            access: match (bits & USER != 0 && has_user_space, bits & READ_ONLY != 0) {
                (false, false) => Access::KernelReadWrite,
                (false, true) => Access::KernelReadOnly,
                (true, false) => Access::UserReadWrite,
                (true, true) => Access::UserReadOnly,
            },
            execute: match (bits & PXN != 0, bits & UXN != 0) {
                _ if !has_user_space => {
                    if bits & XN != 0 {
                        Execute::Never
                    } else {
                        Execute::Kernel
                    }
                }
                (true, true) => Execute::Never,
                (false, true) => Execute::Kernel,
                (true, false) => Execute::User,
                (false, false) => Execute::Both,
            },
            shareability,
            global: bits & NOT_GLOBAL == 0 || !has_user_space,
            accessed: bits & ACCESSED != 0,
            contiguous: bits & CONTIGUOUS != 0,
            no_translation: block && bits & NO_TRANSLATION != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EL1: Geometry = Geometry::K4_48;

    #[test]
    fn what_is_executed_at_el2_and_el3_is_said_by_one_bit() {
        for regime in [Regime::El2, Regime::El3] {
            let geometry = EL1.in_regime(regime);
            let text = Attributes::KERNEL_TEXT.bits(geometry);
            assert_eq!((text & XN, text & PXN), (0, 0), "{regime}: the MMU goes on under this code");
            assert_eq!(text & (USER | READ_ONLY), USER | READ_ONLY, "AP[1] is RES1");
            let data = Attributes::KERNEL_DATA.bits(geometry);
            assert_eq!((data & XN, data & PXN, data & READ_ONLY), (XN, 0, 0));
            for attributes in [Attributes::KERNEL_TEXT, Attributes::KERNEL_DATA, Attributes::DEVICE] {
                let bits = attributes.bits(geometry);
                assert_eq!(Attributes::from_bits(bits, geometry, true), Some(attributes), "{regime}");
            }
        }
        let (one, other) = (EL1, EL1.in_regime(Regime::El2And0));
        assert_eq!(Attributes::KERNEL_TEXT.bits(one), Attributes::KERNEL_TEXT.bits(other));
    }

    #[test]
    fn what_a_regime_can_not_say_is_an_error_that_names_it() {
        let user = Attributes { access: Access::UserReadOnly, ..Attributes::KERNEL_DATA };
        let code = Attributes { execute: Execute::Both, ..Attributes::KERNEL_RODATA };
        let local = Attributes { global: false, ..Attributes::KERNEL_DATA };
        for (attributes, error) in [
            (user, AttributeError::UserAccess { regime: Regime::El2 }),
            (code, AttributeError::UserExecute { regime: Regime::El2 }),
            (local, AttributeError::NotGlobal { regime: Regime::El2 }),
        ] {
            assert_eq!(attributes.check(Regime::El2), Err(error));
            assert_eq!(attributes.check(Regime::El2And0), Ok(()));
        }
        assert_eq!(Attributes::KERNEL_TEXT.check(Regime::El3), Ok(()));
    }
}
