//! A loaded payload's plan, for people and for machines.

use core::fmt::Write;

use arrayvec::ArrayString;
use linmap::listing::Size;
use linmap_kexec::{IndEntry, LIST_FRAME_LEN, LIST_FRAME_WORDS, ListFrame};
use linmap_vmsa::{Pa, PaRange};

use crate::kexec::digests;
use crate::kexec::error::KexecError;
use crate::kexec::lists::{self, frame_at};
use crate::kexec::loaded::Loaded;
use crate::kexec::segment::Staged;
use crate::memory::physical::Memory;
use crate::{report, say};

impl Loaded {
    /// Prints the plan: what is moved where. The digests are those of what is loaded now.
    ///
    /// # Errors
    /// As [`digests::segment`].
    pub fn show(&self, memory: &Memory) -> Result<(), KexecError> {
        say!(
            "  {:<8} {:>18} {:>18} {:>10} {:>10} {:>10} {:>10}",
            "segment",
            "source",
            "destination",
            "bytes",
            "moved",
            "in place",
            "zero"
        );
        for segment in &self.segments {
            let pages = segment.destination.len();
            let in_place = if segment.staged == Staged::InPlace { pages } else { 0 };
            let moved = pages - in_place - segment.zero;
            let mut source = ArrayString::<18>::new();
            // It fits: an address has 18 characters.
            let _ = match segment.staged {
                Staged::InPlace => source.write_str("in place"),
                Staged::Pages => source.write_str("pages"),
                Staged::At(pa) => write!(source, "{pa}"),
            };
            say!(
                "  {:<8} {source:>18} {:>#18x} {:>10} {:>10} {:>10} {:>10}",
                segment.name,
                segment.destination.start.0,
                segment.len,
                Size(moved),
                Size(in_place),
                Size(segment.zero)
            );
            report!(
                "segment={} source={} destination={} bytes={} moved={moved} in_place={in_place} zero={} \
                 sha256={}",
                segment.name,
                match segment.staged {
                    Staged::InPlace => segment.destination.start,
                    Staged::At(pa) => pa,
                    Staged::Pages => Pa(0),
                },
                segment.destination.start,
                segment.len,
                segment.zero,
                digests::segment(memory, &self.moves, segment)?
            );
        }
        self.report("plan");
        Ok(())
    }

    /// Prints the moves in the form of Linux's list, a word for each page. The list and its page of
    /// zeros are written to free memory, which is freed again.
    ///
    /// # Errors
    /// [`KexecError::List`]: the plan has changed since the load.
    /// [`KexecError::Memory`]: no memory is free for the list.
    pub fn list(&self, memory: &mut Memory) -> Result<(), KexecError> {
        // A list that has changed may name any number of pages.
        lists::check(memory, &self.moves)?;
        let pages = self.moves.ind_pages(frame_at(memory))?;
        let everywhere = memory.everywhere();
        let len = (1 + pages) * LIST_FRAME_LEN;
        // Free memory is never a destination: those were allocated at the load.
        let start = memory.memblock.alloc(len, LIST_FRAME_LEN, everywhere)?;
        let range = PaRange::new(start, Pa(start.0 + len));
        let listed = self.list_in(memory, range);
        memory.memblock.free(range)?;
        listed
    }

    /// Writes a page of zeros and then Linux's list to `range`, and prints the list.
    fn list_in(&self, memory: &Memory, range: PaRange) -> Result<(), KexecError> {
        // SAFETY: the range was just allocated. The bytes are only used here, before any of its
        // pages is written.
        unsafe { memory.owned_bytes(range) }.as_mut().fill(0);
        let zeros = range.start;
        let addresses = (1..range.len() / LIST_FRAME_LEN).map(|nth| Pa(zeros.0 + nth * LIST_FRAME_LEN));
        let pages = addresses.map(|pa| {
            let words = memory.layout.linear(pa).0 as *mut [u64; LIST_FRAME_WORDS];
            // SAFETY: it is one page of the range, aligned; no other reference leads there.
            ListFrame { pa, words: unsafe { &mut *words } }
        });
        let mut counts = [0u64; 3];
        for entry in self.moves.ind_list(zeros, pages, frame_at(memory)) {
            let entry = entry?;
            match entry {
                IndEntry::Destination(_) => counts[0] += 1,
                IndEntry::Source(_) => counts[1] += 1,
                IndEntry::Indirection(_) => counts[2] += 1,
                IndEntry::Done => {}
            }
            say!("  {:#018x}", entry.word());
        }
        report!(
            "kexec=list zeros={zeros} destinations={} sources={} indirections={}",
            counts[0],
            counts[1],
            counts[2]
        );
        Ok(())
    }

    /// Prints the line for machines.
    pub fn report(&self, name: &str) {
        let moves = &self.moves;
        report!(
            "kexec={name} segments={} mmu={} lists={} longest={} extents={} ordered={} list_frames={} \
             moved={} cleared={} bounced={} tables={} control={} list={} root={}",
            self.segments.len(),
            if self.transition.is_some() { "on" } else { "off" },
            moves.lists.len(),
            moves.lists.iter().map(|list| list.bytes).max().unwrap_or(0),
            moves.extents,
            moves.ordered,
            moves.frames,
            moves.moved,
            moves.cleared,
            moves.bounced,
            self.table_count(),
            self.control.start,
            moves.lists.first().map_or(Pa(0), |list| list.first),
            self.transition.as_ref().map_or(Pa(0), |both| both.linear.root())
        );
    }
}
