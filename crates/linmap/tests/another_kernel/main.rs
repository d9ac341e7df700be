//! Another kernel takes the crate: its image and fixmap lie elsewhere, its UART is in fixmap slot
//! 3, its frames come from its own allocator, and its CPUs, host threads, park in their own way. It
//! runs on the machine model, which judges every store, barrier and invalidation.

mod kernel;
mod layout;
mod page_allocator;
mod rendezvous;

use std::thread;

use linmap::{Builder, FixmapStep, MemoryError, Protection};
use linmap_live::Step;
use linmap_table::RecordError;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Level, PaRange};

use kernel::Kernel;
use layout::{CPUS, IMAGE, RAM, range};
use rendezvous::Rendezvous;

/// Builds with `builder`, changes the map, and changes it back. Returns how often that parked.
fn run(builder: Builder, bbm: BbmLevel) -> u64 {
    const BLOCK: PaRange = range(0x8400_0000, 0x20_0000);
    const PAGES: PaRange = range(0x8410_3000, 0x3000);
    let rendezvous = Rendezvous::default();
    thread::scope(|scope| {
        let (mut kernel, mut map) = Kernel::boot(builder, bbm, &rendezvous);
        (1..CPUS).for_each(|_| drop(scope.spawn(|| rendezvous.poll())));
        kernel.expect(PaRange::new(RAM.start, IMAGE.read_only.start), true);
        kernel.expect(IMAGE.read_only, false);
        kernel.expect_nothing(IMAGE.data);
        kernel.expect(PaRange::new(IMAGE.data.end, RAM.end), true);

        let mut steps = [Step::Isb; 64];
        let split = map.split(&mut kernel, &mut steps, BLOCK, Level::L3).expect("a split");
        assert_eq!(kernel.leaf_sizes(BLOCK), [12; 512]);
        // SAFETY: nothing of the test lies in the board's memory; what its CPUs use, the model
        // watches.
        let protected = unsafe { map.protect(&mut kernel, &mut steps, PAGES, Protection::ReadOnly) };
        let protected = protected.expect("a change");
        kernel.expect(PAGES, false);
        kernel.expect(PaRange::new(BLOCK.start, PAGES.start), true);
        kernel.expect(PaRange::new(PAGES.end, BLOCK.end), true);
        // SAFETY: as above.
        let data = unsafe { map.make_data(&mut kernel, &mut steps, PAGES) }.expect("a change");
        let folded = map.fold(&mut kernel, &mut steps, RAM).expect("a fold");
        assert_eq!(kernel.leaf_sizes(BLOCK), [21], "one block again");
        kernel.expect(BLOCK, true);
        split.and(protected).and(data).and(folded).parked
    })
}

#[test]
fn memory_of_a_kernel_whose_memory_never_changes_is_neither_added_nor_removed() {
    const ABSENT: PaRange = range(0x8800_0000, 0x20_0000);
    const PRESENT: PaRange = range(0x8400_0000, 0x20_0000);
    let rendezvous = Rendezvous::default();
    let (mut kernel, mut map) = Kernel::boot(Builder::Identity, BbmLevel::L3, &rendezvous);
    let mut steps = [Step::Isb; 64];
    // SAFETY: the calls are refused.
    let refused = unsafe {
        let added = map.add_memory(&mut kernel, &mut steps, ABSENT);
        [added, map.remove_memory(&mut kernel, &mut steps, PRESENT)]
    };
    for result in refused {
        let is_refused = matches!(result, Err(MemoryError::Record(RecordError::Refused { .. })));
        assert!(is_refused, "{result:?}");
    }
    kernel.expect(PRESENT, true);
    kernel.expect_nothing(ABSENT);
}

#[test]
fn another_kernel_builds_splits_protects_and_folds() {
    assert_eq!(run(Builder::Identity, BbmLevel::L3), 0);
    assert!(run(Builder::Fixmap(FixmapStep::LazyUnmap), BbmLevel::L0) > 0);
}
