//! What a boot loader writes into a tree that says nothing of memory, or that it is empty: the
//! banks of a board with 3 to 8 GiB.

use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node, Property};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Start and length of two banks.
pub type Banks = [(u64, u64); 2];

/// By the start of a tree's name: the banks of boards of this kind. The first that fits counts.
pub const BANKS: [(&str, Banks); 22] = [
    ("allwinner/", [(GIB, 3 * GIB), (4 * GIB, GIB)]),
    ("amd/", [(0x80_0000_0000, 8 * GIB), (0x83_0000_0000, 8 * GIB)]),
    // The GPU has the end of the first gigabyte.
    ("broadcom/bcm2711", [(0, 948 * MIB), (GIB, 3008 * MIB)]),
    ("exynos/google/", [(2 * GIB, 2 * GIB), (34 * GIB, 6 * GIB)]),
    // Secure firmware has the end of the first bank.
    ("freescale/fsl-ls", [(2 * GIB, 1982 * MIB), (34 * GIB, 2 * GIB)]),
    ("freescale/imx8q", [(2050 * MIB, 2046 * MIB), (34 * GIB, 2 * GIB)]),
    ("freescale/imx8dx", [(2050 * MIB, 1022 * MIB), (34 * GIB, GIB)]),
    ("freescale/imx8m", [(GIB, 3 * GIB - 32 * MIB), (4 * GIB, 3 * GIB)]),
    ("freescale/imx9", [(2 * GIB, 2 * GIB), (4 * GIB, 2 * GIB)]),
    ("hisilicon/", [(0, 3584 * MIB), (4 * GIB, 2 * GIB + 512 * MIB)]),
    ("marvell/", [(0, 3 * GIB), (4 * GIB, 5 * GIB)]),
    ("mediatek/", [(GIB, 3 * GIB), (4 * GIB, GIB)]),
    ("qcom/apq8094", [(0, 2 * GIB), (2 * GIB, GIB)]),
    ("qcom/msm8992", [(0, 2 * GIB), (2 * GIB, GIB)]),
    ("qcom/msm8994", [(0, 2 * GIB), (2 * GIB, GIB)]),
    ("qcom/ipq", [(GIB, GIB), (2 * GIB, GIB)]),
    ("qcom/sm6125", [(GIB, 1515 * MIB), (3 * GIB, GIB)]),
    ("qcom/", [(2 * GIB, 1976 * MIB), (34 * GIB, 6 * GIB)]),
    ("renesas/", [(3 * GIB, GIB), (9 * GIB, 7 * GIB)]),
    // Trusted firmware has the first 2 MiB.
    ("rockchip/rk3588", [(2 * MIB, 3838 * MIB), (4 * GIB, 4 * GIB)]),
    ("rockchip/", [(2 * MIB, 2046 * MIB), (2 * GIB, 1920 * MIB)]),
    ("", [(2 * GIB, GIB), (4 * GIB, GIB)]),
];

/// The banks of the tree named `name`.
pub fn banks_of(name: &str) -> (&'static str, Banks) {
    *BANKS.iter().find(|(start, _)| name.starts_with(start)).expect("the last fits all")
}

/// The tree with these banks in its memory node, which is made if there is none. A bank that the
/// root's cells can't say is left out.
pub fn filled(blob: &[u8], banks: Banks) -> Vec<u8> {
    let mut tree = DeviceTree::from_fdt(&Fdt::new_unchecked(blob));
    let cells = |name, unset| {
        let value = tree.root.property(name).map(|cells| cells.value().to_vec());
        value.map_or(unset, |value| u32::from_be_bytes(value.try_into().expect("one cell")))
    };
    let widths = [cells("#address-cells", 2), cells("#size-cells", 1)];
    let mut reg = Vec::new();
    for (start, len) in banks {
        let numbers = [start, len].into_iter().zip(widths);
        if numbers.clone().all(|(number, cells)| cells == 2 || number >> 32 == 0) {
            reg.extend(
                numbers.flat_map(|(number, cells)| number.to_be_bytes()[8 - 4 * cells as usize..].to_vec()),
            );
        }
    }
    let is_memory = |node: &&mut DeviceTreeNode| {
        node.property("device_type").is_some_and(|kind| kind.value() == b"memory\0")
    };
    let reg = DeviceTreeProperty::new_unchecked("reg", reg);
    if let Some(node) = tree.root.children_mut().find(is_memory) {
        node.add_property(reg);
    } else {
        let mut node = DeviceTreeNode::new_unchecked(format!("memory@{:x}", banks[0].0));
        node.add_property(DeviceTreeProperty::new_unchecked("device_type", "memory"));
        node.add_property(reg);
        tree.root.add_child(node);
    }
    tree.to_dtb()
}
