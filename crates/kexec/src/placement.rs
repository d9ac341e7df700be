//! Where a payload is placed: the rules of the arm64 boot protocol (Documentation/arch/arm64/booting.rst,
//! "Setup the device tree", "Decompress the kernel image", "Call the kernel image").
//!
//! - The image lies `text_offset` bytes above a 2 MiB aligned base, with `image_size` bytes free from its start.
//!   A kernel that wants to be near the start of DRAM can't use anything below its base.
//! - The initrd lies within a window of at most 32 GiB, aligned to 1 GiB, that holds all of the image too.
//! - The device tree has at most 2 MiB, and the 2 MiB around it hold nothing that needs a special memory type.
//!   It gets a free 2 MiB of its own: nothing else is in there, and it crosses no boundary. Kernels before 4.2
//!   want it within 512 MiB above the base; the placement flag is younger than that, so that kernels that don't
//!   set it are treated so.

use core::fmt;

use linmap_vmsa::{Granule, Pa, PaRange};
use thiserror::Error;

use crate::image::{BASE_ALIGN, Image, Placement};

const GIB: u64 = 0x4000_0000;
/// The longest window that holds image and initrd.
const WINDOW_LEN: u64 = 32 * GIB;
/// What a device tree may have at most, and gets.
const DTB_BLOCK: u64 = 0x20_0000;
/// How far above its base an old kernel looks for its device tree.
const OLD_DTB_REACH: u64 = 0x2000_0000;
/// Kernels are placed below this, whatever the machine's physical addresses can be.
const REACH: PaRange = PaRange::new(Pa(0), Pa(1 << 48));
/// Image and initrd share no page with anything else, whatever the payload's granule: it frees whole pages.
const PAGE: u64 = Granule::K64.bytes();

/// What is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The kernel image.
    Image,
    /// The initrd.
    Initrd,
    /// The device tree.
    Dtb,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Image => "image",
            Self::Initrd => "initrd",
            Self::Dtb => "device tree",
        })
    }
}

/// The initrd of a payload to be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initrd {
    /// There is none.
    Absent,
    /// It has this many bytes and may go anywhere the kernel can reach it.
    Len(u64),
    /// It stays in this range.
    At(PaRange),
}

/// Where the parts of a payload go. No two share a 4 KiB page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The image: `image_size` bytes from its first. It is entered at its start.
    pub image: PaRange,
    /// The initrd, exactly as long as it is. Unless it stays where it was, it starts on a 64 KiB page.
    pub initrd: Option<PaRange>,
    /// The device tree, exactly as long as it is; it starts at a multiple of 2 MiB.
    pub dtb: PaRange,
}

/// Why a payload can't be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// No free range is large enough.
    #[error("no room for the {part}: {len:#x} bytes aligned to {align:#x} in {within}, where the largest free range has {largest:#x} bytes")]
    NoRoom {
        /// What didn't fit.
        part: Part,
        /// Bytes asked for, with the padding the rules demand.
        len: u64,
        /// Alignment of its start (of its base, for an image) in bytes.
        align: u64,
        /// Where it was looked for.
        within: PaRange,
        /// Length in bytes of the largest range in there that is free and not taken by the other parts.
        largest: u64,
    },
    /// The device tree is longer than 2 MiB.
    #[error("the device tree has {len:#x} bytes, the boot protocol allows 0x200000")]
    DtbTooLarge {
        /// Its length in bytes.
        len: u64,
    },
    /// A part has no bytes.
    #[error("the {part} is empty")]
    Empty {
        /// Which part.
        part: Part,
    },
    /// The kernel can't reach an initrd that stays where it is.
    #[error("the initrd at {initrd} lies outside {window}: all that can be in one 1 GiB aligned window of 32 GiB with the image at {image}")]
    InitrdOutsideWindow {
        /// Where the initrd is.
        initrd: PaRange,
        /// Where the image is.
        image: PaRange,
        /// Where the kernel can reach an initrd: [`initrd_window`], for an old kernel only what is above its base.
        window: PaRange,
    },
}

/// All that may hold the initrd of a kernel at `image`: the union of the 1 GiB aligned windows of 32 GiB that
/// hold all of the image. Any initrd inside lies in one window with the image. Empty when the image is longer
/// than a window.
pub fn initrd_window(image: PaRange) -> PaRange {
    let end = floor_gib(image.start).saturating_add(WINDOW_LEN);
    if end < image.end.0 {
        return PaRange::new(image.start, image.start);
    }
    let start = image.end.0.checked_next_multiple_of(GIB).unwrap_or(u64::MAX).saturating_sub(WINDOW_LEN);
    PaRange::new(Pa(start), Pa(end))
}

/// Start of the GiB that holds the byte at `pa`.
fn floor_gib(pa: Pa) -> u64 {
    pa.0 & !(GIB - 1)
}

