//! Reports of leaves that may have been written, where a plan makes them say so no longer.

use core::mem;

use linmap_vmsa::VaRange;

/// Who learns what was written.
pub(crate) trait Report {
    /// A CPU may have written anywhere in `range`.
    fn written(&mut self, range: VaRange);
}

/// Nobody.
#[derive(Debug)]
pub(crate) struct Unreported;

impl Report for Unreported {
    #[inline(always)]
    fn written(&mut self, _range: VaRange) {}
}

/// A function of the caller, which is called in the middle of an edit.
pub(crate) struct Reported<F>(pub F);

impl<F: FnMut(VaRange)> Report for Reported<F> {
    fn written(&mut self, range: VaRange) {
        let edit = Unfinished;
        (self.0)(range);
        mem::forget(edit);
    }
}

/// An edit that can't be left where it is: leaves have changed, and TLBs hold the old ones.
struct Unfinished;

impl Drop for Unfinished {
    fn drop(&mut self) {
        // A panic while another one unwinds aborts.
        panic!("a report of written memory panicked in the middle of an edit");
    }
}
