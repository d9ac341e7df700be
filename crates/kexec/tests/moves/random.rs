//! Random plans.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use linmap_kexec::{Extent, MoveError};
use linmap_vmsa::{Pa, PaRange};

use crate::memory::{Frames, IndListed, Memory, PAGE, Random, Setup, copy, pages, run, zeros};

/// A random plan: where everything lies, and what has to go where.
struct Case {
    destinations: Vec<PaRange>,
    bounce: PaRange,
    frames: Range<u64>,
    extents: Vec<Extent>,
    shares: usize,
    /// How many pages of memory there are.
    count: u64,
}

/// `size` is how many pages destinations and sources share.
fn case(random: &mut Random, size: u64) -> Case {
    // Bounce buffer and list frames lie below or above.
    let bounce_len = 1 + if random.below(2) == 0 { random.below(3) } else { random.below(size) };
    let frame_count = 24;
    let (mut below, mut above) = (0, 0);
    let mut beside = |len: u64, under: bool| {
        let at = if under { &mut below } else { &mut above };
        *at += len + 1;
        (under, *at - len)
    };
    let bounce_at = beside(bounce_len, random.below(2) == 0);
    let frames_at = beside(frame_count, random.below(2) == 0);
    let base = below;
    let place = |(under, at): (bool, u64)| if under { at - 1 } else { base + size + at };
    let bounce = pages(place(bounce_at), bounce_len);
    let first_frame = place(frames_at);

    // Segments, with and without gaps between them.
    let mut destinations = Vec::new();
    let mut at = random.below(3).min(size - 1);
    let longest = 1 + random.below(size);
    while at < size && destinations.len() < 6 {
        let len = (1 + random.below(longest)).min(size - at);
        destinations.push(pages(base + at, len));
        at += len + if random.below(2) == 0 { 0 } else { random.below(4) };
    }

    // What each segment is filled with, upwards.
    let run = 1 + random.below(size);
    let kind = random.below(4);
    let shift = 1 + random.below(4);
    let mut permuted = permuted_runs(random, &destinations, run);
    let mut queues = Vec::new();
    for destination in &destinations {
        let (mut at, end) = (destination.start.0 / PAGE, destination.end.0 / PAGE);
        let mut queue = Vec::new();
        while at < end {
            let len = (1 + random.below(run)).min(end - at);
            let mut pushed = len;
            match (kind, random.below(16)) {
                // A permutation of all pages.
                (0, _) => {
                    let (source, left) = permuted.pop().unwrap();
                    pushed = left.min(end - at);
                    if left > pushed {
                        permuted.push((source + pushed, left - pushed));
                    }
                    queue.push(copy(source, at, pushed));
                }
                // Nearly all by a few pages up or down.
                (1, 2..) if at + len + shift <= base + size => queue.push(copy(at + shift, at, len)),
                (2, 2..) if at >= base + shift => queue.push(copy(at - shift, at, len)),
                (_, 0) => {}
                (_, 1) => queue.push(zeros(at, len)),
                (_, 2) => queue.push(copy(at, at, len)),
                _ => queue.push(copy(base + random.below(size - len + 1), at, len)),
            }
            at += pushed;
        }
        queue.reverse();
        queues.push(queue);
    }
    // Segments take turns.
    let mut extents = Vec::new();
    while !queues.is_empty() {
        let which = random.below(queues.len() as u64) as usize;
        match queues[which].pop() {
            Some(extent) => extents.push(extent),
            None => drop(queues.swap_remove(which)),
        }
    }
    for which in (1..destinations.len()).rev() {
        destinations.swap(which, random.below(which as u64 + 1) as usize);
    }
    let frames = first_frame..first_frame + frame_count;
    let shares = 1 + random.below(5) as usize;
    Case { destinations, bounce, frames, extents, shares, count: base + size + above + 1 }
}

/// All pages of the destinations, cut in runs of random lengths, in random order.
fn permuted_runs(random: &mut Random, destinations: &[PaRange], run: u64) -> Vec<(u64, u64)> {
    let mut runs = Vec::new();
    for destination in destinations {
        let (mut at, end) = (destination.start.0 / PAGE, destination.end.0 / PAGE);
        while at < end {
            let len = (1 + random.below(run)).min(end - at);
            runs.push((at, len));
            at += len;
        }
    }
    for which in (1..runs.len()).rev() {
        runs.swap(which, random.below(which as u64 + 1) as usize);
    }
    runs
}

