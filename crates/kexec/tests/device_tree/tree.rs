//! Device trees to edit, and what they say.

use linmap_fdt::{DeviceTree, Token, parse_dtb};
use vm_fdt::{FdtReserveEntry, FdtWriter};

/// A property with its name and value.
#[derive(Clone, Debug)]
pub struct Property {
    pub name: String,
    pub value: Vec<u8>,
    /// Its token with padding, as it stands in a tree; none when the test made it up.
    pub token: Option<Vec<u8>>,
}

impl Property {
    pub fn new(name: &str, value: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), value: value.into(), token: None }
    }

    pub fn string(name: &str, text: &str) -> Self {
        Self::new(name, format!("{text}\0"))
    }

    /// A value made of cells.
    pub fn cells(name: &str, cells: &[u32]) -> Self {
        Self::new(name, cells.iter().flat_map(|cell| cell.to_be_bytes()).collect::<Vec<_>>())
    }
}

/// Properties that both stand in a tree are equal to the last byte of their tokens.
impl PartialEq for Property {
    fn eq(&self, other: &Self) -> bool {
        let tokens = self.token.as_ref().zip(other.token.as_ref());
        self.name == other.name && self.value == other.value && tokens.is_none_or(|(a, b)| a == b)
    }
}

/// A node with all that is in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    pub name: String,
    pub properties: Vec<Property>,
    pub children: Vec<Node>,
}

impl Node {
    pub fn new(name: &str, properties: Vec<Property>) -> Self {
        Self { name: name.into(), properties, children: Vec::new() }
    }

    pub fn with(mut self, children: impl IntoIterator<Item = Node>) -> Self {
        self.children.extend(children);
        self
    }

    /// The child that readers find by `name`.
    pub fn child(&self, name: &str) -> Option<&Node> {
        self.children.iter().find(|child| is_named(child, name))
    }

    pub fn child_mut(&mut self, name: &str) -> Option<&mut Node> {
        self.children.iter_mut().find(|child| is_named(child, name))
    }

    pub fn value(&self, name: &str) -> Option<&[u8]> {
        let mut all = self.properties.iter().filter(|property| property.name == name);
        let first = all.next();
        assert!(all.next().is_none(), "{name} stands twice");
        first.map(|property| &property.value[..])
    }

    /// The tree as a blob, with one range in the memory reservation block.
    pub fn blob(&self) -> Vec<u8> {
        self.blob_reserving(&[(0x8000_0000, 0x1_0000)])
    }

    /// The tree as a blob, with these ranges in the memory reservation block.
    pub fn blob_reserving(&self, reservations: &[(u64, u64)]) -> Vec<u8> {
        fn write(node: &Node, fdt: &mut FdtWriter) {
            let open = fdt.begin_node(&node.name).unwrap();
            for Property { name, value, .. } in &node.properties {
                fdt.property(name, value).unwrap();
            }
            node.children.iter().for_each(|child| write(child, fdt));
            fdt.end_node(open).unwrap();
        }
        let entry = |&(start, len): &(u64, u64)| FdtReserveEntry::new(start, len).unwrap();
        let reservations: Vec<_> = reservations.iter().map(entry).collect();
        let mut fdt = FdtWriter::new_with_mem_reserv(&reservations).unwrap();
        write(self, &mut fdt);
        fdt.finish().unwrap()
    }

    /// What a blob says.
    pub fn read(blob: &[u8]) -> Self {
        // The test reads tokens; that the library by which kernels read is content too is checked
        // beside.
        parse_dtb(blob).unwrap();
        let mut open = vec![Self::default()];
        for piece in DeviceTree::parse(blob).unwrap().tokens() {
            let piece = piece.unwrap();
            match piece.token {
                Token::BeginNode { name } => open.push(Self::new(name, Vec::new())),
                Token::Property { name, value } => open.last_mut().unwrap().properties.push(Property {
                    name: name.into(),
                    value: value.into(),
                    token: Some(piece.bytes.into()),
                }),
                Token::EndNode => {
                    let node = open.pop().unwrap();
                    open.last_mut().unwrap().children.push(node);
                }
                Token::Nop | Token::End => {}
            }
        }
        open.remove(0).children.remove(0)
    }
}

