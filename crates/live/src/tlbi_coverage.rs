//! Which TLB entries the invalidations of a plan remove.

use crate::invalidate::Span;
use crate::step::{Invalidation, Reach, Step};

/// Returns whether the invalidations among `steps` together cover `span`.
#[inline(never)]
pub(crate) fn covers(page_shift: u32, steps: &[Step], span: Span) -> bool {
    let mut next = span.first;
    loop {
        let before = next;
        for step in steps {
            let Step::Invalidate(invalidation) = step else { continue };
            let Some((first, last)) = removed(page_shift, *invalidation, span) else { continue };
            if first <= next && next <= last {
                if last >= span.last {
                    return true;
                }
                next = last + 1;
            }
        }
        if next == before {
            return false;
        }
    }
}

/// Returns whether an invalidation of all levels among `steps` names an address in `first..=last`.
pub(crate) fn reaches(page_shift: u32, steps: &[Step], first: u64, last: u64) -> bool {
    steps.iter().any(|step| {
        let Step::Invalidate(invalidation) = step else { return false };
        let (va, count, shift) = match *invalidation {
            Invalidation::All => return true,
            Invalidation::Stage1 => return false,
            Invalidation::ByVa { va, count, shift, reach: Reach::AllLevels } => (va.0, count.into(), shift),
            Invalidation::ByRange { va, pages, reach: Reach::AllLevels } => (va.0, pages, page_shift),
            _ => return false,
        };
        // The addresses are `va`, `va` + 2^shift and so on: the first that is not below `first`.
        let step = 1u64 << shift;
        let nth = first.saturating_sub(va).div_ceil(step);
        nth < count && va.checked_add(nth << shift).is_some_and(|at| first <= at && at <= last)
    })
}

/// Returns the first and the last address of the entries of `span`'s size that `invalidation`
/// removes.
#[inline(always)]
fn removed(page_shift: u32, invalidation: Invalidation, span: Span) -> Option<(u64, u64)> {
    let (va, count, shift, reach) = match invalidation {
        Invalidation::All => return Some((0, u64::MAX)),
        Invalidation::Stage1 => return None,
        Invalidation::ByVa { va, count, shift, reach } => (va, u64::from(count), shift, reach),
        Invalidation::ByRange { va, pages, reach } => (va, pages, page_shift, reach),
    };
    if span.reach == Reach::AllLevels && reach == Reach::LastLevel {
        return None;
    }
    let entry = (1u64 << span.shift) - 1;
    let last = if shift > span.shift {
        // The addresses are further apart than the entries, so only the first is certain.
        va.0
    } else {
        va.0.checked_add(count.checked_sub(1)?.checked_mul(1 << shift)?)?
    };
    Some((va.0 & !entry, last | entry))
}
