//! What the bits of a leaf say: attributes by meaning, less what the tables above take away.

use linmap_vmsa::{
    Access, Descriptor, Execute, Geometry, HardwareUpdates, Level, Pa, Regime, Shareability, TablePermissions,
};

use crate::dump::guest::Root;
use crate::dump::memory_attribute::MemoryAttribute;

/// NS of a leaf, in Secure state and at EL3.
pub const NOT_SECURE: u64 = 1 << 5;
/// nG at stage 1 with user space. Stage 2 has FnXS there (FEAT_XS).
pub const NOT_GLOBAL: u64 = 1 << 11;
/// AF.
pub const ACCESSED: u64 = 1 << 10;
/// nT of a block.
pub const NO_TRANSLATION: u64 = 1 << 16;
/// GP (FEAT_BTI).
pub const GUARDED: u64 = 1 << 50;
/// DBM.
pub const DIRTY_MODIFIER: u64 = 1 << 51;
/// The contiguous bit.
pub const CONTIGUOUS: u64 = 1 << 52;
/// `AP[2]`, or `S2AP[1]`.
pub const AP2: u64 = 1 << 7;
/// Bits 58:55, which hardware ignores.
pub const SOFTWARE: u64 = 0b1111 << 55;
/// Bits 62:59: page-based hardware attributes, or permission overlays.
const PBHA: u64 = 0b1111 << 59;
const SHAREABILITY: u64 = 0b11 << 8;
/// All bits in which some geometry holds an address, but SH.
const ADDRESSES: u64 = ((1 << 50) - 1) & !0xfff;

/// What one level of privilege may do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Rights {
    /// Exception levels that may write: bit n is ELn. A guest counts as EL1.
    pub writers: u8,
    /// Exception levels that may execute.
    pub executors: u8,
}

/// The SH field, or what stands for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sharing {
    /// By the field, or by TCR under LPA2.
    Known(Shareability),
    /// The reserved encoding 0b01.
    Reserved,
    /// Under LPA2 with TCR not known.
    InTcr,
}

/// The meaning of a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meaning {
    /// Its level.
    pub level: Level,
    /// The bytes that it maps.
    pub leaf_bytes: u64,
    /// Who may read and write, less what the tables take away.
    pub access: Access,
    /// Who may execute, less what the tables take away.
    pub execute: Execute,
    /// What the leaf alone would allow.
    pub own: (Access, Execute),
    /// What the tables on the way to it take away.
    pub tables: TablePermissions,
    /// Who may write and execute, by exception level.
    pub rights: Rights,
    /// The memory type.
    pub memory: MemoryAttribute,
    /// The shareability.
    pub sharing: Sharing,
    /// nG is clear, or there is none.
    pub is_global: bool,
    /// The bits that stand for themselves: contiguous, AF, DBM, GP, nT, NS, FnXS and software's.
    pub bits: u64,
    /// Bits that are RES0 and set.
    pub reserved: u64,
    /// The regime is stage 2.
    pub is_stage_2: bool,
}

impl Meaning {
    /// Whether the contiguous bit is set and has a meaning.
    pub fn is_contiguous(&self) -> bool {
        self.bits & CONTIGUOUS != 0 && self.reserved & CONTIGUOUS == 0
    }

    /// `SW[3:0]`: bits 58:55.
    pub fn software(&self) -> u64 {
        (self.bits & SOFTWARE) >> 55
    }

    /// Bits 62:59.
    pub fn pbha(&self) -> u64 {
        (self.bits & PBHA) >> 59
    }

    /// Whether someone may write and someone execute, through this very leaf. Stage 2 allows both
    /// to all of a guest's memory: what is code the guest's own tables say.
    pub fn is_writable_and_executable(&self) -> bool {
        !self.is_stage_2 && self.rights.writers != 0 && self.rights.executors != 0
    }
}

/// Reads leaves of one tree.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    geometry: Geometry,
    mair: Option<u64>,
    shareability: Option<Shareability>,
    writable_never_executes: bool,
    updates: HardwareUpdates,
}

impl Decoder {
    /// A reader of the leaves below `root`.
    pub fn new(root: &Root) -> Self {
        let Root { geometry, mair, shareability, writable_never_executes, updates, .. } = *root;
        Self { geometry, mair, shareability, writable_never_executes, updates }
    }

    /// The bits of the leaf `descriptor` for `pa` that are not address.
    pub fn attribute_bits(&self, descriptor: Descriptor, pa: Pa) -> u64 {
        descriptor.0 & !Descriptor(0).at(self.geometry, pa).0
    }

    /// The flags that hardware changes in such leaves while nobody looks: AF, and what says dirty
    /// where DBM is set.
    pub fn updated_bits(&self, bits: u64) -> u64 {
        match self.updates {
            HardwareUpdates::Off => 0,
            HardwareUpdates::Accessed => ACCESSED,
            HardwareUpdates::AccessedAndDirty if bits & DIRTY_MODIFIER != 0 => ACCESSED | AP2,
            HardwareUpdates::AccessedAndDirty => ACCESSED,
        }
    }

