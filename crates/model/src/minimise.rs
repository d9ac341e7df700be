//! Minimisation: the events of a trace that a failure needs.

use linmap_trace::Event;

use crate::trace::Trace;

/// Returns a part of `trace` that fails too, and from which no event can be dropped: `fails` would
/// be false for the rest. No single word can be dropped at either end of a [`Fill`](Event::Fill).
/// Returns a copy of `trace` if `fails` is false for it.
///
/// `fails` is called with ever shorter traces on the same machine and must be deterministic. The
/// tail is dropped first, by halving, then chunks from half of the trace down to one event. For a
/// million events that fail because of ten, it is called with a few dozen long traces and some
/// hundred short ones.
pub fn minimise<F>(trace: &Trace, mut fails: F) -> Trace
where
    F: FnMut(&Trace) -> bool,
{
    minimise_keeping(trace, &[], |trace, _| fails(trace)).0
}

/// As [`minimise`], but the events with the numbers `kept`, in ascending order, are not dropped.
/// `fails` is called with their numbers in the shorter trace. Returns also which events of `trace`
/// are left.
pub(crate) fn minimise_keeping<F>(trace: &Trace, kept: &[usize], mut fails: F) -> (Trace, Vec<usize>)
where
    F: FnMut(&Trace, &[usize]) -> bool,
{
    let mut candidate = trace.clone();
    if !fails(&candidate, kept) {
        let all = (0..candidate.events.len()).collect();
        return (candidate, all);
    }
    let mut numbers = Vec::new();
    let mut fails = |events: &[Candidate]| {
        candidate.events.clear();
        candidate.events.extend(events.iter().map(|candidate| candidate.event));
        numbers.clear();
        numbers.extend((0..events.len()).filter(|nth| events[*nth].kept));
        numbers.len() == kept.len() && fails(&candidate, &numbers)
    };
    let is_kept = |nth| kept.binary_search(&nth).is_ok();
    let mut events: Vec<Candidate> = trace
        .events
        .iter()
        .enumerate()
        .map(|(nth, &event)| Candidate { event, kept: is_kept(nth), nth })
        .collect();
    cut_tail(&mut events, &mut fails);
    let mut chunk = events.len().div_ceil(2);
    while chunk > 1 {
        drop_chunks(&mut events, chunk, &mut fails);
        chunk = chunk.div_ceil(2).min(chunk - 1);
    }
    loop {
        while drop_chunks(&mut events, 1, &mut fails) {}
        if !narrow_fills(&mut events, &mut fails) {
            break;
        }
    }
    let left = events.iter().map(|candidate| candidate.event).collect();
    let numbers = events.iter().map(|candidate| candidate.nth).collect();
    (Trace { config: trace.config.clone(), events: left }, numbers)
}

/// An event that may be dropped, unless it is kept.
#[derive(Clone, Copy)]
struct Candidate {
    event: Event,
    kept: bool,
    /// Its number in the whole trace.
    nth: usize,
}

/// Cuts off what follows the shortest failing prefix that halving finds.
fn cut_tail(events: &mut Vec<Candidate>, fails: &mut impl FnMut(&[Candidate]) -> bool) {
    let (mut holds, mut failing) = (0, events.len());
    while holds < failing {
        let middle = holds + (failing - holds) / 2;
        if fails(&events[..middle]) {
            failing = middle;
        } else {
            holds = middle + 1;
        }
    }
    events.truncate(failing);
}

/// Drops each chunk without which the rest still fails, from the last to the first. Returns whether
/// it dropped any.
fn drop_chunks(
    events: &mut Vec<Candidate>,
    chunk: usize,
    fails: &mut impl FnMut(&[Candidate]) -> bool,
) -> bool {
    let mut dropped = false;
    let mut end = events.len();
    let mut rest = Vec::with_capacity(events.len());
    while end > 0 {
        let start = end.saturating_sub(chunk);
        rest.clear();
        rest.extend_from_slice(&events[..start]);
        rest.extend(events[start..end].iter().filter(|candidate| candidate.kept));
        rest.extend_from_slice(&events[end..]);
        if rest.len() < events.len() && fails(&rest) {
            std::mem::swap(events, &mut rest);
            dropped = true;
        }
        end = start;
    }
    dropped
}

/// Removes words at the ends of each fill, halves before single words. Returns whether it removed
/// any.
fn narrow_fills(events: &mut [Candidate], fails: &mut impl FnMut(&[Candidate]) -> bool) -> bool {
    let mut narrowed = false;
    for nth in 0..events.len() {
        let mut words = 0;
        if let Event::Fill { count, .. } = events[nth].event {
            words = count / 2;
        }
        while words > 0 {
            let mut any = false;
            for shorter in [without_last, without_first] {
                let before = events[nth].event;
                let Some(event) = shorter(before, words) else { continue };
                events[nth].event = event;
                if fails(events) {
                    any = true;
                } else {
                    events[nth].event = before;
                }
            }
            narrowed |= any;
            // Repeats until nothing is removed, so that at the end no single word can be dropped.
            if !any {
                words /= 2;
            }
        }
    }
    narrowed
}

