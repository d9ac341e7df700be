//! The builds that are checked.

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
            Self::Base => "the builder base, on the board",
        }
    }

    /// The source's name on the command line and in JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::Straight => "straight",
            Self::Live => "live",
            Self::Base => "base",
        }
    }
}

/// One build, by pages, that is checked.
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
            Self { source: Source::Base, gib: base },
        ]
    }

    /// What is built.
    pub(super) fn case(self) -> Case {
        Case { work: Work::Build, gib: self.gib, leaf: LeafKind::Page }
    }

    /// The machine: one CPU and the case's RAM.
    pub(super) fn config(self) -> Config {
        let ram = self.case().ram();
        Config {
            cpus: 1,
            bbm: 0,
            granule: 0x1000,
            va_bits: 48,
            pa_bits: 48,
            ram: vec![(ram.start.0, ram.len())],
        }
    }
}
