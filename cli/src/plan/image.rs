//! The kernel image: where it lies, or where a boot loader would place it.

use std::str::FromStr;

use linmap::ImageParts;
use linmap_memblock::Memblock;
use linmap_vmsa::{Granule, Pa, PaRange, Va};

use crate::failure::Failure;
use crate::plan::size;

/// Where the boot protocol of arm64 lets an image begin, plus `text_offset`, which is 0 today.
const ALIGN: u64 = 2 << 20;

/// An image: how long its parts are, and where it begins if that is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WantedImage {
    /// Where it begins; `None` for where a boot loader would place it.
    pub start: Option<Pa>,
    /// The length of text and read-only data.
    pub read_only: u64,
    /// The length of all that is written.
    pub data: u64,
}

impl WantedImage {
    /// As long as a distribution's kernel.
    pub const USUAL: Self = Self { start: None, read_only: 24 << 20, data: 16 << 20 };
}

/// What the user says about the image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageOption {
    /// There is none in memory that the linear map covers.
    None,
    /// One like this.
    Wanted(WantedImage),
}

impl FromStr for ImageOption {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" {
            return Ok(Self::None);
        }
        let (sizes, start) = match text.split_once('@') {
            Some((sizes, start)) => (sizes, Some(size::number(start).map(Pa))),
            None => (text, None),
        };
        let sizes =
            sizes.split_once('+').map(|(read_only, data)| (size::number(read_only), size::number(data)));
        match (sizes, start) {
            (Some((Some(read_only), Some(data))), None | Some(Some(_))) => {
                Ok(Self::Wanted(WantedImage { start: start.flatten(), read_only, data }))
            }
            _ => Err(
                "an image is READONLY+DATA or READONLY+DATA@START, 24M+16M@0x40200000 for example, or none",
            ),
        }
    }
}

/// Who says where the image is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageSource {
    /// The command line.
    Option,
    /// The input: the lines of /proc/iomem, or the layout.
    Input,
    /// Nobody: it is where a boot loader would place it.
    Placed,
}

impl ImageSource {
    /// The source in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Option => "option",
            Self::Input => "input",
            Self::Placed => "placed",
        }
    }
}

/// An image in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlacedImage {
    /// Its parts.
    pub parts: ImageParts,
    /// Who says so.
    pub source: ImageSource,
}

impl PlacedImage {
    /// Returns `wanted` in pages of `granule`. Without a place it has the lowest multiple of 2 MiB
    /// in free memory with room for it, as U-Boot's `booti`, QEMU and the Raspberry Pi's firmware
    /// place it; `None` if there is no room.
    pub fn new<const N: usize>(
        wanted: WantedImage,
        source: ImageSource,
        memory: &Memblock<N>,
        granule: Granule,
    ) -> Result<Option<Self>, Failure> {
        let page = granule.bytes();
        let WantedImage { start, read_only, data } = wanted;
        let whole = |len: u64| len.checked_next_multiple_of(page);
        let wrong =
            || Failure::new(format_args!("an image of {read_only:#x} + {data:#x} bytes fits no memory"));
        let (read_only, data) = whole(read_only).zip(whole(data)).ok_or_else(wrong)?;
        let len = read_only.checked_add(data).ok_or_else(wrong)?;
        let (start, source) = match start {
            Some(start) if !start.0.is_multiple_of(page) => {
                return Err(Failure::new(format_args!(
                    "the image begins at {start}, within a page of {page:#x}"
                )));
            }
            Some(start) => (start, source),
            None => match lowest(memory, len) {
                Some(start) => (start, ImageSource::Placed),
                None => return Ok(None),
            },
        };
        let all = PaRange::from_len(start, len).ok_or_else(wrong)?;
        let middle = Pa(start.0 + read_only);
        let parts = ImageParts {
            read_only: PaRange::new(start, middle),
            data: PaRange::new(middle, all.end),
            // What it has there doesn't change what the linear map costs.
            va: Va(u64::MAX << 30),
        };
        Ok(Some(Self { parts, source }))
    }
}

