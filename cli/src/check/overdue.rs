//! Access that the guest took back, by function, and what of it was cached for too long.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use linmap_model::TakenBack;

use super::names::Names;

/// What it means to be counted.
pub const TEXT: &str = "Access taken back and still cached when its thread returned to EL0";

/// Access that was taken back.
pub struct Overdue {
    /// How often some CPU could have it when the thread that took it back returned to EL0.
    pub count: u64,
    /// How often access was taken back.
    pub of: u64,
    /// The functions that took back what was cached, most first.
    pub rows: Vec<Row>,
}

/// What a function took back.
pub struct Row {
    /// The function.
    pub function: String,
    /// How often it was cached for too long.
    pub count: u64,
    /// How often it took access back.
    pub of: u64,
    /// The first event of which that is so, and the address.
    pub first: (usize, u64),
}

impl Overdue {
    /// The sums of `taken`.
    pub fn of(taken: &[TakenBack], names: &Names) -> Self {
        let mut rows: BTreeMap<String, TakenBack> = BTreeMap::new();
        for own in taken {
            let function = own.pc.map_or("unknown".to_owned(), |pc| names.function(pc));
            let of = rows.entry(function).or_insert(TakenBack { count: 0, overdue: 0, first: None, ..*own });
            of.count += own.count;
            of.overdue += own.overdue;
            of.first = of.first.into_iter().chain(own.first).min();
        }
        let sum = |of: fn(&TakenBack) -> u64| rows.values().map(of).sum();
        let (count, of) = (sum(|own| own.overdue), sum(|own| own.count));
        let row = |(function, own): (String, TakenBack)| {
            Some(Row { function, count: own.overdue, of: own.count, first: own.first? })
        };
        let mut rows: Vec<Row> = rows.into_iter().filter_map(row).collect();
        rows.sort_by_key(|row| Reverse(row.count));
        Self { count, of, rows }
    }
}
