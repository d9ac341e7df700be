//! What of the trees a user asks for, and how it is shown.

use std::path::PathBuf;

use crate::dump::address_range::AddressRange;
use crate::dump::asked::Asked;

/// What of the trees is shown, and how.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What is shown")]
pub struct ViewArgs {
    /// Only the trees of these registers, such as ttbr1_el1; all by default
    #[arg(long, value_name = "REGISTER")]
    root: Vec<String>,
    /// Only these addresses: START-END, START+SIZE, or one address, whose walk is shown. With
    /// --diff, --summary or --findings one address is its page
    #[arg(long, value_name = "RANGE")]
    va: Option<AddressRange>,
    /// Totals instead of runs
    #[arg(long)]
    pub summary: bool,
    /// Findings instead of runs
    #[arg(long, conflicts_with = "summary")]
    pub findings: bool,
    /// Every finding that is held, up to 256 of a kind, not the first eight
    #[arg(long)]
    pub all: bool,
    /// JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// What changed since OTHER, a dump saved with --json or another core: exit code 1 if anything
    #[arg(long, value_name = "OTHER", conflicts_with_all = ["summary", "findings"])]
    pub diff: Option<PathBuf>,
    /// Read at most this many rows of a tree, 32 bytes each
    #[arg(long, value_name = "COUNT", default_value_t = 1 << 25)]
    rows: u32,
}

impl ViewArgs {
    /// The trees and addresses that are asked for.
    pub fn asked(&self) -> Asked {
        let range = self.va.map_or(Asked::ALL, |range| (range.first, range.last));
        Asked { roots: self.root.clone(), range }
    }

    /// The address whose walk is asked for.
    pub fn walked(&self) -> Option<u64> {
        let shows_runs = self.diff.is_none() && !self.summary && !self.findings;
        self.va.filter(|range| range.is_address && shows_runs).map(|range| range.first)
    }

    /// How many rows of a tree are read at most.
    pub fn rows(&self) -> usize {
        self.rows as usize
    }
}
