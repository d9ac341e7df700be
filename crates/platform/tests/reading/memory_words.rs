//! `mem=` and `memmap=`: what becomes of each page, by a plain list of pages.

use linmap_memblock::{Memblock, RegionError};
use linmap_platform::{MemoryLimit, MemoryMap, MemoryWordError};
use linmap_vmsa::{Pa, PaRange};
use proptest::prelude::*;
use proptest::sample::select;

use crate::cases;

const PAGE: u64 = 0x1000;
/// The pages of the machine. Its memory lies anywhere in them.
const PAGES: u64 = 256;
const FIRST: u64 = 1 << 34;

/// Start and length in pages.
type Pages = (u64, u64);

/// What is known of each page: whether it is memory, and whether it is no-map.
type Known = Vec<(bool, bool)>;

fn pages() -> impl Strategy<Value = Pages> {
    (0..PAGES).prop_flat_map(|start| (Just(start), 0..=(PAGES - start).min(70)))
}

fn at(page: u64) -> u64 {
    FIRST + page * PAGE
}

fn range((start, len): Pages) -> PaRange {
    PaRange::new(Pa(at(start)), Pa(at(start + len)))
}

fn machine<const N: usize>(memory: &[Pages], holes: &[Pages]) -> (Memblock<N>, Known) {
    let mut memblock = Memblock::new();
    let mut known = vec![(false, false); PAGES as usize];
    for &(start, len) in memory {
        memblock.add(range((start, len))).expect("room");
        (start..start + len).for_each(|page| known[page as usize].0 = true);
    }
    for &(start, len) in holes {
        memblock.mark_no_map(range((start, len))).expect("room");
        (start..start + len).for_each(|page| known[page as usize].1 = true);
    }
    (memblock, known)
}

fn found<const N: usize>(memblock: &Memblock<N>) -> Known {
    let of = |page| {
        let (first, last) = (Pa(at(page)), Pa(at(page) + PAGE - 1));
        let flags = (memblock.is_memory(first), memblock.is_no_map(first));
        assert_eq!(flags, (memblock.is_memory(last), memblock.is_no_map(last)), "page {page}");
        flags
    };
    (0..PAGES).map(of).collect()
}

/// The number as a command line may have it.
fn written(number: u64, form: u8) -> String {
    match form {
        0 => number.to_string(),
        1 => format!("{number:#x}"),
        2 if number.is_multiple_of(1 << 20) => format!("{}M", number >> 20),
        _ if number.is_multiple_of(1 << 10) => format!("{:#x}k", number >> 10),
        _ => format!("0x{number:X}"),
    }
}

