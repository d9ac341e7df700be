//! How a kernel reaches the tables of its linear map.

use core::ptr::NonNull;

use linmap_table::TableWindow;
use linmap_table::cpu::Cpu;
use linmap_vmsa::{Level, Pa, PaRange};

use crate::image::ImageParts;
use crate::layout::Layout;

/// Tables at the addresses at which they are writable: those in the image by the image's own
/// mapping, the only one that its data has, all others by the linear map.
///
/// It is the window of an [`Editor`](crate::Editor) whose root lies in the image, and of any other.
///
/// ```
/// use linmap::{LinearMap, MapWindow};
/// use linmap_table::cpu::Cpu;
///
/// /// # Safety
/// /// `map` is in use, and no Rust reference leads to its tables.
/// unsafe fn window<C: Cpu>(map: &LinearMap, cpu: &mut C) -> MapWindow<C::Frames> {
///     // SAFETY: the caller's.
///     unsafe { MapWindow::new(map.layout(), map.image(), cpu) }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MapWindow<W> {
    linear: W,
    own: W,
    image: PaRange,
}

impl<W> MapWindow<W> {
    /// Returns the window of a kernel whose memory is mapped at `layout`, and whose image is
    /// `image`, as `cpu` reaches it.
    ///
    /// # Safety
    /// It is so while the window is used, and every table that is opened through it is mapped
    /// there, writable. No Rust reference leads to one.
    #[inline]
    pub unsafe fn new<C: Cpu<Frames = W>>(layout: Layout, image: ImageParts, cpu: &mut C) -> Self {
        let own = image.va.0.wrapping_sub(image.read_only.start.0);
        // SAFETY: the caller's.
        unsafe {
            let (linear, own) = (cpu.frames_at(layout.offset()), cpu.frames_at(own));
            Self { linear, own, image: image.range() }
        }
    }

    fn of(&mut self, table: Pa) -> &mut W {
        if self.image.contains(table) { &mut self.own } else { &mut self.linear }
    }
}

// SAFETY: a frame is always opened through the same one of two windows, which reaches it by the
// promise of `new`'s caller.
unsafe impl<W: TableWindow> TableWindow for MapWindow<W> {
    #[inline]
    unsafe fn open(&mut self, level: Level, table: Pa) -> NonNull<u64> {
        // SAFETY: the caller's.
        unsafe { self.of(table).open(level, table) }
    }

    #[inline]
    fn close(&mut self, level: Level) {
        self.linear.close(level);
        self.own.close(level);
    }
}
