//! The digest of the transitional tables, to see whether they have changed.

use core::ptr::NonNull;

use linmap_kexec::Transition;
use linmap_relocate::{Digest, Sha256};
use linmap_table::{DetachedTree, LeafIter, TableWindow};
use linmap_vmsa::{Level, Pa, PaRange, Va};

use crate::arch::layout::GRANULE;
use crate::memory::physical::Memory;
use crate::memory::table_window::LiveTables;

/// The digest of all tables, each before those below it. An entry that has changed changes the
/// digest before it is followed.
pub fn digest(memory: &Memory, transition: Option<&Transition>) -> Digest {
    let mut digest = Sha256::new();
    for tree in transition.iter().flat_map(|both| [&both.linear, &both.code]) {
        take_in(memory, tree, &mut digest);
    }
    digest.finish()
}

fn take_in(memory: &Memory, tree: &DetachedTree, digest: &mut Sha256) {
    let geometry = tree.geometry();
    let mut tables =
        Tables { memory, window: memory.tables(), root: tree.root(), entered: [None; LEVELS], digest };
    // The addresses that the tree translates don't matter.
    // SAFETY: the window stands the root in for what is not a table.
    let leaves = unsafe { LeafIter::new(geometry, tree.root(), geometry.start_level(), Va(0), &mut tables) };
    leaves.for_each(drop);
}

/// Levels −1 to 3.
const LEVELS: usize = 5;

/// Tables for reading. A table goes into the digest when it is opened.
struct Tables<'t> {
    memory: &'t Memory,
    window: LiveTables,
    root: Pa,
    /// The table that was opened last, by level.
    entered: [Option<Pa>; LEVELS],
    digest: &'t mut Sha256,
}

// SAFETY: the frame lies in mapped memory, and the inner window reaches it like all tables of the
// kernel. It differs from the frame asked for only where nothing is mapped, and nothing writes.
unsafe impl TableWindow for Tables<'_> {
    unsafe fn open(&mut self, level: Level, table: Pa) -> NonNull<u64> {
        let frame = PaRange::from_len(table, GRANULE.bytes());
        // An entry that has changed may lead anywhere. The digest is wrong already, so the root
        // stands in for it.
        let (table, frame) = match frame.filter(|&frame| self.memory.is_mapped(frame)) {
            Some(frame) => (table, frame),
            None => (self.root, PaRange::new(self.root, Pa(self.root.0 + GRANULE.bytes()))),
        };
        if let Some(entered) = self.entered.get_mut(level.above_pages() as usize)
            && *entered != Some(table)
        {
            *entered = Some(table);
            // SAFETY: the frame is mapped, and nothing writes to tables that are not in use.
            self.digest.update(unsafe { self.memory.bytes(frame) });
        }
        // SAFETY: the frame is mapped.
        unsafe { self.window.open(level, table) }
    }

    fn close(&mut self, level: Level) {
        self.window.close(level);
    }
}
