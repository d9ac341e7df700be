//! Frames that are linked: what they hold is read and recorded.

use std::collections::HashMap;

use linmap_trace::{Access, Domain, Event};

use crate::followed::Standing;
use crate::log::{Did, Entry};
use crate::recorder::Recorder;
use crate::regime::Regime;
use crate::shape::Shape;

impl Recorder {
    /// Follows the table at `pa` and those below, and records what they hold.
    pub(crate) fn link(&mut self, pa: u64, level: i8, entries: usize, shape: Shape) {
        let mut open = vec![(pa, level, entries)];
        let mut is_recorded = false;
        while let Some((pa, level, entries)) = open.pop() {
            let frame = self.frames.of(pa);
            let len = self.frames.len();
            if !self.has_memory(frame, len) {
                self.note(&format!(
                    "the table at {pa:#x} is in no memory that can be read: it is not followed"
                ));
                continue;
            }
            self.leave_empty_trees(frame);
            // Linked again before it was given up: what it leads to is referred to anew.
            if self.frames.get_mut(frame).is_some_and(|state| state.standing != Standing::Linked) {
                self.leave_all(frame);
            }
            if !self.frames.refer(pa, level, entries, shape) {
                continue;
            }
            is_recorded |= self.record_content(frame);
            let Some(state) = self.frames.get_mut(frame) else { continue };
            // What unordered stores left leads on as well.
            let first = ((pa - frame) / 8) as usize;
            let content: Vec<u64> =
                state.recorded.iter().skip(first).take(entries).flatten().copied().collect();
            let below = content.iter().filter_map(|value| shape.table(level, *value));
            open.extend(
                below.filter(|table| *table != frame).map(|table| (table, level + 1, shape.entries())),
            );
        }
        if is_recorded {
            let cpu = self.observer();
            self.put(Event::Dsb { cpu, domain: Domain::Ish, access: Access::All }, None);
            self.put_pending();
        }
    }

    /// Whether the content of a frame can be read: it is RAM, or QEMU reads it.
    fn has_memory(&mut self, frame: u64, len: u64) -> bool {
        let Some(started) = &mut self.started else { return false };
        if started.memory.holds(frame, len) {
            return true;
        }
        // By its virtual address, which is this if all is mapped 1:1, as firmware does, or the MMU
        // is off still.
        let is_elsewhere = |regime| self.translate(self.actor, frame, regime).is_some_and(|pa| pa != frame);
        let is_elsewhere = Regime::ALL.into_iter().any(is_elsewhere);
        match &mut self.started {
            Some(started) if !is_elsewhere => started.memory.read_rom(frame, len),
            _ => false,
        }
    }

    /// Records what `frame` holds apart from what was recorded before: what nothing has ordered yet
    /// as stores, in their order, and all else as content that was there.
    fn record_content(&mut self, frame: u64) -> bool {
        let len = self.frames.len();
        let unordered = self.log.unordered(frame, len, self.linked_by);
        let mut replaced: HashMap<u64, u64> = HashMap::new();
        let mut later: HashMap<u64, u64> = HashMap::new();
        for (_, entry) in &unordered {
            match entry.did {
                Did::Store { pa, count, first, step } => {
                    for nth in 0..u64::from(count) {
                        later.insert(pa + 8 * nth, first.wrapping_add(step.wrapping_mul(nth)));
                    }
                }
                Did::Replaced { pa, value } if !later.contains_key(&pa) => {
                    replaced.entry(pa).or_insert(value);
                }
                Did::Replaced { .. } => {}
            }
        }
        let Some(state) = self.frames.get_mut(frame) else { return false };
        let recorded = state.recorded.clone();
        let Some(started) = &self.started else { return false };
        let mut known: Vec<(u64, u64)> = Vec::new();
        // What is to come: the words as they are.
        let mut result: Vec<(u64, u64)> = Vec::new();
        for (pa, before) in (frame..).step_by(8).zip(&recorded) {
            let Some(now) = started.memory.word(pa) else { continue };
            let value = match later.get(&pa) {
                // An invalid entry is what a store is least likely to be held against.
                Some(last) if *last == now => {
                    result.push((pa, now));
                    replaced.get(&pa).copied().or(*before).unwrap_or(0)
                }
                // A device has stored there since.
                Some(_) => {
                    later.remove(&pa);
                    now
                }
                None => now,
            };
            if *before != Some(value) {
                known.push((pa, value));
            }
        }
        self.put_words(self.observer(), None, &known);
        for &(pa, value) in known.iter().chain(&result) {
            self.set_recorded(frame, pa, value);
        }
        let is_recorded = !known.is_empty() || !later.is_empty();
        for (nth, entry) in unordered {
            let mut keep = |did| self.pending.push((nth, Entry { did, ..entry }));
            match entry.did {
                // As one, unless a device has stored to part of it.
                Did::Store { pa, count, first, step } => {
                    let words = (0..u64::from(count)).map(|nth| pa + 8 * nth);
                    if words.clone().all(|pa| later.contains_key(&pa)) {
                        keep(entry.did);
                        continue;
                    }
                    for (nth, pa) in words.enumerate().filter(|(_, pa)| later.contains_key(pa)) {
                        let first = first.wrapping_add(step.wrapping_mul(nth as u64));
                        keep(Did::Store { pa, count: 1, first, step: 0 });
                    }
                }
                Did::Replaced { .. } => {}
            }
        }
        is_recorded
    }

