//! What boards of all kinds write into their trees, and what a kernel makes of it.

use linmap_fdt::parse_dtb;
use linmap_platform::gic::{V2, V3, Version};
use linmap_platform::{
    Affinity, Conduit, Devices, EnableMethod, Psci, PsciFunctions, Topology, Uart, UnusableCpu, chosen,
};
use linmap_vmsa::{Pa, PaRange};
use vm_fdt::FdtWriter;

type Property<'a> = (&'a str, &'a [u8]);

fn tree(fill: impl FnOnce(&mut FdtWriter)) -> Vec<u8> {
    let mut fdt = FdtWriter::new().unwrap();
    let root = fdt.begin_node("").unwrap();
    fdt.property_u32("#address-cells", 2).unwrap();
    fdt.property_u32("#size-cells", 2).unwrap();
    fill(&mut fdt);
    fdt.end_node(root).unwrap();
    fdt.finish().unwrap()
}

fn node(fdt: &mut FdtWriter, name: &str, properties: &[Property<'_>], inside: impl FnOnce(&mut FdtWriter)) {
    let node = fdt.begin_node(name).unwrap();
    for (name, value) in properties {
        fdt.property(name, value).unwrap();
    }
    inside(fdt);
    fdt.end_node(node).unwrap();
}

fn wide(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

fn bootargs(value: &[u8]) -> Vec<u8> {
    tree(|fdt| node(fdt, "chosen", &[("bootargs", value)], |_| ()))
}

#[test]
fn a_command_line_ends_at_its_first_nul_however_it_is_padded() {
    for padding in [&b""[..], b"\0", b"\0\0", b"\0ab", b"\0\xff\xfe", b"\0\0\0\0 linmap.leaf=block\0"] {
        let blob = bootargs(&[b"linmap.leaf=page", padding].concat());
        let line = chosen::command_line(parse_dtb(&blob).unwrap());
        assert_eq!((line.get("linmap.leaf"), line.unreadable_words()), (Some("page"), 0), "{padding:?}");
        assert_eq!(line.words().count(), 1);
    }
}

#[test]
fn words_that_are_not_utf_8_do_not_hide_the_others() {
    let blob = bootargs(b"root=LABEL=\xe4\xf6 linmap.leaf=page quiet\0");
    let line = chosen::command_line(parse_dtb(&blob).unwrap());
    assert!(line.words().map(|word| word.as_str()).eq(["linmap.leaf=page", "quiet"]));
    assert_eq!(line.unreadable_words(), 1);
}

#[test]
fn other_strings_end_at_their_first_nul_too() {
    let blob = tree(|fdt| {
        node(fdt, "chosen", &[("stdout-path", b"serial0:115200n8\0\0\0")], |_| ());
        node(fdt, "aliases", &[("serial0", b"/pl011@9000000\0\xff")], |_| ());
        let reg = wide(&[0x0900_0000, 0x1000]);
        let pl011: &[Property<'_>] = &[("compatible", b"arm,pl011\0arm,primecell\0\0\0"), ("reg", &reg)];
        node(fdt, "pl011@9000000", pl011, |_| ());
        node(fdt, "psci", &[("compatible", b"arm,psci-1.0\0\0"), ("method", b"smc\0\0\0\0")], |_| ());
    });
    let fdt = parse_dtb(&blob).unwrap();
    assert_eq!(Uart::from_stdout_path(fdt).map(|uart| uart.registers), Some(Pa(0x0900_0000)));
    assert_eq!(Devices::find(fdt).psci.map(|psci| psci.conduit), Some(Conduit::Smc));
}

fn psci_of(fill: impl FnOnce(&mut FdtWriter)) -> Option<Psci> {
    Devices::find(parse_dtb(&tree(fill)).unwrap()).psci
}

#[test]
fn psci_is_found_by_its_compatible_wherever_it_is() {
    let properties: &[Property<'_>] = &[("compatible", b"arm,psci-0.2\0"), ("method", b"hvc\0")];
    let found = Some(Psci { conduit: Conduit::Hvc, functions: PsciFunctions::Standard });
    assert_eq!(psci_of(|fdt| node(fdt, "psci", properties, |_| ())), found);
    assert_eq!(psci_of(|fdt| node(fdt, "firmware", &[], |fdt| node(fdt, "psci", properties, |_| ()))), found);
    let deep = |fdt: &mut FdtWriter| {
        node(fdt, "soc", &[], |fdt| {
            node(fdt, "memory", &[], |_| ());
            node(fdt, "a", &[], |fdt| node(fdt, "power-controller", properties, |_| ()));
        });
    };
    assert_eq!(psci_of(deep), found);
    // One that is not there, by its own status or that of a node above.
    let off: Property<'_> = ("status", b"disabled\0");
    let disabled = [properties, &[off]].concat();
    assert_eq!(psci_of(|fdt| node(fdt, "psci", &disabled, |_| ())), None);
    assert_eq!(
        psci_of(|fdt| node(fdt, "firmware", &[off], |fdt| node(fdt, "psci", properties, |_| ()))),
        None
    );
    let second = |fdt: &mut FdtWriter| {
        node(fdt, "psci", &disabled, |_| ());
        node(fdt, "firmware", &[], |fdt| node(fdt, "psci", properties, |_| ()));
    };
    assert_eq!(psci_of(second), found);
    assert_eq!(psci_of(|fdt| node(fdt, "psci", &[("method", b"hvc\0")], |_| ())), None);
}

#[test]
fn the_functions_of_psci_0_1_have_the_numbers_of_the_tree() {
    let number = 0x95c1_ba60u32.to_be_bytes();
    let old: &[Property<'_>] =
        &[("compatible", b"arm,psci\0"), ("method", b"smc\0"), ("cpu_on", &number), ("cpu_off", &[0; 3])];
    let psci = psci_of(|fdt| node(fdt, "psci", old, |_| ())).expect("PSCI");
    assert_eq!((psci.conduit, psci.is_standard()), (Conduit::Smc, false));
    assert_eq!((psci.cpu_on(), psci.cpu_off()), (Some(0x95c1_ba60), None));
    // A later version that says that it is compatible with the first is called as the later one.
    let both: Property<'_> = ("compatible", b"arm,psci-0.2\0arm,psci\0");
    let psci = psci_of(|fdt| node(fdt, "psci", &[&[both], &old[1..]].concat(), |_| ())).expect("PSCI");
    assert_eq!((psci.cpu_on(), psci.cpu_off()), (Some(Psci::CPU_ON), Some(Psci::CPU_OFF)));
}

fn gic(compatible: &[u8], reg: &[u64]) -> Vec<u8> {
    let reg = wide(reg);
    tree(|fdt| node(fdt, "intc", &[("compatible", compatible), ("reg", &reg)], |_| ()))
}

#[test]
fn every_gic_that_linux_drives_is_known() {
    for name in [
        "arm,gic-400",
        "arm,cortex-a15-gic",
        "arm,cortex-a9-gic",
        "arm,cortex-a7-gic",
        "arm,pl390",
        "arm,arm11mp-gic",
        "arm,arm1176jzf-devchip-gic",
        "qcom,msm-8660-qgic",
        "qcom,msm-qgic2",
        "vendor,special-gic\0arm,cortex-a15-gic",
    ] {
        let blob = gic(format!("{name}\0").as_bytes(), &[0xb00_0000, 0x1000, 0xb00_2000, 0x1000]);
        let (version, device) = Devices::find(parse_dtb(&blob).unwrap()).gic.expect(name);
        assert_eq!(version, Version::V2, "{name}");
        assert_eq!(V2::of(&device, 48).unwrap().cpu_interface, Pa(0xb00_2000));
    }
    let blob = gic(b"arm,gic-v3\0", &[0xb00_0000, 0x1_0000, 0xb10_0000, 0x20_0000]);
    assert_eq!(Devices::find(parse_dtb(&blob).unwrap()).gic.expect("a GIC").0, Version::V3);
    for unknown in [&b"arm,gic-v5\0"[..], b"nvidia,tegra210-agic\0", b"arm,gic-v3-its\0", b"arm,gic\0"] {
        let blob = gic(unknown, &[0xb00_0000, 0x1000, 0xb00_2000, 0x1000]);
        assert!(Devices::find(parse_dtb(&blob).unwrap()).gic.is_none());
    }
}

#[test]
fn sizes_of_registers_are_rounded_up_to_pages_and_starts_are_not_moved() {
    let v2 = |reg: &[u64]| {
        let blob = gic(b"arm,gic-400\0", reg);
        V2::of(&Devices::find(parse_dtb(&blob).unwrap()).gic.expect("a GIC").1, 32)
    };
    let found = V2 { distributor: Pa(0x8000_0000), cpu_interface: Pa(0x8001_0000) };
    assert_eq!(v2(&[0x8000_0000, 0x1000, 0x8001_0000, 0x100]), Ok(found));
    assert_eq!(v2(&[0x8000_0000, 1, 0x8001_0000, 0x2000]), Ok(found));
    for reg in [
        [0x8000_0000, 0x1000, 0x8001_0000, 0],
        [0x8000_0000, 0x1000, 0x8001_0100, 0x100],
        [0x8000_0800, 0x1000, 0x8001_0000, 0x1000],
        [0x8000_0000, 0x1000, 0x1_0000_0000, 0x100],
    ] {
        assert!(v2(&reg).is_err(), "{reg:x?}");
    }
    let blob = gic(b"arm,gic-v3\0", &[0x8000_0000, 0x1000, 0x8010_0000, 0x1_f000]);
    let (_, device) = Devices::find(parse_dtb(&blob).unwrap()).gic.expect("a GIC");
    let described = V3::of(&device, 32).expect("its frames");
    assert!(described.regions().eq([PaRange::new(Pa(0x8010_0000), Pa(0x8012_0000))]));
}

/// /cpus with the `status` and `enable-method` of each CPU, whose `reg` is its index.
fn cpus(common: &[Property<'_>], cpus: &[(Option<&str>, Option<&str>)]) -> Topology<16> {
    let cells: &[Property<'_>] = &[("#address-cells", &[0, 0, 0, 1]), ("#size-cells", &[0; 4])];
    let blob = tree(|fdt| {
        node(fdt, "cpus", &[cells, common].concat(), |fdt| {
            for (number, (status, method)) in cpus.iter().enumerate() {
                let reg = (number as u32).to_be_bytes();
                node(fdt, &format!("cpu@{number}"), &[("reg", &reg)], |fdt| {
                    for (name, value) in [("status", status), ("enable-method", method)] {
                        if let Some(value) = value {
                            fdt.property_string(name, value).unwrap();
                        }
                    }
                });
            }
        });
    });
    Topology::from_fdt(parse_dtb(&blob).unwrap(), Affinity::of_mpidr(0))
}

fn numbers(topology: &Topology<16>) -> Vec<u64> {
    topology.cpus.iter().map(|cpu| cpu.affinity.bits()).collect()
}

#[test]
fn a_disabled_cpu_is_quiescent_and_started_by_its_method() {
    let topology = cpus(
        &[],
        &[
            (Some("okay"), Some("psci")),
            (Some("disabled"), Some("psci")),
            (Some("disabled"), None),
            (Some("disabled"), Some("vendor,own")),
            (None, None),
        ],
    );
    assert_eq!(numbers(&topology), [0, 1, 4]);
    assert_eq!(topology.cpus[1].method, EnableMethod::Psci);
    assert_eq!(topology.unusable_count, 2);
    for (unusable, name) in topology.unusable.iter().zip(["cpu@2", "cpu@3"]) {
        assert!(matches!(unusable, UnusableCpu::NoMethod { node } if &**node == name), "{unusable}");
    }
}

#[test]
fn a_cpu_that_failed_is_never_started_and_named() {
    let statuses = ["fail", "fail-ecc", "reserved", "on"];
    let nodes = statuses.map(|status| (Some(status), Some("psci")));
    let topology = cpus(&[], &[&[(None, Some("psci"))], &nodes[..]].concat());
    assert_eq!(numbers(&topology), [0]);
    let said: Vec<_> = topology.unusable.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), statuses.len());
    for (said, status) in said.iter().zip(statuses) {
        assert!(said.contains(&format!("status {status:?}: it is never started")), "{said}");
    }
    // The CPU that runs this works, whatever the tree says.
    let topology = cpus(&[], &[(Some("fail"), Some("psci"))]);
    assert_eq!((numbers(&topology), topology.unusable_count), (vec![0], 0));
}

#[test]
fn what_all_cpus_have_in_common_may_stand_in_cpus() {
    let topology = cpus(
        &[("enable-method", b"psci\0")],
        &[(None, None), (Some("disabled"), None), (None, Some("other"))],
    );
    let methods: Vec<_> = topology.cpus.iter().map(|cpu| cpu.method).collect();
    assert_eq!(methods, [EnableMethod::Psci, EnableMethod::Psci, EnableMethod::Unknown]);
}

#[test]
fn cpus_for_which_there_is_no_room_are_told_in_one_line() {
    let topology = cpus(&[], &[(None, Some("psci")); 20]);
    assert_eq!((topology.cpus.len(), topology.unusable_count), (16, 0));
    let said = topology.left_out.expect("four CPUs").to_string();
    assert_eq!(
        said,
        "4 CPUs stay off, from node \"cpu@16\" of /cpus to node \"cpu@19\": the kernel supports 16 CPUs"
    );
}
