//! Device trees for QEMU's `virt` machine, with any memory.

use std::io::Write;
use std::process::Command;

use vm_fdt::{FdtReserveEntry, FdtWriter};

/// A tree with what linmap needs (memory, console, PSCI), to be changed and made into a file.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// The `reg` of the memory node: starts and lengths in bytes. If it is empty, the tree has no
    /// memory node.
    pub memory: Vec<(u64, u64)>,
    /// The memory reservation block.
    pub listed: Vec<(u64, u64)>,
    /// Reserved ranges without no-map.
    pub reserved: Vec<(u64, u64)>,
    /// Reserved ranges with no-map.
    pub no_map: Vec<(u64, u64)>,
    /// Ranges that the kernel chooses.
    pub dynamic: Vec<Dynamic>,
    /// Where the console's registers are said to be; where they are, unless set.
    pub console: Option<u64>,
    /// The command line, which gets a NUL behind it.
    pub bootargs: String,
    /// Start and length of the initrd.
    pub initrd: Option<(u64, u64)>,
    /// Bytes of a property that means nothing.
    pub padding: usize,
}

/// A node of `/reserved-memory` that has no address.
#[derive(Clone, Debug)]
pub struct Dynamic {
    /// Its name.
    pub name: &'static str,
    /// Its size in bytes.
    pub size: u64,
    /// Its alignment in bytes.
    pub alignment: u64,
    /// Where it may lie: starts and lengths.
    pub ranges: Vec<(u64, u64)>,
    /// `no-map` or `reusable`.
    pub flag: &'static str,
}

/// RAM of `virt` begins here.
pub const RAM: u64 = 0x4000_0000;

impl Tree {
    /// A tree with memory of `len` bytes at the start of RAM.
    pub fn with_memory(len: u64) -> Self {
        Self { memory: vec![(RAM, len)], ..Self::default() }
    }

    /// The blob.
    pub fn blob(&self) -> Vec<u8> {
        self.write().expect("a tree that the writer accepts")
    }

    /// The blob in a file.
    pub fn file(&self) -> tempfile::NamedTempFile {
        file(&self.blob())
    }

    fn write(&self) -> vm_fdt::FdtWriterResult<Vec<u8>> {
        let listed = self.listed.iter().map(|(start, len)| FdtReserveEntry::new(*start, *len));
        let mut fdt = FdtWriter::new_with_mem_reserv(&listed.collect::<Result<Vec<_>, _>>()?)?;
        let root = fdt.begin_node("")?;
        fdt.property_string("compatible", "linux,dummy-virt")?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        if self.padding > 0 {
            fdt.property("padding", &vec![0x5a; self.padding])?;
        }
        let psci = fdt.begin_node("psci")?;
        fdt.property_string("compatible", "arm,psci-1.0")?;
        fdt.property_string("method", "hvc")?;
        fdt.end_node(psci)?;
        let console = fdt.begin_node("pl011@9000000")?;
        fdt.property_string_list("compatible", vec!["arm,pl011".into(), "arm,primecell".into()])?;
        fdt.property_array_u64("reg", &[self.console.unwrap_or(0x0900_0000), 0x1000])?;
        fdt.end_node(console)?;
        if !self.memory.is_empty() {
            let memory = fdt.begin_node("memory@40000000")?;
            fdt.property_string("device_type", "memory")?;
            let cells: Vec<u64> = self.memory.iter().flat_map(|(start, len)| [*start, *len]).collect();
            fdt.property_array_u64("reg", &cells)?;
            fdt.end_node(memory)?;
        }
        if !self.reserved.is_empty() || !self.no_map.is_empty() || !self.dynamic.is_empty() {
            let parent = fdt.begin_node("reserved-memory")?;
            fdt.property_u32("#address-cells", 2)?;
            fdt.property_u32("#size-cells", 2)?;
            fdt.property_null("ranges")?;
            for (ranges, no_map) in [(&self.reserved, false), (&self.no_map, true)] {
                for (start, len) in ranges {
                    let node = fdt.begin_node(&format!("firmware@{start:x}"))?;
                    fdt.property_array_u64("reg", &[*start, *len])?;
                    if no_map {
                        fdt.property_null("no-map")?;
                    }
                    fdt.end_node(node)?;
                }
            }
            for Dynamic { name, size, alignment, ranges, flag } in &self.dynamic {
                let node = fdt.begin_node(name)?;
                fdt.property_u64("size", *size)?;
                fdt.property_u64("alignment", *alignment)?;
                let cells: Vec<u64> = ranges.iter().flat_map(|(start, len)| [*start, *len]).collect();
                if !cells.is_empty() {
                    fdt.property_array_u64("alloc-ranges", &cells)?;
                }
                fdt.property_null(flag)?;
                fdt.end_node(node)?;
            }
            fdt.end_node(parent)?;
        }
        let chosen = fdt.begin_node("chosen")?;
        fdt.property_string("stdout-path", "/pl011@9000000")?;
        fdt.property("bootargs", &[self.bootargs.as_bytes(), &[0]].concat())?;
        if let Some((start, len)) = self.initrd {
            fdt.property_u64("linux,initrd-start", start)?;
            fdt.property_u64("linux,initrd-end", start + len)?;
        }
        fdt.end_node(chosen)?;
        fdt.end_node(root)?;
        fdt.finish()
    }
}

/// A file with these bytes.
pub fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("room for the file");
    file
}

/// The tree that QEMU makes for its `virt` with these options, without the room after it.
///
/// # Panics
/// When QEMU does not start, or makes none.
pub fn virt_tree(machine: &str, options: &str) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let machine = format!("virt,{machine}dumpdtb={}", file.path().display());
    let output = Command::new("qemu-system-aarch64")
        .args(["-M", &machine, "-nographic", "-nic", "none"])
        .args(options.split_whitespace())
        .output()
        .expect("QEMU starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut blob = std::fs::read(file.path()).expect("the tree");
    // The strings are last. What follows is padding: a change of it has no effect.
    let word = |at: usize| u32::from_be_bytes(blob[at..at + 4].try_into().expect("four bytes")) as usize;
    let end = word(12) + word(32);
    assert!(end < blob.len() && word(8) < word(12));
    blob.truncate(end);
    blob[4..8].copy_from_slice(&(end as u32).to_be_bytes());
    blob
}
