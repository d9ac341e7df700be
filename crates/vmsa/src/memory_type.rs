//! Memory types: an index into MAIR at stage 1, a type of its own at stage 2.

use crate::Stage2;

/// `MemAttr[3:0]` of stage 2.
pub(crate) const MEM_ATTR: u64 = 0b1111 << 2;

/// The memory type of a mapping. At stage 1 a leaf names its MAIR slot ([`Mair`](crate::Mair)). At
/// stage 2 the leaf contains the type itself, and hardware combines it with the type of the guest's
/// stage 1: the stricter one applies. With HCR_EL2.FWB, normal memory of stage 2 is write-back
/// cacheable whatever the guest's type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MemoryType {
    /// Write-back cacheable memory.
    Normal,
    /// Write-back cacheable memory with MTE allocation tags. Only for CPUs with FEAT_MTE2:
    /// elsewhere its MAIR encoding is reserved.
    NormalTagged,
    /// Normal non-cacheable memory.
    NormalNonCacheable,
    /// Device-nGnRE: registers of a device; early write acknowledgement allowed.
    DeviceNgnre,
    /// Device-nGnRnE: the strictest type, also that of data accesses with the MMU off.
    DeviceNgnrne,
}

impl MemoryType {
    /// Every type, in the order of their slots in [`Mair::DEFAULT`](crate::Mair::DEFAULT).
    pub const EVERY: [Self; 5] =
        [Self::Normal, Self::NormalTagged, Self::NormalNonCacheable, Self::DeviceNgnre, Self::DeviceNgnrne];

    /// The type's place in [`EVERY`](Self::EVERY).
    #[inline(always)]
    pub(crate) const fn number(self) -> u32 {
        self as u32
    }

    /// The eight bits of the type in a slot of MAIR (Arm ARM D24.2, MAIR_EL1).
    pub const fn encoding(self) -> u64 {
        match self {
            // Inner and outer write-back, non-transient, read and write allocate; the same with
            // tags.
            Self::Normal => 0xff,
            Self::NormalTagged => 0xf0,
            Self::NormalNonCacheable => 0x44,
            Self::DeviceNgnre => 0x04,
            Self::DeviceNgnrne => 0x00,
        }
    }

    /// `MemAttr[3:0]` of stage 2 (Arm ARM D8.6.5; D8.6.6 with FWB). There is none with tags: it
    /// counts as normal memory, and [`check`](Attributes::check) refuses it.
    pub(crate) const fn mem_attr(self, features: Stage2) -> u64 {
        match self {
            Self::Normal | Self::NormalTagged if features.has_fwb() => 0b0110,
            Self::Normal | Self::NormalTagged => 0b1111,
            Self::NormalNonCacheable => 0b0101,
            Self::DeviceNgnre => 0b0001,
            Self::DeviceNgnrne => 0b0000,
        }
    }

    pub(crate) const fn from_mem_attr(mem_attr: u64, features: Stage2) -> Option<Self> {
        match mem_attr {
            0b0110 if features.has_fwb() => Some(Self::Normal),
            0b1111 if !features.has_fwb() => Some(Self::Normal),
            0b0101 => Some(Self::NormalNonCacheable),
            0b0001 => Some(Self::DeviceNgnre),
            0b0000 => Some(Self::DeviceNgnrne),
            _ => None,
        }
    }
}
