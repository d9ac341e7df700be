//! Move plans, carried out in a simulated memory.

mod finished;
mod memory;
mod random;

use std::num::NonZeroUsize;

use linmap_kexec::{
    Direction, Extent, ExtentSource, IndEntry, IndError, LIST_FRAME_WORDS, ListFrame, MoveError, MovePlan,
    Pending, RECORDS_PER_FRAME, Record, SegmentError, Segments,
};
use linmap_vmsa::{Pa, PaRange};
use memory::{Done, Frames, IndListed, Memory, PAGE, Random, Setup, copy, pages, read, run, zeros};

/// How many CPUs take part.
const ONE: NonZeroUsize = NonZeroUsize::MIN;

/// Plans `extents` in `count` pages of memory from `first` on, carries the plan out and checks all
/// of memory.
fn carried_out(setup: &Setup<'_>, extents: &[Extent], frames: &mut Frames, first: u64, count: usize) -> Done {
    let moves = setup.plan(extents, frames).unwrap();
    moves.check(&mut [Pa(0); 8], |pa| frames.at(pa)).unwrap();
    let before = Memory::new(first, count, 0x1000);
    let mut memory = before.clone();
    let done = run(&moves, setup, frames, &mut memory, &mut Random(7));
    assert!(memory.is_like(&before.after(extents), setup.bounce));
    done
}

#[test]
fn two_segments_change_places_through_the_bounce_buffer() {
    // 46 MB each and 2 MB of buffer, scaled to 46 pages and 2.
    let destinations = [pages(10, 46), pages(100, 46)];
    let setup = Setup { destinations: &destinations, bounce: Some(pages(2, 2)), shares: 4, workspace: 3 };
    let extents = [copy(100, 10, 46), copy(10, 100, 46)];
    let done = carried_out(&setup, &extents, &mut Frames::new(160..170), 0, 170);
    assert_eq!(done, Done { copied: 92 * PAGE, cleared: 0, bounced: 46 * PAGE, ordered: 69 });
}

#[test]
fn three_segments_rotate() {
    let destinations = [pages(10, 20), pages(40, 20), pages(80, 20)];
    let extents = [copy(80, 10, 20), copy(10, 40, 20), copy(40, 80, 20)];
    for (bounce, bounced) in [(1, 20), (3, 20), (20, 20), (30, 20)] {
        let setup =
            Setup { destinations: &destinations, bounce: Some(pages(110, bounce)), shares: 2, workspace: 4 };
        let done = carried_out(&setup, &extents, &mut Frames::new(0..5), 0, 150);
        assert_eq!((done.copied, done.bounced), (60 * PAGE, bounced * PAGE));
    }
}

#[test]
fn a_shift_by_one_page_is_one_ordered_copy_and_needs_no_buffer() {
    for (source, destination, wanted) in [(10, 11, Direction::Downwards), (11, 10, Direction::Upwards)] {
        let destinations = [pages(destination, 50)];
        let setup = Setup { destinations: &destinations, bounce: None, shares: 1, workspace: 1 };
        let extents = [copy(source, destination, 50)];
        let done = carried_out(&setup, &extents, &mut Frames::new([0, 1]), 0, 70);
        // No move overwrites the source page outside the destination.
        assert_eq!(done, Done { copied: 50 * PAGE, cleared: 0, bounced: 0, ordered: 1 });
        let mut frames = Frames::new([0, 1]);
        let moves = setup.plan(&extents, &mut frames).unwrap();
        let records = read(&moves, &frames).unwrap();
        assert!(matches!(
            records[0],
            Record::Copy { len, direction, .. } if len == 49 * PAGE && direction == wanted
        ));
        assert_eq!(records[1].len(), PAGE);
    }
}

#[test]
fn what_lies_in_place_needs_no_list_and_no_frame() {
    let destinations = [pages(0, 3), pages(8, 2)];
    let setup = Setup { destinations: &destinations, bounce: None, shares: 4, workspace: 0 };
    let moves = setup.plan(&[copy(8, 8, 2), copy(0, 0, 3)], &mut Frames::new([])).unwrap();
    assert!(moves.lists.is_empty());
    assert_eq!((moves.in_place, moves.moved, moves.extents, moves.frames), (5 * PAGE, 0, 0, 0));
}

