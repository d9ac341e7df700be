//! Device trees to read: made by hand, and by chance.

use linmap_fdt::{DeviceTree, Token};
use linmap_platform::gic::FRAME;
use linmap_vmsa::PaRange;
use proptest::prelude::*;
use proptest::sample::select;
use vm_fdt::{FdtReserveEntry, FdtWriter};

/// Where the RAM of QEMU's `virt` begins.
pub const RAM: u64 = 0x4000_0000;

/// What a node has.
pub type Properties<'a> = &'a [(&'a str, &'a [u32])];

/// Writes a node with cells for values, and what else `inside` writes.
pub fn node(
    fdt: &mut FdtWriter,
    name: &str,
    properties: Properties<'_>,
    inside: impl FnOnce(&mut FdtWriter),
) {
    let open = fdt.begin_node(name).expect("a node");
    for (name, cells) in properties {
        fdt.property_array_u32(name, cells).expect("a property");
    }
    inside(fdt);
    fdt.end_node(open).expect("its end");
}

pub fn tree(properties: Properties<'_>, inside: impl FnOnce(&mut FdtWriter)) -> Vec<u8> {
    let firmware = [FdtReserveEntry::new(RAM, 0x1000).expect("an entry")];
    let mut fdt = FdtWriter::new_with_mem_reserv(&firmware).expect("a writer");
    node(&mut fdt, "", properties, inside);
    fdt.finish().expect("a tree")
}

pub const CELLS_2_2: Properties<'static> = &[("#address-cells", &[2]), ("#size-cells", &[2])];

pub fn strings(fdt: &mut FdtWriter, properties: &[(&str, &str)]) {
    for (name, value) in properties {
        fdt.property(name, format!("{value}\0").as_bytes()).expect("a property");
    }
}

pub fn memory(fdt: &mut FdtWriter) {
    let reg = [0, RAM as u32, 0, 0x4000_0000];
    node(fdt, "memory@40000000", &[("reg", &reg)], |fdt| strings(fdt, &[("device_type", "memory")]));
}

/// A machine whose devices lie on a bus, as those of a Raspberry Pi 4 do, and whose CPUs watch
/// words.
pub fn on_a_bus() -> Vec<u8> {
    tree(CELLS_2_2, |fdt| {
        memory(fdt);
        node(fdt, "cpus", &[("#address-cells", &[1]), ("#size-cells", &[0])], |fdt| {
            for number in 0..4 {
                let properties: Properties<'_> =
                    &[("reg", &[number]), ("cpu-release-addr", &[0, RAM as u32 + 0xd8 + 8 * number])];
                let method = [("enable-method", "spin-table"), ("status", "okay")];
                node(fdt, &format!("cpu@{number}"), properties, |fdt| strings(fdt, &method));
            }
        });
        let windows = [0x7e00_0000, 0, 0xfe00_0000, 0x0180_0000, 0x4000_0000, 0, 0xff80_0000, 0x0080_0000];
        let bus: Properties<'_> = &[("#address-cells", &[1]), ("#size-cells", &[1]), ("ranges", &windows)];
        node(fdt, "soc", bus, |fdt| {
            let uart: Properties<'_> = &[("reg", &[0x7e20_1000, 0x200])];
            node(fdt, "serial@7e201000", uart, |fdt| strings(fdt, &[("compatible", "arm,pl011")]));
            let reg: Properties<'_> = &[("reg", &[0x4004_1000, 0x1000, 0x4004_2000, 0x2000])];
            node(fdt, "gic@40041000", reg, |fdt| strings(fdt, &[("compatible", "arm,gic-400")]));
        });
        node(fdt, "aliases", &[], |fdt| strings(fdt, &[("serial0", "/soc/serial@7e201000")]));
        let initrd: Properties<'_> =
            &[("linux,initrd-start", &[0x4800_0000]), ("linux,initrd-end", &[0, 0x4900_0000])];
        node(fdt, "chosen", initrd, |fdt| {
            strings(fdt, &[("stdout-path", "serial0:115200n8"), ("bootargs", "linmap.crashkernel=64M")]);
        });
    })
}

/// A GICv3 with one region of redistributors at `region`, and a stride.
pub fn gic_v3(region: PaRange, stride: u64) -> Vec<u8> {
    let wide = |value: u64| [(value >> 32) as u32, value as u32];
    let reg = [wide(0x0800_0000), wide(FRAME), wide(region.start.0), wide(region.len())].concat();
    let properties: Properties<'_> = &[("reg", &reg), ("redistributor-stride", &wide(stride))];
    tree(CELLS_2_2, |fdt| {
        node(fdt, "gic", properties, |fdt| strings(fdt, &[("compatible", "arm,gic-v3")]));
    })
}

