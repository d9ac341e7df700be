//! What is wrong or worth knowing in trees.

use std::fmt;

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// A CPU may do what nobody wants.
    Problem,
    /// Worth knowing.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Problem => "problem",
            Self::Note => "note",
        })
    }
}

/// Where a finding is: an entry of a table, and what it translates.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Place {
    /// The root's register.
    pub root: String,
    /// The address that is translated.
    pub va: String,
    /// The frame of the table.
    pub table: String,
    /// The level of the entry.
    pub level: i8,
    /// The number of the entry.
    pub index: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { root, va, table, level, index } = self;
        write!(f, "{root} {va} (L{level} entry {index} of table {table})")
    }
}

/// A finding.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// What it is, in a sentence with its places.
    pub text: String,
    /// Its entries.
    pub places: Vec<Place>,
}

/// Findings of one kind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Findings {
    /// The kind's name.
    pub kind: &'static str,
    /// How bad they are.
    pub severity: Severity,
    /// How many there are.
    pub total: u64,
    /// What all of them are together, if that says more than their number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sum: Option<String>,
    /// The first of them.
    pub findings: Vec<Finding>,
}
