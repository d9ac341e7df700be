//! The attributes of a leaf descriptor, by meaning.

use crate::Geometry;

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
        bits
    }

    /// Returns the attributes in the bits of a leaf descriptor, or `None` for a memory type or
    /// shareability that linmap never writes. `block` is whether the leaf is above level 3.
    pub const fn from_bits(bits: u64, geometry: Geometry, block: bool) -> Option<Self> {
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
            access: match (bits & USER != 0, bits & READ_ONLY != 0) {
                (false, false) => Access::KernelReadWrite,
                (false, true) => Access::KernelReadOnly,
                (true, false) => Access::UserReadWrite,
                (true, true) => Access::UserReadOnly,
            },
            execute: match (bits & PXN != 0, bits & UXN != 0) {
                (true, true) => Execute::Never,
                (false, true) => Execute::Kernel,
                (true, false) => Execute::User,
                (false, false) => Execute::Both,
            },
            shareability,
            global: bits & NOT_GLOBAL == 0,
            accessed: bits & ACCESSED != 0,
            contiguous: bits & CONTIGUOUS != 0,
            no_translation: block && bits & NO_TRANSLATION != 0,
        })
    }
}