/// Returns the lowest place for `len` bytes.
fn lowest<const N: usize>(memory: &Memblock<N>, len: u64) -> Option<Pa> {
    let everywhere = PaRange::new(Pa(0), memory.memory_end());
    memory.free_ranges(everywhere).find_map(|free| {
        let start = free.start.0.checked_next_multiple_of(ALIGN)?;
        (start.checked_add(len)? <= free.end.0).then_some(Pa(start))
    })
}

/// Returns the image that the text of /proc/iomem names by `Kernel code` and `Kernel data`. Init
/// memory between them counts as data: it is written and freed.
pub fn of_iomem(text: &str) -> Option<WantedImage> {
    let of = |name: &str| {
        let line = text.lines().find(|line| line.trim_end().ends_with(name))?;
        let (range, _) = line.trim_start().split_once(" : ")?;
        let (first, last) = range.split_once('-')?;
        let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
        Some((number(first)?, number(last)?.checked_add(1)?))
    };
    let (code, code_end) = of(" : Kernel code")?;
    let (_, data_end) = of(" : Kernel data")?;
    // Both are whole segments of 64 KiB in Linux: no page of any granule is shared.
    let (read_only, data) = (code_end.checked_sub(code)?, data_end.checked_sub(code_end)?);
    Some(WantedImage { start: Some(Pa(code)), read_only, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_placed_at_the_lowest_two_megabytes_with_room() {
        let range = |start, end| PaRange::new(Pa(start), Pa(end));
        let mut memory = Memblock::<8>::new();
        memory.add(range(0, 16 << 20)).expect("room");
        memory.add(range(0x4000_0000, 0x8000_0000)).expect("room");
        memory.reserve(range(0x4000_0000, 0x4000_1000)).expect("room");
        let place = |wanted: WantedImage| {
            let placed = PlacedImage::new(wanted, ImageSource::Input, &memory, Granule::K4);
            placed.expect("a size").map(|placed| (placed.parts.range(), placed.source))
        };
        let usual = range(0x4020_0000, 0x4020_0000 + (40 << 20));
        assert_eq!(place(WantedImage::USUAL), Some((usual, ImageSource::Placed)));
        let small = WantedImage { start: None, read_only: 1 << 20, data: 1 };
        assert_eq!(place(small), Some((range(0, 0x10_1000), ImageSource::Placed)));
        let given = WantedImage { start: Some(Pa(0x123_0000)), ..small };
        assert_eq!(place(given), Some((range(0x123_0000, 0x133_1000), ImageSource::Input)));
        assert_eq!(place(WantedImage { read_only: 2 << 30, ..small }), None);
        let huge = WantedImage { read_only: u64::MAX, ..small };
        assert!(PlacedImage::new(huge, ImageSource::Input, &memory, Granule::K4).is_err());
    }

    #[test]
    fn an_image_is_read_from_an_option_and_from_iomem() {
        let option = |text: &str| text.parse::<ImageOption>().ok();
        let wanted = WantedImage { start: Some(Pa(0x4020_0000)), read_only: 20 << 20, data: 12 << 20 };
        assert_eq!(option("20M+12M@0x40200000"), Some(ImageOption::Wanted(wanted)));
        assert_eq!(option("none"), Some(ImageOption::None));
        for wrong in ["", "20M", "20M@0", "+", "20M+", "20M+1M@", "20M+1M@x"] {
            assert_eq!(option(wrong), None, "{wrong}");
        }
        let iomem = "40000000-7fffffff : System RAM\n  40210000-4161ffff : Kernel code\n  \
                     41620000-41e1ffff : reserved\n  41e20000-4232ffff : Kernel data\n";
        let found = WantedImage {
            start: Some(Pa(0x4021_0000)),
            read_only: 0x141_0000,
            data: 0x4233_0000 - 0x4162_0000,
        };
        assert_eq!(of_iomem(iomem), Some(found));
        assert_eq!(of_iomem("40000000-7fffffff : System RAM\n"), None);
    }
}