/// The number of plans: `LINMAP_FUZZ_CASES`, or ten times `default` with `LINMAP_SOAK`, or
/// `default`.
fn cases(default: u64) -> u64 {
    let is_soak = std::env::var_os("LINMAP_SOAK").is_some_and(|value| !value.is_empty() && value != "0");
    let unset = if is_soak { 10 * default } else { default };
    std::env::var("LINMAP_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(unset)
}

#[test]
fn random_plans_end_byte_exact_and_write_nothing_else() {
    let cases = cases(20_000);
    let (mut with_order, mut with_bounce, mut without_order, mut several, mut most) = (0, 0, 0, 0, 0);
    for number in 0..cases {
        let mut random = Random(number);
        // Small ones first, so that what fails first is small.
        let size = 2 + number * 128 / cases;
        let Case { destinations, bounce, frames, extents, shares, count } = case(&mut random, size);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let setup =
                Setup { destinations: &destinations, bounce: Some(bounce), shares, workspace: size as usize };
            let mut frames = Frames::new(frames.clone());
            let moves = setup.plan(&extents, &mut frames).unwrap();
            moves.check(&mut [Pa(0); 8], |pa| frames.at(pa)).unwrap();
            let before = Memory::new(0, count as usize, 4);
            let after = before.after(&extents);
            let mut memory = before.clone();
            let done = run(&moves, &setup, &frames, &mut memory, &mut random);
            assert!(memory.is_like(&after, Some(bounce)), "memory differs");
            let segments: u64 = destinations.iter().map(|destination| destination.len()).sum();
            assert!(done.copied + done.cleared + moves.in_place <= segments);
            assert!(done.bounced <= done.copied, "no byte is saved twice");
            // Linux's list after all other memory; now and then with real pages, the list in
            // memory itself.
            let list = IndListed::new(&moves, &frames, count);
            let grain = if number % 50 == 0 { PAGE as usize } else { 4 };
            let mut before = Memory::new(0, count as usize + list.page_count(), grain);
            list.put(&mut before);
            let mut memory = before.clone();
            list.carry_out(&mut memory);
            assert!(memory.is_like(&before.after(&extents), Some(bounce)), "memory differs by Linux's list");
            (done, moves.lists.len())
        }));
        let (done, lists) = outcome.unwrap_or_else(|_| {
            panic!("plan {number}, {shares} shares: {destinations:?}, bounce {bounce}: {extents:#?}")
        });
        with_order += u64::from(done.ordered != 0);
        without_order += u64::from(done.ordered == 0 && done.copied != 0);
        with_bounce += u64::from(done.bounced != 0);
        several += u64::from(lists > 1);
        most = most.max(done.ordered);
    }
    println!(
        "{with_order} ordered, {with_bounce} bounced, {several} of several lists, at most {most} ordered"
    );
    // The plans are what they are meant to be.
    assert!(with_order > cases / 2 && with_bounce > cases / 4, "{with_order} {with_bounce}");
    assert!(without_order > cases / 100 && several > cases / 100, "{without_order} {several}");
}

#[test]
fn a_workspace_that_is_too_small_is_an_error_or_makes_no_difference() {
    let (mut refused, mut carried_out) = (0, 0);
    let cases = cases(3000);
    for number in 0..cases {
        let mut random = Random(number);
        let case = case(&mut random, 40);
        let setup = Setup {
            destinations: &case.destinations,
            bounce: (number % 3 != 0).then_some(case.bounce),
            shares: case.shares,
            workspace: random.below(8) as usize,
        };
        let mut frames = Frames::new(case.frames.clone());
        let before = Memory::new(0, case.count as usize, 4);
        match setup.plan(&case.extents, &mut frames) {
            Ok(moves) => {
                let mut memory = before.clone();
                run(&moves, &setup, &frames, &mut memory, &mut random);
                assert!(memory.is_like(&before.after(&case.extents), setup.bounce), "plan {number}");
                carried_out += 1;
            }
            Err(error) => {
                let expected = [
                    matches!(error, MoveError::WorkspaceFull { capacity } if capacity == setup.workspace),
                    matches!(error, MoveError::NoBounce { .. } if setup.bounce.is_none()),
                ];
                assert!(expected.contains(&true), "plan {number}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused > cases / 10 && carried_out > cases / 10, "{refused} {carried_out}");
}
