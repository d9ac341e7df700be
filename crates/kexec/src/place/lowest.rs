//! Placing a payload: the rules of the arm64 boot protocol (Documentation/arch/arm64/booting.rst,
//! "Setup the device tree", "Decompress the kernel image", "Call the kernel image").
//!
//! - The image lies `text_offset` bytes above a 2 MiB aligned base in usable memory, with
//!   `image_size` bytes free from its start. What lies between its base and its start need not be
//!   free. A kernel that must be near the start of DRAM cannot use memory below its base.
//! - The initrd lies within a window of at most 32 GiB, aligned to 1 GiB, that holds all of the
//!   image too.
//! - The device tree has at most 2 MiB, and the 2 MiB around it need no special memory type. It
//!   gets a free 2 MiB block of its own. Kernels before 4.2 look for it within 512 MiB above the
//!   base. The placement flag is younger than that, so a kernel that does not set it counts as one
//!   of these.

use linmap_vmsa::PaRange;

use crate::payload::Image;

use super::part::Part;
use super::placement::{DTB_BLOCK, Initrd, PayloadPlacement};
use super::placement_error::PlacementError;
use super::search::Search;

impl PayloadPlacement {
    /// Chooses the lowest places below 2^48 that obey the rules. If the payload fits at all, it is
    /// placed.
    ///
    /// The image is tried in the lowest place of each free range, and of each GiB of it, since the
    /// GiB decides where the initrd's window is. For each place of the image, device tree and
    /// initrd get the lowest places. If that fails everywhere, places for the image above the other
    /// parts are tried.
    ///
    /// `free` are the ranges that a payload may occupy, ascending and apart: RAM without the
    /// firmware's reservations. The image's base lies in one of them. They may include an initrd
    /// that stays where it is. `dtb_len` is in bytes: see [`NextTree::measure`](crate::NextTree::measure).
    ///
    /// # Errors
    ///
    /// If image, device tree and initrd cannot be placed together, the error is that of the image's
    /// lowest place.
    ///
    /// - [`PlacementError::NoRoom`]: a part does not fit.
    /// - [`PlacementError::InitrdOutsideWindow`]: the kernel cannot reach an initrd that stays
    ///   where it is.
    /// - [`PlacementError::DtbTooLarge`]: the protocol does not allow this device tree.
    /// - [`PlacementError::Empty`]: the device tree, or an initrd that exists, has no bytes.
    pub fn lowest<I>(free: I, image: &Image, initrd: Initrd, dtb_len: u64) -> Result<Self, PlacementError>
    where
        I: Iterator<Item = PaRange> + Clone,
    {
        let stays = match initrd {
            Initrd::At(at) if !at.is_empty() => at,
            Initrd::Absent | Initrd::Len(1..) => PaRange::default(),
            Initrd::At(_) | Initrd::Len(0) => return Err(PlacementError::Empty { part: Part::Initrd }),
        };
        match dtb_len {
            0 => return Err(PlacementError::Empty { part: Part::Dtb }),
            1..=DTB_BLOCK => {}
            len => return Err(PlacementError::DtbTooLarge { len }),
        }
        let search = Search::new(free, image, initrd, stays);
        let mut first_error = None;
        for base in search.bases() {
            match search.at(base, dtb_len) {
                Ok(placed) => return Ok(placed),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| search.no_base()))
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use linmap_vmsa::{Granule, Pa};
    use proptest::prelude::*;

    use super::*;
    use crate::payload::PlacementFlag;
    use crate::place::initrd_window;
    use crate::place::window::GIB;

    const PAGE: u64 = 0x1_0000;
    const MIB: u64 = 0x10_0000;
    const CURRENT: Image = Image {
        text_offset: 0,
        image_size: 40 * MIB + 0x123,
        page_size: Some(Granule::K4),
        placement: PlacementFlag::Anywhere,
    };
    const OLD: Image = Image { text_offset: 0x8_0000, placement: PlacementFlag::NearDramBase, ..CURRENT };

    fn range(start: u64, end: u64) -> PaRange {
        PaRange::new(Pa(start), Pa(end))
    }

    fn place(
        free: &[PaRange],
        image: &Image,
        initrd: Initrd,
        dtb_len: u64,
    ) -> Result<PayloadPlacement, PlacementError> {
        PayloadPlacement::lowest(free.iter().copied(), image, initrd, dtb_len)
    }

    #[test]
    fn everything_goes_to_the_bottom_of_ram_even_when_that_is_address_zero() {
        let placed = place(&[range(0, GIB)], &CURRENT, Initrd::Len(0x1234), 0x5678).unwrap();
        assert_eq!(
            placed,
            PayloadPlacement {
                image: range(0, 40 * MIB + 0x123),
                dtb: range(42 * MIB, 42 * MIB + 0x5678),
                initrd: Some(range(40 * MIB + 0x1_0000, 40 * MIB + 0x1_1234)),
            }
        );
        assert_eq!(placed.entry(), Pa(0));
    }

    #[test]
    fn neither_device_tree_nor_initrd_is_put_at_address_zero() {
        let placed =
            place(&[range(0, 6 * MIB), range(GIB, 2 * GIB)], &CURRENT, Initrd::Len(0x1234), 8).unwrap();
        assert_eq!(placed.dtb.start, Pa(2 * MIB));
        assert_eq!(placed.initrd.map(|initrd| initrd.start), Some(Pa(PAGE)));
    }

    #[test]
    fn an_old_kernel_is_entered_above_its_base_and_gets_nothing_below_it() {
        let free = [range(0x8000_0000, 0x8030_0000), range(0x8800_0000, 0xc000_0000)];
        let placed = place(&free, &OLD, Initrd::Len(MIB), 0x5678).unwrap();
        assert_eq!(placed.entry(), Pa(0x8808_0000));
        assert!(placed.dtb.start > placed.image.end && placed.initrd.unwrap().start > placed.image.end);
        let placed = place(&free, &CURRENT, Initrd::Len(MIB), 0x5678).unwrap();
        assert_eq!(placed.dtb.start, Pa(0x8000_0000), "a current kernel uses the hole below");
    }

    #[test]
    fn an_old_kernel_finds_its_device_tree_within_512_mib_of_its_base() {
        let free = [range(0, 64 * MIB), range(600 * MIB, GIB)];
        let whole = place(&free, &OLD, Initrd::Absent, MIB).unwrap();
        assert_eq!(whole.dtb.start, Pa(42 * MIB));
        let free = [range(0, 42 * MIB), range(600 * MIB, 602 * MIB)];
        assert!(matches!(
            place(&free, &OLD, Initrd::Absent, MIB),
            Err(PlacementError::NoRoom { part: Part::Dtb, .. })
        ));
        assert!(place(&free, &CURRENT, Initrd::Absent, MIB).is_ok());
    }

    #[test]
    fn an_image_far_above_its_base_needs_no_free_memory_between() {
        let free = [range(GIB, GIB + 4 * MIB), range(GIB + 500 * MIB, 2 * GIB)];
        for text_offset in [0x108_0000, 0x1fc0_0000, 0x2000_0000 + 0x1000] {
            for image in [Image { text_offset, ..CURRENT }, Image { text_offset, ..OLD }] {
                let placed = place(&free, &image, Initrd::Len(MIB), MIB).unwrap();
                assert!((placed.image.start.0 - text_offset).is_multiple_of(2 * MIB), "{placed:x?}");
                assert!(free[1].covers(placed.image));
            }
        }
        // The lowest base is at the start of memory.
        let image = Image { text_offset: 0x1fc0_0000, ..OLD };
        let placed = place(&free, &image, Initrd::Absent, MIB).unwrap();
        assert_eq!(placed.entry(), Pa(GIB + 0x1fc0_0000));
        // A base in a hole, or below all memory, is none.
        let image = Image { text_offset: 8 * MIB, ..CURRENT };
        let placed = place(&free, &image, Initrd::Absent, MIB).unwrap();
        assert_eq!(placed.entry(), Pa(GIB + 508 * MIB));
        for text_offset in [GIB, 1 << 48, !0xfff] {
            let image = Image { text_offset, ..CURRENT };
            let refused = place(&free, &image, Initrd::Absent, MIB);
            assert!(matches!(refused, Err(PlacementError::NoRoom { part: Part::Image, .. })), "{refused:?}");
        }
    }

    #[test]
    fn an_old_kernel_far_above_its_base_goes_behind_its_device_tree() {
        // Below the image there is room for the base alone. Above it the device tree is out of
        // reach.
        let image = Image { text_offset: 508 * MIB, ..OLD };
        let free = [range(0, 2 * MIB + PAGE), range(508 * MIB, 600 * MIB)];
        let placed = place(&free, &image, Initrd::Absent, MIB).unwrap();
        assert_eq!([placed.dtb.start, placed.image.start], [Pa(508 * MIB), Pa(510 * MIB)]);
    }

    #[test]
    fn an_image_that_fits_nowhere_is_told_what_is_free() {
        let free = [range(MIB, 41 * MIB), range(GIB, GIB + 8 * MIB)];
        assert_eq!(
            place(&free, &CURRENT, Initrd::Absent, MIB),
            Err(PlacementError::NoRoom {
                part: Part::Image,
                len: 40 * MIB + 0x1_0000,
                align: 2 * MIB,
                within: range(0, 1 << 48),
                largest: 40 * MIB,
            })
        );
        assert!(place(&[], &CURRENT, Initrd::Absent, MIB).is_err());
        let endless = Image { image_size: u64::MAX, ..OLD };
        assert!(place(&[range(0, u64::MAX)], &endless, Initrd::Absent, MIB).is_err());
    }

    #[test]
    fn memory_that_48_bits_do_not_reach_is_not_used() {
        let free = [range(1 << 48, 1 << 49)];
        assert!(matches!(
            place(&free, &CURRENT, Initrd::Absent, MIB),
            Err(PlacementError::NoRoom { part: Part::Image, largest: 0, .. })
        ));
    }

    #[test]
    fn an_initrd_that_fits_nowhere_in_the_window_is_told_the_window() {
        let free = [range(GIB, GIB + 64 * MIB), range(34 * GIB, 35 * GIB)];
        assert_eq!(
            place(&free[..1], &CURRENT, Initrd::Len(64 * MIB), MIB),
            Err(PlacementError::NoRoom {
                part: Part::Initrd,
                len: 64 * MIB,
                align: 0x1_0000,
                within: range(0x1_0000, 33 * GIB),
                largest: 20 * MIB,
            })
        );
        // With more memory out of reach of the first place, the image moves there.
        let placed = place(&free, &CURRENT, Initrd::Len(64 * MIB), MIB).unwrap();
        assert_eq!(placed.image.start, Pa(34 * GIB));
    }

    #[test]
    fn the_image_moves_up_within_its_range_when_that_moves_the_window_over_the_initrd() {
        let free = [range(0, GIB + 64 * MIB)];
        let stays = Initrd::At(range(32 * GIB, 32 * GIB + MIB));
        let placed = place(&free, &CURRENT, stays, MIB).unwrap();
        assert_eq!(placed.image.start, Pa(GIB));
    }

    #[test]
    fn a_device_tree_that_leaves_the_initrd_no_room_goes_behind_it() {
        let hole = [range(GIB, GIB + 100 * MIB)];
        let placed = place(&hole, &CURRENT, Initrd::Len(57 * MIB), MIB).unwrap();
        assert_eq!(placed.initrd.map(|initrd| initrd.start), Some(Pa(GIB + 40 * MIB + PAGE)));
        assert_eq!(placed.dtb.start, Pa(GIB + 98 * MIB));
    }

    #[test]
    fn an_image_that_leaves_the_others_no_room_goes_behind_them() {
        // A MiB less after the image than a device tree of its own block needs, so it goes below.
        let image = Image { image_size: 39 * MIB, ..CURRENT };
        let placed = place(&[range(GIB, GIB + 41 * MIB)], &image, Initrd::Absent, MIB).unwrap();
        assert_eq!([placed.dtb.start, placed.image.start], [Pa(GIB), Pa(GIB + 2 * MIB)]);
        // Or the initrd does.
        let free = [range(GIB, GIB + 45 * MIB), range(2 * GIB, 2 * GIB + 2 * MIB)];
        let placed = place(&free, &image, Initrd::Len(6 * MIB), MIB).unwrap();
        assert_eq!(placed.initrd, Some(range(GIB + 39 * MIB, GIB + 45 * MIB)));
        let image = Image { image_size: 38 * MIB + 1, ..CURRENT };
        let free = [range(GIB + 2 * MIB - PAGE, GIB + 46 * MIB + PAGE), range(2 * GIB, 2 * GIB + 2 * MIB)];
        let placed = place(&free, &image, Initrd::Len(6 * MIB + PAGE), MIB).unwrap();
        assert_eq!(placed.initrd.map(|initrd| initrd.start), Some(free[0].start));
        assert_eq!(placed.image.start, Pa(GIB + 8 * MIB));
    }

    #[test]
    fn an_old_kernel_moves_up_within_its_range_to_reach_its_device_tree() {
        let image = Image { text_offset: 0, image_size: 7 * MIB, ..OLD };
        let free = [range(GIB, GIB + 9 * MIB), range(GIB + 512 * MIB, GIB + 514 * MIB)];
        let placed = place(&free, &image, Initrd::Absent, MIB).unwrap();
        assert_eq!([placed.image.start, placed.dtb.start], [Pa(GIB + 2 * MIB), Pa(GIB + 512 * MIB)]);
        // The same with an initrd that has room only below the device tree.
        let free = [free[0], range(GIB + 510 * MIB - PAGE, GIB + 514 * MIB)];
        let placed = place(&free, &image, Initrd::Len(2 * MIB + PAGE), MIB).unwrap();
        assert_eq!(placed.initrd.map(|initrd| initrd.start), Some(free[1].start));
        assert_eq!([placed.image.start, placed.dtb.start], [Pa(GIB + 2 * MIB), Pa(GIB + 512 * MIB)]);
    }

    #[test]
    fn an_initrd_that_has_room_outside_the_window_does_not_keep_the_image_from_moving_up() {
        let image = Image { image_size: 40 * MIB, ..CURRENT };
        let free = [range(GIB, GIB + 8 * MIB), range(40 * GIB + 2 * MIB - PAGE, 40 * GIB + 44 * MIB)];
        let placed = place(&free, &image, Initrd::Len(2 * MIB + PAGE), MIB).unwrap();
        assert_eq!(placed.initrd.map(|initrd| initrd.start), Some(free[1].start));
        assert_eq!([placed.image.start, placed.dtb.start], [Pa(40 * GIB + 4 * MIB), Pa(GIB)]);
    }

    #[test]
    fn an_initrd_outside_every_window_is_refused_with_both_ranges() {
        let initrd = range(40 * GIB, 40 * GIB + MIB);
        assert_eq!(
            place(&[range(0, GIB)], &CURRENT, Initrd::At(initrd), MIB),
            Err(PlacementError::InitrdOutsideWindow {
                initrd,
                image: range(0, 40 * MIB + 0x123),
                window: range(0, 32 * GIB)
            })
        );
        let below = range(0, MIB);
        let old = place(&[range(GIB, 2 * GIB)], &OLD, Initrd::At(below), MIB);
        assert!(matches!(old, Err(PlacementError::InitrdOutsideWindow { .. })), "below the base");
        assert!(place(&[range(GIB, 2 * GIB)], &CURRENT, Initrd::At(below), MIB).is_ok());
    }

    #[test]
    fn nothing_is_put_over_an_initrd_that_stays() {
        let initrd = range(8 * MIB, 9 * MIB);
        let placed = place(&[range(0, GIB)], &CURRENT, Initrd::At(initrd), 2 * MIB).unwrap();
        assert_eq!(placed.image.start, Pa(10 * MIB));
        assert_eq!(placed.dtb, range(2 * MIB, 4 * MIB));
        assert_eq!(placed.initrd, Some(initrd));
    }

    #[test]
    fn an_initrd_shares_no_64_kib_page_with_memory_that_is_not_free() {
        let free = [range(0, 42 * MIB), range(42 * MIB + 0x1000, 42 * MIB + 0x1_f000), range(GIB, 2 * GIB)];
        let image = Image { image_size: 40 * MIB, ..CURRENT };
        let placed = place(&free, &image, Initrd::Len(0x1000), 1).unwrap();
        assert_eq!(placed.initrd, Some(range(GIB, GIB + 0x1000)));
    }

    #[test]
    fn lengths_the_protocol_does_not_allow_are_refused() {
        let free = [range(0, GIB)];
        let dtb_len = 2 * MIB + 1;
        assert_eq!(
            place(&free, &CURRENT, Initrd::Absent, dtb_len),
            Err(PlacementError::DtbTooLarge { len: dtb_len })
        );
        assert_eq!(place(&free, &CURRENT, Initrd::Absent, 0), Err(PlacementError::Empty { part: Part::Dtb }));
        for initrd in [Initrd::Len(0), Initrd::At(range(MIB, MIB))] {
            let refused = place(&free, &CURRENT, initrd, 1);
            assert_eq!(refused, Err(PlacementError::Empty { part: Part::Initrd }));
        }
        let endless = place(&free, &CURRENT, Initrd::Len(u64::MAX), 1);
        assert!(matches!(endless, Err(PlacementError::NoRoom { part: Part::Initrd, .. })));
    }

    #[test]
    fn the_window_reaches_from_the_lowest_gib_that_still_holds_the_image_to_the_highest() {
        assert_eq!(initrd_window(range(0, MIB)), range(0, 32 * GIB));
        assert_eq!(initrd_window(range(40 * GIB + MIB, 40 * GIB + 2 * MIB)), range(9 * GIB, 72 * GIB));
        assert_eq!(initrd_window(range(41 * GIB - MIB, 41 * GIB + MIB)), range(10 * GIB, 72 * GIB));
        assert!(initrd_window(range(0, 33 * GIB)).is_empty());
    }

    /// The rule as the protocol states it, tried window by window.
    fn one_window_holds_both(image: PaRange, initrd: PaRange) -> bool {
        (0..128).any(|start| {
            let window = range(start * GIB, (start + 32) * GIB);
            window.covers(image) && window.covers(initrd)
        })
    }

    proptest! {
        #[test]
        fn the_window_says_what_trying_every_window_says(
            image in (0u64..64 << 10, 1u64..2 << 10),
            initrd in (0u64..96 << 10, 1u64..34 << 10),
        ) {
            let at = |(start, len)| range(start * MIB, (start + len) * MIB);
            let [image, initrd] = [image, initrd].map(at);
            prop_assume!(!image.overlaps(initrd));
            prop_assert_eq!(initrd_window(image).covers(initrd), one_window_holds_both(image, initrd));
        }

        #[test]
        fn whatever_is_placed_keeps_the_rules_and_lies_in_free_memory(
            holes in prop::collection::vec((0u64..200 << 8, 1u64..40 << 8), 1..12),
            image_size in 1u64..64 * MIB,
            old in any::<bool>(),
            initrd_len in prop::option::of(1u64..64 * MIB),
            stays in prop::option::of((0u64..4 << 10, 1u64..32)),
            dtb_len in 1u64..2 * MIB,
        ) {
            // Ranges ascending and apart, with ends in steps of 4 KiB or GiB.
            let mut free = Vec::new();
            let mut next = 0;
            for (index, (gap, len)) in holes.into_iter().enumerate() {
                let gap = if index % 5 == 4 { gap * 0x10_0000 } else { (gap + 1) << 12 };
                free.push(range(next + gap, next + gap + (len << 12)));
                next += gap + (len << 12);
            }
            let image = Image { image_size, ..if old { OLD } else { CURRENT } };
            let initrd = match (initrd_len, stays) {
                (_, Some((start, len))) => Initrd::At(range(start * MIB, (start + len) * MIB)),
                (Some(len), None) => Initrd::Len(len),
                (None, None) => Initrd::Absent,
            };
            if let Ok(placed) = place(&free, &image, initrd, dtb_len) {
                let is_free = |part| free.iter().any(|range| range.covers(part));
                let base = placed.image.start.0 - image.text_offset;
                prop_assert!(base.is_multiple_of(2 * MIB));
                prop_assert_eq!(placed.image.len(), image_size);
                prop_assert_eq!(placed.dtb.len(), dtb_len);
                prop_assert!(is_free(placed.image) && is_free(placed.dtb));
                prop_assert_eq!(placed.dtb.start.0 / (2 * MIB), (placed.dtb.end.0 - 1) / (2 * MIB));
                prop_assert!(!placed.image.overlaps(placed.dtb));
                match (initrd, placed.initrd) {
                    (Initrd::Absent, None) => {}
                    (Initrd::At(at), Some(initrd)) => prop_assert_eq!(at, initrd),
                    (Initrd::Len(len), Some(initrd)) => {
                        prop_assert_eq!(initrd.len(), len);
                        prop_assert!(is_free(initrd) && initrd.start.0.is_multiple_of(0x1_0000));
                    }
                    _ => prop_assert!(false, "an initrd came or went"),
                }
                if let Some(initrd) = placed.initrd {
                    prop_assert!(!initrd.overlaps(placed.image) && !initrd.overlaps(placed.dtb));
                    prop_assert!(one_window_holds_both(placed.image, initrd));
                    prop_assert!(!old || initrd.start.0 >= base);
                }
                prop_assert!(!old || (base <= placed.dtb.start.0 && placed.dtb.end.0 <= base + 512 * MIB));
            }
        }
    }
}
