//! Random sequences of operations against a naive model that keeps three flags for every unit of
//! memory.

use linmap_memblock::{AllocError, Growth, Memblock, RegionError};
use linmap_vmsa::{Pa, PaRange};
use proptest::prelude::*;

/// Half a page, so that ranges need not be page-aligned.
const UNIT: u64 = 0x800;
const UNITS: usize = 96;
/// Units in the page at address 0.
const FRAME_0: usize = 2;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Unit {
    memory: bool,
    no_map: bool,
    reserved: bool,
}

impl Unit {
    fn is_free(self) -> bool {
        self.memory && !self.no_map && !self.reserved
    }
}

type Model = [Unit; UNITS];

/// A range in units.
type Span = core::ops::Range<usize>;

#[derive(Clone, Debug)]
enum Operation {
    Add(Span),
    Remove(Span),
    MarkNoMap(Span),
    Reserve(Span),
    Free(Span),
    /// The same request many times: what the cursor is for.
    AllocRow {
        len: usize,
        align: u64,
        limit: Span,
        times: usize,
    },
}

fn span() -> impl Strategy<Value = Span> {
    (0..UNITS, 0..24_usize).prop_map(|(start, len)| start..(start + len).min(UNITS))
}

fn limit() -> impl Strategy<Value = Span> {
    let part = (0..UNITS, 0..UNITS).prop_map(|(start, len)| start..(start + len).min(UNITS));
    prop_oneof![2 => Just(0..UNITS), 1 => part]
}

fn operation() -> impl Strategy<Value = Operation> {
    let alloc = (1..5_usize, 0..4_u32, limit(), 1..12_usize).prop_map(|(len, order, limit, times)| {
        Operation::AllocRow { len, align: UNIT << order, limit, times }
    });
    prop_oneof![
        3 => span().prop_map(Operation::Add),
        1 => span().prop_map(Operation::Remove),
        1 => span().prop_map(Operation::MarkNoMap),
        1 => span().prop_map(Operation::Reserve),
        3 => span().prop_map(Operation::Free),
        4 => alloc,
    ]
}

fn bytes(span: &Span) -> PaRange {
    PaRange::new(Pa(span.start as u64 * UNIT), Pa(span.end as u64 * UNIT))
}

/// The maximal spans of units that satisfy `is_in`.
fn spans(model: &Model, within: &Span, is_in: impl Fn(Unit) -> bool) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for unit in within.clone().filter(|&unit| is_in(model[unit])) {
        match spans.last_mut() {
            Some(last) if last.end == unit => last.end += 1,
            _ => spans.push(unit..unit + 1),
        }
    }
    spans
}

fn ranges(model: &Model, within: &Span, is_in: impl Fn(Unit) -> bool) -> Vec<PaRange> {
    spans(model, within, is_in).iter().map(bytes).collect()
}

/// The highest unit at which the request fits, or the length of the longest free span.
fn place(model: &Model, len: usize, align: u64, limit: &Span) -> Result<usize, usize> {
    let limit = limit.start.max(FRAME_0)..limit.end;
    let fits = |start: usize| {
        (start as u64 * UNIT).is_multiple_of(align) && (start..start + len).all(|unit| model[unit].is_free())
    };
    let last = limit.end.checked_sub(len);
    let longest = || spans(model, &limit, Unit::is_free).iter().map(Span::len).max().unwrap_or(0);
    last.and_then(|last| (limit.start..=last).rev().find(|&start| fits(start))).ok_or_else(longest)
}

fn assert_agrees<const N: usize>(map: &Memblock<N>, model: &Model) {
    let all = 0..UNITS;
    let whole = bytes(&all);
    let regions: Vec<_> = map.regions().collect();
    let of = |no_map| regions.iter().filter(|r| r.no_map == no_map).map(|r| r.range).collect::<Vec<_>>();
    assert!(regions.is_sorted_by(|a, b| a.range.end <= b.range.start), "{regions:?}");
    assert_eq!(of(true), ranges(model, &all, |unit| unit.memory && unit.no_map));
    assert_eq!(of(false), ranges(model, &all, |unit| unit.memory && !unit.no_map));
    assert_eq!(map.reserved(), ranges(model, &all, |unit| unit.reserved));
    for within in [0..UNITS, 7..31, 40..40] {
        let free = ranges(model, &within, Unit::is_free);
        assert_eq!(map.free_ranges(bytes(&within)).collect::<Vec<_>>(), free);
        let mut down: Vec<_> = map.free_ranges(bytes(&within)).rev().collect();
        down.reverse();
        assert_eq!(down, free);
    }
    for page in [UNIT, 2 * UNIT, 8 * UNIT] {
        let mappable: Vec<_> = ranges(model, &all, |unit| unit.memory && !unit.no_map)
            .iter()
            .map(|range| range.align_inward(page))
            .filter(|range| !range.is_empty())
            .collect();
        assert_eq!(map.mappable(page).collect::<Vec<_>>(), mappable);
        assert!(map.mappable(page).rev().eq(mappable.into_iter().rev()));
    }
    assert_eq!(map.memory_len(), model.iter().filter(|unit| unit.memory).count() as u64 * UNIT);
    let end = model.iter().rposition(|unit| unit.memory).map_or(0, |last| last as u64 + 1);
    assert_eq!(map.memory_end(), Pa(end * UNIT));
    for (index, unit) in model.iter().enumerate() {
        for pa in [Pa(index as u64 * UNIT), Pa(index as u64 * UNIT + UNIT - 1)] {
            assert_eq!(map.is_memory(pa), unit.memory);
            assert_eq!(map.is_no_map(pa), unit.no_map);
            assert_eq!(map.is_reserved(pa), unit.reserved);
        }
    }
    assert!(!map.is_memory(whole.end) && !map.is_reserved(whole.end));
}

