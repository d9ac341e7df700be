//! How one CPU leaves its root.

use core::sync::atomic::AtomicU64;

/// How one CPU leaves the live root and returns to it.
///
/// `IdentitySwitch` is the one that hardware needs. On a host, tests of the protocol have their
/// own.
///
/// # Safety
/// - While [`wait`](Self::wait) has its value in `own`, the CPU neither walks the live root nor
///   holds any translation of it.
/// - After [`go_to`](Self::go_to) and [`go_to_live`](Self::go_to_live), the CPU walks the new root
///   alone and holds no translation of the old one.
pub unsafe trait RootSwitch {
    /// Leaves the live root, stores `value` in `own` with release ordering, waits until `word` is
    /// no longer `value`, and returns on the live root.
    ///
    /// # Safety
    /// The CPU runs on the live root, which maps its code and its stack. Interrupts are masked.
    unsafe fn wait(&self, word: &AtomicU64, own: &AtomicU64, value: u64);

    /// Goes from the live root to the one with the TTBR1 value `ttbr1`.
    ///
    /// # Safety
    /// As for [`wait`](Self::wait); the other root maps the CPU's code, its stack and its vectors
    /// as the live one does.
    unsafe fn go_to(&self, ttbr1: u64);

    /// Goes back to the live root.
    ///
    /// # Safety
    /// The live root maps the CPU's code, its stack and its vectors as they are. Interrupts are
    /// masked.
    unsafe fn go_to_live(&self);

    /// Makes the CPUs in [`wait`](Self::wait) look at the word again. What the caller stored before
    /// is visible to them.
    fn wake(&self);
}
