//! The attributes that an edit changes.

use linmap_vmsa::{Access, Attributes, Execute, Geometry, Regime, Va};

use crate::entry::VALID_BIT;
use crate::plan_error::PlanError;

/// The attributes to change. `None` keeps an attribute.
// Aligned, so that it is loaded as one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(align(4))]
pub struct Change {
    /// Who may read and write.
    pub access: Option<Access>,
    /// Who may execute.
    pub execute: Option<Execute>,
    /// Whether the leaves translate anything.
    pub valid: Option<bool>,
}

impl Change {
    /// Returns the bits that the change clears and those that it sets, which have none in common.
    #[inline(always)]
    pub(crate) const fn masks(self) -> (u64, u64) {
        let (mut clear, mut set) = (0, 0);
        if let Some(access) = self.access {
            clear |= Access::MASK;
            set |= access.bits();
        }
        if let Some(execute) = self.execute {
            clear |= Execute::MASK;
            set |= execute.bits();
        }
        match self.valid {
            Some(true) => set |= VALID_BIT,
            Some(false) => clear |= VALID_BIT,
            None => {}
        }
        (clear & !set, set)
    }

    /// [`masks`](Self::masks) in any regime.
    pub(crate) fn masks_in(self, regime: Regime) -> (u64, u64) {
        const PERMISSIONS: u64 = Access::MASK | Execute::MASK;
        let (clear, set) = self.masks();
        let access = self.access.map_or(0, |access| access.bits_in(regime));
        let execute = self.execute.map_or(0, |execute| execute.bits_in(regime));
        let changed = if self.access.is_some() { Access::MASK } else { 0 }
            | if self.execute.is_some() { Execute::MASK } else { 0 };
        let permissions = access | execute;
        (clear & !PERMISSIONS | changed & !permissions, set & !PERMISSIONS | permissions)
    }

    /// Whether it is about the access of a guest.
    #[inline(always)]
    pub(crate) const fn is_of_guest(self) -> bool {
        matches!(self.access, Some(access) if access.is_of_guest())
    }

    /// Checks that leaves of this geometry can say this, the first of them for `va`, and that its
    /// tables leave it.
    #[cold]
    #[inline(never)]
    pub(crate) fn check(self, geometry: Geometry, va: Va) -> Result<(), PlanError> {
        let (regime, tables) = (geometry.regime(), geometry.table_permissions());
        let plain = if regime.is_stage_2() { Attributes::GUEST_DEVICE } else { Attributes::DEVICE };
        let access = self.access.unwrap_or(plain.access);
        let execute = self.execute.unwrap_or(plain.execute);
        Attributes { access, execute, ..plain }.check(regime)?;
        let left = self.access.is_none_or(|access| tables.allows_access(access))
            && self.execute.is_none_or(|execute| tables.allows_execute(execute));
        if left { Ok(()) } else { Err(PlanError::TakenByTables { va, tables }) }
    }

    /// Returns whether the change by itself makes memory writable and executable.
    pub(crate) const fn writable_and_executable(self) -> bool {
        match (self.access, self.execute) {
            (Some(access), Some(execute)) => access.writable() && !matches!(execute, Execute::Never),
            _ => false,
        }
    }

    /// Whether a leaf may become writable and executable, depending on the permission that stays.
    pub(crate) const fn may_become_both(self) -> bool {
        match (self.access, self.execute) {
            (Some(access), None) => access.writable(),
            (None, Some(execute)) => !matches!(execute, Execute::Never),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linmap_vmsa::Descriptor;

    #[test]
    fn a_change_sets_and_clears_no_bit_twice() {
        for access in [None, Some(Access::KernelReadWrite), Some(Access::UserReadOnly)] {
            for execute in [None, Some(Execute::Never), Some(Execute::Kernel), Some(Execute::Both)] {
                for valid in [None, Some(false), Some(true)] {
                    let (clear, set) = Change { access, execute, valid }.masks();
                    assert_eq!(clear & set, 0);
                    let bits = Descriptor(!clear | set);
                    assert_eq!(bits.is_valid(), valid != Some(false));
                }
            }
        }
    }
}