/// Applies `change` to the model when the map took it. A full list is fine if the map has not
/// changed.
fn settle<const N: usize>(
    result: Result<(), RegionError>,
    map: &Memblock<N>,
    before: &Memblock<N>,
    model: &mut Model,
    span: &Span,
    change: impl Fn(&mut Unit),
) {
    match result {
        Ok(()) => model[span.clone()].iter_mut().for_each(change),
        Err(RegionError::Full { range, capacity, .. }) => {
            assert_eq!((range, capacity), (bytes(span), N));
            assert_eq!(map, before);
        }
        Err(error) => panic!("{error}"),
    }
}

fn apply<const N: usize>(map: &mut Memblock<N>, model: &mut Model, operation: &Operation) {
    let before = map.copy().unwrap();
    match operation {
        Operation::Add(span) => {
            let result = map.add(bytes(span));
            settle(result, map, &before, model, span, |unit| unit.memory = true);
        }
        Operation::Remove(span) => {
            let result = map.remove(bytes(span));
            settle(result, map, &before, model, span, |unit| unit.memory = false);
        }
        Operation::MarkNoMap(span) => {
            let result = map.mark_no_map(bytes(span));
            settle(result, map, &before, model, span, |unit| unit.no_map = true);
        }
        Operation::Reserve(span) => {
            let result = map.reserve(bytes(span));
            settle(result, map, &before, model, span, |unit| unit.reserved = true);
        }
        Operation::Free(span) => {
            let result = map.free(bytes(span));
            match span.clone().find(|&unit| !model[unit].reserved) {
                Some(unit) => {
                    let first_free = Pa(unit as u64 * UNIT);
                    assert_eq!(result, Err(RegionError::NotReserved { range: bytes(span), first_free }));
                    assert_eq!(*map, before);
                }
                None => settle(result, map, &before, model, span, |unit| unit.reserved = false),
            }
        }
        Operation::AllocRow { len, align, limit, times } => {
            for _ in 0..*times {
                alloc(map, model, *len, *align, limit);
            }
        }
    }
}

fn alloc<const N: usize>(map: &mut Memblock<N>, model: &mut Model, len: usize, align: u64, limit: &Span) {
    let before = map.copy().unwrap();
    let length = len as u64 * UNIT;
    match (map.alloc(length, align, bytes(limit)), place(model, len, align, limit)) {
        (Ok(start), Ok(unit)) => {
            assert_eq!(start, Pa(unit as u64 * UNIT));
            assert!(start.0 >= 0x1000 && start.0.is_multiple_of(align));
            model[unit..unit + len].iter_mut().for_each(|unit| unit.reserved = true);
        }
        (Err(AllocError::NoSpace { largest, .. }), Err(longest)) => {
            assert_eq!(largest, longest as u64 * UNIT);
            assert_eq!(*map, before);
        }
        (Err(AllocError::Regions(RegionError::Full { capacity, .. })), Ok(_)) => {
            assert_eq!((capacity, map.reserved().len()), (N, N));
            assert_eq!(*map, before);
        }
        (got, wanted) => panic!("got {got:?}, the model has {wanted:?}"),
    }
}

/// Storage of the host: the map knows its physical address alone, and reaches it through here.
fn reach(range: PaRange) -> Option<&'static mut [PaRange]> {
    let len = range.len() as usize / size_of::<PaRange>();
    Some(Box::leak(vec![PaRange::new(Pa(0x123), Pa(0x456)); len].into_boxed_slice()))
}

fn units(range: PaRange) -> Span {
    (range.start.0 / UNIT) as usize..(range.end.0 / UNIT) as usize
}

