//! Bytes of memory with one owner.

use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::slice;

/// Memory that belongs to the owner of this value, and that nothing else refers to.
#[derive(Debug)]
pub struct OwnedBytes {
    start: NonNull<u8>,
    len: usize,
}

impl OwnedBytes {
    /// The `len` bytes from `start`.
    ///
    /// # Safety
    /// They are mapped, writable and initialised, and nothing else refers to them as long as this
    /// value is used.
    pub unsafe fn new(start: NonNull<u8>, len: usize) -> Self {
        Self { start, len }
    }

    /// The bytes, to be written.
    pub fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: the promise of `new`'s caller; the borrow of `self` keeps this the only
        // reference.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// The bytes as memory without a value.
    pub fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: as for `as_mut`. Whatever is written, any value of a byte is valid.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len) }
    }
}
