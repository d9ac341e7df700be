//! First maps beside those of aarch64-paging, in every regime: each page's descriptor, bit for bit,
//! but for the contiguous bit, which that crate does not set.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::ptr::NonNull;

use aarch64_paging::descriptor::{
    El1Attributes, El23Attributes, PagingAttributes, PhysicalAddress, Stage2Attributes,
};
use aarch64_paging::paging::{
    Constraints, El1And0, El2, El2And0, El3, MemoryRegion, PageTable, RootTable, Stage2 as PeersStage2,
    Translation, TranslationRegime, VaRange,
};
use linmap_table::{BumpFrames, FirstMap, LeafIter, OffsetWindow};
use linmap_vmsa::{
    Access, Attributes, Descriptor, Execute, Geometry, MemoryType, Pa, PaRange, Regime, Stage2, Va,
};
use proptest::prelude::*;

/// Maps of each regime.
const MAPS: u32 = 5_000;
const PAGE: u64 = 0x1000;
/// A table of pages, and a little more.
const PAGES: u64 = 1100;

/// What is mapped: by us, and by the flags of EL1&0 and of EL2 as the other crate names them.
const KINDS: [(Attributes, El1Attributes, El23Attributes); 4] = [
    (
        Attributes::KERNEL_DATA,
        El1Attributes::from_bits_retain(1 << 10 | 3 << 8 | 1 << 53 | 1 << 54 | 1),
        El23Attributes::from_bits_retain(1 << 10 | 3 << 8 | 1 << 6 | 1 << 54 | 1),
    ),
    (
        Attributes::KERNEL_TEXT,
        El1Attributes::from_bits_retain(1 << 10 | 3 << 8 | 1 << 7 | 1 << 54 | 1),
        El23Attributes::from_bits_retain(1 << 10 | 3 << 8 | 1 << 7 | 1 << 6 | 1),
    ),
    (
        Attributes::KERNEL_RODATA,
        El1Attributes::from_bits_retain(1 << 10 | 3 << 8 | 1 << 7 | 1 << 53 | 1 << 54 | 1),
        El23Attributes::from_bits_retain(1 << 10 | 3 << 8 | 1 << 7 | 1 << 6 | 1 << 54 | 1),
    ),
    (
        Attributes { memory: MemoryType::DeviceNgnrne, ..Attributes::KERNEL_DATA },
        El1Attributes::from_bits_retain(1 << 10 | 3 << 8 | 4 << 2 | 1 << 53 | 1 << 54 | 1),
        El23Attributes::from_bits_retain(1 << 10 | 3 << 8 | 4 << 2 | 1 << 6 | 1 << 54 | 1),
    ),
];

/// What is mapped at stage 2. The other crate names the values of MemAttr without FWB
/// and one bit XN; beside them stands what its flags have to be with FWB.
const GUEST_KINDS: [(Attributes, Stage2Attributes, Stage2Attributes); 4] = [
    (
        Attributes::GUEST_RAM,
        Stage2Attributes::from_bits_retain(0xf << 2 | 0b11 << 6 | 3 << 8 | 1 << 10 | 1),
        Stage2Attributes::from_bits_retain(6 << 2 | 0b11 << 6 | 3 << 8 | 1 << 10 | 1),
    ),
    (
        Attributes { access: Access::GuestReadOnly, execute: Execute::Never, ..Attributes::GUEST_RAM },
        Stage2Attributes::from_bits_retain(0xf << 2 | 0b01 << 6 | 3 << 8 | 1 << 10 | 1 << 54 | 1),
        Stage2Attributes::from_bits_retain(6 << 2 | 0b01 << 6 | 3 << 8 | 1 << 10 | 1 << 54 | 1),
    ),
    (
        Attributes {
            memory: MemoryType::NormalNonCacheable,
            access: Access::GuestWriteOnly,
            ..Attributes::GUEST_RAM
        },
        Stage2Attributes::from_bits_retain(5 << 2 | 0b10 << 6 | 3 << 8 | 1 << 10 | 1),
        Stage2Attributes::from_bits_retain(5 << 2 | 0b10 << 6 | 3 << 8 | 1 << 10 | 1),
    ),
    (
        Attributes::GUEST_DEVICE,
        Stage2Attributes::from_bits_retain(1 << 2 | 0b11 << 6 | 3 << 8 | 1 << 10 | 1 << 54 | 1),
        Stage2Attributes::from_bits_retain(1 << 2 | 0b11 << 6 | 3 << 8 | 1 << 10 | 1 << 54 | 1),
    ),
];

/// Tables on the heap, at addresses that are their physical ones.
struct Heap;

const TABLE: Layout = match Layout::from_size_align(4096, 4096) {
    Ok(layout) => layout,
    Err(_) => panic!("a page"),
};

impl<A: PagingAttributes> Translation<A> for Heap {
    fn allocate_table(&mut self) -> (NonNull<PageTable<A>>, PhysicalAddress) {
        // SAFETY: the layout is not empty.
        let table = NonNull::new(unsafe { alloc_zeroed(TABLE) }).expect("memory");
        (table.cast(), PhysicalAddress(table.as_ptr().expose_provenance()))
    }

    unsafe fn deallocate_table(&mut self, table: NonNull<PageTable<A>>) {
        // SAFETY: `allocate_table` allocated it.
        unsafe { dealloc(table.as_ptr().cast(), TABLE) };
    }

    fn physical_to_virtual(&self, pa: PhysicalAddress) -> NonNull<PageTable<A>> {
        NonNull::new(std::ptr::with_exposed_provenance_mut(pa.0)).expect("a table")
    }
}

