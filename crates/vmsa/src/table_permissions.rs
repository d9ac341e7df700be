//! Hierarchical permissions: what a table descriptor takes away from everything below it.

use crate::attribute_error::AttributeError;
use crate::permissions::{Access, Execute};
use crate::regime::Regime;

/// What a table descriptor takes away from all leaves below it: APTable, UXNTable and PXNTable (Arm
/// ARM D8.4.1.2.5), or APTable and XNTable where there is no user space. They accumulate: a leaf
/// allows what its own bits allow, less what each table on the way to it takes away.
///
/// They apply only while TCR_ELx.HPD0 or HPD1 (by the half) is clear, as in all values of
/// [`registers`](crate::registers). Stage 2 has none.
///
/// ```
/// use linmap_vmsa::{Attributes, Execute, TablePermissions};
///
/// // What Linux calls NO_EXEC_MAPPINGS, on the tables of memory that is never executed.
/// let tables = TablePermissions::NEVER_EXECUTE;
/// assert_eq!(tables.restrict(Attributes::KERNEL_TEXT).execute, Execute::Never);
/// assert!(tables.allows(Attributes::KERNEL_DATA) && !tables.allows(Attributes::KERNEL_TEXT));
///
/// assert!(TablePermissions::UNRESTRICTED.allows(Attributes::KERNEL_TEXT));
/// assert_eq!(TablePermissions::UNRESTRICTED, TablePermissions::default());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct TablePermissions(u8);

/// PXNTable is bit 59 of a descriptor, and the lowest bit of a value.
const SHIFT: u32 = 59;
/// XNTable, where there is no user space.
const XN_TABLE: u8 = 0b0010;

impl TablePermissions {
    /// The tables take nothing away: every leaf allows what its own bits allow. It is the default.
    pub const UNRESTRICTED: Self = Self(0);
    /// The kernel does not execute what is below (PXNTable).
    pub const NO_KERNEL_EXECUTE: Self = Self(0b0001);
    /// User space does not execute what is below (UXNTable).
    pub const NO_USER_EXECUTE: Self = Self(0b0010);
    /// Nobody executes what is below: PXNTable and UXNTable, or XNTable.
    pub const NEVER_EXECUTE: Self = Self(0b0011);
    /// User space does not access what is below (`APTable[0]`).
    pub const NO_USER_ACCESS: Self = Self(0b0100);
    /// Nobody writes to what is below (`APTable[1]`).
    pub const READ_ONLY: Self = Self(0b1000);

    /// What is taken away, in four bits.
    #[inline(always)]
    pub(crate) const fn number(self) -> u64 {
        self.0 as u64
    }

    /// What the lowest four bits of `number` take away.
    #[inline(always)]
    pub(crate) const fn from_number(number: u64) -> Self {
        Self((number & 0b1111) as u8)
    }

