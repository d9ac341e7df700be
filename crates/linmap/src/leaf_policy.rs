//! Which leaves the linear map is made of.

use linmap_table::Leaves;

/// `linmap.leaf=`: what the user asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LeafPolicy {
    /// Blocks and contiguous runs on any CPU: what can't be split live is split parked. Where some CPU lacks the BBM level
    /// that the boot CPU has, what `linmap.repaint=` says.
    #[default]
    Auto,
    /// Blocks and contiguous runs, whatever CPUs there are.
    Block,
    /// Pages alone.
    Page,
}

impl LeafPolicy {
    /// The policy named `name` on the command line.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::Auto),
            "block" => Some(Self::Block),
            "page" => Some(Self::Page),
            _ => None,
        }
    }

    /// The leaves to paint the map with.
    pub fn leaves(self) -> Leaves {
        match self {
            Self::Auto | Self::Block => Leaves::ContiguousBlocks,
            Self::Page => Leaves::Pages,
        }
    }
}

/// What a kind of leaf is called in reports: `block` or `page`.
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
    fn an_unknown_name_is_no_policy() {
        assert_eq!(LeafPolicy::from_name("page"), Some(LeafPolicy::Page));
        assert_eq!(LeafPolicy::from_name("pages"), None);
    }
}
