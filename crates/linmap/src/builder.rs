//! The six builders by name, and what can go wrong in any of them.

use linmap_table::{EntryInUse, MappingError, OutOfFrames};
use thiserror::Error;

use crate::fixmap_build::FixmapStep;

/// `linmap.build=`: how the linear map is built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Builder {
    /// Through fixmap slots, as one of the published steps.
    Fixmap(FixmapStep),
    /// Through a temporary 1:1 map in TTBR0.
    #[default]
    Identity,
}

impl Builder {
    /// All builders, the slowest first.
    pub const ALL: [Self; 6] = [
        Self::Fixmap(FixmapStep::Base),
        Self::Fixmap(FixmapStep::NoContRemap),
        Self::Fixmap(FixmapStep::BatchBarriers),
        Self::Fixmap(FixmapStep::NoAllocRemap),
        Self::Fixmap(FixmapStep::LazyUnmap),
        Self::Identity,
    ];

    /// The builder's name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fixmap(step) => step.name(),
            Self::Identity => "identity",
        }
    }

    /// The builder named `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|builder| builder.name() == name)
    }
}

/// Why a linear map could not be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum BuildError {
    /// There is no frame left for a table.
    #[error(transparent)]
    OutOfFrames(#[from] OutOfFrames),
    /// A root entry that the map needs is in use.
    #[error(transparent)]
    EntryInUse(#[from] EntryInUse),
    /// The ranges to be mapped break a rule.
    #[error(transparent)]
    Mapping(#[from] MappingError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builder_is_found_by_its_own_name() {
        for builder in Builder::ALL {
            assert_eq!(Builder::from_name(builder.name()), Some(builder));
        }
        assert_eq!(Builder::from_name("fixmap"), None);
    }
}
