//! Listings for people: runs of equal leaves, with the accesses that each allows.

use core::fmt;

use linmap_table::Leaf;
use linmap_vmsa::{
    Access, Attributes, Execute, Geometry, Level, MemoryType, Pa, PaRange, Shareability, TablePermissions, Va,
};

/// Consecutive leaves of one level with equal attributes, at consecutive physical addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    geometry: Geometry,
    /// The first address.
    pub va: Va,
    /// The physical address that it translates to.
    pub pa: Pa,
    /// The length in bytes.
    pub len: u64,
    /// The level of the leaves.
    pub level: Level,
    /// The effective attributes: those of the leaves, less what the tables take away. `None` if the
    /// leaves have attributes that linmap never writes.
    pub attributes: Option<Attributes>,
    /// What the tables that lead to the leaves take away.
    pub tables: TablePermissions,
    /// Who may read and write, and who may execute, less what the tables take away: known whatever
    /// the other attributes are.
    permissions: (Access, Execute),
}

impl Run {
    /// Returns whether the run can be written.
    pub fn writable(&self) -> bool {
        self.permissions.0.writable()
    }

    /// Returns whether the run can be executed, by the kernel or by user space.
    pub fn executable(&self) -> bool {
        self.permissions.1 != Execute::Never
    }

    /// Returns whether the run can be both written and executed, at its own addresses. Memory may
    /// be mapped twice: [`shared_memory`](Self::shared_memory).
    pub fn writable_and_executable(&self) -> bool {
        self.writable() && self.executable()
    }

    /// Returns the memory that both runs map; empty if there is none.
    pub fn shared_memory(&self, other: &Self) -> PaRange {
        self.memory().intersection(other.memory())
    }

    fn memory(&self) -> PaRange {
        PaRange::new(self.pa, Pa(self.pa.0 + self.len))
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.va.0.wrapping_add(self.len);
        write!(f, "{}-{:#018x} {:#014x} ", self.va, end, self.pa.0)?;
        write!(f, "{:>6} L{} ", Size(self.len), self.level)?;
        let Some(attributes) = self.attributes else { return f.write_str("attributes unknown") };
        let leaf = self.geometry.entry_bytes(self.level);
        write!(f, "{:>4} {} ", Size(leaf), if attributes.contiguous { "CON" } else { "   " })?;
        f.write_str(match attributes.access {
            Access::KernelReadWrite | Access::KernelReadWriteDirty => "RW ",
            // Writable, and not written yet.
            Access::KernelReadWriteClean => "Rw ",
            Access::KernelReadOnly => "ro ",
            Access::UserReadWrite | Access::UserReadWriteDirty => "RW USR ",
            Access::UserReadWriteClean => "Rw USR ",
            Access::UserReadOnly => "ro USR ",
            Access::GuestNone => "-- GST ",
            Access::GuestReadOnly => "ro GST ",
            Access::GuestWriteOnly => "WO GST ",
            Access::GuestReadWrite | Access::GuestReadWriteDirty => "RW GST ",
            Access::GuestReadWriteClean => "Rw GST ",
        })?;
        f.write_str(match attributes.execute {
            Execute::Never => "NX ",
            Execute::Kernel => "x  ",
            Execute::User => "UX ",
            Execute::Both => "xUX",
        })?;
        f.write_str(match attributes.shareability {
            Shareability::Inner => " ISH",
            Shareability::Outer => " OSH",
            Shareability::Non => " NSH",
        })?;
        f.write_str(if attributes.global { " G " } else { " nG" })?;
        f.write_str(if attributes.accessed { " AF " } else { "    " })?;
        f.write_str(match attributes.memory {
            MemoryType::Normal => "MEM/NORMAL",
            MemoryType::NormalTagged => "MEM/NORMAL-TAGGED",
            MemoryType::NormalNonCacheable => "MEM/NORMAL-NC",
            MemoryType::DeviceNgnre => "DEVICE/nGnRE",
            MemoryType::DeviceNgnrne => "DEVICE/nGnRnE",
        })?;
        if self.writable_and_executable() {
            f.write_str(" W+X")?;
        }
        if !self.tables.is_all() {
            write!(f, " (tables: {})", self.tables)?;
        }
        Ok(())
    }
}

