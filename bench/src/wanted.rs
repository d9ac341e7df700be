//! What linmap aims at. It is shown beside what was measured and decides nothing.

use crate::case::{Case, LeafKind};
use crate::contestant::Role;
use crate::measure::{Results, Row};

/// An aim.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// In which case.
    pub case: Case,
    /// How fast.
    pub bound: Bound,
}

/// How fast linmap should be, beside somebody else in the same run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Bound {
    /// At most so many times the raw stores' time.
    TimesFloor(f64),
    /// At least so many times as fast as the rival.
    FasterThanRival(f64),
}

/// All aims.
pub const WANTED: [Wanted; 3] = [
    Wanted { case: Case { gib: 512, leaf: LeafKind::Page }, bound: Bound::TimesFloor(1.25) },
    Wanted { case: Case { gib: 512, leaf: LeafKind::Page }, bound: Bound::FasterThanRival(4.0) },
    Wanted { case: Case { gib: 512, leaf: LeafKind::Block }, bound: Bound::FasterThanRival(8.0) },
];

/// What was measured beside an aim.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// The ratio that the aim bounds.
    pub measured: f64,
    /// Whether it is met.
    pub met: bool,
}

impl Bound {
    /// The number that bounds the ratio.
    pub fn limit(self) -> f64 {
        match self {
            Self::TimesFloor(limit) | Self::FasterThanRival(limit) => limit,
        }
    }

    /// The aim in words.
    pub fn describe(self, results: &Results) -> String {
        let name = |role| results.of(role).map_or("", |row| row.contestant.name);
        match self {
            Self::TimesFloor(limit) => format!("in at most {limit} × the time of {}", name(Role::Floor)),
            Self::FasterThanRival(limit) => format!("at least {limit} × faster than {}", name(Role::Rival)),
        }
    }

    /// How `row` of `results` does; `None` when there is nobody to compare it with.
    pub fn judge(self, results: &Results, row: &Row) -> Option<Verdict> {
        Some(match self {
            Self::TimesFloor(limit) => {
                let measured = row.ratio(results.of(Role::Floor)?);
                Verdict { measured, met: measured <= limit }
            }
            Self::FasterThanRival(limit) => {
                let measured = results.of(Role::Rival)?.ratio(row);
                Verdict { measured, met: measured >= limit }
            }
        })
    }
}