    /// Records stores that were found while tables were linked, after the content around them.
    fn put_pending(&mut self) {
        for (nth, entry) in std::mem::take(&mut self.pending) {
            self.put_entry(nth, entry);
        }
    }

    pub(crate) fn put_entry(&mut self, nth: u64, entry: Entry) {
        let Entry { cpu, pc, did } = entry;
        // A release behind this store that was not recorded yet has to be recorded behind it.
        let releases = self.cpus[cpu].releases;
        let later = releases.first.filter(|first| nth < *first && !releases.is_recorded);
        if later.is_some() {
            self.cpus[cpu].releases.first = None;
        }
        match did {
            Did::Store { pa, count: 1, first, .. } => {
                self.put(Event::Store { cpu, pa, value: first, via: None }, Some(pc));
                self.has_stored(cpu);
            }
            Did::Store { pa, count, first, step } => {
                self.put(Event::Fill { cpu, pa, count: count.into(), first, step }, Some(pc));
                self.has_stored(cpu);
            }
            Did::Replaced { .. } => {}
        }
        if later.is_some() {
            self.cpus[cpu].releases.first = later;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    const ROOT: u64 = 0x4000_0000;
    const TABLE: u64 = ROOT + 0x1000;
    const BELOW: u64 = ROOT + 0x2000;

    /// A guest whose root is followed.
    struct Guest {
        recorder: Recorder,
        memory: File,
        _trace: UnixStream,
    }

    impl Guest {
        fn new() -> Self {
            let (to, trace) = UnixStream::pair().expect("sockets");
            let (mut recorder, memory) = Recorder::with_memory(to, 1, ROOT, 0x3000);
            recorder.link(ROOT, 0, 512, Shape::of(16, false).expect("it is walked"));
            Self { recorder, memory, _trace: trace }
        }

        fn store(&mut self, pa: u64, value: u64) {
            self.memory.write_all_at(&value.to_le_bytes(), pa - ROOT).expect("memory");
            self.recorder.store(0, 0x100, pa, 8, false);
        }

        fn standing(&mut self, frame: u64) -> Option<Standing> {
            self.recorder.frames.get_mut(frame).map(|state| state.standing)
        }
    }

    #[test]
    fn a_table_that_is_linked_again_refers_once_to_what_it_leads_to() {
        let mut guest = Guest::new();
        guest.store(ROOT, TABLE | 3);
        guest.store(TABLE, BELOW | 3);
        guest.store(ROOT, 0);
        assert_eq!(guest.standing(TABLE), Some(Standing::Unlinked));
        guest.store(ROOT, TABLE | 3);
        assert_eq!(guest.standing(BELOW), Some(Standing::Linked));
        guest.store(TABLE, 0);
        assert_eq!(guest.standing(BELOW), Some(Standing::Unlinked));
    }

    #[test]
    fn a_root_that_leads_to_itself_stays_followed_when_it_no_longer_does() {
        let mut guest = Guest::new();
        guest.store(ROOT + 0xff8, ROOT | 3);
        guest.store(ROOT + 0xff8, 0);
        assert_eq!(guest.standing(ROOT), Some(Standing::Linked));
    }
}
