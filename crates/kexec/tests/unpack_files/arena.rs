//! A heap as the kernel has it: memory lent for a time, by the same allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::{self, NonNull};

use linked_list_allocator::Heap;

/// Allocates from what the thread was lent, else as always.
pub struct Arena;

struct Lent {
    heap: Heap,
    /// An allocation that the heap had no room for, in bytes.
    failed: Option<usize>,
}

thread_local! {
    static LENT: Cell<*mut Lent> = const { Cell::new(ptr::null_mut()) };
}

fn lent<'l>() -> Option<&'l mut Lent> {
    let lent = LENT.try_with(Cell::get).unwrap_or(ptr::null_mut());
    // SAFETY: only this thread sees the pointer; `lend` keeps what it points to until it takes it
    // back, and no reference outlives the call of the allocator that made it.
    unsafe { lent.as_mut() }
}

// SAFETY: memory comes from the system or from a heap that keeps the contract, and goes back to
// where it is from.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(lent) = lent() {
            if let Ok(memory) = lent.heap.allocate_first_fit(layout) {
                return memory.as_ptr();
            }
            // What could never have fitted is refused. Else the test ends with a message, not in an
            // abort.
            if layout.size() > lent.heap.size() {
                return ptr::null_mut();
            }
            lent.failed = lent.failed.or(Some(layout.size()));
        }
        // SAFETY: the contract is the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if let Some(lent) = lent()
            && (lent.heap.bottom()..lent.heap.top()).contains(&memory)
            && let Some(memory) = NonNull::new(memory)
        {
            // SAFETY: it is within the heap, so this is where it is from; the layout is the
            // caller's.
            unsafe { lent.heap.deallocate(memory, layout) };
            return;
        }
        // SAFETY: only the system can have allocated it, since no lent allocation is left.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// How many bytes of the heap that this thread was lent are in use.
pub fn in_use() -> usize {
    lent().map_or(0, |lent| lent.heap.used())
}

/// Does `work` with a heap of `len` bytes for all that this thread allocates. Nothing of that may
/// be left over.
pub fn lend<T>(len: usize, work: impl FnOnce() -> T) -> T {
    const PAGE: usize = 4096;
    let layout = Layout::from_size_align(len.max(PAGE), PAGE).unwrap();
    // SAFETY: the layout has at least a page.
    let memory = unsafe { System.alloc(layout) };
    assert!(!memory.is_null());
    // SAFETY: the memory was just taken, and goes back only when nothing of the heap is in use.
    let heap = unsafe { Heap::new(memory, len.max(PAGE)) };
    let mut lent = Lent { heap, failed: None };
    struct TakeBack;
    impl Drop for TakeBack {
        fn drop(&mut self) {
            LENT.set(ptr::null_mut());
        }
    }
    let take_back = TakeBack;
    LENT.set(&raw mut lent);
    let result = work();
    drop(take_back);
    assert_eq!(lent.failed, None, "an allocation failed in {len} bytes");
    assert_eq!(lent.heap.used(), 0, "something is left over");
    // SAFETY: it was taken with this layout, and nothing is in use.
    unsafe { System.dealloc(memory, layout) };
    result
}