fn noise() -> impl Strategy<Value = String> {
    let parts = ["1", "0x", "f", "4096", "K", "M", "T", "@", "$", ",", "+", "-", "18446744073709551615", "é"];
    let close = prop::collection::vec(select(parts.to_vec()), 0..9).prop_map(|parts| parts.concat());
    prop_oneof![4 => close, 1 => any::<String>()]
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_map_makes_each_page_what_its_entries_say(
        memory in prop::collection::vec(pages(), 0..6),
        holes in prop::collection::vec(pages(), 0..4),
        entries in prop::collection::vec((pages(), any::<bool>(), 0..4u8, 0..4u8), 1..8),
    ) {
        let (mut memblock, mut known) = machine::<256>(&memory, &holes);
        let text: Vec<_> = entries
            .iter()
            .map(|&((start, len), is_memory, form, other)| {
                let mark = if is_memory { '@' } else { '$' };
                format!("{}{mark}{}", written(len * PAGE, form), written(at(start), other))
            })
            .collect();
        let map = MemoryMap::parse(&text.join(",")).map(|map| map.entries().collect::<Vec<_>>());
        // An entry has at least one page.
        if let Some(((start, _), ..)) = entries.iter().find(|((_, len), ..)| *len == 0) {
            prop_assert_eq!(map, Err(MemoryWordError::Unaligned { size: 0, start: at(*start) }));
            return Ok(());
        }
        prop_assert_eq!(map.map(|entries| entries.len()), Ok(entries.len()));
        let text = text.join(",");
        MemoryMap::parse(&text).unwrap().apply(&mut memblock).unwrap();
        for ((start, len), is_memory, ..) in entries {
            for page in &mut known[start as usize..(start + len) as usize] {
                if is_memory { page.0 = true } else { page.1 = true }
            }
        }
        prop_assert_eq!(found(&memblock), known);
    }

    #[test]
    fn a_limit_leaves_the_first_pages_and_what_is_rescued(
        memory in prop::collection::vec(pages(), 0..6),
        holes in prop::collection::vec(pages(), 0..4),
        limit in 1..PAGES * PAGE,
        form in 0..4u8,
        rescued in prop::collection::vec((0..PAGES * PAGE, 0..20 * PAGE), 0..3),
    ) {
        let (mut memblock, mut known) = machine::<256>(&memory, &holes);
        let text = written(limit, form);
        let parsed = text.parse::<MemoryLimit>();
        if limit < PAGE {
            prop_assert_eq!(parsed, Err(MemoryWordError::LimitTooSmall { bytes: limit }));
            return Ok(());
        }
        // A range of bytes within the machine.
        let bytes = |(start, len): (u64, u64)| (start, (start + len).min(PAGES * PAGE));
        let rescued: Vec<_> = rescued.into_iter().map(bytes).collect();
        let ranges: Vec<_> =
            rescued.iter().map(|(start, end)| PaRange::new(Pa(FIRST + start), Pa(FIRST + end))).collect();
        let end = parsed.unwrap().apply(&mut memblock, &ranges).unwrap();
        let mut left = limit / PAGE;
        let mut first_removed = None;
        for (nth, page) in (0..).zip(&mut known) {
            let is_within = left > 0;
            left -= u64::from(page.0 && is_within);
            if page.0 && !is_within {
                first_removed.get_or_insert(at(nth));
                page.0 = rescued.iter().any(|&(start, end)| {
                    start < end && start < (nth + 1) * PAGE && end > nth * PAGE
                });
            }
        }
        prop_assert_eq!(end.is_some(), first_removed.is_some());
        prop_assert!(end.is_none_or(|end| Some(end.0) <= first_removed));
        prop_assert_eq!(found(&memblock), known);
    }

    #[test]
    fn no_word_panics_and_what_is_refused_changes_nothing_else(
        text in noise(),
        rescued in any::<[u64; 4]>(),
    ) {
        let [a, b, c, d] = rescued.map(Pa);
        let rescued = [PaRange::new(a, b), PaRange::new(c, d)];
        let (mut memblock, before) = machine::<4>(&[(0, 9), (60, 70)], &[(4, 2)]);
        if let Ok(limit) = text.parse::<MemoryLimit>() {
            match limit.apply(&mut memblock, &rescued) {
                Ok(None) => prop_assert_eq!(found(&memblock), before.clone()),
                Ok(Some(_)) | Err(RegionError::Full { .. }) => {}
                Err(error) => prop_assert!(false, "{error}"),
            }
            // No memory comes from nowhere.
            prop_assert!(found(&memblock).iter().zip(&before).all(|(now, before)| before.0 || !now.0));
        }
        if let Ok(map) = MemoryMap::parse(&text) {
            prop_assert_eq!(map.entries().count(), text.split(',').count());
            let _ = map.apply(&mut memblock);
        }
    }

    #[test]
    fn a_full_list_stops_a_limit_without_losing_what_is_rescued(
        memory in prop::collection::vec(pages(), 1..4),
        limit in 1..PAGES,
        rescued in prop::collection::vec(pages(), 0..6),
    ) {
        let (mut memblock, before) = machine::<4>(&memory, &[]);
        let ranges: Vec<_> = rescued.iter().copied().map(range).collect();
        let limit: MemoryLimit = format!("{}", limit * PAGE).parse().unwrap();
        let applied = limit.apply(&mut memblock, &ranges);
        let is_expected = matches!(applied, Ok(_) | Err(RegionError::Full { .. }));
        prop_assert!(is_expected, "{applied:?}");
        let now = found(&memblock);
        for (start, len) in rescued {
            let pages = start as usize..(start + len) as usize;
            prop_assert_eq!(&now[pages.clone()], &before[pages]);
        }
    }
}