#[test]
fn extents_that_go_on_become_one_and_nothing_else_does() {
    let destinations = [pages(0, 20)];
    let setup = Setup { destinations: &destinations, bounce: None, shares: 1, workspace: 0 };
    let mut frames = Frames::new([30]);
    let extents = [
        copy(100, 0, 1),
        copy(101, 1, 2),
        // Continues the last extent at the destination alone, then at the source alone.
        copy(200, 3, 1),
        copy(201, 6, 1),
        zeros(7, 1),
        zeros(8, 2),
        zeros(11, 1),
    ];
    let moves = setup.plan(&extents, &mut frames).unwrap();
    let len: Vec<_> = read(&moves, &frames).unwrap().iter().map(|record| record.len() / PAGE).collect();
    assert_eq!(len, [3, 1, 1, 3, 1]);
    assert_eq!((moves.extents, moves.moved, moves.cleared), (5, 5 * PAGE, 4 * PAGE));
}

#[test]
fn address_zero_is_an_address_like_any_other() {
    // As source, destination, list frame and bounce buffer.
    for (destinations, bounce, frame, extents) in [
        ([pages(4, 1), pages(6, 1)], 8, 9, [copy(0, 4, 1), zeros(6, 1)]),
        ([pages(0, 1), pages(6, 1)], 8, 9, [copy(6, 0, 1), copy(0, 6, 1)]),
        ([pages(4, 1), pages(6, 1)], 8, 0, [copy(6, 4, 1), copy(4, 6, 1)]),
        ([pages(4, 1), pages(6, 1)], 0, 9, [copy(6, 4, 1), copy(4, 6, 1)]),
        ([pages(0, 1), pages(6, 1)], 8, 9, [zeros(0, 1), copy(7, 6, 1)]),
    ] {
        let setup =
            Setup { destinations: &destinations, bounce: Some(pages(bounce, 1)), shares: 1, workspace: 2 };
        carried_out(&setup, &extents, &mut Frames::new([frame]), 0, 10);
    }
}

#[test]
fn the_last_pages_that_have_an_end_are_addresses_like_any_other() {
    let first = (u64::MAX / PAGE) - 10;
    let destinations = [pages(first + 8, 2), pages(first + 2, 2)];
    let bounce = Some(pages(first, 1));
    let setup = Setup { destinations: &destinations, bounce, shares: 2, workspace: 3 };
    let extents = [copy(first + 2, first + 8, 2), copy(first + 8, first + 2, 2)];
    let done = carried_out(&setup, &extents, &mut Frames::new([first + 5]), first, 10);
    assert_eq!(done.bounced, 2 * PAGE);
}

#[test]
fn full_frames_link_to_the_next_in_their_last_record() {
    let room = RECORDS_PER_FRAME as u64 - 1;
    for (count, frame_count) in [(room, 1), (room + 1, 2), (2 * room, 2), (2 * room + 1, 3)] {
        // Every other page, so that nothing can be joined.
        let extents: Vec<_> = (0..count).map(|n| copy(1000 + 2 * n, n, 1)).collect();
        let destinations = [pages(0, count)];
        let setup = Setup { destinations: &destinations, bounce: None, shares: 1, workspace: 0 };
        let mut frames = Frames::new([990, 980, 970]);
        let moves = setup.plan(&extents, &mut frames).unwrap();
        assert_eq!((moves.frames, moves.extents), (frame_count, count));
        carried_out(&setup, &extents, &mut Frames::new([990, 980, 970]), 0, 1000 + 2 * count as usize);
    }
}

#[test]
fn full_frames_of_the_ordered_part_link_to_the_next_and_then_to_the_share() {
    for count in [168, 169, 170, 338] {
        let destinations = [pages(0, 2 * count), pages(5000, 1)];
        let setup =
            Setup { destinations: &destinations, bounce: None, shares: 3, workspace: 2 * count as usize };
        // To the second half in reverse; the first half is filled from outside.
        let mut extents: Vec<_> = (0..count).map(|n| copy(4000 + n, n, 1)).collect();
        extents.extend((0..count).map(|n| copy(count - 1 - n, count + n, 1)));
        extents.push(zeros(5000, 1));
        carried_out(&setup, &extents, &mut Frames::new(3000..3010), 0, 5001);
    }
}