    /// The meaning of a leaf at `level` with these [attribute bits](Self::attribute_bits), below
    /// tables that take `tables` away.
    pub fn meaning(&self, bits: u64, level: Level, tables: TablePermissions) -> Meaning {
        let regime = self.geometry.regime();
        // DBM stands among the flags, and counts where hardware manages the dirty state.
        let own = (Access::from_bits(bits & !DIRTY_MODIFIER, regime), Execute::from_bits(bits, regime));
        let (access, execute) = (tables.restrict_access(own.0), tables.restrict_execute(own.1));
        let dirty_state = bits & DIRTY_MODIFIER != 0
            && self.updates == HardwareUpdates::AccessedAndDirty
            && !tables.takes(TablePermissions::READ_ONLY);
        let (execute, rights) = self.rights(access, execute, dirty_state);
        Meaning {
            level,
            leaf_bytes: self.geometry.entry_bytes(level),
            access,
            execute,
            own,
            tables,
            rights,
            memory: self.memory(bits),
            sharing: self.sharing(bits),
            is_global: bits & NOT_GLOBAL == 0 || !regime.has_user_space(),
            bits,
            reserved: self.reserved(bits, level),
            is_stage_2: regime.is_stage_2(),
        }
    }

    /// Who writes and executes in the end. EL1 never executes what EL0 may write (Arm ARM
    /// D8.4.1.2.3), and with WXN nobody executes what is writable. A clean leaf with DBM is
    /// writable where hardware manages the dirty state.
    fn rights(&self, access: Access, execute: Execute, has_dirty_state: bool) -> (Execute, Rights) {
        let regime = self.geometry.regime();
        let (kernel, user) = match regime {
            Regime::El1And0 | Regime::Stage2(_) => (1 << 1, 1),
            Regime::El2And0 => (1 << 2, 1),
            Regime::El2 => (1 << 2, 0),
            Regime::El3 => (1 << 3, 0),
        };
        let writers = match access {
            Access::KernelReadWrite | Access::KernelReadWriteDirty | Access::KernelReadWriteClean => kernel,
            Access::UserReadWrite | Access::UserReadWriteDirty | Access::UserReadWriteClean => kernel | user,
            Access::KernelReadOnly if has_dirty_state => kernel,
            Access::UserReadOnly if has_dirty_state => kernel | user,
            Access::KernelReadOnly | Access::UserReadOnly => 0,
            Access::GuestReadWrite | Access::GuestWriteOnly => kernel | user,
            Access::GuestReadWriteDirty | Access::GuestReadWriteClean => kernel | user,
            Access::GuestReadOnly if has_dirty_state => kernel | user,
            Access::GuestReadOnly | Access::GuestNone => 0,
        };
        let without_kernel = |execute| match execute {
            Execute::Kernel => Execute::Never,
            Execute::Both => Execute::User,
            Execute::Never | Execute::User => execute,
        };
        let execute = if regime.is_stage_2() {
            execute
        } else if self.writable_never_executes && access.writable() {
            Execute::Never
        } else if regime.has_user_space() && access == Access::UserReadWrite {
            without_kernel(execute)
        } else {
            execute
        };
        let executors = match execute {
            Execute::Never => 0,
            Execute::Kernel => kernel,
            Execute::User => user,
            Execute::Both => kernel | user,
        };
        (execute, Rights { writers, executors })
    }

    fn memory(&self, bits: u64) -> MemoryAttribute {
        if let Regime::Stage2(features) = self.geometry.regime() {
            let attr = (bits >> 2 & 0b1111) as u8;
            return match features.has_fwb() {
                true => MemoryAttribute::Stage2Fwb(attr),
                false => MemoryAttribute::Stage2(attr),
            };
        }
        let index = (bits >> 2 & 0b111) as u8;
        match self.mair {
            Some(mair) => MemoryAttribute::Mair((mair >> (8 * index)) as u8),
            None => MemoryAttribute::Index(index),
        }
    }

    fn sharing(&self, bits: u64) -> Sharing {
        if self.geometry.lpa2() {
            return self.shareability.map_or(Sharing::InTcr, Sharing::Known);
        }
        match (bits & SHAREABILITY) >> 8 {
            0b00 => Sharing::Known(Shareability::Non),
            0b10 => Sharing::Known(Shareability::Outer),
            0b11 => Sharing::Known(Shareability::Inner),
            _ => Sharing::Reserved,
        }
    }

