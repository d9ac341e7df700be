//! Trees that end without an invalidation.
//!
//! A kernel invalidates what a process used while the process still runs, or another CPU lazily
//! walks its tables. It frees the tables below the root then, and the root last, behind no further
//! invalidation. An empty root that no CPU walks leads nowhere, and no TLB holds anything of an
//! entry that is invalid: its frame is as good as free. It is followed again if a CPU walks it.

use crate::followed::{Standing, Table};
use crate::recorder::Recorder;
use crate::regime::Space;
use crate::tree::Tree;

impl Recorder {
    /// Whether `frame` is followed still when `value` is stored to a word of it.
    pub(crate) fn stays_followed(&mut self, frame: u64, value: u64) -> bool {
        if value & 1 == 1 {
            self.leave_empty_trees(frame);
        }
        self.frames.get_mut(frame).is_some()
    }

    /// `frame` is about to be stored to, or linked as another table: ends the trees of which it is
    /// an empty root that no CPU walks.
    pub(crate) fn leave_empty_trees(&mut self, frame: u64) {
        let first = Tree { root: frame, space: Space::FIRST, id: 0 };
        let mut roots = self.trees.range(first..).map(|(tree, _)| *tree).take_while(|it| it.root == frame);
        let Some(first) = roots.next() else { return };
        let roots: Vec<_> = std::iter::once(first).chain(roots).collect();
        let is_walked = |root: &Tree| self.cpus.iter().any(|cpu| cpu.roots.contains(&Some(*root)));
        if roots.iter().any(is_walked) {
            return;
        }
        let Some(state) = self.frames.get_mut(frame) else { return };
        let is_valid = |at: usize| state.recorded[at].is_none_or(|value| value & 1 == 1);
        if state.tables.iter().flat_map(Table::words).any(is_valid) {
            return;
        }
        for root in roots {
            self.trees.remove(&root);
            self.frames.unrefer(frame);
        }
        if self.frames.get_mut(frame).is_some_and(|state| state.standing != Standing::Linked) {
            self.give_up(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::FileExt;
    use std::os::unix::net::UnixStream;

    use linmap_trace::binary::{Decoder, MAGIC, Record};
    use linmap_trace::{Event, Line};

    use super::*;
    use crate::regime::Regime;
    use crate::shape::Shape;

    const ROOT: u64 = 0x4000_0000;

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

    #[test]
    fn data_in_the_frame_of_an_empty_root_is_no_content_of_the_next_table_there() {
        let (to, mut from) = UnixStream::pair().unwrap();
        let (mut recorder, memory) = Recorder::with_memory(to, 1, ROOT, 0x2000);
        let shape = Shape::of(16, false).unwrap();
        let space = Space::Half { regime: Regime::El1, upper: false };
        recorder.trees.insert(Tree { root: ROOT, space, id: 1 }, shape);
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
}
