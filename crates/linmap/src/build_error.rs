//! What can go wrong while a linear map is built.

use linmap_table::{EntryInUse, OutOfFrames};
use linmap_vmsa::registers::RegisterError;
use thiserror::Error;

use crate::slots::SlotError;

/// Why a linear map was not built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The builder can't use the fixmap slots that it was given.
    #[error(transparent)]
    Slots(#[from] SlotError),
    /// No frame is left for a table.
    #[error(transparent)]
    OutOfFrames(#[from] OutOfFrames),
    /// TCR does not fit the 1:1 map.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// An entry that the map needs is in use.
    #[error(transparent)]
    EntryInUse(#[from] EntryInUse),
}
