//! Trees that end without an invalidation.
//!
//! A kernel invalidates what a process used while the process still runs, or another CPU lazily
//! walks its tables. It frees the tables below the root then, and the root last, behind no further
//! invalidation. An empty root that no CPU walks leads nowhere, and no TLB holds anything of an
//! entry that is invalid: its frame is as good as free. It is followed again if a CPU walks it.

use crate::followed::Table;
use crate::recorder::Recorder;
use crate::regime::Space;
use crate::tree::Tree;

impl Recorder {
    /// Whether the frame of the word at `pa` is followed still when `value` is stored there.
    pub(crate) fn stays_followed(&mut self, pa: u64, value: u64) -> bool {
        if value & 1 == 1 {
            self.leave_empty_trees(pa, 1);
        }
        let frame = self.frames.of(pa);
        self.frames.get_mut(frame).is_some()
    }

    /// `count` words at `pa`, of one frame, are about to be stored to or linked as another table:
    /// ends the trees that have some of them in an empty root that no CPU walks.
    pub(crate) fn leave_empty_trees(&mut self, pa: u64, count: usize) {
        let frame = self.frames.of(pa);
        let at = ((pa - frame) / 8) as usize;
        let Some(state) = self.frames.get_mut(frame) else { return };
        let has_some = |table: &&Table| table.words().start < at + count && at < table.words().end;
        let around = state.tables.iter().filter(has_some);
        let around: Vec<_> = around.map(|table| (frame + 8 * table.first as u64, table.words())).collect();
        for (root, words) in around {
            let first = Tree { root, space: Space::FIRST, id: 0 };
            let trees: Vec<_> =
                self.trees.range(first..).map(|(tree, _)| *tree).take_while(|it| it.root == root).collect();
            let is_walked = |tree: &Tree| self.cpus.iter().any(|cpu| cpu.roots.contains(&Some(*tree)));
            let is_valid = |value: &Option<u64>| value.is_none_or(|value| value & 1 == 1);
            let is_empty = self.frames.get_mut(frame).is_some_and(|state| {
                state.recorded.get(words).is_some_and(|words| !words.iter().any(is_valid))
            });
            if trees.is_empty() || !is_empty || trees.iter().any(is_walked) {
                continue;
            }
            for tree in trees {
                self.trees.remove(&tree);
                self.frames.unrefer(root);
            }
            if !self.frames.is_referred(root) {
                self.give_up_table(root);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::FileExt;
    use std::os::unix::net::UnixStream;

    use linmap_trace::binary::{Decoder, MAGIC, Record};
    use linmap_trace::{Event, Line};

    use super::*;
    use crate::memory::Memory;
    use crate::recorder::Started;
    use crate::regime::Regime;
    use crate::shape::Shape;
    use crate::stream::Stream;

    const ROOT: u64 = 0x4000_0000;
    const DEAD: u64 = ROOT + 0x100;

    /// The value that the trace has for a word behind all events, if it has one.
    fn recorded(trace: &[u8], word: u64) -> Option<u64> {
        let mut rest = &trace[MAGIC.len() + 1..];
        let mut decoder = Decoder::default();
        let mut last = None;
        while let Ok(Some((record, len))) = decoder.decode(rest) {
            rest = &rest[len..];
            let Record::Line(Line::Event(event)) = record else { continue };
            last = match event.event {
                Event::Store { pa, value, .. } if pa == word => Some(value),
                Event::Fill { pa, count, first, step, .. } if (pa..pa + 8 * count).contains(&word) => {
                    Some(first.wrapping_add(step.wrapping_mul((word - pa) / 8)))
                }
                _ => last,
            };
        }
        last
    }

    /// A recorder of one CPU with 8 KiB of zeros at `ROOT`, their file, and the trace's end.
    fn recorder(name: &str) -> (Recorder, fs::File, UnixStream) {
        let folder = std::env::temp_dir().join(format!("linmap-record-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let files = ["memory", "layout"].map(|name| folder.join(name));
        fs::write(&files[0], [0; 0x2000]).unwrap();
        fs::write(&files[1], "40000000 2000 0").unwrap();
        let memory = fs::File::options().write(true).open(&files[0]).unwrap();
        let (to, from) = UnixStream::pair().unwrap();
        let mapped = Memory::map(&files[0], &files[1], |_, _| None).unwrap();
        let mut recorder = Recorder::new(Stream::new(to), files, |_, _| None, 1);
        recorder.started = Some(Started { memory: mapped });
        recorder.frames.set_granule(12);
        fs::remove_dir_all(&folder).unwrap();
        (recorder, memory, from)
    }

    const LOWER: Space = Space::Half { regime: Regime::El1, upper: false };

    #[test]
    fn data_in_the_frame_of_an_empty_root_is_no_content_of_the_next_table_there() {
        let (mut recorder, memory, mut from) = recorder("root");
        let shape = Shape::of(16, false).unwrap();
        recorder.trees.insert(Tree { root: ROOT, space: LOWER, id: 1 }, shape);
        recorder.link(ROOT, 0, 512, shape);
        // The process is dead, and the next owner of the frame stores what looks valid, then zeros,
        // before the frame is a table again.
        memory.write_all_at(b"\x7fELF\x02\x01\x01", 0).unwrap();
        recorder.store(0, 0x100, ROOT, 16, false);
        memory.write_all_at(&[0; 16], 0).unwrap();
        recorder.store(0, 0x104, ROOT, 16, false);
        recorder.log.dsb(0);
        recorder.link(ROOT, 3, 512, shape);
        recorder.stream.flush();
        drop(recorder);
        let mut trace = Vec::new();
        from.read_to_end(&mut trace).unwrap();
        assert_eq!(recorded(&trace, ROOT), Some(0));
    }

    /// Two roots of 32 entries in one frame: one that a CPU walks, and behind it `DEAD`.
    fn small_roots(name: &str) -> (Recorder, fs::File, Shape) {
        let (mut recorder, memory, _) = recorder(name);
        // 44 bits: the root at level 0 has 32 entries.
        let shape = Shape::of(20, false).unwrap();
        recorder.cpus[0].roots[LOWER.index()] = Some(Tree { root: ROOT, space: LOWER, id: 1 });
        for (root, id) in [(ROOT, 1), (DEAD, 2)] {
            recorder.trees.insert(Tree { root, space: LOWER, id }, shape);
            recorder.link(root, 0, 32, shape);
        }
        (recorder, memory, shape)
    }

    #[test]
    fn data_in_place_of_a_dead_small_root_leads_nowhere() {
        for is_invalidated in [false, true] {
            let (mut recorder, memory, shape) = small_roots(&format!("small-{is_invalidated}"));
            let is_followed = |recorder: &mut Recorder| recorder.frames.get_mut(ROOT + 0x1000).is_some();
            if is_invalidated {
                recorder.leave_trees(&[LOWER], Some(2));
            }
            // What the next owner stores looks like a descriptor.
            let value = (ROOT + 0x1000) | 3;
            memory.write_all_at(&value.to_le_bytes(), 0x100).unwrap();
            recorder.store(0, 0x100, DEAD, 8, false);
            assert!(!is_followed(&mut recorder));
            // It is a root again, as it is.
            recorder.trees.insert(Tree { root: DEAD, space: LOWER, id: 3 }, shape);
            recorder.link(DEAD, 0, 32, shape);
            assert!(is_followed(&mut recorder));
            recorder.give_up(ROOT + 0x1000);
            // The other is in use all the time.
            memory.write_all_at(&value.to_le_bytes(), 0).unwrap();
            recorder.store(0, 0x104, ROOT, 8, false);
            assert!(is_followed(&mut recorder));
        }
    }
}
