//! Verification of a linear map that changes: whatever was done to it, in use or parked, every
//! entry is as memblock, the image and the record of changes say, and any other bit is noticed.
//!
//! `LINMAP_SEQUENCES` sets how many sequences the test runs, `LINMAP_SEED` where the random numbers
//! begin.

use std::io::Write as _;
use std::ptr::NonNull;

use linmap::{ChangedRanges, MemoryChange, MemoryError, Protection, RecordFull};
use linmap_board::Board;
use linmap_table::verify::{
    AccessFlag, Compared, Content, Expected, PortableLoop, Tree, TreeError, check_writable_or_executable,
    verify_tree,
};
use linmap_table::{Leaves, TableWindow};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Decoded, Descriptor, Execute, Level, Pa, PaRange, TablePermissions, Va};

use crate::machine::op::Op;
use crate::machine::random::{Random, seed, sequences};
use crate::machine::setting::{Setting, range};
use crate::machine::{Frame, Running, frame};

/// Calls in a sequence.
const CALLS: usize = 14;

/// Flipped bits after each call.
const FLIPS: usize = 12;

/// The memory of the board, as it is.
struct Memory(Board);

// SAFETY: the board's memory, at one place for each frame. Nothing runs while a test reads it.
unsafe impl TableWindow for Memory {
    unsafe fn open(&mut self, _level: Level, table: Pa) -> NonNull<u64> {
        self.0.pointer(table)
    }

    fn close(&mut self, _level: Level) {}
}

struct Verified {
    running: Running,
    changed: ChangedRanges<512>,
}

enum Failed {
    Refused,
    Full,
}

impl From<MemoryError> for Failed {
    fn from(_: MemoryError) -> Self {
        Self::Refused
    }
}

impl From<RecordFull> for Failed {
    fn from(_: RecordFull) -> Self {
        Self::Full
    }
}

impl Verified {
    fn new(setting: &Setting, seed: u64) -> Self {
        Self { running: Running::new(setting, seed, false), changed: ChangedRanges::new() }
    }

    fn call(&mut self, op: Op) -> Result<(), Failed> {
        let Self { running, changed } = self;
        let (range, what) = match op {
            Op::Protect(range, protection) => (range, MemoryChange::Protect(protection)),
            Op::MakeText(range) => (range, MemoryChange::MakeText),
            Op::MakeData(range) | Op::Add(range) | Op::Remove(range) => (range, MemoryChange::MakeData),
            Op::Split(..) | Op::Fold(_) | Op::Global(_) | Op::Repaint => {
                running.call(op)?;
                running.note(op);
                return Ok(());
            }
        };
        changed.record(range, what, || running.call(op).map_err(Failed::from))?;
        running.note(op);
        Ok(())
    }

    fn tree(&self) -> Tree {
        let setting = &self.running.setting;
        let (geometry, start) = (setting.geometry, setting.geometry.start_level());
        let base = Va(u64::MAX << geometry.va_bits());
        let root = frame(setting, Frame::Swapper(start));
        Tree { geometry, root, base, access_flag: AccessFlag::Software }
    }

    /// What the whole half must translate.
    fn expected(&self) -> Vec<Expected> {
        let Self { running: Running { setting, map, editor, .. }, changed } = self;
        let mut list: Vec<_> = map.expected(editor.memblock.mappable(setting.page()), changed).collect();
        let text = setting.text();
        let data = PaRange::new(text.end, setting.image.end);
        let own = map.attributes();
        for (part, mut allowed) in changed.parts(text).chain(changed.parts(data)) {
            if part.overlaps(text) {
                allowed.execute = Execute::Kernel;
                allowed.access = linmap_vmsa::Access::KernelReadOnly;
            }
            list.push(Expected {
                va: Va(self.running.shadow.own(part.start)),
                len: part.len(),
                content: allowed.content(part.start, Leaves::Pages, own),
                tables: TablePermissions::UNRESTRICTED,
            });
        }
        let len = setting.geometry.entry_bytes(Level::L2);
        list.push(Expected {
            va: setting.fixmap_va(),
            len,
            content: Content::FreeSlots,
            tables: TablePermissions::UNRESTRICTED,
        });
        list
    }

    fn is_table(&self, va: Va, level: Level, table: Pa) -> bool {
        let Running { setting, editor, .. } = &self.running;
        if setting.image.contains(table) {
            let reach = |of: Va| of.0.wrapping_sub(va.0) >> setting.geometry.shift(level);
            let holds = |of| reach(of) < setting.geometry.entries(level) as u64;
            return match level {
                Level::L3 if holds(setting.image_va()) => table == frame(setting, Frame::ImagePages),
                Level::L3 => holds(setting.fixmap_va()) && table == frame(setting, Frame::FixmapPages),
                _ => holds(setting.image_va()) && table == frame(setting, Frame::Swapper(level)),
            };
        }
        editor.memblock.reserved().iter().any(|range| range.contains(table))
            && !editor.pool.frames().contains(&table)
    }

