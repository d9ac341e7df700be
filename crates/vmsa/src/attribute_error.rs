//! Why descriptors can't say what attributes do.

use thiserror::Error;

use crate::{Access, Execute, MemoryType, Regime};

/// Attributes that a regime's descriptors can't say.
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
    /// There are no address space identifiers.
    #[error("the translation is not global, and the {regime} regime has no ASIDs: its nG is RES0")]
    NotGlobal {
        /// The regime.
        regime: Regime,
    },
    /// S2AP says what a guest does, and stage 1 has none.
    #[error("{access:?} is an access of stage 2, and the tables are those of {regime}")]
    GuestAccess {
        /// The access asked for.
        access: Access,
        /// The regime.
        regime: Regime,
    },
    /// AP says what kernel and user space do, and stage 2 knows the guest as a whole.
    #[error("{access:?} is an access of stage 1, and the tables are those of stage 2")]
    NotGuestAccess {
        /// The access asked for.
        access: Access,
    },
    /// One of EL1 and EL0 executes the memory, which stage 2 says only with FEAT_XNX.
    #[error("EL1 and EL0 of the guest don't both execute the memory ({execute:?}), which takes FEAT_XNX")]
    ExecuteOfOneLevel {
        /// What was asked for.
        execute: Execute,
    },
    /// Stage 2 has no hierarchical permissions: the bits are ignored.
    #[error("tables of stage 2 take away no permissions: the bits of their descriptors are ignored")]
    TablesOfStage2,
    /// There is no user space from which tables could take something away.
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
