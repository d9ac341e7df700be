//! Which leaves the linear map is made of.

use linmap_table::Leaves;

/// Which leaves a kernel asks for.
///
/// ```
/// use linmap::{LeafPolicy, Repaint};
/// use linmap_table::Leaves;
///
/// // Two options of a command line.
/// assert_eq!(LeafPolicy::from_name("page").map(LeafPolicy::leaves), Some(Leaves::Pages));
/// assert_eq!(Repaint::from_name("keep-blocks"), Some(Repaint::KeepBlocks));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LeafPolicy {
    /// Blocks and contiguous runs on any CPU: a leaf that can't be split in use is split while all
    /// CPUs are parked. [`Repaint`](crate::Repaint) decides what follows if a CPU lacks the BBM
    /// level that the boot CPU has.
    #[default]
    Auto,
    /// Blocks and contiguous runs on any CPU.
    Block,
    /// Pages alone.
    Page,
}

impl LeafPolicy {
    /// Returns the policy named `name`: `auto`, `block` or `page`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::Auto),
            "block" => Some(Self::Block),
            "page" => Some(Self::Page),
            _ => None,
        }
    }

    /// Returns the leaves to build the map from.
    pub fn leaves(self) -> Leaves {
        match self {
            Self::Auto | Self::Block => Leaves::ContiguousBlocks,
            Self::Page => Leaves::Pages,
        }
    }
}

/// Returns the name of a kind of leaf in reports: `block` or `page`.
pub fn leaves_name(leaves: Leaves) -> &'static str {
    match leaves {
        Leaves::Pages => "page",
        Leaves::Blocks | Leaves::ContiguousBlocks => "block",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_found_by_its_exact_name() {
        assert_eq!(LeafPolicy::from_name("page"), Some(LeafPolicy::Page));
        assert_eq!(LeafPolicy::from_name("pages"), None);
    }
}