    /// Returns what both take away together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns whether these tables take away everything that `other` does.
    pub const fn takes(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns whether nothing is taken away.
    #[inline]
    pub const fn is_all(self) -> bool {
        self.0 == 0
    }

    /// Checks that table descriptors of `regime` can encode this.
    ///
    /// # Errors
    /// [`AttributeError::TablesOfStage2`], and [`AttributeError::TablesOfUser`] for what is taken
    /// from user space alone where there is none.
    pub const fn check(self, regime: Regime) -> Result<(), AttributeError> {
        let of_user_alone = self.takes(Self::NO_USER_ACCESS)
            || self.takes(Self::NO_USER_EXECUTE) && !self.takes(Self::NO_KERNEL_EXECUTE);
        match regime {
            Regime::Stage2(_) if !self.is_all() => Err(AttributeError::TablesOfStage2),
            Regime::El2 | Regime::El3 if of_user_alone => Err(AttributeError::TablesOfUser { regime }),
            _ => Ok(()),
        }
    }

    /// Returns bits 62:59 of a table descriptor, without those that `regime` does not have.
    #[inline]
    pub const fn bits(self, regime: Regime) -> u64 {
        let value = match regime {
            Regime::El1And0 | Regime::El2And0 => self.0,
            Regime::El2 | Regime::El3 => {
                let never = if self.takes(Self::NO_KERNEL_EXECUTE) { XN_TABLE } else { 0 };
                self.0 & Self::READ_ONLY.0 | never
            }
            Regime::Stage2(_) => 0,
        };
        (value as u64) << SHIFT
    }

    /// Returns what the table descriptor `bits` takes away in `regime`, without bits that hardware
    /// ignores there. `bits` may be the OR of the descriptors of several levels.
    #[inline]
    pub const fn from_bits(bits: u64, regime: Regime) -> Self {
        let value = (bits >> SHIFT) as u8 & 0b1111;
        match regime {
            Regime::El1And0 | Regime::El2And0 => Self(value),
            Regime::El2 | Regime::El3 => {
                let never = if value & XN_TABLE != 0 { Self::NEVER_EXECUTE.0 } else { 0 };
                Self(value & Self::READ_ONLY.0 | never)
            }
            Regime::Stage2(_) => Self::UNRESTRICTED,
        }
    }

    /// Returns whether `access` loses nothing.
    pub const fn allows_access(self, access: Access) -> bool {
        self.restrict_access(access) as u8 == access as u8
    }

    /// Returns whether `execute` loses nothing.
    pub const fn allows_execute(self, execute: Execute) -> bool {
        self.restrict_execute(execute) as u8 == execute as u8
    }

    /// Returns what is left of `access`.
    #[must_use]
    pub const fn restrict_access(self, access: Access) -> Access {
        let (read_only, no_user) = (self.takes(Self::READ_ONLY), self.takes(Self::NO_USER_ACCESS));
        match access {
            Access::KernelReadWrite | Access::KernelReadWriteClean | Access::KernelReadWriteDirty
                if read_only =>
            {
                Access::KernelReadOnly
            }
            Access::UserReadWrite | Access::UserReadWriteClean | Access::UserReadWriteDirty if read_only => {
                if no_user {
                    Access::KernelReadOnly
                } else {
                    Access::UserReadOnly
                }
            }
            Access::UserReadWrite if no_user => Access::KernelReadWrite,
            Access::UserReadWriteClean if no_user => Access::KernelReadWriteClean,
            Access::UserReadWriteDirty if no_user => Access::KernelReadWriteDirty,
            Access::UserReadOnly if no_user => Access::KernelReadOnly,
            _ => access,
        }
    }

    /// Returns what is left of `execute`.
    #[must_use]
    pub const fn restrict_execute(self, execute: Execute) -> Execute {
        let no_kernel = self.takes(Self::NO_KERNEL_EXECUTE);
        let no_user = self.takes(Self::NO_USER_EXECUTE);
        match execute {
            Execute::Kernel if no_kernel => Execute::Never,
            Execute::User if no_user => Execute::Never,
            Execute::Both if no_kernel && no_user => Execute::Never,
            Execute::Both if no_kernel => Execute::User,
            Execute::Both if no_user => Execute::Kernel,
            _ => execute,
        }
    }
}

impl core::fmt::Display for TablePermissions {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let names = [
            (Self::READ_ONLY, "ro"),
            (Self::NO_USER_ACCESS, "no-user"),
            (Self::NO_KERNEL_EXECUTE, "PXN"),
            (Self::NO_USER_EXECUTE, "UXN"),
        ];
        let mut separator = "";
        for (permissions, name) in names {
            if self.takes(permissions) {
                write!(f, "{separator}{name}")?;
                separator = ",";
            }
        }
        if separator.is_empty() { f.write_str("all") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attributes, Geometry, Pa, Stage2};

    const REGIMES: [Regime; 5] =
        [Regime::El1And0, Regime::El2And0, Regime::El2, Regime::El3, Regime::Stage2(Stage2::Fwb)];

    #[test]
    fn the_bits_are_those_of_the_architecture() {
        let all = TablePermissions(0b1111);
        for (permissions, bit) in [
            (TablePermissions::READ_ONLY, 62),
            (TablePermissions::NO_USER_ACCESS, 61),
            (TablePermissions::NO_USER_EXECUTE, 60),
            (TablePermissions::NO_KERNEL_EXECUTE, 59),
        ] {
            assert_eq!(permissions.bits(Regime::El1And0), 1 << bit);
            assert_eq!(TablePermissions::from_bits(1 << bit, Regime::El2And0), permissions);
            assert!(all.takes(permissions));
        }
        // XNTable and APTable[1] alone; bit 59 and APTable[0] are RES0.
        for regime in [Regime::El2, Regime::El3] {
            assert_eq!(all.bits(regime), 0b101 << 60);
            assert_eq!(TablePermissions::NO_KERNEL_EXECUTE.bits(regime), 1 << 60);
            let found = TablePermissions::from_bits(0b1111 << 59, regime);
            assert_eq!(found, TablePermissions::READ_ONLY.and(TablePermissions::NEVER_EXECUTE));
            assert_eq!(
                TablePermissions::from_bits(1 << 59 | 1 << 61, regime),
                TablePermissions::UNRESTRICTED
            );
        }
        assert_eq!(TablePermissions::from_bits(u64::MAX, REGIMES[4]), TablePermissions::UNRESTRICTED);
        // NSTable is bit 63, and belongs to the address space.
        assert_eq!(TablePermissions::from_bits(1 << 63, Regime::El1And0), TablePermissions::UNRESTRICTED);
    }

