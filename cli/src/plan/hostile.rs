//! Inputs that nobody should write: any bytes, good files cut short and harmed, and any options.
//! Each is planned or refused, and never a panic.

use std::time::{Duration, Instant};

use linmap_vmsa::{Pa, PaRange};
use proptest::prelude::*;
use vm_fdt::{FdtReserveEntry, FdtWriter};

use crate::plan::image::ImageOption;
use crate::plan::input::Input;
use crate::plan::machine::Given;
use crate::plan::plan_of;
use crate::plan::settings::{BuildChoice, GranuleName, LeafName, MapOptions};

/// A tree with memory, reservations, an initrd and a node whose place the kernel chooses.
fn tree() -> Vec<u8> {
    let write = || -> Result<Vec<u8>, vm_fdt::Error> {
        let entries = [FdtReserveEntry::new(0x4000_0000, 0x1000)?];
        let mut fdt = FdtWriter::new_with_mem_reserv(&entries)?;
        let root = fdt.begin_node("")?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        fdt.property_string("model", "a board")?;
        let node = fdt.begin_node("memory@40000000")?;
        fdt.property_string("device_type", "memory")?;
        fdt.property_array_u64("reg", &[0x4000_0000, 0x8000_0000, 0x8_8000_0000, 0x1_8000_0000])?;
        fdt.end_node(node)?;
        let reserved = fdt.begin_node("reserved-memory")?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        let node = fdt.begin_node("firmware@7c000000")?;
        fdt.property_array_u64("reg", &[0x7c00_0000, 0x20_0000])?;
        fdt.property_null("no-map")?;
        fdt.end_node(node)?;
        let node = fdt.begin_node("pool")?;
        fdt.property_u64("size", 0x40_0000)?;
        fdt.property_u64("alignment", 0x40_0000)?;
        fdt.property_null("no-map")?;
        fdt.end_node(node)?;
        fdt.end_node(reserved)?;
        let chosen = fdt.begin_node("chosen")?;
        fdt.property_u64("linux,initrd-start", 0x4800_0000)?;
        fdt.property_u64("linux,initrd-end", 0x4900_0000)?;
        fdt.end_node(chosen)?;
        fdt.end_node(root)?;
        fdt.finish()
    };
    write().expect("a tree")
}

fn uefi_map() -> Vec<u8> {
    let descriptors: [[u64; 6]; 4] = [
        [7, 0x4000_0000, 0, 0x4_0000, 0xf, 0],
        [4, 0x8000_0000, 0, 0x100, 0xf, 0],
        [6, 0x8010_0000, 0, 0x10, 0x8000_0000_0000_000f, 0],
        [11, 0x900_0000, 0, 1, 0x8000_0000_0000_0001, 0],
    ];
    descriptors.iter().flatten().flat_map(|word| word.to_le_bytes()).collect()
}

const IOMEM: &str = "\
40000000-bfffffff : System RAM
  40210000-4161ffff : Kernel code
  41620000-41f5ffff : reserved
  41f60000-4237ffff : Kernel data
c0000000-c00fffff : reserved
";

const UEFI_TEXT: &str = "\
Type       Start            End              # Pages          Attributes
Available  0000000040000000-000000007FFFFFFF 0000000000040000 000000000000000F
[    0.000000] efi:   0x000080000000-0x0000800fffff [Boot Data|   |  |WB|WT|WC|UC]*
CONVENTIONAL     0000000090000000-00000000a0000000 WB
";