    fn verify(&self) -> Result<Compared, TreeError> {
        let mut window = Memory(self.running.board.clone());
        let is_table = |va, level, table| self.is_table(va, level, table);
        // SAFETY: the window reaches all frames of the board, and nothing runs.
        unsafe { verify_tree(&self.tree(), self.expected(), &mut window, is_table, &PortableLoop) }
    }

    /// Every entry of the tree, by the address of its word.
    fn entries(&self, level: Level, table: Pa, all: &mut Vec<Pa>) {
        let geometry = self.running.setting.geometry;
        for index in 0..geometry.entries(level) as u64 {
            let word = Pa(table.0 + 8 * index);
            all.push(word);
            // SAFETY: a word of a table, in the memory of the board.
            let entry = Descriptor(unsafe { self.running.board.pointer(word).read() });
            if let (Decoded::Table(below), Some(next)) = (entry.decode(geometry, level), level.next()) {
                self.entries(next, below, all);
            }
        }
    }

    /// Flips bits of entries, one at a time. Each has to be noticed.
    fn flip(&self, random: &mut Random) -> Result<(), String> {
        let mut entries = Vec::new();
        self.entries(self.running.setting.geometry.start_level(), self.tree().root, &mut entries);
        for _ in 0..FLIPS {
            let (word, bit) = (random.pick(&entries), random.below(64));
            let pointer = self.running.board.pointer(word);
            // SAFETY: as in `entries`.
            let was = unsafe { pointer.read() };
            // SAFETY: as there; the word is as before when anything runs.
            let write = |bits| unsafe { pointer.write(bits) };
            write(was ^ 1 << bit);
            let result = self.verify();
            write(was);
            if result.is_ok() {
                return Err(format!("bit {bit} of {was:#x} at {word}, and nobody noticed"));
            }
        }
        Ok(())
    }

    fn check(&self, random: &mut Random) -> Result<(), String> {
        self.running.agree()?;
        self.verify().map_err(|error| error.to_string())?;
        let list = self.expected();
        check_writable_or_executable(|| list.iter().copied()).map_err(|both| both.to_string())?;
        self.flip(random)
    }
}

#[test]
fn a_map_that_changes_stays_verified_and_any_flipped_bit_is_noticed() {
    let seed = seed();
    let sequences = sequences(24, 500);
    let _ = writeln!(std::io::stderr(), "LINMAP_SEED={seed} LINMAP_SEQUENCES={sequences}");
    let mut changes = 0;
    for nth in 0..sequences {
        let own = seed.wrapping_add(nth);
        let mut random = Random::new(own);
        let setting = Setting::random(&mut random);
        let mut verified = Verified::new(&setting, random.number());
        let mut log = Vec::new();
        for _ in 0..CALLS {
            let op = verified.running.random_op(&mut random);
            match verified.call(op) {
                Ok(()) => {
                    changes += 1;
                    log.push(op);
                }
                Err(Failed::Refused) => {}
                Err(Failed::Full) => panic!("{CALLS} calls filled the record"),
            }
            if let Err(reason) = verified.check(&mut random) {
                panic!("LINMAP_SEED={own}: {reason}\nafter {log:#x?}\n{setting:#x?}");
            }
        }
    }
    assert!(changes > sequences * 7, "most calls have to be ones that can be made");
}

#[test]
fn every_kind_of_change_in_use_and_parked_leaves_a_verified_map() {
    const MEMORY: PaRange = range(0x4408_0000, 0x24_0000);
    const PAGE: PaRange = range(0x4410_3000, 0x1000);
    for bbm in [BbmLevel::L3, BbmLevel::L0] {
        let setting = Setting::joined().with_bbm(bbm);
        let scratch = setting.scratch();
        let mut verified = Verified::new(&setting, 1);
        let ops = [
            Op::Protect(MEMORY, Protection::ReadOnly),
            Op::Protect(PAGE, Protection::Invalid),
            Op::MakeText(MEMORY),
            Op::Protect(scratch, Protection::Invalid),
            Op::Protect(scratch, Protection::ReadOnly),
            Op::Split(MEMORY, Level::L3),
            Op::Global(linmap_live::Global::NonGlobal),
            Op::MakeData(MEMORY),
            Op::Fold(MEMORY),
            Op::Add(setting.spare),
            Op::Remove(setting.spare),
            Op::Protect(MEMORY, Protection::Invalid),
            Op::Repaint,
            Op::Global(linmap_live::Global::Global),
        ];
        let mut random = Random::new(2);
        for op in ops {
            assert!(verified.call(op).is_ok(), "{op:x?}");
            if let Err(reason) = verified.check(&mut random) {
                panic!("after {op:x?} at {bbm:?}: {reason}");
            }
        }
    }
}