    /// The bits that are RES0 (Arm ARM D8.3.1) and set all the same.
    fn reserved(&self, bits: u64, level: Level) -> u64 {
        let regime = self.geometry.regime();
        let is_page = level == Level::L3;
        let mut reserved = ADDRESSES;
        if !is_page {
            reserved &= !NO_TRANSLATION;
        }
        if self.geometry.contiguous_entries(level).is_none() {
            reserved |= CONTIGUOUS;
        }
        match regime {
            Regime::El1And0 | Regime::El2And0 => {}
            // NSE is there at EL3 with FEAT_RME.
            Regime::El2 => reserved |= NOT_GLOBAL | 1 << 53,
            Regime::El3 => reserved |= 1 << 53,
            Regime::Stage2(features) => {
                reserved |= GUARDED;
                if !features.has_xnx() {
                    reserved |= 1 << 53;
                }
            }
        }
        bits & reserved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::guest::{AddressSpace, RootRegister};
    use linmap_vmsa::{Attributes, Mair, Va};

    pub fn root(geometry: Geometry) -> Root {
        Root {
            register: RootRegister::Ttbr1El1,
            geometry,
            table: Pa(0x4000_0000),
            first: Va(0),
            id: 0,
            tcr: None,
            mair: Some(Mair::DEFAULT.value()),
            addresses: AddressSpace::Physical,
            shareability: Some(Shareability::Inner),
            writable_never_executes: false,
            has_table_permissions: true,
            updates: HardwareUpdates::Off,
        }
    }

    fn meaning(root: &Root, attributes: Attributes, tables: TablePermissions) -> Meaning {
        Decoder::new(root).meaning(attributes.bits(root.geometry), Level::L3, tables)
    }

    #[test]
    fn el1_never_executes_what_el0_may_write() {
        let both = Attributes { execute: Execute::Both, ..Attributes::USER_DATA };
        let found = meaning(&root(Geometry::K4_48), both, TablePermissions::UNRESTRICTED);
        assert_eq!((found.execute, found.own.1), (Execute::User, Execute::Both));
        assert_eq!(found.rights, Rights { writers: 0b11, executors: 0b01 });
        // Without the right of user space, which a table takes, the kernel executes it.
        let found = meaning(&root(Geometry::K4_48), both, TablePermissions::NO_USER_ACCESS);
        assert_eq!(found.rights, Rights { writers: 0b10, executors: 0b11 });
    }

    #[test]
    fn wxn_takes_execution_from_what_is_writable() {
        let both = Attributes { execute: Execute::Kernel, ..Attributes::KERNEL_DATA };
        let plain = root(Geometry::K4_48);
        assert!(meaning(&plain, both, TablePermissions::UNRESTRICTED).is_writable_and_executable());
        let wxn = Root { writable_never_executes: true, ..plain };
        assert!(!meaning(&wxn, both, TablePermissions::UNRESTRICTED).is_writable_and_executable());
        assert!(meaning(&wxn, Attributes::KERNEL_TEXT, TablePermissions::UNRESTRICTED).rights.executors != 0);
    }

    #[test]
    fn a_clean_leaf_is_writable_where_hardware_manages_the_dirty_state() {
        let clean = Attributes::KERNEL_TEXT.bits(Geometry::K4_48) | DIRTY_MODIFIER;
        for (updates, writers) in [
            (HardwareUpdates::Off, 0),
            (HardwareUpdates::Accessed, 0),
            (HardwareUpdates::AccessedAndDirty, 0b10),
        ] {
            let root = Root { updates, ..root(Geometry::K4_48) };
            let found = Decoder::new(&root).meaning(clean, Level::L3, TablePermissions::UNRESTRICTED);
            assert_eq!(found.rights.writers, writers, "{updates:?}");
            assert_eq!(found.access, Access::KernelReadOnly);
        }
    }

    #[test]
    fn bits_that_are_res0_are_named() {
        let of = |geometry: Geometry, bits: u64, level| {
            Decoder::new(&root(geometry)).meaning(bits, level, TablePermissions::UNRESTRICTED).reserved
        };
        let data = Attributes::KERNEL_DATA.bits(Geometry::K4_48);
        assert_eq!(of(Geometry::K4_48, data | 1 << 48, Level::L3), 1 << 48);
        assert_eq!(of(Geometry::K4_48, data | NO_TRANSLATION, Level::L2), 0);
        assert_eq!(of(Geometry::K4_48, data | 1 << 17, Level::L2), 1 << 17);
        let lpa2 = Geometry::new(linmap_vmsa::Granule::K4, 52, 52).unwrap();
        assert_eq!(of(lpa2, data | CONTIGUOUS, Level::L0), CONTIGUOUS);
        assert_eq!(of(lpa2, data | CONTIGUOUS, Level::L1), 0);
        let el2 = Geometry::K4_48.in_regime(Regime::El2);
        assert_eq!(of(el2, data | NOT_GLOBAL, Level::L3), NOT_GLOBAL | 1 << 53);
    }
}
