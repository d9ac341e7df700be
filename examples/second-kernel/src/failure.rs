//! What can go wrong.

use arm_gic::gicv3::GicError;
use linmap::{BuildError, ChangeError, Changed, ConfigError, RecordFull};
use linmap_park::SurgeryError;
use linmap_table::verify::TreeError;
use thiserror::Error;

use crate::layout::CPUS;

/// Why the kernel stops.
#[derive(Debug, Error)]
pub enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Surgery(#[from] SurgeryError),
    #[error(transparent)]
    Gic(#[from] GicError),
    #[error(transparent)]
    Psci(#[from] smccc::psci::Error),
    #[error("CPU {0} does not answer")]
    Absent(usize),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error(transparent)]
    Record(#[from] RecordFull),
    #[error("the map is wrong: {0}")]
    Tree(#[from] TreeError),
    #[error("round {round}: {refused} of {CPUS} stores were refused")]
    Stores {
        /// The round.
        round: u64,
        /// How many.
        refused: usize,
    },
    #[error("this should have failed otherwise: {0:?}")]
    Expected(Result<Changed, ChangeError>),
    #[error("{tables} tables, and {before} before the changes")]
    NotFolded {
        /// After the changes.
        tables: u64,
        /// Before them.
        before: u64,
    },
}