#[test]
fn cpus_get_the_same_share_whether_extents_are_large_or_small() {
    let destinations = [pages(0, 11_776), pages(20_000, 512)];
    let setup = Setup { destinations: &destinations, bounce: None, shares: 4, workspace: 0 };
    let large = vec![copy(30_000, 0, 11_776), copy(50_000, 20_000, 512)];
    let page_by_page: Vec<_> = (0..11_776).map(|page| copy(30_000 + page, page, 1)).collect();
    let scattered: Vec<_> = (0..11_776).map(|page| copy(30_000 + 2 * page, page, 1)).collect();
    for extents in [large, page_by_page, scattered] {
        let mut frames = Frames::new(60_000..60_100);
        let moves = setup.plan(&extents, &mut frames).unwrap();
        let bytes: Vec<_> = moves.lists.iter().map(|list| list.bytes).collect();
        assert_eq!(bytes.len(), 4);
        assert!(bytes.iter().max().unwrap() - bytes.iter().min().unwrap() <= 64 * PAGE, "{bytes:x?}");
        assert!(moves.frames <= 4 * 18, "{} frames", moves.frames);
    }
}

#[test]
fn a_list_is_made_only_for_a_cpu_that_has_something_to_do() {
    let destinations = [pages(0, 2)];
    let setup = Setup { destinations: &destinations, bounce: None, shares: 16, workspace: 1 };
    let moves = setup.plan(&[copy(10, 0, 2)], &mut Frames::new([20])).unwrap();
    assert_eq!((moves.lists.len(), moves.frames), (1, 1));
    // An ordered part alone.
    let moves = setup.plan(&[copy(1, 0, 1)], &mut Frames::new([20])).unwrap();
    assert_eq!((moves.lists.len(), moves.frames, moves.ordered), (1, 1, 1));
}

#[test]
fn hostile_extents_are_refused_and_change_nothing() {
    let destinations = [pages(0, 3), pages(8, 2)];
    let segments = Segments::new(&destinations).unwrap();
    let bounce = pages(20, 4);
    let mut workspace = [Pending::UNUSED; 4];
    let mut frames = Frames::new([30]);
    let mut given = frames.hand_out();
    let mut plan = MovePlan::new(segments, &mut workspace, Some(bounce), ONE).unwrap();
    let bytes = |source: u64, destination: u64, len: u64| Extent {
        source: ExtentSource::At(Pa(source)),
        destination: Pa(destination),
        len,
    };
    plan.push(copy(100, 0, 1), &mut given).unwrap();
    for extent in [
        bytes(0x10_1008, 0x1000, 0x1000),
        bytes(0x10_1000, 0x1008, 0x1000),
        bytes(0x10_1000, 0x1000, 0x800),
        bytes(0x10_1000, 0x1000, 0),
        Extent { source: ExtentSource::Zeros, destination: Pa(0x1000), len: 0x1001 },
    ] {
        assert_eq!(plan.push(extent, &mut given), Err(MoveError::Unaligned { extent }));
    }
    let last = u64::MAX - 0xfff;
    for extent in [
        bytes(last, 0x1000, 0x1000),
        bytes(0x10_0000, last, 0x1000),
        bytes(0x10_0000, 0x1000, last),
        Extent { source: ExtentSource::Zeros, destination: Pa(last), len: last },
    ] {
        assert_eq!(plan.push(extent, &mut given), Err(MoveError::Overflow { extent }));
    }
    for extent in
        [copy(100, 3, 1), copy(100, 1, 3), copy(100, 7, 2), zeros(1, 8), zeros(40, 1), copy(50, 50, 1)]
    {
        assert_eq!(plan.push(extent, &mut given), Err(MoveError::NotInSegment { extent }));
    }
    for extent in [copy(100, 0, 1), copy(200, 0, 2), zeros(0, 1), copy(0, 0, 3)] {
        let filled = Pa(PAGE);
        assert_eq!(plan.push(extent, &mut given), Err(MoveError::Backwards { extent, filled }));
    }
    for extent in [copy(20, 1, 1), copy(19, 1, 2), copy(23, 1, 2)] {
        assert_eq!(plan.push(extent, &mut given), Err(MoveError::BounceInSource { extent, bounce }));
    }
    let moves = plan.finish(&mut given).unwrap();
    drop(given);
    assert_eq!((moves.moved, moves.cleared, moves.in_place), (PAGE, 0, 0));
    assert_eq!(read(&moves, &frames).unwrap().len(), 1);
}

