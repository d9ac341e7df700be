//! Freeing tables: the deepest first.

use core::ptr::NonNull;

use linmap_vmsa::{Decoded, Descriptor, Geometry, Level, Pa};

use crate::frames::FrameSource;
use crate::window::TableWindow;

/// How many entries are looked at together.
const CHUNK: usize = 16;

/// Frees all tables below `table`, the deepest first.
///
/// # Safety
/// `table` is a table at `level` of this geometry. `window` reaches it and every table below. Every
/// table below is in a frame that `frames` handed out, and no walker can reach it any more.
pub unsafe fn release_below<W: TableWindow, F: FrameSource>(
    geometry: Geometry,
    table: Pa,
    level: Level,
    window: &mut W,
    frames: &mut F,
) {
    if level.next().is_some() {
        // SAFETY: the window reaches the table, which has this many entries; the rest is the
        // caller's contract.
        unsafe {
            let pointer = window.open(level, table);
            release_children(geometry, pointer, level, geometry.entries(level), window, frames);
        }
        window.close(level);
    }
}

/// Frees all tables that the first `entries` entries of an open table lead to, and those below.
///
/// # Safety
/// `pointer` is an open table at `level` whose first `entries` entries are written. The contract of
/// [`release_below`] holds for the tables that they lead to.
pub(crate) unsafe fn release_children<W: TableWindow, F: FrameSource>(
    geometry: Geometry,
    pointer: NonNull<u64>,
    level: Level,
    entries: usize,
    window: &mut W,
    frames: &mut F,
) {
    let Some(next) = level.next() else { return };
    let mut start = 0;
    while start < entries {
        let end = entries.min(start + CHUNK);
        // Most entries are blocks or invalid. The bits of a whole chunk together say so at once.
        if end - start == CHUNK {
            // SAFETY: the caller's table is open and stays open while deeper levels are; these are
            // some of its entries, and the builder wrote them.
            let any = (start..end).fold(0, |any, index| any | unsafe { pointer.add(index).read() });
            if !Descriptor(any).may_be_table() {
                start = end;
                continue;
            }
        }
        for index in start..end {
            // SAFETY: as above.
            let descriptor = Descriptor(unsafe { pointer.add(index).read() });
            if !descriptor.may_be_table() {
                continue;
            }
            if let Decoded::Table(child) = descriptor.decode(geometry, level) {
                // SAFETY: the caller's contract holds of the tables further down too. Nothing leads
                // to the child any more but the table above, which is freed next.
                unsafe {
                    release_below(geometry, child, next, window, frames);
                    frames.free(child);
                }
            }
        }
        start = end;
    }
}