const LAYOUT: &str = "\
[[region]]
start = 0x8000_0000
size = \"4G\"
[[region]]
start = 0xfe00_0000
size = \"16M\"
flags = [\"no-map\"]
[image]
read-only = \"24M\"
data = \"16M\"
[options]
granule = \"16k\"
";

fn good_files() -> Vec<Vec<u8>> {
    vec![tree(), uefi_map(), IOMEM.into(), UEFI_TEXT.into(), LAYOUT.into()]
}

fn options() -> impl Strategy<Value = Given> {
    let granules = [None, Some(GranuleName::K4), Some(GranuleName::K16), Some(GranuleName::K64)];
    let leaves = [None, Some(LeafName::Auto), Some(LeafName::Block), Some(LeafName::Page)];
    let bits = || prop_oneof![3 => Just(None), 2 => (25u8..=53).prop_map(Some), 1 => any::<Option<u8>>()];
    let image = prop_oneof![
        Just(None),
        Just("none".parse::<ImageOption>().ok()),
        (any::<u64>(), any::<u64>(), any::<Option<u64>>(), 0u32..64).prop_map(
            |(text, data, start, shift)| {
                let (text, data) = (text >> shift, data >> shift);
                let start = start.map_or(String::new(), |start| format!("@{}", (start >> shift) & !0xffff));
                format!("{text}+{data}{start}").parse().ok()
            }
        )
    ];
    let banks = prop::collection::vec((any::<u64>(), any::<u64>(), 0u32..64), 0..3).prop_map(|banks| {
        let bank = |(start, len, shift)| PaRange::from_len(Pa(start >> shift), len >> shift);
        banks.into_iter().filter_map(bank).collect()
    });
    let granule = prop::sample::select(granules.to_vec());
    let leaf = prop::sample::select(leaves.to_vec());
    let build = prop::sample::select(vec![None, Some(BuildChoice::All), "identity".parse().ok()]);
    (granule, bits(), bits(), leaf, build, image, banks).prop_map(
        |(granule, va_bits, pa_bits, leaf, build, image, banks)| Given {
            options: MapOptions { granule, va_bits, pa_bits, leaf, build },
            image,
            banks,
        },
    )
}

/// Plans `bytes`. Returns whether that was possible.
fn is_planned(bytes: Vec<u8>, given: &Given) -> bool {
    let began = Instant::now();
    let planned = Input::new("input".into(), bytes).and_then(|input| plan_of(input, given));
    assert!(began.elapsed() < Duration::from_secs(5), "a plan takes milliseconds");
    match planned {
        Ok((_, machine, plan)) => {
            // Nothing is mapped that is not memory.
            assert!(plan.map.built().bytes <= machine.memory.memory_len());
            true
        }
        Err(failure) => {
            assert!(!failure.to_string().contains('\n'));
            false
        }
    }
}

fn usual() -> Given {
    Given { options: MapOptions::default(), image: None, banks: Vec::new() }
}

#[test]
fn good_files_are_planned() {
    assert!(good_files().into_iter().all(|file| is_planned(file, &usual())));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_are_planned_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        is_planned(bytes, &usual());
    }

    #[test]
    fn a_good_file_cut_short_and_harmed_is_planned_or_refused(
        nth in 0usize..5,
        given in options(),
        harm in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop_oneof![3 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)],
    ) {
        let mut file = good_files().swap_remove(nth);
        let len = file.len();
        for (at, value) in harm {
            if let Some(byte) = file.get_mut(at.index(len)) {
                *byte = value;
            }
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(len));
        }
        is_planned(file, &given);
    }

    #[test]
    fn any_numbers_in_a_text_are_planned_or_refused(
        ranges in prop::collection::vec((any::<u64>(), any::<u64>(), 0u32..64), 0..8),
        kind in 0u8..3,
        given in options(),
    ) {
        let text: String = ranges.into_iter().map(|(start, end, shift)| {
            let (start, end) = (start >> shift, end >> shift);
            match kind {
                0 => format!("{start:x}-{end:x} : System RAM\n"),
                1 => format!("[[region]]\nstart = {start}\nsize = \"{end:#x}\"\n"),
                _ => format!("CONVENTIONAL {:016x}-{:016x} WB\n", start & !0xfff, end & !0xfff),
            }
        }).collect();
        is_planned(text.into(), &given);
    }
}
