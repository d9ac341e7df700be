//! Which leaves the linear map is made of.

use linmap_table::Leaves;
use linmap_vmsa::id::BbmLevel;

/// `linmap.leaf=`: what the user asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LeafPolicy {
    /// Blocks where they can be split live afterwards, pages elsewhere.
    #[default]
    Auto,
    /// Blocks and contiguous runs on any CPU.
    Block,
    /// Pages alone: full read-only-data protection on a CPU without live splitting.
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

    /// The leaves to use on CPUs of BBM level `bbm`. Only level 3 lets a block of the map the kernel runs on be split
    /// live: below it the split could raise a conflict abort on the handler's own stack or tables.
    pub fn leaves(self, bbm: BbmLevel) -> Leaves {
        match self {
            Self::Block => Leaves::ContiguousBlocks,
            Self::Page => Leaves::Pages,
            Self::Auto if bbm >= BbmLevel::L3 => Leaves::ContiguousBlocks,
            Self::Auto => Leaves::Pages,
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
    fn only_bbm_level_3_gets_blocks_unasked() {
        assert_eq!(LeafPolicy::Auto.leaves(BbmLevel::L2), Leaves::Pages);
        assert_eq!(LeafPolicy::Auto.leaves(BbmLevel::L3), Leaves::ContiguousBlocks);
        assert_eq!(LeafPolicy::Block.leaves(BbmLevel::L0), Leaves::ContiguousBlocks);
        assert_eq!(LeafPolicy::Page.leaves(BbmLevel::L3), Leaves::Pages);
    }

    #[test]
    fn an_unknown_name_is_no_policy() {
        assert_eq!(LeafPolicy::from_name("page"), Some(LeafPolicy::Page));
        assert_eq!(LeafPolicy::from_name("pages"), None);
    }
}
