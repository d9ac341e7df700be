//! Sets of addresses, stored as ranges.

use std::collections::BTreeMap;

/// A set of addresses: disjoint half-open ranges that do not touch, start to end.
#[derive(Clone, Default, Debug)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds a range.
    pub fn insert(&mut self, mut start: u64, mut end: u64) {
        while let Some((&other, &other_end)) = self.0.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            self.0.remove(&other);
            start = start.min(other);
            end = end.max(other_end);
        }
        self.0.insert(start, end);
    }

    /// Removes a range, and returns the parts of it that were in the set.
    pub fn remove(&mut self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let mut removed = Vec::new();
        while let Some((&other, &other_end)) = self.0.range(..end).next_back() {
            if other_end <= start {
                break;
            }
            self.0.remove(&other);
            if other_end > end {
                self.0.insert(end, other_end);
            }
            removed.push((other.max(start), other_end.min(end)));
            if other < start {
                self.0.insert(other, start);
            }
        }
        removed.reverse();
        removed
    }

    /// The range of the set that `address` lies in.
    pub fn around(&self, address: u64) -> Option<(u64, u64)> {
        let (&start, &end) = self.0.range(..=address).next_back()?;
        (address < end).then_some((start, end))
    }

    /// Whether any of a range is in the set.
    pub fn meet(&self, start: u64, end: u64) -> bool {
        self.0.range(..end).next_back().is_some_and(|(_, &other_end)| start < other_end)
    }

    /// The parts of a range that are not in the set.
    pub fn gaps(&self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let first = self.0.range(..=start).next_back().map_or(start, |(&other, _)| other);
        let mut from = start;
        for (&other, &other_end) in self.0.range(first..end.max(first)) {
            if from < other {
                gaps.push((from, other));
            }
            from = from.max(other_end);
        }
        if from < end {
            gaps.push((from, end));
        }
        gaps
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(&start, &end)| (start, end))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_say_what_a_set_of_single_addresses_says(
            steps in proptest::collection::vec((any::<bool>(), 0_u64..64, 1_u64..16), 0..40),
            start in 0_u64..64,
            len in 1_u64..32,
        ) {
            let mut ranges = Ranges::default();
            let mut singles = [false; 96];
            for (add, start, len) in steps {
                let span = start as usize..(start + len) as usize;
                if add {
                    ranges.insert(start, start + len);
                } else {
                    let removed = ranges.remove(start, start + len);
                    for at in span.clone() {
                        let among = removed.iter().any(|&(from, to)| (from..to).contains(&(at as u64)));
                        prop_assert_eq!(among, singles[at]);
                    }
                }
                singles[span].fill(add);
            }
            let ordered: Vec<_> = ranges.iter().flat_map(|(start, end)| [start, end]).collect();
            prop_assert!(ordered.is_sorted_by(|a, b| a < b));
            for (at, &single) in singles.iter().enumerate() {
                prop_assert_eq!(ranges.around(at as u64).is_some(), single);
            }
            let span = &singles[start as usize..(start + len) as usize];
            let covered = ranges.around(start).is_some_and(|(_, end)| start + len <= end);
            prop_assert_eq!(covered, span.iter().all(|single| *single));
            prop_assert_eq!(ranges.meet(start, start + len), span.iter().any(|single| *single));
            let gaps = ranges.gaps(start, start + len);
            for (at, &single) in (start..).zip(span) {
                prop_assert_eq!(gaps.iter().any(|&(from, to)| (from..to).contains(&at)), !single);
            }
        }
    }
}