/// A size in bytes, displayed in the largest unit that divides it: `2M`, `60K`.
#[derive(Clone, Copy, Debug)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut count, mut unit) = (self.0, 0);
        const UNITS: [&str; 5] = ["B", "K", "M", "G", "T"];
        while count >= 1024 && count.is_multiple_of(1024) && unit + 1 < UNITS.len() {
            count /= 1024;
            unit += 1;
        }
        // The unit is part of the padded width.
        let width = f.width().unwrap_or(0).saturating_sub(1);
        write!(f, "{count:>width$}{}", UNITS[unit])
    }
}

/// An iterator over the runs of a sequence of leaves.
///
/// ```
/// use linmap::listing::{Run, Runs, Size};
/// use linmap_table::Leaf;
/// use linmap_vmsa::{Attributes, Descriptor, Geometry, Level, Pa, TablePermissions, Va};
///
/// let geometry = Geometry::K4_48;
/// let page = |at| {
///     let descriptor = Descriptor::page(geometry, Pa(at), Attributes::KERNEL_DATA);
///     let tables = TablePermissions::UNRESTRICTED;
///     Leaf { va: Va(at), pa: Pa(at), level: Level::L3, descriptor, tables }
/// };
/// // Any leaves that ascend: those of a `LeafIter`, for example.
/// let leaves = [page(0x1000), page(0x2000), page(0x8000)];
/// let runs: Vec<Run> = Runs::new(geometry, leaves.into_iter()).collect();
/// let sizes: Vec<_> = runs.iter().map(|run| Size(run.len).to_string()).collect();
/// assert_eq!(sizes, ["8K", "4K"]);
/// ```
#[derive(Debug)]
pub struct Runs<I> {
    geometry: Geometry,
    leaves: I,
    next: Option<Run>,
}

impl<I: Iterator<Item = Leaf>> Runs<I> {
    /// Returns the runs of `leaves`, which must ascend.
    pub fn new(geometry: Geometry, leaves: I) -> Self {
        Self { geometry, leaves, next: None }
    }
}

impl<I: Iterator<Item = Leaf>> Iterator for Runs<I> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        loop {
            let leaf = self.leaves.next().map(|leaf| Run {
                geometry: self.geometry,
                va: leaf.va,
                pa: leaf.pa,
                len: self.geometry.entry_bytes(leaf.level),
                level: leaf.level,
                attributes: leaf.attributes(self.geometry),
                tables: leaf.tables,
                permissions: permissions(self.geometry, leaf),
            });
            match (&mut self.next, leaf) {
                (Some(run), Some(leaf))
                    if run.va.0.wrapping_add(run.len) == leaf.va.0
                        && run.pa.0 + run.len == leaf.pa.0
                        && run.level == leaf.level
                        && run.attributes == leaf.attributes
                        && run.tables == leaf.tables
                        && run.permissions == leaf.permissions =>
                {
                    run.len += leaf.len;
                }
                (None, Some(leaf)) => self.next = Some(leaf),
                (_, leaf) => return core::mem::replace(&mut self.next, leaf),
            }
        }
    }
}

/// Who may access and execute what a leaf maps.
fn permissions(geometry: Geometry, leaf: Leaf) -> (Access, Execute) {
    let (bits, regime) = (leaf.descriptor.0, geometry.regime());
    let (access, execute) = (Access::from_bits(bits, regime), Execute::from_bits(bits, regime));
    (leaf.tables.restrict_access(access), leaf.tables.restrict_execute(execute))
}

#[cfg(test)]
mod tests {
    use super::*;
    use linmap_vmsa::Descriptor;
    use std::{string::ToString, vec::Vec};

    const G: Geometry = Geometry::K4_48;

    fn page(va: u64, pa: u64, attributes: Attributes) -> Leaf {
        let descriptor = Descriptor::page(G, Pa(pa), attributes);
        Leaf { va: Va(va), pa: Pa(pa), level: Level::L3, descriptor, tables: TablePermissions::UNRESTRICTED }
    }

