//! What hardware updates while a tree is edited: nothing of it may be lost.

use std::mem;

use linmap_board::Walk;
use linmap_vmsa::registers::tcr;
use linmap_vmsa::{Access, Attributes, Decoded, Descriptor, HardwareUpdates, Pa, Va, VaRange};

use super::{Setting, World};

const ACCESSED: u64 = 1 << 10;
const READ_ONLY: u64 = 1 << 7;
const CONTIGUOUS: u64 = 1 << 52;

impl Setting {
    /// The tree at `root` as CPUs walk it.
    pub fn walk(&self, root: Pa) -> Walk {
        let range = VaRange::new(self.va(0), self.area_len);
        Walk { geometry: self.geometry, root, register: self.register(), updates: self.updates, range }
    }

    /// What attributes are after every update that hardware may make.
    pub fn as_updated(&self, attributes: Attributes) -> Attributes {
        if self.updates != HardwareUpdates::AccessedAndDirty {
            return attributes;
        }
        let access = match attributes.access {
            Access::KernelReadWriteClean => Access::KernelReadWriteDirty,
            Access::UserReadWriteClean => Access::UserReadWriteDirty,
            Access::GuestReadWriteClean => Access::GuestReadWriteDirty,
            access => access,
        };
        Attributes { access, ..attributes }
    }

    /// TCR with HA and HD.
    pub fn tcr(&self) -> u64 {
        let value = tcr(self.geometry, self.geometry, false).expect("halves of one geometry");
        value | self.updates.tcr(self.geometry.regime())
    }
}

/// What a leaf, or the run that it is part of, says of accesses.
struct Marks {
    accessed: bool,
    /// It may be written as it is.
    written: bool,
}

impl World {
    /// Checks that each page that a CPU accessed has the access flag, and that each page that a CPU
    /// wrote may be written as it is, and so counts as dirty, unless it was `reported`.
    pub fn loses_no_update(&self, reported: &[VaRange]) -> Result<(), String> {
        if !self.setting.updates.is_on() {
            return Ok(());
        }
        let (accessed, written) =
            self.board.with_walkers(|walkers| (mem::take(walkers.accessed()), mem::take(walkers.written())));
        let is_reported = |va: Va| reported.iter().any(|range| va.0.wrapping_sub(range.start.0) < range.len);
        for va in accessed {
            match self.marks(va) {
                None => {}
                Some(Marks { accessed: true, .. }) => {
                    self.board.with_walkers(|walkers| walkers.accessed().insert(va));
                }
                Some(_) => return Err(format!("{va} was accessed, and its leaf does not say so")),
            }
        }
        for va in written {
            if self.marks(va).is_some_and(|marks| marks.written) {
                self.board.with_walkers(|walkers| walkers.written().insert(va));
            } else if !is_reported(va) {
                return Err(format!("{va} was written, and neither its leaf nor a report says so"));
            }
        }
        Ok(())
    }

    /// What the leaf for `va` says, valid or invalidated.
    fn marks(&self, va: Va) -> Option<Marks> {
        let geometry = self.setting.geometry;
        // SAFETY: a word of the board's memory, which no code under test writes now.
        let read = |pa: u64| unsafe { self.board.pointer(Pa(pa)).read() };
        let mut level = geometry.start_level();
        let mut table = geometry.root_table(self.tree.root(), va);
        loop {
            let pa = table.0 + 8 * geometry.index(va, level) as u64;
            let value = read(pa);
            if let (Decoded::Table(below), Some(next)) =
                (Descriptor(value).decode(geometry, level), level.next())
            {
                (table, level) = (below, next);
                continue;
            }
            if value == 0 {
                return None;
            }
            let run =
                geometry.contiguous_entries(level).filter(|_| value & CONTIGUOUS != 0).unwrap_or(1) as u64;
            let entries = || (0..run).map(|nth| read((pa & !(8 * run - 1)) + 8 * nth));
            let is_written = |entry: u64| (entry & READ_ONLY != 0) == geometry.regime().is_stage_2();
            return Some(Marks {
                accessed: entries().any(|entry| entry & ACCESSED != 0),
                written: entries().any(is_written),
            });
        }
    }
}
