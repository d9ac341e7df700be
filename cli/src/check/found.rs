//! Violations, and where they were found.

use std::collections::HashMap;
use std::collections::btree_map::{BTreeMap, Entry};

use linmap_model::{Rule, Violation};

use super::events::Located;
use super::explain::rule_name;
use super::names::Names;
use super::shown::Shown;
use super::trail::Step;

/// A violation, and what shows it.
pub struct Found {
    /// The violation.
    pub violation: Violation,
    /// The event that it is found at.
    pub at: Located,
    /// The events that show it, or why they are not to be had.
    pub shown: Result<Shown, String>,
    /// What its CPU did last.
    pub trail: Vec<Step>,
}

/// Where a violation was found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Spot {
    /// At an instruction.
    Pc(u64),
    /// For an address, by an instruction that is not known.
    Va(u64),
    /// At an entry, likewise.
    Pa(u64),
    /// Nothing is known of it.
    Nowhere,
}

impl Spot {
    /// The spot of `violation`, found at `at`.
    pub fn of(violation: &Violation, at: &Located) -> Self {
        match (at.recorded.pc, violation.va, violation.pa) {
            (Some(pc), ..) => Self::Pc(pc),
            (None, Some(va), _) => Self::Va(va),
            (None, None, Some(pa)) => Self::Pa(pa),
            (None, None, None) => Self::Nowhere,
        }
    }

    /// The function, or what there is instead.
    fn function(self, names: &Names) -> String {
        match self {
            Self::Pc(pc) => names.function(pc),
            _ => self.place(names),
        }
    }

    fn place(self, names: &Names) -> String {
        match self {
            Self::Pc(pc) => names.place(pc),
            Self::Va(va) => format!("{va:#x}"),
            Self::Pa(pa) => format!("physical {pa:#x}"),
            Self::Nowhere => "no address".to_owned(),
        }
    }
}

/// How many violations of each rule each spot has.
#[derive(Default)]
pub struct Counts(HashMap<(Rule, Spot), u64>);

impl Counts {
    /// Adds a violation. Returns whether it is the first of its rule at its spot.
    pub fn add(&mut self, rule: Rule, spot: Spot) -> bool {
        let count = self.0.entry((rule, spot)).or_insert(0);
        *count += 1;
        *count == 1
    }

    /// Those of each rule at each place, by name.
    pub fn by_place(&self, names: &Names) -> BTreeMap<(String, String), u64> {
        let mut counts = BTreeMap::new();
        for (&(rule, spot), count) in &self.0 {
            *counts.entry((rule_name(rule), spot.place(names))).or_insert(0) += count;
        }
        counts
    }
}

/// Violations of one rule in one function.
pub struct Group<'a> {
    /// The rule's name.
    pub rule: String,
    /// The function.
    pub function: String,
    /// How many there are.
    pub count: u64,
    /// The first.
    pub first: &'a Found,
    /// The events of the next ones, as far as they are kept.
    pub next: Vec<usize>,
}

/// The violations by rule and function, in the order of the first of each.
pub fn groups<'a>(found: &'a [Found], counts: &Counts, names: &Names) -> Vec<Group<'a>> {
    let mut all = BTreeMap::new();
    for (&(rule, spot), count) in &counts.0 {
        *all.entry((rule, spot.function(names))).or_insert(0) += count;
    }
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut known = BTreeMap::new();
    for each in found {
        let key = (each.violation.rule, Spot::of(&each.violation, &each.at).function(names));
        match known.entry(key) {
            Entry::Occupied(at) => {
                let group: &mut Group<'_> = &mut groups[*at.get()];
                group.next.push(each.violation.event);
            }
            Entry::Vacant(at) => {
                let (rule, function) = at.key().clone();
                let count = all.get(at.key()).copied().unwrap_or(1);
                at.insert(groups.len());
                groups.push(Group { rule: rule_name(rule), function, count, first: each, next: Vec::new() });
            }
        }
    }
    groups
}
