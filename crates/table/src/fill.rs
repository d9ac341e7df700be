//! The store loop of all builders: consecutive descriptors into consecutive entries.

use core::hint::black_box;
use core::mem::MaybeUninit;

use linmap_vmsa::{Descriptor, Geometry, LINEAR_SPAN, Pa};

/// How many values are computed side by side, for consecutive entries.
const LANES: usize = 4;

/// How many entries one turn of the loop writes.
const TURN: usize = 32;

/// Writes `first`, `first + step`, `first + 2 × step` and so on, one to each entry. Each entry is
/// stored once and none is read; on AArch64 the loop becomes pair stores.
#[inline]
pub fn fill(entries: &mut [MaybeUninit<u64>], first: u64, step: u64) {
    // Each lane is a sum of its own, since one chain of additions through all entries would be
    // slower than the stores. `black_box` hides from the compiler that the lanes depend on each
    // other; otherwise it would make that chain.
    let mut lanes: [u64; LANES] =
        black_box(core::array::from_fn(|index| first.wrapping_add(step.wrapping_mul(index as u64))));
    let stride = step.wrapping_mul(LANES as u64);
    let (turns, rest) = entries.as_chunks_mut::<TURN>();
    for turn in turns {
        write_lanes(turn, &mut lanes, stride);
    }
    let (half, rest) = rest.as_chunks_mut::<{ TURN / 2 }>();
    if let [half] = half {
        write_lanes(half, &mut lanes, stride);
    }
    let mut descriptor = lanes[0];
    for entry in rest {
        entry.write(descriptor);
        descriptor = descriptor.wrapping_add(step);
    }
}

/// Writes the lanes in turn, each moved on when it is written. `N` is a multiple of their number.
#[inline(always)]
fn write_lanes<const N: usize>(entries: &mut [MaybeUninit<u64>; N], lanes: &mut [u64; LANES], stride: u64) {
    for chunk in entries.as_chunks_mut::<LANES>().0 {
        for (entry, lane) in chunk.iter_mut().zip(lanes.iter_mut()) {
            entry.write(*lane);
            *lane = lane.wrapping_add(stride);
        }
    }
}

/// Makes all `entries` invalid.
#[inline]
pub fn clear(entries: &mut [MaybeUninit<u64>]) {
    // `black_box` hides the value: otherwise the loop becomes a call of memset, whose portable form
    // stores one word at a time.
    let invalid = black_box(Descriptor::INVALID.0);
    let (chunks, rest) = entries.as_chunks_mut::<TURN>();
    for chunk in chunks {
        *chunk = [MaybeUninit::new(invalid); TURN];
    }
    let (chunks, rest) = rest.as_chunks_mut::<LANES>();
    for chunk in chunks {
        *chunk = [MaybeUninit::new(invalid); LANES];
    }
    for entry in rest {
        entry.write(invalid);
    }
}

/// Fills `entries` with leaves for consecutive memory from `pa`, each of `1 << shift` bytes and
/// otherwise as `leaf`, a leaf for address 0.
#[inline]
pub(crate) fn fill_leaves(
    geometry: Geometry,
    shift: u32,
    mut entries: &mut [MaybeUninit<u64>],
    leaf: Descriptor,
    mut pa: Pa,
) {
    loop {
        // Address bits above LINEAR_SPAN lie elsewhere in a 52-bit descriptor, so an addition would
        // not carry into them.
        let before_carry = (LINEAR_SPAN - pa.0 % LINEAR_SPAN) >> shift;
        let count = entries.len().min(before_carry as usize);
        let (now, later) = entries.split_at_mut(count);
        fill(now, leaf.at(geometry, pa).0, 1 << shift);
        if later.is_empty() {
            return;
        }
        pa = Pa(pa.0 + ((count as u64) << shift));
        entries = later;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linmap_vmsa::{Attributes, Decoded, Granule, Level};
    use std::{vec, vec::Vec};

    fn filled(count: usize, run: impl FnOnce(&mut [MaybeUninit<u64>])) -> Vec<u64> {
        let mut entries = vec![MaybeUninit::new(u64::MAX); count];
        run(&mut entries);
        // SAFETY: every element was initialised when the vector was made.
        entries.iter().map(|entry| unsafe { entry.assume_init() }).collect()
    }

    #[test]
    fn every_entry_of_a_run_of_any_length_is_written_once() {
        for count in 0..70 {
            let expected: Vec<u64> = (0..count as u64).map(|i| 0x703 + i * 0x1000).collect();
            assert_eq!(filled(count, |e| fill(e, 0x703, 0x1000)), expected);
        }
    }

    #[test]
    fn a_run_that_crosses_bit_48_keeps_its_high_address_bits() {
        let geometry = Geometry::new(Granule::K64, 52, 52).unwrap();
        let start = Pa(LINEAR_SPAN - 2 * 0x1_0000);
        let leaf = Descriptor::page(geometry, Pa(0), Attributes::KERNEL_DATA);
        let entries = filled(5, |e| fill_leaves(geometry, 16, e, leaf, start));
        for (i, entry) in entries.into_iter().enumerate() {
            let pa = Pa(start.0 + i as u64 * 0x1_0000);
            assert_eq!(Descriptor(entry).decode(geometry, Level::L3), Decoded::Leaf(pa));
        }
    }
}