    #[test]
    fn a_run_ends_where_address_level_or_attributes_change() {
        let data = Attributes::KERNEL_DATA;
        let leaves = [
            page(0x1000, 0x1000, data),
            page(0x2000, 0x2000, data),
            page(0x3000, 0x9000, data),
            page(0x4000, 0xa000, Attributes::KERNEL_RODATA),
            page(0x6000, 0xc000, Attributes::KERNEL_RODATA),
        ];
        let runs: Vec<_> = Runs::new(G, leaves.into_iter()).map(|run| (run.va.0, run.len)).collect();
        assert_eq!(runs, [(0x1000, 0x2000), (0x3000, 0x1000), (0x4000, 0x1000), (0x6000, 0x1000)]);
    }

    #[test]
    fn a_line_says_what_a_run_allows_and_flags_w_plus_x() {
        let both = Attributes { execute: Execute::Kernel, ..Attributes::KERNEL_DATA };
        let mut runs = Runs::new(G, [page(0xffff_0000_0000_1000, 0x4000_1000, both)].into_iter());
        let run = runs.next().unwrap();
        assert!(run.writable_and_executable());
        let expected = "0xffff000000001000-0xffff000000002000 0x000040001000     4K L3   4K     \
                        RW x   ISH G  AF MEM/NORMAL W+X";
        assert_eq!(run.to_string(), expected);
    }

    #[test]
    fn a_run_has_what_the_tables_leave_it_and_says_so() {
        let both = Attributes { execute: Execute::Kernel, ..Attributes::KERNEL_DATA };
        let restricted = |va: u64, tables| Leaf { tables, ..page(va, 0x4000_0000 + va, both) };
        let leaves = [
            restricted(0x1000, TablePermissions::NEVER_EXECUTE),
            restricted(0x2000, TablePermissions::NEVER_EXECUTE),
            restricted(0x3000, TablePermissions::READ_ONLY),
            restricted(0x4000, TablePermissions::UNRESTRICTED),
        ];
        let runs: Vec<_> = Runs::new(G, leaves.into_iter()).collect();
        let [never, read_only, all] = &runs[..] else { panic!("{runs:x?}") };
        assert_eq!(never.len, 0x2000);
        assert!(never.writable() && !never.executable());
        assert!(!read_only.writable() && read_only.executable());
        assert!(all.writable_and_executable());
        assert!(never.to_string().ends_with("RW NX  ISH G  AF MEM/NORMAL (tables: PXN,UXN)"), "{never}");
        assert!(read_only.to_string().ends_with("ro x   ISH G  AF MEM/NORMAL (tables: ro)"), "{read_only}");
    }

    #[test]
    fn memory_that_is_mapped_twice_is_shared_whatever_its_memory_type() {
        let text = page(0xffff_8000_0000_0000, 0x4000_1000, Attributes::KERNEL_TEXT);
        let mut alias = page(0xffff_0000_0000_1000, 0x4000_1000, Attributes::KERNEL_DATA);
        // AttrIndx 7: no attributes of this crate.
        alias.descriptor.0 |= 0b111 << 2;
        let other = page(0xffff_0000_0000_3000, 0x4000_3000, Attributes::KERNEL_DATA);
        let runs: Vec<_> = Runs::new(G, [alias, other, text].into_iter()).collect();
        let [alias, other, text] = &runs[..] else { panic!("{runs:x?}") };
        assert_eq!(alias.attributes, None);
        assert!(alias.writable() && !alias.executable());
        assert!(text.executable() && !text.writable());
        assert_eq!(alias.shared_memory(text), PaRange::new(Pa(0x4000_1000), Pa(0x4000_2000)));
        assert!(other.shared_memory(text).is_empty());
    }

    #[test]
    fn a_size_has_the_largest_unit_that_divides_it() {
        let text = |bytes| Size(bytes).to_string();
        assert_eq!(
            [text(0), text(4096), text(60 << 10), text(2 << 20), text(3 << 40)],
            ["0B", "4K", "60K", "2M", "3T"]
        );
    }
}