/// A fill without its last words; `None` when that leaves nothing.
fn without_last(event: Event, words: u64) -> Option<Event> {
    match event {
        Event::Fill { cpu, pa, count, first, step } if count > words => {
            Some(Event::Fill { cpu, pa, count: count - words, first, step })
        }
        _ => None,
    }
}

/// A fill without its first words; `None` when that leaves nothing.
fn without_first(event: Event, words: u64) -> Option<Event> {
    match event {
        Event::Fill { cpu, pa, count, first, step } if count > words => Some(Event::Fill {
            cpu,
            pa: pa.wrapping_add(words.wrapping_mul(8)),
            count: count - words,
            first: first.wrapping_add(words.wrapping_mul(step)),
            step,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Config;

    /// A trace of numbered events.
    fn numbered(count: usize) -> Trace {
        let config = Config {
            cpus: 1,
            bbm: 0,
            granule: 0x1000,
            va_bits: 48,
            pa_bits: 48,
            ram: vec![(0, 1 << 40)],
            leniency: crate::config::Leniency::Strict,
        };
        let events =
            (0..count as u64).map(|value| Event::Store { cpu: 0, pa: 8 * value, value, via: None }).collect();
        Trace { config, events }
    }

    fn values(trace: &Trace) -> Vec<u64> {
        let value = |event: &Event| match *event {
            Event::Store { value, .. } => value,
            _ => u64::MAX,
        };
        trace.events.iter().map(value).collect()
    }

    #[test]
    fn a_million_events_that_fail_because_of_ten_take_few_questions() {
        let needed = [3, 77, 1_000, 4_096, 65_537, 200_000, 200_001, 350_000, 599_999, 700_000];
        let (mut asked, mut seen) = (0, 0);
        let least = minimise(&numbered(1_000_000), |trace| {
            asked += 1;
            seen += trace.events.len();
            let values = values(trace);
            needed.iter().all(|value| values.binary_search(value).is_ok())
        });
        assert_eq!(values(&least), needed);
        assert!(asked < 700, "{asked} questions");
        assert!(seen < 64_000_000, "{seen} events looked at");
    }

    #[test]
    fn a_trace_that_does_not_fail_comes_back_whole() {
        let trace = numbered(9);
        assert_eq!(minimise(&trace, |_| false), trace);
    }

    #[test]
    fn what_fails_by_itself_needs_no_event() {
        assert_eq!(minimise(&numbered(9), |_| true).events, []);
    }

    #[test]
    fn a_fill_is_narrowed_to_the_words_that_matter() {
        let mut trace = numbered(3);
        trace.events.insert(1, Event::Fill { cpu: 0, pa: 0x1000, count: 512, first: 7, step: 2 });
        let least = minimise(&trace, |trace| {
            trace.events.iter().any(|event| match *event {
                Event::Fill { pa, count, .. } => pa <= 0x1080 && 0x1098 < pa + 8 * count,
                _ => false,
            })
        });
        assert_eq!(least.events, [Event::Fill { cpu: 0, pa: 0x1080, count: 4, first: 7 + 32, step: 2 }]);
    }

    #[test]
    fn an_event_that_only_the_words_of_a_fill_needed_goes_with_them() {
        let mut trace = numbered(1);
        trace.events.push(Event::Fill { cpu: 0, pa: 0, count: 2, first: 0, step: 0 });
        // A fill of two words fails only after the store, a fill of one word by itself.
        let least = minimise(&trace, |trace| {
            matches!(
                trace.events[..],
                [Event::Fill { count: 1, .. }] | [Event::Store { .. }, Event::Fill { .. }]
            )
        });
        assert!(matches!(least.events[..], [Event::Fill { count: 1, .. }]), "{:?}", least.events);
    }

    proptest! {
        #[test]
        fn no_event_can_be_dropped(
            count in 1_usize..60,
            // Fails when all of any one group is there, or exactly `odd_length` events are left.
            groups in proptest::collection::vec(proptest::collection::vec(0_u64..60, 1..6), 1..4),
            odd_length in 0_usize..80,
        ) {
            let fails = |trace: &Trace| {
                let values = values(trace);
                values.len() == odd_length
                    || groups.iter().any(|group| group.iter().all(|value| values.contains(value)))
            };
            let trace = numbered(count);
            let least = minimise(&trace, fails);
            prop_assert_eq!(fails(&least), fails(&trace));
            if fails(&trace) {
                for nth in 0..least.events.len() {
                    let mut less = least.clone();
                    less.events.remove(nth);
                    prop_assert!(!fails(&less), "event {} of {:?}", nth, values(&least));
                }
            }
        }
    }
}