#[test]
fn in_place_extents_are_filled_as_others_are() {
    let destinations = [pages(0, 3)];
    let segments = Segments::new(&destinations).unwrap();
    let mut plan = MovePlan::new(segments, &mut [], None, ONE).unwrap();
    let mut none = std::iter::empty();
    plan.push(copy(0, 0, 2), &mut none).unwrap();
    let twice = zeros(1, 2);
    assert_eq!(
        plan.push(twice, &mut none),
        Err(MoveError::Backwards { extent: twice, filled: Pa(2 * PAGE) })
    );
}

#[test]
fn a_frame_that_the_move_would_overwrite_is_refused_and_spoils_the_plan() {
    let destinations = [pages(8, 2)];
    let segments = Segments::new(&destinations).unwrap();
    let bounce = pages(20, 4);
    let mut words = [0; LIST_FRAME_WORDS];
    for (pa, expected) in [
        (
            0x9000,
            MoveError::FrameOverwritten(SegmentError::Overwritten {
                range: pages(9, 1),
                destination: destinations[0],
            }),
        ),
        (0x1_4000, MoveError::FrameInBounce { frame: Pa(0x1_4000), bounce }),
        (0x1_7000, MoveError::FrameInBounce { frame: Pa(0x1_7000), bounce }),
        (0x800, MoveError::FrameUnaligned { frame: Pa(0x800) }),
        (u64::MAX - 0xfff, MoveError::FrameUnaligned { frame: Pa(u64::MAX - 0xfff) }),
    ] {
        let mut plan = MovePlan::new(segments, &mut [], Some(bounce), ONE).unwrap();
        let mut frames = [ListFrame { pa: Pa(pa), words: &mut words }].into_iter();
        assert_eq!(plan.push(copy(100, 8, 1), &mut frames), Err(expected));
        assert_eq!(plan.push(copy(100, 9, 1), &mut frames), Err(expected));
        assert_eq!(plan.finish(&mut frames), Err(expected));
    }
    let setup = Setup { destinations: &destinations, bounce: None, shares: 1, workspace: 0 };
    assert_eq!(setup.plan(&[copy(100, 8, 1)], &mut Frames::new([])), Err(MoveError::NoFrame));
    let full = MoveError::WorkspaceFull { capacity: 0 };
    assert_eq!(setup.plan(&[copy(9, 8, 1)], &mut Frames::new([0])), Err(full));
}

#[test]
fn a_bounce_buffer_that_cannot_be_one_is_refused() {
    let destinations = [pages(8, 2)];
    let segments = Segments::new(&destinations).unwrap();
    let new = |bounce| MovePlan::new(segments, &mut [], Some(bounce), ONE).map(|_| ());
    for bounce in [PaRange::new(Pa(0x800), Pa(0x2000)), PaRange::new(Pa(0), Pa(0xfff)), pages(1, 0)] {
        assert_eq!(new(bounce), Err(MoveError::BounceUnaligned { bounce }));
    }
    let overwritten = SegmentError::Overwritten { range: pages(9, 4), destination: destinations[0] };
    assert_eq!(new(pages(9, 4)), Err(MoveError::BounceOverwritten(overwritten)));
}

#[test]
fn no_more_than_2_mib_of_the_bounce_buffer_are_used() {
    let destinations = [pages(0, 2000), pages(3000, 2000)];
    let bounce = Some(pages(6000, 4000));
    let setup = Setup { destinations: &destinations, bounce, shares: 1, workspace: 3 };
    let mut frames = Frames::new([10_000]);
    let moves = setup.plan(&[copy(3000, 0, 2000), copy(0, 3000, 2000)], &mut frames).unwrap();
    for record in read(&moves, &frames).unwrap() {
        if let Record::Copy { destination, len, .. } = record
            && pages(6000, 4000).contains(destination)
        {
            assert!(pages(6000, 512).covers(PaRange::from_len(destination, len).unwrap()), "{record}");
        }
    }
}

#[test]
fn a_circle_without_a_bounce_buffer_is_an_error() {
    let destinations = [pages(0, 4)];
    let setup = Setup { destinations: &destinations, bounce: None, shares: 1, workspace: 8 };
    let swap = [copy(2, 0, 2), copy(0, 2, 2)];
    assert_eq!(setup.plan(&swap, &mut Frames::new([10])), Err(MoveError::NoBounce { pending: 4 * PAGE }));
}

