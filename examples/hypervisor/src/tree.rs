//! The guest's device tree: the machine's without the editor's CPU and this program's memory.

use linmap_fdt::{CellWidth, DeviceTree, RegFormat, Token, TreeWriter};

use crate::machine::{EDITOR, GUEST_RAM, IDLE};

/// Writes the guest's tree. Returns its length.
pub fn write(machine: &[u8], output: &mut [u8]) -> Result<usize, &'static str> {
    let tree = DeviceTree::parse(machine).map_err(|_| "the machine's device tree is broken")?;
    let names = ["reg", "ranges", "#address-cells", "#size-cells"];
    let mut writer = TreeWriter::new(&tree, names, |_, _| true, output);
    // As QEMU has it.
    let two_cells = RegFormat { address: CellWidth::Two, size: CellWidth::Two };
    // Whether the node at depth 2 is memory, and the depth of the node that is left out.
    let (mut is_memory, mut left_out) = (false, None);
    for piece in tree.tokens() {
        let piece = piece.map_err(|_| "the machine's device tree is broken")?;
        match (piece.token, piece.depth) {
            (Token::EndNode, depth) if left_out == Some(depth) => {
                left_out = None;
                continue;
            }
            _ if left_out.is_some() => continue,
            // The map names the CPU as well.
            (Token::BeginNode { name }, 3) if name == "cpu-map" || is_editor(name) => {
                left_out = Some(3);
                continue;
            }
            (Token::BeginNode { name }, 2) => is_memory = name.starts_with("memory@"),
            (Token::Property { name: "reg", .. }, 2) if is_memory => {
                let memory = [(GUEST_RAM.start.0, GUEST_RAM.len())];
                writer.property_reg("reg", memory.into_iter(), two_cells).map_err(|_| "reg")?;
                continue;
            }
            // Linux maps it and leaves it alone.
            (Token::EndNode, 1) => {
                let mut reserve = || {
                    writer.begin_node(format_args!("reserved-memory"));
                    writer.property("#address-cells", &2u32.to_be_bytes())?;
                    writer.property("#size-cells", &2u32.to_be_bytes())?;
                    writer.property("ranges", &[])?;
                    writer.begin_node(format_args!("idle@{:x}", IDLE.start.0));
                    writer.property_reg("reg", [(IDLE.start.0, IDLE.len())].into_iter(), two_cells)?;
                    writer.end_node();
                    writer.end_node();
                    Ok(())
                };
                reserve().map_err(|_: linmap_fdt::WriteError| "reserved-memory")?;
            }
            _ => {}
        }
        writer.copy(piece.bytes);
    }
    writer.finish().map_err(|_| "the guest's device tree is too large")
}

fn is_editor(node: &str) -> bool {
    node.strip_prefix("cpu@").is_some_and(|number| usize::from_str_radix(number, 16) == Ok(EDITOR))
}
