//! The attributes of a leaf descriptor, by meaning.

use crate::attribute_error::AttributeError;
use crate::memory_type::MEM_ATTR;
use crate::permissions::USER;
use crate::{Access, Execute, Geometry, MemoryType, Regime, Stage2, TablePermissions};

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
///
/// ```
/// use linmap_vmsa::{Attributes, Descriptor, Geometry, Level, MemoryType, Pa, Shareability};
///
/// // A frame buffer: written past the caches, by this CPU alone.
/// let buffer = Attributes {
///     memory: MemoryType::NormalNonCacheable,
///     shareability: Shareability::Non,
///     ..Attributes::KERNEL_DATA
/// };
/// let page = Descriptor::page(Geometry::K4_48, Pa(0x8000_0000), buffer);
/// assert_eq!(page.attributes(Geometry::K4_48, Level::L3), Some(buffer));
/// ```
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

pub(crate) const SHAREABILITY_SHIFT: u32 = 8;
pub(crate) const ACCESSED: u64 = 1 << 10;
pub(crate) const NOT_GLOBAL: u64 = 1 << 11;
pub(crate) const NO_TRANSLATION: u64 = 1 << 16;
pub(crate) const CONTIGUOUS: u64 = 1 << 52;

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

    /// Memory that a process and the kernel read and write; non-global.
    pub const USER_DATA: Self = Self { access: Access::UserReadWrite, global: false, ..Self::KERNEL_DATA };

    /// Memory that a process and the kernel read; non-global.
    pub const USER_RODATA: Self = Self { access: Access::UserReadOnly, ..Self::USER_DATA };

    /// Code of a process; non-global.
    pub const USER_TEXT: Self = Self { execute: Execute::User, ..Self::USER_RODATA };

    /// A guest's memory at stage 2: the guest reads, writes and executes it.
    pub const GUEST_RAM: Self =
        Self { access: Access::GuestReadWrite, execute: Execute::Both, ..Self::KERNEL_DATA };

    /// Registers of a device that is passed to a guest.
    pub const GUEST_DEVICE: Self = Self { access: Access::GuestReadWrite, ..Self::DEVICE };

    /// Returns whether the mapping is writable and executable, which linmap refuses at stage 1. At
    /// stage 2 it is allowed: the guest's own stage 1 decides what is code.
    pub const fn writable_and_executable(self) -> bool {
        self.access.writable() && !matches!(self.execute, Execute::Never)
    }

    /// Checks that the descriptors of `regime` can say this.
    ///
    /// # Errors
    /// [`AttributeError`], for the first that they can't.
    #[inline(always)]
    pub const fn check(self, regime: Regime) -> Result<(), AttributeError> {
        // What a kernel asks most.
        if regime.has_user_space() && !self.access.is_of_guest() {
            return Ok(());
        }
        self.check_unusual(regime)
    }

    #[cold]
    #[inline(never)]
    const fn check_unusual(self, regime: Regime) -> Result<(), AttributeError> {
        if let Regime::Stage2(features) = regime {
            return self.check_stage_2(features);
        }
        if self.access.is_of_guest() {
            return Err(AttributeError::GuestAccess { access: self.access, regime });
        }
        if self.access.bits() & USER != 0 {
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

    /// Checks that descriptors of `geometry` can encode these attributes: in its regime, with the
    /// memory types of its [`Mair`](crate::Mair).
    ///
    /// # Errors
    /// As [`check`](Self::check), and [`AttributeError::NoSlot`].
    #[inline(always)]
    pub const fn check_in(self, geometry: Geometry) -> Result<(), AttributeError> {
        let memory = self.memory;
        if !geometry.regime().is_stage_2() && geometry.mair().slot(memory).is_none() {
            return Err(AttributeError::NoSlot { memory });
        }
        self.check(geometry.regime())
    }

    const fn check_stage_2(self, features: Stage2) -> Result<(), AttributeError> {
        let Self { access, execute, .. } = self;
        if !access.is_of_guest() {
            return Err(AttributeError::NotGuestAccess { access });
        }
        if matches!(execute, Execute::Kernel | Execute::User) && !features.has_xnx() {
            return Err(AttributeError::ExecuteOfOneLevel { execute });
        }
        if !self.global {
            return Err(AttributeError::NotGlobal { regime: Regime::Stage2(features) });
        }
        if matches!(self.memory, MemoryType::NormalTagged) {
            return Err(AttributeError::TaggedAtStage2);
        }
        Ok(())
    }

    /// The attribute bits of a leaf descriptor (Arm ARM D8.3.2, "Block and Page descriptor
    /// attributes") without type and address. nT is encoded as asked; at level 3 the bit is part of
    /// the address, so it must be unset.
    #[inline]
    pub const fn bits(self, geometry: Geometry) -> u64 {
        let mut bits = geometry.mair().index(self.memory) << 2 | self.access.bits() | self.execute.bits();
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
        if geometry.regime().has_user_space() { bits } else { Self::without_user_space(bits, geometry) }
    }

    /// The bits where there is no user space, by those of EL1&0.
    // It takes nothing else: what a cold call needs costs the other regimes instructions too.
    #[cold]
    #[inline(never)]
    const fn without_user_space(bits: u64, geometry: Geometry) -> u64 {
        let rest = bits & !(Access::MASK | Execute::MASK | NOT_GLOBAL);
        let execute = Execute::from_bits(bits, Regime::El1And0).bits_in(geometry.regime());
        match geometry.regime() {
            Regime::Stage2(features) => {
                let memory = match geometry.mair().memory(bits >> 2 & 0b111) {
                    Some(memory) => memory,
                    // Every type is in a slot of a geometry of stage 2.
                    None => MemoryType::Normal,
                };
                rest & !MEM_ATTR | memory.mem_attr(features) << 2 | bits & Access::MASK | execute
            }
            _ => rest | bits & Access::MASK | USER | execute,
        }
    }

    /// Returns the attributes in the bits of a leaf descriptor, or `None` for a memory type or
    /// shareability that linmap never writes. `block` is whether the leaf is above level 3.
    pub const fn from_bits(bits: u64, geometry: Geometry, block: bool) -> Option<Self> {
        let has_user_space = geometry.regime().has_user_space();
        let memory = match geometry.regime() {
            Regime::Stage2(features) => MemoryType::from_mem_attr(bits >> 2 & 0b1111, features),
            _ => geometry.mair().memory(bits >> 2 & 0b111),
        };
        let Some(memory) = memory else { return None };
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
            access: Access::from_bits(bits, geometry.regime()),
            execute: Execute::from_bits(bits, geometry.regime()),
            shareability,
            global: bits & NOT_GLOBAL == 0 || !has_user_space,
            accessed: bits & ACCESSED != 0,
            contiguous: bits & CONTIGUOUS != 0,
            no_translation: block && bits & NO_TRANSLATION != 0,
        })
    }
}

