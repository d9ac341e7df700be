//! The window through which a kernel reaches the tables of its linear map.

use core::ptr::NonNull;

use linmap_table::TableWindow;
use linmap_table::cpu::Cpu;
use linmap_vmsa::{Level, Pa, PaRange};

use crate::image::ImageParts;
use crate::layout::Layout;

/// Reaches tables in the image's data by the image's own mapping, since the linear map has no alias
/// of it, and all other tables by the linear map.
///
/// Use it as the window of an [`Editor`](crate::Editor).
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
    /// Returns the window of a kernel with the linear map at `layout` and the image `image`. `cpu`
    /// reaches the addresses.
    ///
    /// # Safety
    /// While the window is used, memory and image are mapped there, and every table that it opens
    /// is mapped writable. No Rust reference leads to a table.
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
