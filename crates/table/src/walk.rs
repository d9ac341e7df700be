//! Software walks: tables in memory, read through a window.

use core::ops::Range;

use linmap_vmsa::{Attributes, Decoded, Descriptor, Geometry, Level, Pa, TablePermissions, Va};

use crate::window::TableWindow;

/// The end of a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Walk {
    /// The address translates.
    Leaf {
        /// Its output address.
        pa: Pa,
        /// The level of the leaf.
        level: Level,
        /// The leaf.
        descriptor: Descriptor,
        /// What the tables on the way to the leaf take away.
        tables: TablePermissions,
    },
    /// The walk ends at an invalid entry: a translation fault.
    Fault {
        /// The level of the invalid entry.
        level: Level,
    },
}

impl Walk {
    /// Returns the effective attributes of the address: those of the leaf, less what the tables
    /// take away. Returns `None` for a fault, and for attributes that linmap never writes.
    pub const fn attributes(&self, geometry: Geometry) -> Option<Attributes> {
        match *self {
            Self::Leaf { level, descriptor, tables, .. } => restricted(geometry, level, descriptor, tables),
            Self::Fault { .. } => None,
        }
    }
}

/// Reads one entry of the table in frame `table`, which may be live.
///
/// # Safety
/// `window` reaches the frame, and `index` is less than the number of entries in one granule.
#[inline]
pub unsafe fn read<W: TableWindow>(window: &mut W, level: Level, table: Pa, index: usize) -> Descriptor {
    // SAFETY: the window reaches the frame by the caller's contract. `open` gives a whole granule,
    // and the index is one of its entries. The table may be live: hardware may set access flags, so
    // the read is volatile.
    let descriptor = Descriptor(unsafe { window.open(level, table).add(index).read_volatile() });
    window.close(level);
    descriptor
}

/// Walks from the table in frame `root` as the hardware does for `va`, with the hierarchical
/// permissions of tables (TCR.HPD0 and HPD1 are clear). The bits of `va` above the VA size are
/// ignored.
///
/// ```compile_fail,E0133
/// # use linmap_table::{TableWindow, walk};
/// # use linmap_vmsa::{Geometry, Pa, Va};
/// fn walk_anything(window: &mut impl TableWindow) {
///     walk(Geometry::K4_48, Pa(0xdead_0000), Va(0), window);
/// }
/// ```
///
/// # Safety
/// `root` is the root table of a tree of this geometry, and `window` reaches all of its tables.
pub unsafe fn walk<W: TableWindow>(geometry: Geometry, root: Pa, va: Va, window: &mut W) -> Walk {
    let mut level = geometry.start_level();
    let mut table = geometry.root_table(root, va);
    // The descriptors of all tables on the way.
    let mut above = 0;
    loop {
        // SAFETY: the caller's; the index is one of the entries at this level.
        let descriptor = unsafe { read(window, level, table, geometry.index(va, level)) };
        match (descriptor.decode(geometry, level), level.next()) {
            (Decoded::Table(next_table), Some(next)) => {
                (table, level, above) = (next_table, next, above | descriptor.0);
            }
            (Decoded::Leaf(pa), _) => {
                let offset = va.0 & (geometry.entry_bytes(level) - 1);
                let tables = TablePermissions::from_bits(above, geometry.regime());
                return Walk::Leaf { pa: Pa(pa.0 + offset), level, descriptor, tables };
            }
            _ => return Walk::Fault { level },
        }
    }
}

/// A leaf of a tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// First address it translates.
    pub va: Va,
    /// Its output address.
    pub pa: Pa,
    /// Its level.
    pub level: Level,
    /// The entry itself.
    pub descriptor: Descriptor,
    /// What the tables on the way to the leaf take away.
    pub tables: TablePermissions,
}

impl Leaf {
    /// Returns the effective attributes: those of the leaf, less what the tables take away. Returns
    /// `None` for attributes that linmap never writes.
    pub const fn attributes(&self, geometry: Geometry) -> Option<Attributes> {
        restricted(geometry, self.level, self.descriptor, self.tables)
    }
}

const fn restricted(
    geometry: Geometry,
    level: Level,
    descriptor: Descriptor,
    tables: TablePermissions,
) -> Option<Attributes> {
    match descriptor.attributes(geometry, level) {
        Some(attributes) => Some(tables.restrict(attributes)),
        None => None,
    }
}

/// The levels of the deepest tree, −1 to 3.
const LEVELS: usize = 5;

/// A table on the way to a leaf.
#[derive(Clone, Copy, Debug)]
struct OnPath {
    table: Pa,
    /// The next index to look at, which counts through all tables of a root.
    next: usize,
    /// What this table's descriptor and those above it take away.
    permissions: TablePermissions,
}