fn is_named(node: &Node, name: &str) -> bool {
    node.name.split('@').next() == Some(name)
}

/// The cells of a range, two for each number.
pub fn wide(start: u64, len: u64) -> [u32; 4] {
    [(start >> 32) as u32, start as u32, (len >> 32) as u32, len as u32]
}

/// A root with `cells` address and size cells.
pub fn root(cells: u32) -> Node {
    let properties = vec![
        Property::string("compatible", "linux,dummy-virt"),
        Property::cells("#address-cells", &[cells]),
        Property::cells("#size-cells", &[cells]),
        Property::string("bootargs", "not this one"),
    ];
    Node::new("", properties)
}

/// Memory of 1 GiB at 2 GiB, in two cells each.
pub fn memory() -> Node {
    let properties = vec![
        Property::string("device_type", "memory"),
        Property::cells("reg", &wide(0x8000_0000, 0x4000_0000)),
        Property::string("bootargs", "nor this one"),
    ];
    Node::new("memory@80000000", properties).with([Node::new("chosen", vec![])])
}

/// `/reserved-memory` with `cells` address and size cells, and a child of the firmware.
pub fn reserved_memory(cells: u32) -> Node {
    let properties = vec![
        Property::cells("#address-cells", &[cells]),
        Property::cells("#size-cells", &[cells]),
        Property::new("ranges", []),
    ];
    let reg: &[u32] = if cells == 1 { &[0x8800_0000, 0x1000] } else { &wide(0x8800_0000, 0x1000) };
    let firmware = vec![Property::cells("reg", reg), Property::new("no-map", [])];
    Node::new("reserved-memory", properties).with([Node::new("firmware@88000000", firmware)])
}

/// The CPU `number`, which waits for `release`; both have `cells` cells.
pub fn waiting_cpu(number: u64, release: u64, cells: u32) -> Node {
    let of_cells = |name: &str, value: u64| match cells {
        1 => Property::new(name, (value as u32).to_be_bytes()),
        _ => Property::new(name, value.to_be_bytes()),
    };
    let properties = vec![
        Property::string("device_type", "cpu"),
        // The address stands before what says that it counts.
        of_cells("cpu-release-addr", release),
        Property::string("enable-method", "spin-table"),
        of_cells("reg", number),
    ];
    Node::new(&format!("cpu@{number:x}"), properties)
}

/// The CPU `number`, which the firmware starts; its address means nothing.
pub fn psci_cpu(number: u64) -> Node {
    let properties = vec![
        Property::new("reg", number.to_be_bytes()),
        Property::string("enable-method", "psci"),
        Property::new("cpu-release-addr", 0x1234u64.to_be_bytes()),
    ];
    Node::new(&format!("cpu@{number:x}"), properties)
}

/// A tree with all that is edited.
pub fn full() -> Node {
    let chosen = vec![
        Property::new("linux,initrd-start", [0x48, 0, 0, 0]),
        Property::new("kaslr-seed", [1, 2, 3, 4, 5, 6, 7, 8]),
        Property::string("bootargs", "old"),
        Property::new("linux,initrd-end", [0x49, 0, 0, 0]),
        Property::string("stdout-path", "/pl011@9000000"),
        Property::new("rng-seed", [7; 64]),
    ];
    let framebuffer = Node::new("framebuffer", vec![Property::string("bootargs", "nor this")]);
    let cpus = [
        waiting_cpu(0, 0x8800_0000, 2),
        psci_cpu(1),
        waiting_cpu(2, 0x8800_0000, 1),
        waiting_cpu(3, 0x8800_0008, 2),
    ];
    root(2).with([
        Node::new("cpus", vec![]).with(cpus),
        Node::new("chosen", chosen).with([framebuffer]),
        reserved_memory(2),
        memory(),
    ])
}
