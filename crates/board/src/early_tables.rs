//! The tables that a kernel writes before it turns its MMU on.

use linmap_table::cpu::{Cpu, Dsb};
use linmap_table::{DetachedTree, FrameSource, Mappings, OutOfFrames, ReachableFrames, read};
use linmap_trace::Event;
use linmap_vmsa::registers::ttbr;
use linmap_vmsa::{Decoded, Descriptor, Geometry, Pa, Va};

use crate::board::Board;

/// The tables on which a kernel starts: a tree for TTBR1 with an empty fixmap, and an empty table
/// for TTBR0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EarlyTables {
    geometry: Geometry,
    /// The root table of TTBR1's tree.
    pub root: Pa,
    /// The fixmap's table of pages.
    pub fixmap: Pa,
    /// A table without a valid entry.
    pub empty: Pa,
}

impl EarlyTables {
    /// Writes a tree that maps `mappings`, and the tables down to the one whose pages begin at
    /// `fixmap`, as CPU 0 does with its MMU off.
    ///
    /// # Errors
    /// [`OutOfFrames`].
    ///
    /// # Panics
    /// If `mappings` maps a block at `fixmap`.
    pub fn write<F: FrameSource>(
        board: &Board,
        mappings: &Mappings<'_>,
        fixmap: Va,
        frames: &mut F,
    ) -> Result<Self, OutOfFrames> {
        let geometry = mappings.geometry();
        let empty = empty_table(board, geometry, frames)?;
        let mut window = board.window(0, None);
        // SAFETY: a window of the board reaches all of its memory, which the frames are.
        let mut memory = unsafe { ReachableFrames::new(&mut window, frames) };
        let root = DetachedTree::build(mappings, &mut memory)?.root();
        let (mut table, mut level) = (root, geometry.start_level());
        while let Some(next) = level.next() {
            let index = geometry.index(fixmap, level);
            // SAFETY: `Geometry::index` is below the number of entries at its level.
            let entry = unsafe { read(&mut window, level, table, index) };
            table = match entry.decode(geometry, level) {
                Decoded::Table(below) => below,
                Decoded::Leaf(_) => panic!("a block at {fixmap}, where the fixmap has to be"),
                Decoded::Invalid => {
                    let below = empty_table(board, geometry, frames)?;
                    let (pa, value) = (table.0 + 8 * index as u64, Descriptor::table(geometry, below).0);
                    board.event(Event::Store { cpu: 0, pa, value, via: None });
                    below
                }
            };
            level = next;
        }
        board.cpu(0).dsb(Dsb::Ish);
        Ok(Self { geometry, root, fixmap: table, empty })
    }

    /// Turns the MMU of `cpu` on: TTBR0 on the empty table, TTBR1 on the tree.
    pub fn turn_on(&self, board: &Board, cpu: usize) {
        let mut cpu = board.cpu(cpu);
        let value = |root| ttbr(self.geometry, root, 0).expect("a frame of the geometry's memory");
        // SAFETY: the CPU is the model's.
        unsafe {
            cpu.write_ttbr0(value(self.empty));
            cpu.write_ttbr1(value(self.root));
        }
        cpu.isb();
    }
}

fn empty_table<F: FrameSource>(board: &Board, geometry: Geometry, frames: &mut F) -> Result<Pa, OutOfFrames> {
    let table = frames.alloc()?;
    let count = geometry.granule().entries() as u64;
    board.event(Event::Fill { cpu: 0, pa: table.0, count, first: 0, step: 0 });
    Ok(table)
}
