//! What linmap aims at. It is shown beside what was measured and decides nothing.

use crate::case::{Case, LeafKind, Work};
use crate::contestant::Role;
use crate::measure::{Results, Row};
use crate::model::{Outcome, Source};

/// An aim.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// In which case.
    pub case: Case,
    /// How fast.
    pub bound: Bound,
}

/// How fast linmap should be, alone or compared with another contestant of the same run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Bound {
    /// At most this multiple of the raw stores' time.
    TimesFloor(f64),
    /// At least this many times as fast as the rival.
    FasterThanRival(f64),
    /// At most this many nanoseconds an entry.
    NsPerEntry(f64),
}

/// All aims.
pub const WANTED: [Wanted; 4] = [
    Wanted {
        case: Case { work: Work::Build, gib: 512, leaf: LeafKind::Page },
        bound: Bound::TimesFloor(1.25),
    },
    Wanted {
        case: Case { work: Work::Build, gib: 512, leaf: LeafKind::Page },
        bound: Bound::FasterThanRival(4.0),
    },
    Wanted {
        case: Case { work: Work::Build, gib: 512, leaf: LeafKind::Block },
        bound: Bound::FasterThanRival(8.0),
    },
    Wanted {
        case: Case { work: Work::Protect, gib: 16, leaf: LeafKind::Page },
        bound: Bound::NsPerEntry(2.0),
    },
];

/// What was measured beside an aim.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// The number that the aim bounds.
    pub measured: f64,
    /// Whether it is met.
    pub met: bool,
}

impl Bound {
    /// The bound as a number.
    pub fn limit(self) -> f64 {
        match self {
            Self::TimesFloor(limit) | Self::FasterThanRival(limit) | Self::NsPerEntry(limit) => limit,
        }
    }

    /// The aim in words.
    pub fn describe(self, results: &Results) -> String {
        let name = |role| results.of(role).map_or("", |row| row.contestant.name);
        match self {
            Self::TimesFloor(limit) => format!("in at most {limit} × the time of {}", name(Role::Floor)),
            Self::FasterThanRival(limit) => format!("at least {limit} × faster than {}", name(Role::Rival)),
            Self::NsPerEntry(limit) => format!("at most {limit} ns an entry, TLBIs left out"),
        }
    }

    /// Judges `row` by the aim, or returns `None` if `results` has no row to compare it with.
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
            Self::NsPerEntry(limit) => {
                let measured = row.ns_per_entry(results.case);
                Verdict { measured, met: measured <= limit }
            }
        })
    }
}

/// An aim for the model's checker.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ModelBound {
    /// At least this many events a second, whatever the job.
    EventsPerSecond(f64),
    /// At least this many events a second in the job of one source.
    EventsPerSecondOf(Source, f64),
    /// A build of this many GiB, every store an event, in at most this many seconds.
    Seconds(u64, f64),
    /// At most this multiple of the memory that the tables take.
    TimesTables(f64),
}

/// All aims for the model's checker.
pub const MODEL_WANTED: [ModelBound; 5] = [
    ModelBound::EventsPerSecond(1e6),
    ModelBound::EventsPerSecondOf(Source::Live, 5e6),
    ModelBound::EventsPerSecondOf(Source::Protect, 5e6),
    ModelBound::Seconds(64, 60.0),
    ModelBound::TimesTables(4.0),
];

impl ModelBound {
    /// The aim in words.
    pub fn describe(self) -> String {
        match self {
            Self::EventsPerSecond(limit) => format!("at least {} million events a second", limit / 1e6),
            Self::EventsPerSecondOf(source, limit) => {
                format!("{}: at least {} million events a second", source.name(), limit / 1e6)
            }
            Self::Seconds(gib, limit) => format!("{gib} GiB page by page in at most {limit} s"),
            Self::TimesTables(limit) => format!("in at most {limit} × the memory of the tables"),
        }
    }

    /// The bound as a number.
    pub fn limit(self) -> f64 {
        match self {
            Self::EventsPerSecond(limit)
            | Self::EventsPerSecondOf(_, limit)
            | Self::Seconds(_, limit)
            | Self::TimesTables(limit) => limit,
        }
    }

    /// Judges `outcome` by the aim, or returns `None` if the aim is for another job.
    pub fn judge(self, outcome: &Outcome) -> Option<Verdict> {
        Some(match self {
            Self::EventsPerSecond(limit) => {
                let measured = outcome.events_per_second();
                Verdict { measured, met: measured >= limit }
            }
            Self::EventsPerSecondOf(source, limit) => {
                let measured = outcome.events_per_second();
                (outcome.job.source == source).then_some(Verdict { measured, met: measured >= limit })?
            }
            Self::Seconds(gib, limit) => {
                let measured = outcome.time.as_secs_f64();
                (outcome.job.gib == gib).then_some(Verdict { measured, met: measured <= limit })?
            }
            Self::TimesTables(limit) => {
                let measured = outcome.times_tables();
                Verdict { measured, met: measured <= limit }
            }
        })
    }
}
