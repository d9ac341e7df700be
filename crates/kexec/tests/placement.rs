//! Whatever fits is placed, and what is refused fits nowhere: by trying every place.

use linmap_kexec::{Image, Initrd, PayloadPlacement, PlacementFlag, initrd_window};
use linmap_vmsa::{Pa, PaRange};
use proptest::prelude::*;

const MIB: u64 = 0x10_0000;
const GIB: u64 = 0x4000_0000;
/// All free ranges and lengths here are multiples of this, so that parts that can be placed can be
/// placed in such steps.
const STEP: u64 = MIB / 2;
const BLOCK: u64 = 2 * MIB;

fn range(start: u64, len: u64) -> PaRange {
    PaRange::new(Pa(start), Pa(start + len))
}

/// Free ranges and what is to be placed in them.
#[derive(Clone, Debug)]
struct Layout {
    free: Vec<PaRange>,
    image: Image,
    initrd: Initrd,
}

impl Layout {
    /// All places of `len` bytes in free memory whose start is a multiple of `align`.
    fn places(&self, len: u64, align: u64) -> impl Iterator<Item = PaRange> {
        self.free.iter().flat_map(move |free| {
            let first = free.start.0.next_multiple_of(align);
            let starts = (first..free.end.0).step_by(align as usize);
            starts.map(move |start| range(start, len)).filter(|place| free.covers(*place))
        })
    }

    /// Whether there are places that follow the rules.
    fn fits(&self) -> bool {
        let Image { text_offset, image_size, placement, .. } = self.image;
        let old = placement == PlacementFlag::NearDramBase;
        let blocks: Vec<_> = self.places(BLOCK, BLOCK).filter(|block| block.start != Pa(0)).collect();
        let initrds: Vec<_> = match self.initrd {
            Initrd::Absent => vec![],
            Initrd::At(stays) => vec![stays],
            // The first half MiB has other places than at address 0 only for less.
            Initrd::Len(len) => self.places(len, STEP).filter(|initrd| initrd.start != Pa(0)).collect(),
        };
        self.places(STEP, BLOCK).any(|at_base| {
            let base = at_base.start;
            let image = range(base.0 + text_offset, image_size);
            if !self.free.iter().any(|free| free.covers(image)) {
                return false;
            }
            if matches!(self.initrd, Initrd::At(stays) if stays.overlaps(image)) {
                return false;
            }
            let window = initrd_window(image);
            let reached = |initrd: &PaRange| {
                window.covers(*initrd) && !initrd.overlaps(image) && !(old && initrd.start < base)
            };
            let reach = if old { range(base.0, 512 * MIB) } else { range(0, 1 << 48) };
            let initrds: Vec<_> = initrds.iter().filter(|initrd| reached(initrd)).collect();
            blocks.iter().filter(|block| reach.covers(**block) && !block.overlaps(image)).any(|block| {
                self.initrd == Initrd::Absent || initrds.iter().any(|initrd| !initrd.overlaps(*block))
            })
        })
    }
}

/// A few short ranges, as far apart as matters to the rules.
fn free() -> impl Strategy<Value = Vec<PaRange>> {
    let gap = prop_oneof![
        6 => (1..8u64).prop_map(|steps| steps * STEP),
        // Beside the reach of a device tree.
        2 => (980..1030u64).prop_map(|steps| steps * STEP),
        // Beside a GiB, from 1 to 2, or from 30 to 34.
        1 => (2020..2060u64).prop_map(|steps| steps * STEP),
        1 => (30..34u64, 0..64u64).prop_map(|(gib, steps)| gib * GIB - 32 * STEP + steps * STEP),
    ];
    let start = prop_oneof![
        Just(0),
        (1..16u64).prop_map(|steps| steps * STEP),
        (0..32u64).prop_map(|steps| 2 * GIB - 24 * STEP + steps * STEP),
    ];
    (start, prop::collection::vec((gap, 1..48u64), 1..5)).prop_map(|(start, ranges)| {
        let mut end = start;
        let mut first = 0;
        let mut free = Vec::new();
        for (gap, steps) in ranges {
            free.push(range(end + first, steps * STEP));
            end += first + steps * STEP;
            first = gap;
        }
        free
    })
}

fn layout() -> impl Strategy<Value = Layout> {
    let initrd = prop_oneof![
        1 => Just(None),
        4 => (1..32u64).prop_map(|steps| Some(Ok(steps * STEP))),
        1 => (any::<prop::sample::Index>(), -4..48i64, 1..8u64).prop_map(|place| Some(Err(place))),
    ];
    let text_offset = prop_oneof![
        3 => Just(0),
        3 => Just(STEP),
        2 => (2..64u64).prop_map(|steps| steps * STEP),
        // Beside the reach of a device tree, and beside a GiB.
        1 => (980..1030u64).prop_map(|steps| steps * STEP),
        1 => (2020..2060u64).prop_map(|steps| steps * STEP),
    ];
    (free(), 1..40u64, any::<bool>(), text_offset, initrd).prop_map(
        |(free, image, old, text_offset, initrd)| {
            let placement = if old { PlacementFlag::NearDramBase } else { PlacementFlag::Anywhere };
            let image = Image { text_offset, image_size: image * STEP, page_size: None, placement };
            let initrd = match initrd {
                None => Initrd::Absent,
                Some(Ok(len)) => Initrd::Len(len),
                Some(Err((near, steps, len))) => {
                    let start = near.get(&free).start.0.saturating_add_signed(steps * STEP as i64);
                    Initrd::At(range(start.max(STEP), len * STEP))
                }
            };
            Layout { free, image, initrd }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn what_fits_is_placed_and_what_is_refused_fits_nowhere(layout in layout()) {
        let placed = PayloadPlacement::lowest(layout.free.iter().copied(), &layout.image, layout.initrd, MIB);
        // The lowest 64 KiB are a place for an initrd that no multiple of half a MiB gives.
        let nothing_at_null = layout.free[0].start != Pa(0);
        match placed {
            Ok(_) => prop_assert!(layout.fits() || !nothing_at_null, "{placed:x?} does not fit"),
            Err(error) => prop_assert!(!layout.fits(), "{error}"),
        }
    }
}