/// All leaves of a tree in ascending order, and a count of its tables. Each leaf states what the
/// tables between the first one and the leaf take away.
///
/// ```
/// use linmap_table::{BumpFrames, FirstMap, LeafIter, OffsetWindow};
/// use linmap_vmsa::{Attributes, Geometry, Level, Pa, PaRange, Va};
///
/// # let host = vec![0u8; 1 << 16];
/// # let host = Pa(host.as_ptr().expose_provenance() as u64);
/// # let tables = PaRange::from_len(host, 1 << 16).unwrap();
/// let geometry = Geometry::K4_48;
/// let mut map = FirstMap::<4>::new(geometry);
/// map.identity(PaRange::new(Pa(0x4000_0000), Pa(0x4060_1000)), Attributes::KERNEL_DATA)?;
/// // SAFETY: `tables` is free memory, which the CPU reaches at its physical address.
/// let tree = unsafe { map.build(0, &mut BumpFrames::new(tables, geometry)) }?;
///
/// // SAFETY: as above.
/// let mut window = unsafe { OffsetWindow::new(0) };
/// // SAFETY: the tree was built just now, in frames that the window reaches.
/// let leaves = unsafe { LeafIter::new(geometry, tree.root(), Level::L0, Va(0), &mut window) };
/// let levels: Vec<_> = leaves.map(|leaf| leaf.level).collect();
/// assert_eq!(levels, [Level::L2, Level::L2, Level::L2, Level::L3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct LeafIter<'w, W> {
    geometry: Geometry,
    window: &'w mut W,
    /// The tables from the root to the current leaf.
    path: [OnPath; LEVELS],
    depth: usize,
    start: Level,
    /// How many tables stand one after the other at the start level.
    roots: usize,
    base: Va,
    tables: u64,
}

impl<'w, W: TableWindow> LeafIter<'w, W> {
    /// Starts at the table in frame `table`, which is at `level` and translates from `base`. At the
    /// start level it is the root, with all its tables.
    ///
    /// # Safety
    /// `table` is a table of a tree of this geometry, and `window` reaches it and all tables below
    /// it.
    pub unsafe fn new(geometry: Geometry, table: Pa, level: Level, base: Va, window: &'w mut W) -> Self {
        let path = [OnPath { table, next: 0, permissions: TablePermissions::UNRESTRICTED }; LEVELS];
        let roots = if level == geometry.start_level() { geometry.root_tables() } else { 1 };
        Self { geometry, window, path, depth: 0, start: level, roots, base, tables: roots as u64 }
    }

    /// Reads the entries `indices` of a table, which stays open meanwhile, until one is valid.
    /// Returns how many it read, and the last.
    ///
    /// # Safety
    /// The window reaches the frame `table`, which has such entries at `level`.
    unsafe fn read_valid(&mut self, level: Level, table: Pa, indices: Range<usize>) -> (usize, Descriptor) {
        // SAFETY: the caller's promise.
        let entries = unsafe { self.window.open(level, table) };
        let (mut count, mut descriptor) = (0, Descriptor::INVALID);
        for index in indices {
            // SAFETY: `open` gives a whole granule, and the index is one of its entries. The table
            // may be live: hardware may set access flags, so the read is volatile.
            descriptor = Descriptor(unsafe { entries.add(index).read_volatile() });
            count += 1;
            if descriptor.decode(self.geometry, level) != Decoded::Invalid {
                break;
            }
        }
        self.window.close(level);
        (count, descriptor)
    }

    /// Tables entered so far, the first one included, and all tables of a root.
    pub fn tables(&self) -> u64 {
        self.tables
    }
}

impl<W: TableWindow> Iterator for LeafIter<'_, W> {
    type Item = Leaf;

    fn next(&mut self) -> Option<Leaf> {
        loop {
            let level = Level::new(self.start.number() + self.depth as i8)?;
            let OnPath { mut table, next: mut index, permissions } = self.path[self.depth];
            let entries = self.geometry.entries(level);
            if self.depth == 0 {
                if index == entries * self.roots {
                    return None;
                }
                if index >= entries {
                    table.0 += (index / entries) as u64 * self.geometry.page_bytes();
                    index %= entries;
                }
            } else if index == entries {
                self.depth -= 1;
                continue;
            }
            // SAFETY: the promise of `new`.
            let (count, descriptor) = unsafe { self.read_valid(level, table, index..entries) };
            self.path[self.depth].next += count;
            match descriptor.decode(self.geometry, level) {
                Decoded::Invalid => {}
                Decoded::Table(next) => {
                    let own = descriptor.table_permissions(self.geometry.regime());
                    self.depth += 1;
                    self.path[self.depth] =
                        OnPath { table: next, next: 0, permissions: permissions.and(own) };
                    self.tables += 1;
                }
                Decoded::Leaf(pa) => {
                    let mut va = self.base.0;
                    for above in 0..=self.depth {
                        let at = Level::new(self.start.number() + above as i8)?;
                        va += (self.path[above].next as u64 - 1) << self.geometry.shift(at);
                    }
                    return Some(Leaf { va: Va(va), pa, level, descriptor, tables: permissions });
                }
            }
        }
    }
}
