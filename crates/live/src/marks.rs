//! The access flag and the software bits of leaves.

use crate::entry::SOFTWARE;
use crate::plan_error::PlanError;

/// The access flag of a leaf (Arm ARM D8.3.1.2).
const ACCESSED: u64 = 1 << 10;

/// A change of the access flag and the software bits of leaves. `None` preserves the value. Splits,
/// folds and changes of attributes preserve both; leaves that differ in one are never folded.
///
/// ```
/// use linmap_live::{LiveTree, Marks, Plan, PlanError, Step, Target};
/// use linmap_table::{FrameSource, TableWindow};
///
/// /// Plans to find out which leaves are in use: the next access to each faults, or sets its flag.
/// fn age<'b>(
///     tree: &'b mut LiveTree,
///     target: Target,
///     steps: &'b mut [Step],
///     window: &mut impl TableWindow,
///     frames: &mut impl FrameSource,
/// ) -> Result<Plan<'b>, PlanError> {
///     let old = Marks { accessed: Some(false), ..Marks::default() };
///     tree.plan_mark(target, old, steps, window, frames)
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    /// The access flag. If it is clear, the next access faults, unless hardware sets the flag.
    pub accessed: Option<bool>,
    /// The four software bits, 58:55, which hardware ignores.
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
