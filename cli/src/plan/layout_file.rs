//! A layout in TOML: memory that no machine has to be asked for.
//!
//! ```toml
//! [[region]]            # RAM
//! start = 0x8000_0000
//! size = "4G"
//!
//! [[region]]            # in it: memory of the firmware, which must not be mapped
//! start = 0xfe00_0000
//! size = "16M"
//! flags = ["no-map"]    # or ["reserved"]: mapped, but in use
//!
//! [image]               # optional: the kernel image
//! start = 0x8020_0000   # optional: where a boot loader would place it if missing
//! read-only = "24M"     # text and read-only data
//! data = "16M"
//!
//! [options]             # optional; options of the command line come first
//! granule = "4k"
//! va-bits = 48
//! pa-bits = 48
//! leaf = "auto"
//! build = "identity"
//! ```

use linmap_memblock::Memblock;
use linmap_vmsa::{Pa, PaRange};
use serde::Deserialize;

use crate::failure::Failure;
use crate::plan::image::WantedImage;
use crate::plan::settings::MapOptions;
use crate::plan::size;

/// A layout.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayoutFile {
    region: Vec<Region>,
    image: Option<Image>,
    /// How to map it.
    #[serde(default)]
    pub options: MapOptions,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Region {
    start: Number,
    size: Number,
    #[serde(default)]
    flags: Vec<Flag>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Flag {
    NoMap,
    Reserved,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Image {
    start: Option<Number>,
    read_only: Number,
    data: Number,
}

/// A number of TOML, or a text such as "4G".
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "Spelled")]
struct Number(u64);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number or a text such as \"4G\"")]
enum Spelled {
    Integer(i64),
    Text(String),
}

impl TryFrom<Spelled> for Number {
    type Error = String;

    fn try_from(spelled: Spelled) -> Result<Self, String> {
        match spelled {
            Spelled::Integer(number) => {
                u64::try_from(number).map(Self).map_err(|_| format!("{number} is below 0"))
            }
            Spelled::Text(text) => size::number(&text)
                .map(Self)
                .ok_or_else(|| format!("{text:?} is not a number such as \"4G\"")),
        }
    }
}

impl LayoutFile {
    /// Reads a layout.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
            let hint = "a layout in TOML has one [[region]] with start and size for each range of memory";
            Failure::new(format_args!("line {line}: {}", error.message().trim_end())).hint(hint)
        })
    }

    /// Replaces the content of `memory` by the regions.
    pub fn fill<const N: usize>(&self, memory: &mut Memblock<N>) -> Result<(), Failure> {
        memory.clear();
        for (nth, region) in (1..).zip(&self.region) {
            add(memory, region).map_err(|error| error.of(format_args!("region {nth}")))?;
        }
        if memory.mappable(0x1000).next().is_none() {
            let nothing = Failure::new("no region is RAM that may be mapped");
            return Err(nothing.hint("a [[region]] without flags is RAM"));
        }
        Ok(())
    }

    /// Returns the image, if the layout has one.
    pub fn image(&self) -> Option<WantedImage> {
        self.image.as_ref().map(|image| WantedImage {
            start: image.start.map(|Number(start)| Pa(start)),
            read_only: image.read_only.0,
            data: image.data.0,
        })
    }
}

fn add<const N: usize>(memory: &mut Memblock<N>, region: &Region) -> Result<(), Failure> {
    let Region { start: Number(start), size: Number(size), ref flags } = *region;
    let range = PaRange::from_len(Pa(start), size).filter(|range| !range.is_empty());
    let none = || Failure::new(format_args!("{size:#x} bytes at {start:#x} are no range of addresses"));
    let range = range.ok_or_else(none)?;
    let other = memory.regions().map(|region| region.range).find(|other| other.overlaps(range));
    match flags[..] {
        [] => match other {
            Some(other) => Err(Failure::new(format_args!("{range} overlaps {other}"))),
            None => Ok(memory.add(range)?),
        },
        [Flag::NoMap] => Ok(memory.mark_no_map(range)?),
        [Flag::Reserved] => Ok(memory.reserve(range)?),
        _ => Err(Failure::new("a region has one flag at most")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(text: &str) -> Result<Box<Memblock<16>>, String> {
        let mut memory = Box::new(Memblock::new());
        let layout = LayoutFile::parse(text).map_err(|error| error.to_string())?;
        layout.fill(&mut memory).map_err(|error| error.to_string())?;
        Ok(memory)
    }

    #[test]
    fn the_example_of_this_file_is_a_layout() {
        let lines = include_str!("layout_file.rs").lines();
        let example = lines.skip_while(|line| !line.ends_with("```toml")).skip(1);
        let example: String = example
            .take_while(|line| !line.ends_with("```"))
            .map(|line| format!("{}\n", line.trim_start_matches("//!")))
            .collect();
        let memory = memory(&example).expect("a layout");
        assert_eq!(memory.memory_len(), 4 << 30);
        let mapped: u64 = memory.mappable(0x1000).map(|range| range.len()).sum();
        assert_eq!(mapped, (4 << 30) - (16 << 20));
        let layout = LayoutFile::parse(&example).expect("a layout");
        let image = layout.image().expect("an image");
        assert_eq!((image.start, image.read_only), (Some(Pa(0x8020_0000)), 24 << 20));
        assert_eq!(layout.options.va_bits, Some(48));
    }

    #[test]
    fn what_is_wrong_in_a_layout_is_named_with_its_place() {
        let ram = |more: &str| format!("[[region]]\nstart = 0x4000_0000\nsize = \"2G\"\n{more}");
        for (text, part) in [
            ("[[region]]\nstart = 0\n".into(), "line 1: missing field `size`"),
            ("[[region]]\nstart = 0\nsize = \"4Q\"\n".into(), "line 3: \"4Q\" is not a number"),
            ("[[region]]\nstart = -1\nsize = 1\n".into(), "line 2: -1 is below 0"),
            ("[[region]]\nstart = 0.5\nsize = 1\n".into(), "line 2: expected a number or a text"),
            (ram("sise = 2\n"), "line 4: unknown field `sise`"),
            ("hello world\n".into(), "line 1: "),
            (String::new(), "missing field `region`"),
            ("[[region]]\nstart = 0\nsize = 0\n".into(), "region 1: 0x0 bytes at 0x0 are no range"),
            ("[[region]]\nstart = 0\nsize = \"8388608G\"\n".into(), "region 1: "),
            (ram("flags = [\"nomap\"]\n"), "line 4: unknown variant `nomap`"),
            (ram("flags = [\"reserved\"]\n"), "no region is RAM"),
            (ram("flags = [\"reserved\", \"no-map\"]\n"), "region 1: a region has one flag at most"),
            (ram("[options]\nbuild = \"best\"\n"), "line 5: best is no builder"),
            (ram(&ram("")), "region 2: 0x40000000..0xc0000000 overlaps 0x40000000..0xc0000000"),
        ] {
            let error = memory(&text).expect_err(&text);
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
