//! Why descriptors can't encode attributes.

use thiserror::Error;

use crate::{Access, Execute, MemoryType, Regime};

/// Attributes that a regime's descriptors can't encode.
///
/// ```
/// use linmap_vmsa::{Access, AttributeError, Attributes, Regime};
///
/// let user = Attributes { access: Access::UserReadWrite, ..Attributes::KERNEL_DATA };
/// assert_eq!(user.check(Regime::El1And0), Ok(()));
/// assert_eq!(user.check(Regime::El2), Err(AttributeError::UserAccess { regime: Regime::El2 }));
/// ```
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
    /// The leaf is non-global in a regime without ASIDs.
    #[error("the translation is not global, and the {regime} regime has no ASIDs: its nG is RES0")]
    NotGlobal {
        /// The regime.
        regime: Regime,
    },
    /// Access of a guest (S2AP) in a regime of stage 1.
    #[error("{access:?} is an access of stage 2, and the tables are those of {regime}")]
    GuestAccess {
        /// The access asked for.
        access: Access,
        /// The regime.
        regime: Regime,
    },
    /// Access of kernel and user space (AP) at stage 2.
    #[error("{access:?} is an access of stage 1, and the tables are those of stage 2")]
    NotGuestAccess {
        /// The access asked for.
        access: Access,
    },
    /// Only one of EL1 and EL0 may execute the memory, which stage 2 encodes only with FEAT_XNX.
    #[error("EL1 and EL0 of the guest don't both execute the memory ({execute:?}), which takes FEAT_XNX")]
    ExecuteOfOneLevel {
        /// What was asked for.
        execute: Execute,
    },
    /// Stage 2 has no hierarchical permissions: hardware ignores the bits.
    #[error("tables of stage 2 take away no permissions: the bits of their descriptors are ignored")]
    TablesOfStage2,
    /// Tables would take permissions from user space, which the regime does not have.
    #[error("tables can't restrict user space alone, since the {regime} regime has none")]
    TablesOfUser {
        /// The regime.
        regime: Regime,
    },
    /// The kernel's MAIR has no slot with the memory type.
    #[error("memory can't be {memory:?}, which is in no slot of the kernel's MAIR")]
    NoSlot {
        /// The type asked for.
        memory: MemoryType,
    },
    /// The guest's stage 1 says which memory has allocation tags.
    #[error("stage 2 has no memory type with allocation tags: the guest's stage 1 has")]
    TaggedAtStage2,
}
