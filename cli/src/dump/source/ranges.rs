//! Ranges of physical addresses, as inputs list them: in any order, and some of them twice.

use std::ops::Range;

/// The same addresses in ranges that ascend and neither overlap nor touch.
pub fn disjoint(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| range.start < range.end);
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|next, last| {
        let joins = next.start <= last.end;
        if joins {
            last.end = last.end.max(next.end);
        }
        joins
    });
    ranges
}

/// Whether `ranges`, which ascend and are disjoint, hold all of `wanted`.
pub fn hold(ranges: &[Range<u64>], wanted: &Range<u64>) -> bool {
    let behind = ranges.partition_point(|range| range.start <= wanted.start);
    behind.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|range| wanted.end <= range.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_or_overlap_become_one() {
        assert_eq!(disjoint(vec![8..9, 0..2, 2..4, 3..5, 7..7]), [0..5, 8..9]);
        let ranges = [0..5, 8..9];
        assert!(hold(&ranges, &(1..5)) && hold(&ranges, &(8..9)));
        assert!(!hold(&ranges, &(4..6)) && !hold(&ranges, &(5..6)) && !hold(&[], &(0..1)));
    }
}
