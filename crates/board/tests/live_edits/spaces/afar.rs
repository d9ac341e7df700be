//! An edit on a CPU that does not run the process: a rollover may give it another ASID during the
//! edit.

use linmap_asid::IdAllocator;
use linmap_vmsa::Geometry;

use super::kernel::{CPUS, Kernel};

/// CPU 0 unmaps a page of a process while CPU 1 switches to it, by another ASID than CPU 0 has
/// planned for.
fn unmap_during_a_rollover(reads_again: bool) -> Result<(), String> {
    let ids = IdAllocator::<CPUS>::new(3, &[0]).unwrap();
    let mut kernel = Kernel::new(&ids, Geometry::K4_48, 2, 12);
    kernel.switch(1, 2)?;
    kernel.switch(1, 0)?;
    [0, 1].into_iter().try_for_each(|page| kernel.map(1, page))?;
    kernel.switch(0, 1)?;
    let between = |kernel: &mut Kernel<'_>| {
        // Seven ASIDs: of the next generation the process gets another one than it had.
        (3..10).try_for_each(|process| kernel.switch(1, process))?;
        kernel.switch(1, 0)?;
        kernel.look(1)
    };
    kernel.unmap_from_afar(0, 0, 0, between, reads_again)?;
    assert_eq!(ids.generation(), 2);
    kernel.look(1)
}

#[test]
fn an_editor_elsewhere_reads_the_asid_again_after_its_invalidation() {
    unmap_during_a_rollover(true).unwrap();
    let found = unmap_during_a_rollover(false).unwrap_err();
    assert!(found.contains("may succeed"), "{found}");
}