impl TablePermissions {
    /// Returns what a leaf with `attributes` below such tables allows.
    #[must_use]
    pub const fn restrict(self, attributes: Attributes) -> Attributes {
        Attributes {
            access: self.restrict_access(attributes.access),
            execute: self.restrict_execute(attributes.execute),
            ..attributes
        }
    }

    /// Returns whether a leaf with `attributes` loses nothing below such tables.
    pub const fn allows(self, attributes: Attributes) -> bool {
        self.is_all() || self.allows_access(attributes.access) && self.allows_execute(attributes.execute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permissions::{PXN, READ_ONLY, XN};

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

    const STAGE_2: [Stage2; 4] = [Stage2::Base, Stage2::Fwb, Stage2::Xnx, Stage2::FwbXnx];

    #[test]
    fn a_leaf_of_stage_2_has_the_bits_of_the_architecture() {
        let of = |attributes: Attributes, features| attributes.bits(EL1.in_regime(Regime::Stage2(features)));
        let memory = Attributes::GUEST_RAM;
        // AF, SH = inner, S2AP = read and write, MemAttr: MemAttr.
        for (features, attributes, bits) in [
            (Stage2::Base, memory, 0x400 | 0x300 | 0xc0 | 0b1111 << 2),
            (Stage2::Fwb, memory, 0x400 | 0x300 | 0xc0 | 0b0110 << 2),
            (Stage2::Base, Attributes::GUEST_DEVICE, 1 << 54 | 0x400 | 0x300 | 0xc0 | 0b0001 << 2),
            (Stage2::FwbXnx, Attributes::GUEST_DEVICE, 1 << 54 | 0x400 | 0x300 | 0xc0 | 0b0001 << 2),
            (
                Stage2::FwbXnx,
                Attributes {
                    memory: MemoryType::NormalNonCacheable,
                    access: Access::GuestReadOnly,
                    ..memory
                },
                0x400 | 0x300 | 0x40 | 0b0101 << 2,
            ),
            (
                Stage2::Xnx,
                Attributes { execute: Execute::User, access: Access::GuestNone, ..memory },
                1 << 53 | 0x400 | 0x300 | 0b1111 << 2,
            ),
            (
                Stage2::Xnx,
                Attributes { execute: Execute::Kernel, access: Access::GuestWriteOnly, ..memory },
                0b11 << 53 | 0x400 | 0x300 | 0x80 | 0b1111 << 2,
            ),
            (
                Stage2::Fwb,
                Attributes { memory: MemoryType::DeviceNgnrne, accessed: false, contiguous: true, ..memory },
                1 << 52 | 0x300 | 0xc0,
            ),
        ] {
            assert_eq!(of(attributes, features), bits, "{features:?} {attributes:?}");
        }
        let lpa2 = Geometry::stage_2(crate::Granule::K4, 52, 52, Stage2::Base).unwrap();
        assert_eq!(memory.bits(lpa2), 0x400 | 0xc0 | 0b1111 << 2, "VTCR_EL2 has the shareability");
    }

    #[test]
    fn all_that_stage_2_can_say_is_read_back() {
        let accesses =
            [Access::GuestNone, Access::GuestReadOnly, Access::GuestWriteOnly, Access::GuestReadWrite];
        let memories = [
            MemoryType::Normal,
            MemoryType::NormalNonCacheable,
            MemoryType::DeviceNgnre,
            MemoryType::DeviceNgnrne,
        ];
        for features in STAGE_2 {
            let regime = Regime::Stage2(features);
            let geometry = EL1.in_regime(regime);
            for (access, memory) in accesses.into_iter().flat_map(|a| memories.map(|m| (a, m))) {
                for execute in [Execute::Never, Execute::Kernel, Execute::User, Execute::Both] {
                    let attributes = Attributes { access, memory, execute, ..Attributes::GUEST_RAM };
                    let one_level = matches!(execute, Execute::Kernel | Execute::User);
                    assert_eq!(attributes.check(regime).is_ok(), !one_level || features.has_xnx());
                    if attributes.check(regime).is_ok() {
                        let bits = attributes.bits(geometry);
                        assert_eq!(Attributes::from_bits(bits, geometry, true), Some(attributes));
                        assert_eq!(bits & Access::MASK, access.bits_in(regime));
                        assert_eq!(bits & Execute::MASK, execute.bits_in(regime));
                        assert_eq!(access.writable(), bits & 1 << 7 != 0);
                    }
                }
            }
            // Types that linmap never writes, and those that FWB redefines.
            for mem_attr in 0..16u64 {
                let known = if features.has_fwb() { [0, 1, 5, 6] } else { [0, 1, 5, 15] }.contains(&mem_attr);
                let found = Attributes::from_bits(mem_attr << 2 | 0xc0, geometry, true);
                assert_eq!(found.is_some(), known, "{features:?} {mem_attr:#b}");
            }
        }
    }

    #[test]
    fn what_only_the_other_stage_can_say_is_an_error_that_names_it() {
        let regime = Regime::Stage2(Stage2::Base);
        let guest = Attributes::GUEST_RAM;
        let access = Access::KernelReadWrite;
        assert_eq!(
            Attributes::KERNEL_DATA.check(regime),
            Err(AttributeError::NotGuestAccess { access }),
            "AP = kernel read-write would be no access"
        );
        for stage_1 in [Regime::El1And0, Regime::El2And0, Regime::El2, Regime::El3] {
            let error = AttributeError::GuestAccess { access: guest.access, regime: stage_1 };
            assert_eq!(guest.check(stage_1), Err(error));
        }
        let local = Attributes { global: false, ..guest };
        assert_eq!(local.check(regime), Err(AttributeError::NotGlobal { regime }));
        let tagged = Attributes { memory: MemoryType::NormalTagged, ..guest };
        assert_eq!(tagged.check(regime), Err(AttributeError::TaggedAtStage2));
        let execute = Execute::User;
        let error = Err(AttributeError::ExecuteOfOneLevel { execute });
        assert_eq!(Attributes { execute, ..guest }.check(regime), error);
        assert_eq!(guest.check(regime), Ok(()));
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
