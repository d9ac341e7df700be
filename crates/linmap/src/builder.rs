//! The six builders by name.

use crate::step::FixmapStep;

/// How the linear map is built.
///
/// ```
/// use linmap::{Builder, FixmapStep};
///
/// let lazy = Builder::Fixmap(FixmapStep::LazyUnmap);
/// assert_eq!(Builder::from_name(lazy.name()), Some(lazy));
/// assert_eq!(Builder::default(), Builder::Identity);
/// ```
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

    /// Returns the builder's name, for options and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fixmap(step) => step.name(),
            Self::Identity => "identity",
        }
    }

    /// Returns the builder named `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|builder| builder.name() == name)
    }
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