#[test]
fn linux_s_list_says_the_same_page_by_page() {
    let destinations = [pages(0, 4), pages(8, 2)];
    let setup = Setup { destinations: &destinations, bounce: None, shares: 2, workspace: 1 };
    let mut frames = Frames::new([30, 31]);
    let extents = [copy(100, 0, 2), zeros(2, 1), copy(102, 3, 1), copy(110, 9, 1)];
    let moves = setup.plan(&extents, &mut frames).unwrap();
    let zero_page = Pa(0x20_0000);
    let mut list = Frames::new([0x300]);
    let entries: Result<Vec<_>, _> = moves.ind_list(zero_page, list.hand_out(), |pa| frames.at(pa)).collect();
    let words: Vec<_> = entries.unwrap().into_iter().map(IndEntry::word).collect();
    // The second list has the second and the third extent, since it had less to do.
    let expected = [0x30_0002, 0x1, 0x6_4008, 0x6_5008, 0x9001, 0x6_e008, 0x2001, 0x20_0008, 0x6_6008, 0x4];
    assert_eq!(words, expected);
    assert_eq!(list.at(Pa(0x30_0000)).unwrap()[..9], expected[1..], "all but the head is in the page");
    let empty = setup.plan(&[], &mut frames).unwrap();
    assert_eq!(empty.ind_pages(|pa| frames.at(pa)), Ok(0));
    let entries: Vec<_> = empty.ind_list(zero_page, std::iter::empty(), |pa| frames.at(pa)).collect();
    assert_eq!(entries, [Ok(IndEntry::Done)]);
}

#[test]
fn linux_s_list_says_an_order_and_a_bounce_buffer_too() {
    let destinations = [pages(0, 8)];
    let setup = Setup { destinations: &destinations, bounce: Some(pages(20, 1)), shares: 2, workspace: 8 };
    let mut frames = Frames::new([30, 31]);
    let words = |extents: &[Extent], frames: &mut Frames| -> Vec<u64> {
        let moves = setup.plan(extents, frames).unwrap();
        let mut list = Frames::new([40]);
        let entries = moves.ind_list(Pa(50 * PAGE), list.hand_out(), |pa| frames.at(pa));
        entries.map(|entry| entry.unwrap().word()).collect()
    };
    // Upwards, and downwards with each page's own destination.
    let up = words(&[copy(1, 0, 3)], &mut frames);
    assert_eq!(up, [0x2_8002, 0x1, 0x1008, 0x2008, 0x3008, 0x4]);
    let down = words(&[copy(0, 1, 3)], &mut frames);
    assert_eq!(down, [0x2_8002, 0x3001, 0x2008, 0x2001, 0x1008, 0x1001, 0x8, 0x4]);
    // Two pages change places.
    let swapped = words(&[copy(1, 0, 1), copy(0, 1, 1)], &mut frames);
    assert_eq!(swapped, [0x2_8002, 0x1_4001, 0x8, 0x1, 0x1008, 0x1_4008, 0x4]);
}

#[test]
fn linux_s_list_links_its_pages_and_fails_without_one() {
    // 511 words a page: a destination and sources.
    for (sources, list_pages) in [(509, 1), (510, 1), (511, 2), (1021, 2), (1022, 3)] {
        let destinations = [pages(0, sources)];
        let setup = Setup { destinations: &destinations, bounce: None, shares: 1, workspace: 0 };
        let mut frames = Frames::new([2000]);
        let extents = [copy(3000, 0, sources)];
        let moves = setup.plan(&extents, &mut frames).unwrap();
        assert_eq!(moves.ind_pages(|pa| frames.at(pa)), Ok(list_pages));
        let mut too_few = Frames::new((1..list_pages).map(|n| 2100 + n));
        let refused = moves.ind_list(Pa(0), too_few.hand_out(), |pa| frames.at(pa)).last();
        assert_eq!(refused, Some(Err(IndError::NoPage)));
        let list = IndListed::new(&moves, &frames, 2050);
        let mut before = Memory::new(0, 5000, PAGE as usize);
        list.put(&mut before);
        let mut memory = before.clone();
        list.carry_out(&mut memory);
        assert!(memory.is_like(&before.after(&extents), None));
    }
}
