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

/// The most places that are told apart. A trace whose instructions are not known may have millions.
const MOST_PLACES: usize = 1 << 16;

/// The violations that are shown of one rule where no instruction is known.
pub const FEW: u64 = 4;

/// Where a violation was found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// At an instruction.
    Pc(u64),
    /// For an address, by an instruction that is not known.
    Va(u64),
    /// At an entry, likewise.
    Pa(u64),
    /// Nothing is known of it.
    Nowhere,
    /// At places beyond those that are told apart.
    Elsewhere,
}

impl Place {
    /// The place of `violation`, found at `at`.
    pub fn of(violation: &Violation, at: &Located) -> Self {
        match (at.recorded.pc, violation.va, violation.pa) {
            (Some(pc), ..) => Self::Pc(pc),
            (None, Some(va), _) => Self::Va(va),
            (None, None, Some(pa)) => Self::Pa(pa),
            (None, None, None) => Self::Nowhere,
        }
    }

    /// The function, if the instruction is known.
    fn function(self, names: &Names) -> Option<String> {
        match self {
            Self::Pc(pc) => Some(names.function(pc)),
            _ => None,
        }
    }

    fn name(self, names: &Names) -> String {
        match self {
            Self::Pc(pc) => names.place(pc),
            Self::Va(va) => format!("{va:#x}"),
            Self::Pa(pa) => format!("physical {pa:#x}"),
            Self::Nowhere => "no address".to_owned(),
            Self::Elsewhere => "other places".to_owned(),
        }
    }
}

/// How many violations of each rule each place has.
#[derive(Default)]
pub struct Counts {
    places: HashMap<(Rule, Place), u64>,
    /// Of each rule those of which no instruction is known.
    nameless: HashMap<Rule, u64>,
}

impl Counts {
    /// Adds a violation. Returns whether it is one to be shown: the first of its rule at its
    /// instruction, or one of the first of its rule if that is not known.
    pub fn add(&mut self, rule: Rule, place: Place) -> bool {
        let is_known = self.places.len() < MOST_PLACES || self.places.contains_key(&(rule, place));
        let place = if is_known { place } else { Place::Elsewhere };
        let count = self.places.entry((rule, place)).or_insert(0);
        *count += 1;
        if let Place::Pc(_) = place {
            return *count == 1;
        }
        let nameless = self.nameless.entry(rule).or_insert(0);
        *nameless += 1;
        *nameless <= FEW
    }

    /// Those of each rule at each place, by name, most first.
    pub fn by_place(&self, names: &Names) -> Vec<(String, String, u64)> {
        let mut counts = BTreeMap::new();
        for (&(rule, place), count) in &self.places {
            *counts.entry((rule_name(rule), place.name(names))).or_insert(0) += count;
        }
        let mut counts: Vec<_> =
            counts.into_iter().map(|((rule, place), count)| (rule, place, count)).collect();
        counts.sort_by_key(|(.., count)| std::cmp::Reverse(*count));
        counts
    }
}

/// Violations of one rule in one function, or at instructions that are not known.
pub struct Group<'a> {
    /// The rule's name.
    pub rule: String,
    /// The function, if the instructions are known.
    pub function: Option<String>,
    /// How many there are.
    pub count: u64,
    /// The first.
    pub first: &'a Found,
    /// The next ones that are shown.
    pub few: Vec<&'a Found>,
    /// The events of the others, as far as they are kept.
    pub next: Vec<usize>,
}

/// The violations by rule and function, in the order of the first of each.
pub fn groups<'a>(found: &'a [Found], counts: &Counts, names: &Names) -> Vec<Group<'a>> {
    let mut all = BTreeMap::new();
    for (&(rule, place), count) in &counts.places {
        *all.entry((rule, place.function(names))).or_insert(0) += count;
    }
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut known = BTreeMap::new();
    for each in found {
        let key = (each.violation.rule, Place::of(&each.violation, &each.at).function(names));
        match known.entry(key) {
            Entry::Occupied(at) => {
                let group: &mut Group<'_> = &mut groups[*at.get()];
                if group.function.is_none() && (group.few.len() as u64) < FEW - 1 {
                    group.few.push(each);
                } else {
                    group.next.push(each.violation.event);
                }
            }
            Entry::Vacant(at) => {
                let (rule, function) = at.key().clone();
                let count = all.get(at.key()).copied().unwrap_or(1);
                at.insert(groups.len());
                let (few, next) = (Vec::new(), Vec::new());
                groups.push(Group { rule: rule_name(rule), function, count, first: each, few, next });
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_beyond_those_told_apart_are_counted_together() {
        let mut counts = Counts::default();
        let most = MOST_PLACES as u64;
        let shown = (0..2 * most).filter(|va| counts.add(Rule::StaleTranslation, Place::Va(*va))).count();
        assert_eq!(shown as u64, FEW);
        assert!(counts.add(Rule::OutputAddress, Place::Pc(4)), "another rule is shown, too");
        assert!(counts.places.len() <= MOST_PLACES + 2);
        let by_place = counts.by_place(&Names::from(None));
        assert_eq!(by_place[0], ("stale-translation".into(), "other places".into(), most));
        assert_eq!(by_place.iter().map(|(.., count)| count).sum::<u64>(), 2 * most + 1);
    }
}
