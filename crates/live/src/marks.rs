//! What software notes in leaves.

use crate::entry::SOFTWARE;
use crate::plan_error::PlanError;

/// The access flag of a leaf (Arm ARM D8.3.1.2).
const ACCESSED: u64 = 1 << 10;

/// Notes in leaves to change. `None` keeps one. Splits, folds and changes of attributes keep both;
/// leaves with different notes never become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    /// The access flag. Without it the next access faults, unless hardware sets it.
    pub accessed: Option<bool>,
    /// The four bits that hardware ignores (58:55).
    pub software: Option<u8>,
}

impl Marks {
    /// Returns the bits to clear and those to set, which have none in common.
    pub(crate) fn masks(self) -> Result<(u64, u64), PlanError> {
        let (mut clear, mut set) = (0, 0);
        match self.accessed {
            Some(true) => set |= ACCESSED,
            Some(false) => clear |= ACCESSED,
            None => {}
        }
        if let Some(software) = self.software {
            if software > 0b1111 {
                return Err(PlanError::NoSuchSoftwareBits { software });
            }
            let bits = u64::from(software) << SOFTWARE.trailing_zeros();
            set |= bits;
            clear |= SOFTWARE & !bits;
        }
        Ok((clear, set))
    }
}
