//! Device trees of QEMU's machines, rewritten for the next kernel with all that can be asked for,
//! whole and harmed.

use linmap_fdt::parse_dtb;
use linmap_kexec::{CrashMemory, NextTree, PreservedRange, Seeds, SpinTable};
use linmap_memblock::{FdtWarnings, Memblock};
use linmap_platform::gic::Version;
use linmap_platform::{Affinity, Conduit, Devices, Psci, PsciFunctions, Topology};
use linmap_tests::virt_tree;
use linmap_vmsa::{Pa, PaRange};

const fn range(start: u64, len: u64) -> PaRange {
    PaRange::new(Pa(start), Pa(start + len))
}

const USABLE: [PaRange; 2] = [range(0x5000_0000, 0x1000_0000), range(0x4800_0000, 0x10_0000)];
const NEXT: NextTree<'static> = NextTree {
    bootargs: "console=ttyAMA0 quiet",
    initrd: Some(range(0x5100_0000, 0x1234)),
    seeds: Seeds::New { kaslr: 1, rng: [2; 32] },
    crash: Some(CrashMemory { usable: &USABLE, elf_core_header: range(0x4800_0000, 0x158) }),
    spin_table: Some(SpinTable { pen: range(0x4900_0000, 0x1000), release: Pa(0x4900_0ff8), cpus: &[] }),
    vacated: &[range(0x4800_0000, 0x10_0000)],
    preserved: &[PreservedRange { label: "log", range: range(0x4a00_0000, 0x2000) }],
};

/// Rewrites `blob` if it is accepted, checks the result, and returns whether it was accepted.
fn is_rewritten(blob: &[u8]) -> bool {
    let Ok(len) = NEXT.measure(blob) else { return false };
    let mut output = vec![0xaa; len];
    assert_eq!(NEXT.rewrite(blob, &mut output), Ok(len));
    parse_dtb(&output).expect("what is written can be read");
    // Once more says the same.
    let mut again = vec![0xaa; len];
    assert_eq!(NEXT.rewrite(&output, &mut again), Ok(len));
    assert_eq!(again, output);
    true
}

#[test]
fn trees_of_real_machines_name_their_cpus_gic_psci_and_memory() {
    for (machine, options, cpus, version, conduit) in [
        ("", "-cpu max -m 1G", 1, Version::V2, Conduit::Hvc),
        ("gic-version=3,", "-cpu max -m 1G -smp 300", 300, Version::V3, Conduit::Hvc),
        ("virtualization=on,", "-cpu cortex-a72 -m 1G -smp 2,clusters=2", 2, Version::V2, Conduit::Smc),
    ] {
        let blob = virt_tree(machine, options);
        let fdt = parse_dtb(&blob).expect("a tree");
        let devices = Devices::find(fdt);
        assert_eq!(devices.psci, Some(Psci { conduit, functions: PsciFunctions::Standard }));
        assert_eq!(devices.gic.map(|(version, _)| version), Some(version));
        let topology = Topology::<256>::from_fdt(fdt, Affinity::of_mpidr(0));
        let left_out = topology.left_out.map_or(0, |left_out| left_out.count);
        assert_eq!((topology.cpus.len() + left_out, topology.unusable_count), (cpus, 0));
        let mut memory = Memblock::<16>::new();
        assert_eq!(memory.fill_from_fdt(fdt), Ok(FdtWarnings::default()));
        assert!(memory.mappable(0x1000).eq([range(0x4000_0000, 1 << 30)]));
    }
}

#[test]
fn trees_of_real_machines_are_rewritten_and_harmed_ones_rewritten_or_refused() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) as usize % below
    };
    for (machine, options) in [
        ("", "-cpu max -m 1G"),
        ("gic-version=3,", "-cpu max -m 4G -smp 4"),
        ("virtualization=on,", "-cpu cortex-a72 -m 2G -smp 2,clusters=2"),
    ] {
        let blob = virt_tree(machine, options);
        assert!(is_rewritten(&blob));
        let mut accepted = 0;
        for _ in 0..10_000 {
            let mut harmed = blob.clone();
            for _ in 0..=random(4) {
                let at = random(harmed.len());
                harmed[at] ^= [1 << random(8), 0xff, random(256) as u8][random(3)];
            }
            if random(16) == 0 {
                harmed.truncate(random(harmed.len()));
            }
            accepted += usize::from(is_rewritten(&harmed));
        }
        // Most damage hits values that do not matter for the result.
        assert!((1_000..9_700).contains(&accepted), "{accepted}");
    }
}