/// The first page of a range, its length in pages, the first page of its memory, and its kind.
type Call = (u64, u64, u64, usize);

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let first = prop_oneof![0u64..500, Just(512u64), 500u64..530];
    let len = prop_oneof![1u64..4, 1u64..500, Just(512u64)];
    let shift = prop_oneof![Just(0u64), Just(512u64), 1u64..20];
    prop::collection::vec((first, len, shift, 0..KINDS.len()), 1..6)
}

/// The pages that a tree translates: their descriptors as level 3 would have them.
type Found = BTreeMap<u64, u64>;

fn note(found: &mut Found, va: u64, bits: u64, level: i8) {
    const CONTIGUOUS: u64 = 1 << 52;
    let count = 1 << (9 * (3 - level));
    for nth in 0..count {
        found.insert(va + nth * PAGE, (bits & !CONTIGUOUS | 0b11) + nth * PAGE);
    }
}

fn ours(regime: Regime, calls: &[Call]) -> Found {
    let geometry = Geometry::K4_48.in_regime(regime);
    let attributes = |kind: usize| if regime.is_stage_2() { GUEST_KINDS[kind].0 } else { KINDS[kind].0 };
    let mut map = FirstMap::<32>::new(geometry);
    for &(first, len, shift, kind) in calls {
        let range = PaRange::from_len(Pa((first + shift) * PAGE), len * PAGE).expect("short");
        map.at(Va(first * PAGE), range, attributes(kind)).expect("room");
    }
    let memory = vec![0u8; 1 << 16];
    let tables = PaRange::from_len(Pa(memory.as_ptr().expose_provenance() as u64), 1 << 16).expect("short");
    // SAFETY: the vector's memory is free, and reached at its own address.
    let tree = unsafe { map.build(0, &mut BumpFrames::new(tables, geometry)) }.expect("a map");
    let mut found = Found::new();
    // SAFETY: as above.
    let mut window = unsafe { OffsetWindow::new(0) };
    // SAFETY: the window reaches all tables.
    let leaves = unsafe { LeafIter::new(geometry, tree.root(), geometry.start_level(), Va(0), &mut window) };
    for leaf in leaves {
        let Descriptor(bits) = leaf.descriptor;
        note(&mut found, leaf.va.0, bits, leaf.level.number());
    }
    found
}

fn theirs<R: TranslationRegime>(
    mut map: RootTable<R, Heap>,
    calls: &[Call],
    flags: fn(usize) -> R::Attributes,
    bits_of: fn(R::Attributes) -> usize,
) -> Found
where
    Heap: Translation<R::Attributes>,
{
    for &(first, len, shift, kind) in calls {
        let region = MemoryRegion::new((first * PAGE) as usize, ((first + len) * PAGE) as usize);
        let pa = PhysicalAddress(((first + shift) * PAGE) as usize);
        map.map_range(&region, pa, flags(kind), Constraints::empty()).expect("a map");
    }
    let mut found = Found::new();
    let all = MemoryRegion::new(0, (2 * PAGES * PAGE) as usize);
    map.walk_range(&all, &mut |region, descriptor, level| {
        let bits = (descriptor.output_address().0 | bits_of(descriptor.flags())) as u64;
        let is_table = level < 3 && bits & 0b10 != 0;
        if bits & 1 != 0 && !is_table {
            note(&mut found, region.start().0 as u64, bits, level as i8);
        }
        Ok(())
    })
    .expect("a walk");
    found
}

fn compare(regime: Regime, theirs: impl Fn(&[Call]) -> Found) {
    let config = ProptestConfig { failure_persistence: None, cases: MAPS, ..ProptestConfig::default() };
    proptest!(config, |(calls in calls())| {
        let (ours, theirs) = (ours(regime, &calls), theirs(&calls));
        prop_assert!(!ours.is_empty());
        let different = ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs);
        prop_assert!(different.is_none(), "{:x?}", different);
        prop_assert_eq!(ours.len(), theirs.len());
    });
}

#[test]
fn every_descriptor_of_el1_and_el0_is_the_peers() {
    compare(Regime::El1And0, |calls| {
        theirs(
            RootTable::with_va_range(Heap, 0, El1And0, VaRange::Lower),
            calls,
            |kind| KINDS[kind].1,
            |flags| flags.bits(),
        )
    });
}

#[test]
fn every_descriptor_of_el2_and_el0_is_the_peers() {
    compare(Regime::El2And0, |calls| {
        theirs(
            RootTable::with_va_range(Heap, 0, El2And0, VaRange::Lower),
            calls,
            |kind| KINDS[kind].1,
            |flags| flags.bits(),
        )
    });
}

#[test]
fn every_descriptor_of_el2_is_the_peers() {
    compare(Regime::El2, |calls| {
        theirs(RootTable::new(Heap, 0, El2), calls, |kind| KINDS[kind].2, |flags| flags.bits())
    });
}

#[test]
fn every_descriptor_of_el3_is_the_peers() {
    compare(Regime::El3, |calls| {
        theirs(RootTable::new(Heap, 0, El3), calls, |kind| KINDS[kind].2, |flags| flags.bits())
    });
}

#[test]
fn every_descriptor_of_stage_2_is_the_peers() {
    compare(Regime::Stage2(Stage2::Base), |calls| {
        theirs(RootTable::new(Heap, 0, PeersStage2), calls, |kind| GUEST_KINDS[kind].1, |flags| flags.bits())
    });
}

#[test]
fn every_descriptor_of_stage_2_with_fwb_is_the_peers() {
    compare(Regime::Stage2(Stage2::FwbXnx), |calls| {
        theirs(RootTable::new(Heap, 0, PeersStage2), calls, |kind| GUEST_KINDS[kind].2, |flags| flags.bits())
    });
}
