//! How a tree's memory is mapped: chosen by its name, so that each run makes the same maps.

use linmap::{Builder, ImageParts, MappingLists};
use linmap_memblock::Memblock;
use linmap_platform::MemoryLimit;
use linmap_table::Leaves;
use linmap_vmsa::{Geometry, Pa, PaRange, Va};

use crate::other_reader::Memory;
use crate::rules::build::{Built, Outcome, Wanted, build};
use crate::rules::geometries::GEOMETRIES;
use crate::rules::host::Host;

/// With page leaves at most as many pages are mapped, by `mem=`.
const MAX_PAGES: u64 = 1 << 14;

/// What was built.
pub struct Mapped {
    pub geometry: Geometry,
    /// The geometries that were tried before, whose linear region all memory does not fit.
    pub too_narrow: Vec<Geometry>,
    pub leaves: Leaves,
    pub built: Built,
}

/// Numbers that follow from a name (FNV-1a).
struct Choices(u64);

impl Choices {
    fn of(name: &str, round: u64) -> Self {
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, mix) ^ round)
    }

    /// One of `count` numbers.
    fn below(&mut self, count: u64) -> u64 {
        // The upper bits depend on all bytes.
        self.0 = self.0.rotate_left(17).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (self.0 >> 32) % count
    }
}

/// Maps the memory of the tree `name`. `memblock` and `memory` are what both readers have found.
/// Each round chooses anew.
pub fn map<const N: usize>(
    name: &str,
    round: u64,
    memblock: &mut Memblock<N>,
    memory: &mut Memory,
    host: &mut Host,
    lists: &mut MappingLists,
) -> Result<Mapped, String> {
    let mut choices = Choices::of(name, round);
    let first = choices.below(GEOMETRIES.len() as u64) as usize;
    let kinds = [Leaves::ContiguousBlocks, Leaves::ContiguousBlocks, Leaves::Blocks, Leaves::Pages];
    let leaves = kinds[choices.below(4) as usize];
    let builder = Builder::ALL[choices.below(Builder::ALL.len() as u64) as usize];
    if leaves == Leaves::Pages {
        let bytes = memory.len_with(MAX_PAGES * GEOMETRIES[first].granule().bytes());
        let limit: MemoryLimit = bytes.to_string().parse().map_err(|error| format!("{error}"))?;
        limit.apply(memblock, &[]).map_err(|error| error.to_string())?;
        memory.limit(bytes);
    }
    let image = image(memblock, &mut choices);
    let mut too_narrow = Vec::new();
    for &geometry in GEOMETRIES.iter().cycle().skip(first).take(GEOMETRIES.len()) {
        let page = geometry.granule().bytes();
        let expected = memory.mappable(page);
        let found: Vec<_> = memblock.mappable(page).collect();
        if found != expected {
            return Err(format!("mappable {found:x?}, should be {expected:x?}"));
        }
        let wanted = Wanted { geometry, leaves, builder, memory: &expected, image, pages: &[] };
        let outcome = build(&wanted, host, lists).map_err(|error| format!("{error}\n{wanted:x?}"))?;
        match outcome {
            Outcome::Built(built) => return Ok(Mapped { geometry, too_narrow, leaves, built }),
            Outcome::TooWide => too_narrow.push(geometry),
        }
    }
    Err("no geometry reaches all memory".into())
}

/// An image where a boot loader could put it: free memory at a multiple of 2 MiB. No image if there
/// is none.
fn image<const N: usize>(memblock: &mut Memblock<N>, choices: &mut Choices) -> ImageParts {
    const LARGEST_PAGE: u64 = 1 << 16;
    let pages = [choices.below(100), 1 + choices.below(100)];
    let [read_only, data] = pages.map(|count| count * LARGEST_PAGE);
    let everywhere = PaRange::new(Pa(0), memblock.memory_end());
    let Ok(start) = memblock.alloc(read_only + data, 2 << 20, everywhere) else {
        return ImageParts::default();
    };
    let middle = Pa(start.0 + read_only);
    ImageParts {
        read_only: PaRange::new(start, middle),
        data: PaRange::new(middle, Pa(middle.0 + data)),
        va: Va(u64::MAX << 30),
    }
}
