//! Whether the transitional tables are still what was built.

use core::ptr::NonNull;

use linmap_kexec::Transition;
use linmap_relocate::{Digest, Sha256};
use linmap_table::{DetachedTree, LeafIter, OffsetWindow, TableWindow};
use linmap_vmsa::{Granule, Level, Pa, PaRange, Va};

use crate::memory::machine::Machine;

/// The digest of all tables, each in front of those below it: whatever has changed, the digest is another by then.
pub fn digest(machine: &Machine<'_>, transition: Option<&Transition>) -> Digest {
    let mut digest = Sha256::new();
    for tree in transition.iter().flat_map(|both| [&both.linear, &both.code]) {
        take_in(machine, tree, &mut digest);
    }
    digest.finish()
}

fn take_in(machine: &Machine<'_>, tree: &DetachedTree, digest: &mut Sha256) {
    let geometry = tree.geometry();
    let mut tables =
        Tables { machine, window: machine.tables(), root: tree.root(), entered: [None; LEVELS], digest };
    // Where the tree translates does not matter.
    LeafIter::new(geometry, tree.root(), geometry.start_level(), Va(0), &mut tables).for_each(drop);
}

/// Levels −1 to 3.
const LEVELS: usize = 5;

/// Tables for reading, taken into a digest where they are entered.
struct Tables<'t, 'm> {
    machine: &'t Machine<'m>,
    window: OffsetWindow,
    root: Pa,
    /// The table that was entered last, by level.
    entered: [Option<Pa>; LEVELS],
    digest: &'t mut Sha256,
}

// SAFETY: the frame that is reached lies in mapped memory, and the inner window reaches it as the kernel does all tables. The
// same frame is another only where nothing is mapped, and nobody writes.
unsafe impl TableWindow for Tables<'_, '_> {
    fn open(&mut self, level: Level, table: Pa) -> NonNull<u64> {
        let frame = PaRange::from_len(table, Granule::K4.bytes());
        let mapped = |frame| self.machine.mapped().any(|mapped| mapped.covers(frame));
        // An entry that has changed may lead anywhere: the digest is wrong already.
        let (table, frame) = match frame.filter(|&frame| mapped(frame)) {
            Some(frame) => (table, frame),
            None => (self.root, PaRange::new(self.root, Pa(self.root.0 + Granule::K4.bytes()))),
        };
        if let Some(entered) = self.entered.get_mut(level.above_pages() as usize)
            && *entered != Some(table)
        {
            *entered = Some(table);
            // SAFETY: it is mapped; nothing writes to tables that are not in use.
            self.digest.update(unsafe { self.machine.bytes(frame) });
        }
        self.window.open(level, table)
    }

    fn close(&mut self, level: Level) {
        self.window.close(level);
    }
}
