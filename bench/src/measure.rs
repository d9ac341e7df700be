//! Rounds of interleaved runs, and what they amount to.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::arena::Arena;
use crate::case::{Case, LeafKind};
use crate::check::check;
use crate::contestant::{Contestant, Role};
use crate::progress::Progress;

/// How long to measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    /// Everything together in well under two minutes.
    Quick,
    /// Some minutes.
    Full,
}

/// Rounds of a case at the least, however long they take, and at the most.
const ROUNDS: std::ops::RangeInclusive<usize> = 3..=1001;

impl Effort {
    /// When to begin no further round of `case`.
    fn budget(self, case: Case) -> Duration {
        let large = case.leaf == LeafKind::Page && case.gib == 512;
        Duration::from_secs(match (self, large) {
            (Self::Quick, true) => 25,
            (Self::Quick, false) => 3,
            (Self::Full, true) => 90,
            (Self::Full, false) => 10,
        })
    }
}

/// The times of one contestant in one case.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The middle one, or the mean of the two in the middle.
    pub median: Duration,
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
    /// How many there are.
    pub samples: usize,
}

impl Times {
    /// What `samples` amount to, or `None` when there are none.
    fn of(mut samples: Vec<Duration>) -> Option<Self> {
        samples.sort_unstable();
        let count = samples.len();
        let (low, high) = (samples.get(count.checked_sub(1)? / 2)?, samples.get(count / 2)?);
        Some(Self {
            median: (*low + *high) / 2,
            min: *samples.first()?,
            max: *samples.last()?,
            samples: count,
        })
    }
}

/// One contestant in one case.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Who.
    pub contestant: Contestant,
    /// How fast.
    pub times: Times,
    /// TLB invalidations of one run.
    pub tlbis: u64,
}

impl Row {
    /// Nanoseconds for each leaf entry of `case`.
    pub fn ns_per_entry(&self, case: Case) -> f64 {
        self.times.median.as_secs_f64() * 1e9 / case.entries() as f64
    }

    /// How many times the median of `other` this one's is.
    pub fn ratio(&self, other: &Self) -> f64 {
        self.times.median.as_secs_f64() / other.times.median.as_secs_f64()
    }
}

/// Everyone in one case.
#[derive(Clone, Debug)]
pub struct Results {
    /// What was measured.
    pub case: Case,
    /// In the order of [`Contestant::all`].
    pub rows: Vec<Row>,
}

impl Results {
    /// linmap's rows.
    pub fn ours(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| matches!(row.contestant.role, Role::Subject | Role::Variant))
    }

    /// The row of the contestant that plays `role`.
    pub fn of(&self, role: Role) -> Option<&Row> {
        self.rows.iter().find(|row| row.contestant.role == role)
    }
}

/// Checks each contestant's map of `case` once, then measures. In each round each contestant makes
/// the map once. Every other round runs in reverse order, so that no contestant always follows the
/// same one.
///
/// # Errors
/// A contestant that fails or makes a wrong map.
pub fn measure(case: Case, effort: Effort, arena: &mut Arena, progress: &mut Progress) -> Result<Results> {
    let contestants = Contestant::all(case);
    let mut memory = arena.tables(case.tables(), case.ram().end)?;
    progress.part(case.title());
    for contestant in contestants {
        progress.step(|| format!("checking {}", contestant.name));
        check(contestant, case, &mut memory)?;
    }
    let mut samples = vec![Vec::new(); contestants.len()];
    let start = Instant::now();
    for round in 0..*ROUNDS.end() {
        if round >= *ROUNDS.start() && start.elapsed() > effort.budget(case) {
            break;
        }
        let mut order: Vec<_> = contestants.iter().zip(&mut samples).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for (contestant, samples) in order {
            progress.step(|| format!("round {}: {}", round + 1, contestant.name));
            samples.push(contestant.run(case, &mut memory)?);
        }
    }
    let rows = contestants.iter().zip(samples).map(|(contestant, runs)| {
        let tlbis = runs.last()?.tlbis;
        let times = Times::of(runs.iter().map(|run| run.time).collect())?;
        Some(Row { contestant: *contestant, times, tlbis })
    });
    Ok(Results { case, rows: rows.collect::<Option<_>>().context("no round was measured")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn median(samples: &[u64]) -> Option<Duration> {
        Times::of(samples.iter().copied().map(Duration::from_nanos).collect()).map(|times| times.median)
    }

    #[test]
    fn the_median_is_the_middle_one_or_the_mean_of_the_two_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7]), Some(Duration::from_nanos(7)));
        assert_eq!(median(&[9, 1, 5]), Some(Duration::from_nanos(5)));
        assert_eq!(median(&[100, 1, 5, 7]), Some(Duration::from_nanos(6)));
    }
}
