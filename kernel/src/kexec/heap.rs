//! A heap for as long as something is loaded. Only zstd's decoder allocates; at all other times there is no memory to
//! allocate from, and an allocation is a bug.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;

use crate::arch::percpu;

#[global_allocator]
static LENT: Lent = Lent(UnsafeCell::new(Heap::empty()));

/// The memory that is lent at the moment; an empty heap when none is.
struct Lent(UnsafeCell<Heap>);

// SAFETY: only the boot CPU gets at the heap, see `Lent::heap`; it takes no interrupts that allocate.
unsafe impl Sync for Lent {}

impl Lent {
    /// Does something with the heap. Other CPUs than the boot CPU never allocate.
    fn heap<T>(&self, work: impl FnOnce(&mut Heap) -> T) -> T {
        assert!(percpu::this_cpu() == 0, "a CPU allocates that is not the boot CPU");
        // SAFETY: no other CPU comes here, `work` is one of those below and calls back into none of them, and interrupt
        // handlers don't allocate. So this is the only reference.
        work(unsafe { &mut *self.0.get() })
    }
}

// SAFETY: the heap hands out parts of the memory lent to it, each once, aligned as asked; `lend` keeps that memory lent
// until nothing of it is in use.
unsafe impl GlobalAlloc for Lent {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let memory = self.heap(|heap| heap.allocate_first_fit(layout));
        memory.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if let Some(memory) = NonNull::new(memory) {
            // SAFETY: the caller vouches that it is from `alloc` with this layout; there is only one heap at a time,
            // and none goes while something of it is in use.
            self.heap(|heap| unsafe { heap.deallocate(memory, layout) });
        }
    }
}

/// Does `work` with `memory` for a heap. Whatever `work` allocates it has to free; memory that it doesn't free stays lent
/// for ever, so that is a panic.
pub fn lend<T>(memory: &mut [MaybeUninit<u8>], work: impl FnOnce() -> T) -> T {
    let (start, len) = (memory.as_mut_ptr().cast::<u8>(), memory.len());
    // A heap needs room for its own list.
    if len >= 3 * size_of::<usize>() {
        LENT.heap(|heap| {
            assert!(heap.bottom().is_null(), "a heap is lent while another is");
            // SAFETY: the memory is borrowed until this function returns, and used for nothing else; until then the heap
            // is taken away again, with nothing of it in use, so that it need not be valid longer.
            unsafe { heap.init(start, len) };
        });
    }
    let result = work();
    LENT.heap(|heap| {
        let used = heap.used();
        assert!(used == 0, "{used} bytes of the heap were not given back");
        *heap = Heap::empty();
    });
    result
}
