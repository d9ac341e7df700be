//! A heap that exists while a kernel is unpacked. Only zstd's decoder allocates. At any other time
//! the heap is empty, and an allocation is a bug.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;

use crate::arch::per_cpu;

#[global_allocator]
static LENT: Lent = Lent(UnsafeCell::new(Heap::empty()));

/// The memory that is lent, or an empty heap.
struct Lent(UnsafeCell<Heap>);

// SAFETY: only the boot CPU reaches the heap, see `Lent::heap`; it takes no interrupts that
// allocate.
unsafe impl Sync for Lent {}

impl Lent {
    /// Runs `work` on the heap. Only the boot CPU allocates.
    fn heap<T>(&self, work: impl FnOnce(&mut Heap) -> T) -> T {
        assert!(per_cpu::this_cpu() == 0, "a CPU allocates that is not the boot CPU");
        // SAFETY: no other CPU gets here. `work` is one of the closures below, which don't use
        // the heap another time, and interrupt handlers don't allocate. So this is the only
        // reference.
        work(unsafe { &mut *self.0.get() })
    }
}

// SAFETY: the heap hands out parts of the memory lent to it, each once, aligned as asked. `lend`
// keeps that memory lent until none of it is in use.
unsafe impl GlobalAlloc for Lent {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let memory = self.heap(|heap| heap.allocate_first_fit(layout));
        memory.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if let Some(memory) = NonNull::new(memory) {
            // SAFETY: the caller promises that it is from `alloc` with this layout. There is one
            // heap at a time, and it ends only when none of it is in use.
            self.heap(|heap| unsafe { heap.deallocate(memory, layout) });
        }
    }
}

/// Runs `work` with `memory` as its heap.
///
/// # Panics
/// If `work` does not free everything that it allocated: then the memory can't be returned.
pub fn lend<T>(memory: &mut [MaybeUninit<u8>], work: impl FnOnce() -> T) -> T {
    let (start, len) = (memory.as_mut_ptr().cast::<u8>(), memory.len());
    // A heap needs room for its own list.
    if len >= 3 * size_of::<usize>() {
        LENT.heap(|heap| {
            assert!(heap.bottom().is_null(), "a heap is lent while another is");
            // SAFETY: the memory is borrowed until this function returns, and nothing else uses it.
            // Before that the heap ends, with none of it in use, so that it need not be valid
            // longer.
            unsafe { heap.init(start, len) };
        });
    }
    let result = work();
    LENT.heap(|heap| {
        let used = heap.used();
        assert!(used == 0, "{used} bytes of the heap were not freed");
        *heap = Heap::empty();
    });
    result
}
