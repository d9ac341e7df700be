//! The builds and edits that are checked.

use linmap_model::Config;

use crate::case::{Case, LeafKind, Work};
use crate::measure::Effort;

/// Whose events are checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Source {
    /// A trace of one store an entry into tables that no CPU walks yet, then the barriers and the
    /// root.
    Straight,
    /// A trace of one store an entry into tables that are walked already, each linked empty.
    Live,
    /// Pages of a live map that are made read-only one by one, each with its barriers and its
    /// invalidation.
    Protect,
    /// Blocks of a live map that are split into pages and folded again, at BBM level 3.
    Resize,
    /// Blocks of a live map that four CPUs in turn fold, split and make read-only in part, at BBM
    /// level 3.
    Mixed,
    /// The builder `base`, as it runs on the model's board: every store to a live table, every
    /// barrier and invalidation.
    Base,
}

impl Source {
    /// The source in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Straight => "one store an entry",
            Self::Live => "one store an entry, live tables",
            Self::Protect => "pages made read-only, live",
            Self::Resize => "blocks split and folded, live",
            Self::Mixed => "split, protected, folded by four",
            Self::Base => "the builder base, on the board",
        }
    }

    /// The source's name on the command line and in JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::Straight => "straight",
            Self::Live => "live",
            Self::Protect => "protect",
            Self::Resize => "resize",
            Self::Mixed => "mixed",
            Self::Base => "base",
        }
    }
}

/// One build by pages, or the edits of a map, that is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Job {
    /// Who builds.
    pub source: Source,
    /// GiB of RAM, 1 to 512.
    pub gib: u64,
}

impl Job {
    /// The jobs that are measured.
    pub fn all(effort: Effort) -> Vec<Self> {
        let base = match effort {
            Effort::Quick => 16,
            Effort::Full => 64,
        };
        vec![
            Self { source: Source::Straight, gib: 16 },
            Self { source: Source::Straight, gib: 64 },
            Self { source: Source::Live, gib: 16 },
            Self { source: Source::Live, gib: 64 },
            Self { source: Source::Protect, gib: 4 },
            Self { source: Source::Resize, gib: 4 },
            Self { source: Source::Mixed, gib: 4 },
            Self { source: Source::Base, gib: base },
        ]
    }

    /// What is built.
    pub(super) fn case(self) -> Case {
        Case { work: Work::Build, gib: self.gib, leaf: LeafKind::Page }
    }

    /// The machine: the case's RAM and one CPU, or four for edits.
    pub(super) fn config(self) -> Config {
        let ram = self.case().ram();
        let (cpus, bbm) = match self.source {
            Source::Straight | Source::Live | Source::Base => (1, 0),
            Source::Protect => (4, 0),
            Source::Resize | Source::Mixed => (4, 3),
        };
        Config {
            cpus,
            bbm,
            granule: 0x1000,
            va_bits: 48,
            pa_bits: 48,
            ram: vec![(ram.start.0, ram.len())],
            leniency: linmap_model::Leniency::Strict,
        }
    }
}
