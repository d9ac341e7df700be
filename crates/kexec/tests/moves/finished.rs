//! Reading finished lists: the check of their frames, and the sources of one segment.

use std::cell::Cell;

use linmap_kexec::{Extent, ExtentSource, Moves, RECORDS_PER_FRAME, Record, WireError};
use linmap_vmsa::{Pa, PaRange};

use crate::memory::{Frames, PAGE, Random, Setup, copy, pages, read, zeros};

#[test]
fn a_list_frame_on_a_source_is_found_wherever_it_is() {
    let destinations = [pages(0, 30_000)];
    let setup = Setup { destinations: &destinations, bounce: None, shares: 1, workspace: 0 };
    // 178 frames, some batches of them; the last source lies on one.
    let mut extents: Vec<_> = (0..30_000).map(|n| copy(100_000 + 2 * n, n, 1)).collect();
    for (frame, room) in [(40_000, 178), (40_063, 64), (40_064, 64), (40_100, 0), (40_177, 1), (40_177, 500)]
    {
        extents[29_999] = copy(frame, 29_999, 1);
        let mut frames = Frames::new(40_000..40_178);
        let moves = setup.plan(&extents, &mut frames).unwrap();
        assert_eq!(moves.frames, 178);
        let found = WireError::FrameInSource { frame: Pa(frame * PAGE), source_range: pages(frame, 1) };
        assert_eq!(moves.check(&mut vec![Pa(0); room], |pa| frames.at(pa)), Err(found));
    }
}

/// Whether a frame of the lists lies in a source, by comparing each frame with each record.
fn has_frame_in_source(moves: &Moves, frames: &Frames) -> bool {
    let used = Cell::new(Vec::new());
    let records: Vec<_> = moves
        .records(|pa| {
            let mut all = used.take();
            all.push(PaRange::from_len(pa, PAGE).unwrap());
            used.set(all);
            frames.at(pa)
        })
        .map(Result::unwrap)
        .collect();
    let used = used.take();
    records.iter().any(|record| match *record {
        Record::Copy { source, len, .. } => {
            let source = PaRange::from_len(source, len).unwrap();
            used.iter().any(|frame| frame.overlaps(source))
        }
        _ => false,
    })
}

#[test]
fn the_check_finds_what_comparing_each_frame_with_each_source_finds() {
    let (mut found, mut clean) = (0, 0);
    for number in 0..600 {
        let mut random = Random(number);
        let count = 1 + random.below(2500);
        let destinations = [pages(0, 4 * count)];
        let shares = 1 + random.below(4) as usize;
        let setup = Setup { destinations: &destinations, bounce: None, shares, workspace: 0 };
        // Sources and frames share some memory: many pages, so that not every plan has an error.
        let base = 5 * count;
        let size = 5_000 * (1 + random.below(40));
        let mut at = 0;
        let extents: Vec<_> = (0..count)
            .map(|_| {
                let len = 1 + random.below(4);
                let extent = match random.below(20) {
                    0 => zeros(at, len),
                    _ => copy(base + random.below(size), at, len),
                };
                at += len;
                extent
            })
            .collect();
        let mut taken: Vec<u64> = (0..24).map(|_| base + random.below(size)).collect();
        taken.sort_unstable();
        taken.dedup();
        for nth in (1..taken.len()).rev() {
            taken.swap(nth, random.below(nth as u64 + 1) as usize);
        }
        let mut frames = Frames::new(taken);
        let moves = setup.plan(&extents, &mut frames).unwrap();
        let expected = has_frame_in_source(&moves, &frames);
        let mut room = vec![Pa(0); random.below(30) as usize];
        match moves.check(&mut room, |pa| frames.at(pa)) {
            Ok(()) => assert!(!expected, "plan {number}"),
            Err(WireError::FrameInSource { frame, source_range }) => {
                assert!(expected && PaRange::from_len(frame, PAGE).unwrap().overlaps(source_range));
            }
            Err(error) => panic!("plan {number}: {error}"),
        }
        found += u64::from(expected);
        clean += u64::from(!expected);
    }
    assert!(found > 100 && clean > 100, "{found} {clean}");
}

