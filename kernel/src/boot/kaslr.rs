//! Where the image is mapped: `entry.S` asks for it once Rust can run where the image is linked,
//! and relocates the image to there.
//!
//! What runs here stores no address that is used later, since addresses of the image change.

use linmap::{ImageRegion, KaslrSeed};
use linmap_fdt::{DeviceTree, first_string};
use linmap_platform::CommandLine;
use linmap_vmsa::{Level, Pa};
use thiserror::Error;

use crate::arch::cpu;
use crate::arch::geometry::{self, geometry};
use crate::arch::image::Image;
use crate::arch::layout::{IMAGE_END, WIDEST};
use crate::boot::command_line::{KASLR, built_in};
use crate::boot::dtb;

/// The place, as `entry.S` takes it: two registers.
#[derive(Debug)]
#[repr(C)]
pub struct Place {
    /// The virtual address of the image.
    image: u64,
    /// The seed, or 0.
    seed: u64,
}

/// Called by `entry.S`, with the physical addresses of DTB and image, in the map of the image where
/// it is linked. Errors are reported by [`kernel_main`](super::kernel_main), which reads the tree
/// again.
#[unsafe(no_mangle)]
extern "C" fn choose_place(dtb: u64, image: u64) -> Place {
    let seed = seed(Pa(dtb));
    let image = Image::at(Pa(image));
    let offset = seed.map_or(0, |seed| region(image).offset(seed));
    Place { image: image.va().0 + offset, seed: seed.map_or(0, KaslrSeed::bits) }
}

/// Where the image may be, which is mapped where it is linked: at multiples of 2 MiB, as in memory
/// (booting.rst), and in one table at level 2.
fn region(image: Image) -> ImageRegion {
    let linked = image.va();
    ImageRegion {
        start: linked,
        len: IMAGE_END.0 - linked.0,
        image_len: image.range().len(),
        align: 2 << 20,
        within: WIDEST.entry_bytes(Level::L1),
    }
}

/// The seed of the device tree, which is overwritten there, since whoever knows it knows where
/// everything is; or a random number of the CPU's. `None` if addresses are not to be random, or
/// nothing random is there.
fn seed(dtb: Pa) -> Option<KaslrSeed> {
    // SAFETY: the boot CPU is alone, and this is the first that runs; `entry.S` asks once.
    let blob = unsafe {
        geometry::note(cpu::tcr());
        dtb::map_writable(dtb, geometry().pa_bits()).ok()
    };
    let (line, range) = match blob.as_deref().and_then(|blob| Some((blob, DeviceTree::parse(blob).ok()?))) {
        Some((blob, tree)) => {
            let [line, seed] = tree.peek("chosen", ["bootargs", "kaslr-seed"]);
            let start = |seed: &[u8]| seed.as_ptr().addr() - blob.as_ptr().addr();
            let range = seed.filter(|seed| seed.len() == 8).map(|seed| start(seed)..start(seed) + 8);
            (CommandLine::from_bytes(first_string(line.unwrap_or_default())), range)
        }
        None => (CommandLine::default(), None),
    };
    if is_off(line) || is_off(built_in()) {
        return None;
    }
    let of_tree = range.zip(blob).and_then(|(range, blob)| {
        let place = blob.get_mut(range)?.first_chunk_mut::<8>()?;
        KaslrSeed::new(u64::from_be_bytes(core::mem::take(place)))
    });
    of_tree.or_else(|| KaslrSeed::new(cpu::random()?))
}

/// `linmap.kaslr=` has an unknown value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("linmap.kaslr= is on or off")]
pub struct UnknownKaslr;

/// Checks the word. The image has its place by now.
///
/// # Errors
/// [`UnknownKaslr`].
pub fn check(line: CommandLine<'_>) -> Result<(), UnknownKaslr> {
    match line.get(KASLR) {
        None | Some("on" | "off") => Ok(()),
        Some(_) => Err(UnknownKaslr),
    }
}

/// Whether the command line says that no address is random: to Linux as well, or to linmap alone.
pub fn is_off(line: CommandLine<'_>) -> bool {
    line.get("nokaslr").is_some() || line.get(KASLR) == Some("off")
}
