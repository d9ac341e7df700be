//! A frame source together with a window that reaches its frames.

use crate::frames::FrameSource;
use crate::window::TableWindow;

/// A frame source and a window that reaches every frame of it: what a detached tree is built in.
#[derive(Debug)]
pub struct ReachableFrames<'r, W, F> {
    pub(crate) window: &'r mut W,
    pub(crate) frames: &'r mut F,
}

impl<'r, W: TableWindow, F: FrameSource> ReachableFrames<'r, W, F> {
    /// Joins `frames` and `window`.
    ///
    /// # Safety
    /// The window reaches every frame that the source hands out, and all tables of the trees that
    /// are [released](crate::DetachedTree::release) to this value. Those trees were built in frames
    /// of the same source.
    pub const unsafe fn new(window: &'r mut W, frames: &'r mut F) -> Self {
        Self { window, frames }
    }

    /// The window.
    pub const fn window(&mut self) -> &mut W {
        self.window
    }
}