/// Returns how often a frame is opened to check a plan of `count` extents, for each extent.
fn frames_opened(count: u64) -> f64 {
    let destinations = [pages(0, count)];
    let setup = Setup { destinations: &destinations, bounce: None, shares: 1, workspace: 0 };
    let extents: Vec<_> = (0..count).map(|n| copy(2 * count + 2 * n, n, 1)).collect();
    let first = 5 * count;
    let mut frames = Frames::new(first..first + count / (RECORDS_PER_FRAME as u64 - 1) + 1);
    let moves = setup.plan(&extents, &mut frames).unwrap();
    assert_eq!(moves.extents, count);
    let opened = Cell::new(0u64);
    let mut room = vec![Pa(0); moves.frames as usize];
    let checked = moves.check(&mut room, |pa| {
        opened.set(opened.get() + 1);
        frames.at(pa)
    });
    assert_eq!(checked, Ok(()));
    opened.get() as f64 / count as f64
}

#[test]
fn checking_100_000_extents_reads_each_as_often_as_checking_1_000() {
    let [few, many] = [1_000, 100_000].map(frames_opened);
    assert!(many <= few * 1.01, "{few} {many}");
}

#[test]
fn a_list_that_writes_another_number_of_bytes_is_refused() {
    let destinations = [pages(0, 20)];
    let setup = Setup { destinations: &destinations, bounce: None, shares: 1, workspace: 0 };
    let mut frames = Frames::new([50]);
    let moves = setup.plan(&[copy(100, 0, 2), zeros(5, 3)], &mut frames).unwrap();
    let longer = Moves { moved: moves.moved + PAGE, ..moves.clone() };
    let error = WireError::Len { bytes: 5 * PAGE, expected: 6 * PAGE };
    assert_eq!(longer.check(&mut [Pa(0)], |pa| frames.at(pa)), Err(error));
    assert_eq!(moves.check(&mut [Pa(0)], |pa| frames.at(pa)), Ok(()));
}

/// Each page of `extents` in `segment`, as destination and source.
fn by_page(extents: impl IntoIterator<Item = Extent>) -> Vec<(Pa, ExtentSource)> {
    let pages_of = |extent: Extent| {
        (0..extent.len).step_by(PAGE as usize).map(move |offset| {
            let source = match extent.source {
                ExtentSource::At(pa) => ExtentSource::At(Pa(pa.0 + offset)),
                ExtentSource::Zeros => ExtentSource::Zeros,
            };
            (Pa(extent.destination.0 + offset), source)
        })
    };
    extents.into_iter().flat_map(pages_of).collect()
}

#[test]
fn the_sources_of_a_segment_ascend_whatever_the_number_of_lists() {
    for number in 0..300 {
        let mut random = Random(number);
        let len = 1 + random.below(3000);
        // The first two touch, so that a record may fill the end of one and the start of the next.
        let destinations = [pages(0, len), pages(len, 7), pages(len + 100, 5)];
        let shares = 1 + random.below(16) as usize;
        let setup = Setup { destinations: &destinations, bounce: None, shares, workspace: 0 };
        let mut source = 10_000;
        let extents: Vec<Vec<Extent>> = destinations
            .iter()
            .map(|segment| {
                let mut at = segment.start.0 / PAGE;
                let mut extents = Vec::new();
                while at < segment.end.0 / PAGE {
                    let len = (1 + random.below(200)).min(segment.end.0 / PAGE - at);
                    source += random.below(2);
                    extents.push(if random.below(5) == 0 { zeros(at, len) } else { copy(source, at, len) });
                    (at, source) = (at + len, source + len);
                }
                extents
            })
            .collect();
        let mut frames = Frames::new(5_000..5_100);
        let moves = setup.plan(&extents.concat(), &mut frames).unwrap();
        for (&segment, extents) in destinations.iter().zip(extents) {
            let sources: Result<Vec<_>, _> = moves.sources(segment, |pa| frames.at(pa)).collect();
            assert_eq!(by_page(sources.unwrap()), by_page(extents), "plan {number}, {segment}");
        }
    }
}

#[test]
fn a_segment_that_the_lists_do_not_fill_in_order_has_no_sources() {
    let destinations = [pages(0, 10)];
    let setup = Setup { destinations: &destinations, bounce: None, shares: 2, workspace: 4 };
    let mut frames = Frames::new([50, 51]);
    // A gap at page 2; pages that are copied in the order of their sources.
    for (extents, missing) in [(&[copy(100, 0, 2), copy(102, 3, 7)][..], 2), (&[copy(2, 3, 7)], 0)] {
        let moves = setup.plan(extents, &mut frames).unwrap();
        assert!(!read(&moves, &frames).unwrap().is_empty());
        let last = moves.sources(destinations[0], |pa| frames.at(pa)).last();
        assert_eq!(last, Some(Err(WireError::NotFilled { destination: Pa(missing * PAGE) })));
    }
}
