//! Reports of leaves that may have been written, where a plan makes them say so no longer.

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

/// A function.
pub(crate) struct Reported<F>(pub F);

impl<F: FnMut(VaRange)> Report for Reported<F> {
    fn written(&mut self, range: VaRange) {
        (self.0)(range);
    }
}
