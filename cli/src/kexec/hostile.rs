//! Kernels and device trees that nobody should make: each is planned or refused, and never a panic.

use std::io::Write;
use std::num::NonZeroUsize;

use flate2::Compression;
use flate2::write::GzEncoder;
use linmap_vmsa::{Pa, PaRange};
use proptest::prelude::*;
use vm_fdt::FdtWriter;

use crate::kexec::payload::Kernel;
use crate::kexec::staging::{KexecPlan, Load, Payload, Staging};
use crate::kexec::tree::Tree;
use crate::plan::input::Input;
use crate::plan::machine::{Given, Machine};
use crate::plan::settings::MapOptions;

/// An image of some pages, every third of them zero.
fn image() -> Vec<u8> {
    let mut file = vec![0; 20 * 0x1000 + 123];
    for page in file.chunks_mut(0x1000).step_by(3) {
        page.fill(0x5a);
    }
    file[..64].fill(0);
    file[16..24].copy_from_slice(&(32u64 << 12).to_le_bytes());
    file[24..32].copy_from_slice(&0b1010u64.to_le_bytes());
    file[56..60].copy_from_slice(b"ARM\x64");
    file
}

fn packed() -> Vec<Vec<u8>> {
    let raw = image();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&raw).expect("memory");
    let gzip = gzip.finish().expect("memory");
    let zstd = zstd::encode_all(&raw[..], 1).expect("memory");
    vec![raw, gzip, zstd]
}

fn tree() -> Vec<u8> {
    let write = || -> Result<Vec<u8>, vm_fdt::Error> {
        let mut fdt = FdtWriter::new()?;
        let root = fdt.begin_node("")?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        let node = fdt.begin_node("memory@40000000")?;
        fdt.property_string("device_type", "memory")?;
        fdt.property_array_u64("reg", &[0x4000_0000, 0x800_0000])?;
        fdt.end_node(node)?;
        let chosen = fdt.begin_node("chosen")?;
        fdt.property_string("bootargs", "quiet")?;
        fdt.property_u64("linux,initrd-start", 0x4600_0000)?;
        fdt.property_u64("linux,initrd-end", 0x4601_0000)?;
        fdt.end_node(chosen)?;
        fdt.end_node(root)?;
        fdt.finish()
    };
    write().expect("a tree")
}

/// Plans a kexec. Returns whether that was possible.
fn is_planned(file: &[u8], blob: Vec<u8>, initrd: Option<&[u8]>, staging: Staging, cpus: usize) -> bool {
    let given = Given { options: MapOptions::default(), image: None, banks: Vec::new() };
    let planned = || {
        let input = Input::new("tree".into(), blob)?;
        let mut machine = Machine::read(&input, &given)?;
        let ram: Vec<PaRange> = machine.memory.regions().map(|region| region.range).collect();
        let kernel = Kernel::unpack(file)?;
        let tree = Tree::new(Some(&input.bytes), None)?;
        let payload = Payload { kernel: &kernel, initrd, tree: &tree };
        let cpus = NonZeroUsize::new(cpus).unwrap_or(NonZeroUsize::MIN);
        let plan = KexecPlan::new(&mut machine, &payload, Load { staging, cpus })?;
        for segment in &plan.segments {
            let is_ram = ram.iter().any(|ram| ram.covers(segment.destination));
            assert!(is_ram && segment.destination.start.0.is_multiple_of(0x1000), "{segment:?}");
        }
        let total: u64 = plan.segments.iter().map(|segment| segment.destination.len()).sum();
        let moves = &plan.moves;
        assert_eq!(moves.moved + moves.cleared + moves.in_place, total);
        let list = plan.linux_list(&mut machine.memory)?;
        assert!(!list.entries.is_empty() && list.zeros != Pa(0));
        Ok(())
    };
    match planned() {
        Ok(()) => true,
        Err(failure) => {
            let failure: crate::failure::Failure = failure;
            assert!(!failure.to_string().contains('\n'));
            false
        }
    }
}

#[test]
fn kernels_in_each_packing_are_planned_in_place_and_scattered() {
    for file in packed() {
        for (staging, cpus) in
            [(Staging::InPlace, 1), (Staging::Scattered, 1), (Staging::Scattered, usize::MAX)]
        {
            assert!(is_planned(&file, tree(), Some(&[1; 5000]), staging, cpus));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_kernel_or_a_tree_that_is_harmed_is_planned_or_refused(
        nth in 0usize..3,
        harm in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        tree_harm in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in prop_oneof![4 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)],
        initrd in prop::option::of(prop::collection::vec(any::<u8>(), 0..9000)),
        is_scattered in any::<bool>(),
        cpus in 0usize..9,
    ) {
        let mut file = packed().swap_remove(nth);
        let mut blob = tree();
        // Most harm to a header, of which little is not read.
        for (at, value) in harm {
            let len = if value & 1 == 0 { 64 } else { file.len() };
            file[at.index(len)] ^= value;
        }
        for (at, value) in tree_harm {
            let len = blob.len();
            blob[at.index(len)] ^= value;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        let staging = if is_scattered { Staging::Scattered } else { Staging::InPlace };
        is_planned(&file, blob, initrd.as_deref(), staging, cpus);
    }
}
