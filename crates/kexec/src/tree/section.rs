//! The children of the root that are edited.

/// A child of the root that is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Chosen,
    Cpus,
    ReservedMemory,
}

impl Section {
    pub const ALL: [Self; 3] = [Self::Chosen, Self::Cpus, Self::ReservedMemory];

    /// Returns its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::Cpus => "cpus",
            Self::ReservedMemory => "reserved-memory",
        }
    }

    /// Returns whether readers find a child of the root by this name. It may have a unit address.
    pub fn is_named(self, name: &str) -> bool {
        name.strip_prefix(self.name()).is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
    }
}