/// Numbers at which arithmetic may overflow.
pub fn cell() -> impl Strategy<Value = u32> {
    let edges = vec![0, 1, 2, 3, 8, 0xff, 0x1000, 0x1_0000, RAM as u32, 0x7fff_ffff, 0xffff_0000, u32::MAX];
    prop_oneof![4 => select(edges), 1 => any::<u32>()]
}

/// Addresses and lengths. Some of them fit together.
pub fn number_of_cells() -> impl Strategy<Value = u64> {
    let edges = vec![
        0,
        0x200,
        0x1000,
        FRAME,
        2 * FRAME,
        0x10_0000,
        0x0800_0000,
        0x080a_0000,
        RAM,
        RAM + 8,
        0xffff_0000,
        1 << 40,
        1 << 48,
        !(FRAME - 1),
        u64::MAX,
    ];
    prop_oneof![8 => select(edges), 1 => any::<u64>(), 1 => (0..64u64).prop_map(|nth| nth * FRAME)]
}

/// A value of one or two cells, or of anything.
pub fn cells() -> impl Strategy<Value = Vec<u32>> {
    prop_oneof![
        3 => number_of_cells().prop_map(|number| encoded(number, 2)),
        3 => number_of_cells().prop_map(|number| encoded(number, 1)),
        1 => prop::collection::vec(cell(), 0..4),
    ]
}

/// `number` in that many cells, as far as it fits.
fn encoded(number: u64, count: u32) -> Vec<u32> {
    (0..count.min(5)).rev().map(|nth| number.checked_shr(32 * nth).unwrap_or(0) as u32).collect()
}

/// A node that others are below: the numbers of cells for them, and its windows, if it has any.
#[derive(Clone, Debug)]
pub struct Bus {
    pub address: u32,
    pub size: u32,
    pub windows: Option<Vec<[u64; 3]>>,
}

impl Bus {
    pub const ROOT: Self = Self { address: 2, size: 2, windows: None };

    pub fn any() -> impl Strategy<Value = Self> {
        let count = || prop_oneof![20 => 1..=2u32, 1 => 0..=4u32, 1 => cell()];
        let window = [number_of_cells(), number_of_cells(), number_of_cells()];
        let windows = prop_oneof![
            3 => Just(vec![]),
            2 => Just(vec![[0, 0, u64::from(u32::MAX)]]),
            2 => prop::collection::vec(window, 1..4),
        ];
        (count(), count(), prop::option::weighted(0.9, windows)).prop_map(|(address, size, windows)| Self {
            address,
            size,
            windows,
        })
    }

    /// The `ranges` of this bus below `parent`.
    pub fn ranges(&self, parent: &Self) -> Option<Vec<u32>> {
        let cells = [self.address, parent.address, self.size];
        let window = |window: &[u64; 3]| -> Vec<u32> {
            window.iter().zip(cells).flat_map(|(number, cells)| encoded(*number, cells)).collect()
        };
        Some(self.windows.as_ref()?.iter().flat_map(window).collect())
    }

    /// A `reg` below this bus.
    pub fn reg(&self, entries: &[(u64, u64)]) -> Vec<u32> {
        let entry =
            |(address, size): &(u64, u64)| [encoded(*address, self.address), encoded(*size, self.size)];
        entries.iter().flat_map(entry).flatten().collect()
    }

    /// Writes what is below `buses` and then `devices`, each below the one before.
    pub fn nest(&self, fdt: &mut FdtWriter, buses: &[Self], devices: &dyn Fn(&mut FdtWriter, &Self)) {
        let Some((bus, rest)) = buses.split_first() else { return devices(fdt, self) };
        let (address, size, ranges) = ([bus.address], [bus.size], bus.ranges(self));
        let mut properties = vec![("#address-cells", &address[..]), ("#size-cells", &size)];
        properties.extend(ranges.as_ref().map(|ranges| ("ranges", &ranges[..])));
        node(fdt, "bus", &properties, |fdt| bus.nest(fdt, rest, devices));
    }
}

/// Where words of values are.
pub fn words_of_values(blob: &[u8]) -> Vec<usize> {
    let tokens = DeviceTree::parse(blob).expect("a tree").tokens();
    let words = tokens.flat_map(|piece| {
        let piece = piece.expect("a token");
        let is_property = matches!(piece.token, Token::Property { .. });
        let value = if is_property { piece.offset + 12..piece.offset + piece.bytes.len() } else { 0..0 };
        value.step_by(4)
    });
    words.collect()
}