    #[test]
    fn what_a_regime_can_not_say_is_an_error_and_the_rest_is_read_back() {
        for regime in REGIMES {
            for value in 0..16 {
                let permissions = TablePermissions(value);
                if permissions.check(regime).is_ok() {
                    let found = TablePermissions::from_bits(permissions.bits(regime), regime);
                    assert!(found.takes(permissions), "{regime} {permissions}: {found}");
                    let data = Attributes::KERNEL_TEXT;
                    assert_eq!(found.restrict(data), permissions.restrict(data));
                }
            }
            let of_user = TablePermissions::NO_USER_ACCESS.check(regime);
            assert_eq!(of_user.is_ok(), regime.has_user_space());
            let never = TablePermissions::NEVER_EXECUTE.check(regime);
            assert_eq!(never.is_ok(), !regime.is_stage_2());
        }
        let error = TablePermissions::NO_USER_EXECUTE.check(Regime::El3);
        assert_eq!(error, Err(AttributeError::TablesOfUser { regime: Regime::El3 }));
    }

    /// Against the bits: a leaf is restricted as if AP and XN had those of the tables as well.
    #[test]
    fn every_leaf_loses_what_the_tables_take() {
        use Access::{KernelReadOnly, KernelReadWrite, UserReadOnly, UserReadWrite};
        let regime = Regime::El1And0;
        for value in 0..16 {
            let tables = TablePermissions(value);
            for access in [KernelReadWrite, KernelReadOnly, UserReadWrite, UserReadOnly] {
                for execute in [Execute::Never, Execute::Kernel, Execute::User, Execute::Both] {
                    let leaf = Attributes { access, execute, ..Attributes::KERNEL_DATA };
                    let mut bits = leaf.bits(Geometry::K4_48) | u64::from(value & 0b11) << 53;
                    bits |= u64::from(value >> 3) << 7;
                    if value & 0b100 != 0 {
                        bits &= !(1 << 6);
                    }
                    let expected = Attributes::from_bits(bits, Geometry::K4_48, true).unwrap();
                    assert_eq!(tables.restrict(leaf), expected, "{tables} {leaf:?}");
                    assert_eq!(tables.allows(leaf), expected == leaf);
                    let bits = tables.bits(regime);
                    assert_eq!(TablePermissions::from_bits(bits, regime), tables);
                }
            }
        }
    }

    #[test]
    fn levels_add_up() {
        let upper = TablePermissions::NO_USER_EXECUTE.bits(Regime::El1And0);
        let lower = TablePermissions::NO_KERNEL_EXECUTE.bits(Regime::El1And0);
        let both = TablePermissions::from_bits(upper | lower, Regime::El1And0);
        assert_eq!(both, TablePermissions::NEVER_EXECUTE);
        assert_eq!(both.to_string(), "PXN,UXN");
        assert_eq!(TablePermissions::UNRESTRICTED.to_string(), "all");
    }

    #[test]
    fn tables_of_a_geometry_take_away_what_it_says_and_their_address_is_read_without() {
        use crate::{Decoded, Descriptor, Granule, Level};
        for (granule, bits) in [(Granule::K4, 48), (Granule::K4, 52), (Granule::K16, 52), (Granule::K64, 52)]
        {
            let plain = Geometry::new(granule, 48, bits).unwrap();
            let never = plain.with_table_permissions(TablePermissions::NEVER_EXECUTE).unwrap();
            let pa = Pa(1 << (bits - 1) | 0x4001_0000);
            let (table, link) = (Descriptor::table(plain, pa), Descriptor::table(never, pa));
            assert_eq!(link.0 ^ table.0, 0b11 << 59, "{granule:?} {bits}");
            for geometry in [plain, never] {
                let link = Descriptor(link.0 | 0b1_1111 << 59);
                assert_eq!(link.decode(geometry, Level::L2), Decoded::Table(pa));
                assert_eq!(link.next_table(geometry), Some(pa));
            }
            assert_ne!(plain, never);
            assert_eq!(never.in_regime(Regime::El1And0), plain, "another regime begins without");
        }
        let guest = Geometry::K4_48.in_regime(Regime::Stage2(Stage2::Base));
        let error = guest.with_table_permissions(TablePermissions::READ_ONLY);
        assert_eq!(error, Err(AttributeError::TablesOfStage2));
    }

    extern crate std;
    use std::string::ToString;
}