impl Placed {
    /// Chooses the lowest places that keep the rules, all below 2^48. The image is chosen first, then the device
    /// tree, then the initrd; when those don't fit, the next place for the image is tried: further free ranges,
    /// and further 1 GiB boundaries within a range, since those move the window.
    ///
    /// `free` are the ranges a payload may be put in, ascending and apart: RAM without what the firmware
    /// reserves. An initrd that stays where it is need not be left out of them. `dtb_len` is in bytes: see
    /// [`Chosen::measure`](crate::Chosen::measure).
    ///
    /// # Errors
    ///
    /// When image, device tree and initrd don't go together, the error tells what is wrong with the image in its
    /// lowest place.
    ///
    /// - [`PlacementError::NoRoom`]: something doesn't fit.
    /// - [`PlacementError::InitrdOutsideWindow`]: the kernel can't reach the initrd where it stays.
    /// - [`PlacementError::DtbTooLarge`]: the protocol doesn't allow this device tree.
    /// - [`PlacementError::Empty`]: the device tree, or an initrd that is there, has no bytes.
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
        let asked = image.text_offset.saturating_add(whole_pages(image.image_size));
        let space = Space { free, within: REACH, taken: [PaRange::default(), stays] };
        let mut first_error = None;
        for mut gap in space.gaps() {
            while let Some(base) = fit(gap, asked, BASE_ALIGN) {
                match Self::at(&space, base, image, initrd, dtb_len) {
                    Ok(placed) => return Ok(placed),
                    Err(error) => first_error = first_error.or(Some(error)),
                }
                gap = PaRange::new(Pa(floor_gib(base).saturating_add(GIB)), gap.end);
            }
        }
        Err(first_error.unwrap_or_else(|| space.no_room(Part::Image, asked, BASE_ALIGN)))
    }

    /// Tries one base for the image, which fits there. `space` is what is free without an initrd that stays.
    fn at<I>(
        space: &Space<I>,
        base: Pa,
        image: &Image,
        initrd: Initrd,
        dtb_len: u64,
    ) -> Result<Self, PlacementError>
    where
        I: Iterator<Item = PaRange> + Clone,
    {
        // Sums can't saturate: the image fits at this base, below 2^48.
        let from = |start: Pa, len: u64| PaRange::new(start, Pa(start.0.saturating_add(len)));
        let start = Pa(base.0.saturating_add(image.text_offset));
        let at = from(start, image.image_size);
        let claimed = from(start, whole_pages(image.image_size));
        let [for_dtb, for_initrd] = match image.placement {
            Placement::Anywhere => [REACH, REACH],
            Placement::NearDramBase => [from(base, OLD_DTB_REACH), PaRange::new(base, REACH.end)],
        };
        let window = initrd_window(at).intersection(for_initrd);

        let [_, stays] = space.taken;
        if !window.covers(stays) {
            return Err(PlacementError::InitrdOutsideWindow { initrd: stays, image: at, window });
        }
        let block = space.with(for_dtb, stays, claimed).lowest(Part::Dtb, DTB_BLOCK, DTB_BLOCK)?;
        let initrd = match initrd {
            Initrd::Absent => None,
            Initrd::At(stays) => Some(stays),
            Initrd::Len(len) => {
                let room = space.with(window, block, claimed).lowest(Part::Initrd, whole_pages(len), PAGE)?;
                Some(from(room.start, len))
            }
        };
        Ok(Self { image: at, initrd, dtb: from(block.start, dtb_len) })
    }

    /// Where the payload is entered: the image's first byte.
    pub fn entry(&self) -> Pa {
        self.image.start
    }
}

/// Free memory to choose from.
struct Space<I> {
    free: I,
    within: PaRange,
    /// What is taken already: ascending and apart; an empty range is one at 0.
    taken: [PaRange; 2],
}

impl<I> Space<I>
where
    I: Iterator<Item = PaRange> + Clone,
{
    /// The same free memory, with other bounds and other ranges taken.
    fn with(&self, within: PaRange, one: PaRange, other: PaRange) -> Self {
        // By their ends: an empty range at 0 must come before one that starts at 0.
        let taken = if one.end < other.end { [one, other] } else { [other, one] };
        Self { free: self.free.clone(), within: within.intersection(REACH), taken }
    }

    /// What is free, within and not taken, ascending.
    fn gaps(&self) -> impl Iterator<Item = PaRange> + use<I> {
        let (within, [first, second]) = (self.within, self.taken);
        let between = [
            PaRange::new(Pa(0), first.start),
            PaRange::new(first.end, second.start),
            PaRange::new(second.end, Pa(u64::MAX)),
        ];
        let pieces = move |range| between.map(|gap| gap.intersection(range).intersection(within));
        self.free.clone().flat_map(pieces)
    }

    fn lowest(&self, part: Part, len: u64, align: u64) -> Result<PaRange, PlacementError> {
        self.gaps()
            .find_map(|gap| fit(gap, len, align).and_then(|start| PaRange::from_len(start, len)))
            .ok_or_else(|| self.no_room(part, len, align))
    }

    fn no_room(&self, part: Part, len: u64, align: u64) -> PlacementError {
        let largest = self.gaps().map(PaRange::len).max().unwrap_or(0);
        PlacementError::NoRoom { part, len, align, within: self.within, largest }
    }
}

/// The lowest aligned start in `range` with `len` bytes from it in the range.
fn fit(range: PaRange, len: u64, align: u64) -> Option<Pa> {
    let start = Pa(range.start.0.checked_next_multiple_of(align)?);
    let wanted = PaRange::from_len(start, len)?;
    (wanted.end <= range.end).then_some(start)
}

/// `len` rounded up to whole pages of any granule. Lengths that can't be are as good as infinite.
fn whole_pages(len: u64) -> u64 {
    len.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX)
}