/// Applies `operation`, during which the lists may grow, to the map and the model.
fn apply_growing(map: &mut Memblock<3>, model: &mut Model, operation: &Operation, limit: &Span) {
    let before = map.copy().ok();
    let old = map.storage();
    let (result, span, change): (_, _, fn(&mut Unit)) = match operation {
        Operation::Add(span) => (map.add(bytes(span)), span, |unit| unit.memory = true),
        Operation::Remove(span) => (map.remove(bytes(span)), span, |unit| unit.memory = false),
        Operation::MarkNoMap(span) => (map.mark_no_map(bytes(span)), span, |unit| unit.no_map = true),
        Operation::Reserve(span) => (map.reserve(bytes(span)), span, |unit| unit.reserved = true),
        Operation::Free(span) => (map.free(bytes(span)), span, |unit| unit.reserved = false),
        Operation::AllocRow { len, align, limit: within, .. } => {
            let length = *len as u64 * UNIT;
            let place = place(model, *len, *align, within);
            let got = map.alloc(length, *align, bytes(within));
            settle_growth(map, model, old, limit);
            match (got, place) {
                (Ok(start), Ok(unit)) => {
                    assert_eq!(start, Pa(unit as u64 * UNIT));
                    model[unit..unit + len].iter_mut().for_each(|unit| unit.reserved = true);
                }
                (Err(AllocError::NoSpace { .. }), Err(_)) => {}
                (Err(AllocError::Regions(RegionError::NoStorage { .. })), Ok(_)) => {
                    assert!(before.is_none_or(|before| before == *map));
                }
                (got, wanted) => panic!("got {got:?}, the model has {wanted:?}"),
            }
            return;
        }
    };
    let is_changed = map.storage() != old;
    settle_growth(map, model, old, limit);
    match result {
        Ok(()) => model[span.clone()].iter_mut().for_each(change),
        Err(RegionError::HoldsLists { storage, .. }) => {
            assert!(!is_changed && storage.overlaps(bytes(span)));
        }
        Err(RegionError::NoStorage { capacity, limit: said, .. }) => {
            assert!(!is_changed && capacity >= 3 && said == bytes(limit));
            assert!(before.is_none_or(|before| before == *map));
        }
        Err(RegionError::NotReserved { first_free, .. }) => {
            assert!(!model[(first_free.0 / UNIT) as usize].reserved);
        }
        Err(error) => panic!("{error}"),
    }
}

/// If the lists moved, they are in memory of the limit that was free, and the old place is free.
fn settle_growth(map: &Memblock<3>, model: &mut Model, old: Option<PaRange>, limit: &Span) {
    let new = map.storage();
    if new == old {
        return;
    }
    for unit in new.map(units).into_iter().flatten() {
        assert!(limit.contains(&unit) && unit >= FRAME_0 && model[unit].is_free());
        model[unit].reserved = true;
    }
    for unit in old.map(units).into_iter().flatten() {
        model[unit].reserved = false;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn any_sequence_of_operations_agrees_with_the_model(
        operations in prop::collection::vec(operation(), 1..40),
    ) {
        let mut map = Memblock::<UNITS>::new();
        let mut model = [Unit::default(); UNITS];
        for operation in &operations {
            apply(&mut map, &mut model, operation);
            assert_agrees(&map, &model);
        }
    }

    #[test]
    fn a_full_list_is_an_error_that_changes_nothing(operations in prop::collection::vec(operation(), 1..60)) {
        let mut map = Memblock::<3>::new();
        let mut model = [Unit::default(); UNITS];
        for operation in &operations {
            apply(&mut map, &mut model, operation);
            assert_agrees(&map, &model);
        }
    }

    #[test]
    fn lists_that_grow_agree_with_the_model_and_are_reserved(
        operations in prop::collection::vec(operation(), 1..60),
        limit in limit(),
    ) {
        let mut map = Memblock::<3>::new();
        map.allow_growth(Growth { limit: bytes(&limit), reach });
        let mut model = [Unit::default(); UNITS];
        for operation in &operations {
            apply_growing(&mut map, &mut model, operation, &limit);
            assert_agrees(&map, &model);
        }
    }

    #[test]
    fn giving_everything_back_in_any_order_restores_the_map(
        memory in prop::collection::vec(span(), 1..6),
        reserved in prop::collection::vec(span(), 0..4),
        requests in prop::collection::vec((1..4_u64, 0..3_u32), 1..40),
        order in prop::collection::vec(any::<prop::sample::Index>(), 40),
    ) {
        let mut map = Memblock::<UNITS>::new();
        for span in &memory {
            map.add(bytes(span)).unwrap();
        }
        for span in &reserved {
            map.reserve(bytes(span)).unwrap();
        }
        let before = map.copy().unwrap();
        let mut taken = Vec::new();
        for (len, order) in requests {
            if let Ok(start) = map.alloc(len * UNIT, UNIT << order, bytes(&(0..UNITS))) {
                taken.push(PaRange::from_len(start, len * UNIT).unwrap());
            }
        }
        for next in &order[..taken.len()] {
            map.free(taken.swap_remove(next.index(taken.len()))).unwrap();
        }
        prop_assert!(taken.is_empty());
        prop_assert_eq!(map, before);
    }
}
