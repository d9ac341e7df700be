//! A payload that is loaded: what it amounts to, whether it is still what was loaded.

use core::fmt::Write;

use arrayvec::{ArrayString, ArrayVec};
use linmap::MemblockFrames;
use linmap::listing::Size;
use linmap_kexec::{
    IndEntry, LIST_FRAME_LEN, LIST_FRAME_WORDS, ListFrame, Moves, Record, SEGMENT_ALIGN, Transition,
    WireError,
};
use linmap_relocate::{Digest, Sha256};
use linmap_vmsa::{Pa, PaRange};

use super::command::KexecError;
use super::tables;
use super::taken::Pool;
use crate::arch::percpu::CpuSet;
use crate::boot::entry;
use crate::boot::entry::Entered;
use crate::memory::machine::Machine;
use crate::smp::pen;
use crate::smp::pen::Pen;
use crate::{report, say};

/// Segments of a payload, at most: image, initrd, device tree, ELF core header.
pub const MAX_SEGMENTS: usize = 4;

/// Where a segment's bytes wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// At the destination.
    InPlace,
    /// In one piece from here.
    At(Pa),
    /// In pages from anywhere.
    Pages,
}

/// One part of the payload.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// What it is.
    pub name: &'static str,
    /// Where it belongs: the whole pages that it fills.
    pub destination: PaRange,
    /// Where it is.
    pub source: Source,
    /// Its bytes, without what fills the last page.
    pub len: u64,
    /// Bytes that are cleared instead of moved, because they are zero.
    pub zero: u64,
    /// The digest of its pages, in place.
    pub digest: Digest,
}

/// A payload that is ready to be entered.
#[derive(Debug)]
pub struct Loaded {
    /// Its parts.
    pub segments: ArrayVec<Segment, MAX_SEGMENTS>,
    /// What has to move.
    pub moves: Moves,
    /// Where what goes round in circles is put meanwhile.
    pub bounce: PaRange,
    /// The digest of the frames of all lists.
    pub lists: Digest,
    /// The digest of what has to move, in the order of the lists.
    pub waiting: Digest,
    /// The tables to move it by, `None` to move it with the MMU off, or when nothing moves.
    pub transition: Option<Transition>,
    /// Their digest.
    pub tables: Digest,
    /// Frames of the relocation code, its orders, at EL1 below EL2 EL2's stub, and the pen if there is one.
    pub control: PaRange,
    /// Where CPUs from spin tables wait for the payload.
    pub pen: Option<Pen>,
    /// Which those are.
    pub penned: CpuSet,
    /// Whether a CPU that was given up may be in these frames, now or later.
    pub is_in_use: bool,
    /// Where the payload is entered.
    pub entry: Pa,
    /// Where a crash kernel finds the notes of the core file; empty for any other.
    pub notes: PaRange,
}

impl Loaded {
    /// Gives all its memory back, to the `pool` that it came from.
    pub fn unload(self, machine: &mut Machine<'_>, pool: Pool) {
        if let Some(transition) = self.transition {
            let mut window = machine.tables();
            let mut frames = MemblockFrames::new(machine.memblock, machine.layout.geometry());
            transition.linear.release(&mut window, &mut frames);
            transition.code.release(&mut window, &mut frames);
        }
        pool.release(machine);
        free_notes(machine, self.notes);
    }

    /// Where its device tree is going to be.
    pub fn dtb(&self) -> Pa {
        self.segments.iter().find(|segment| segment.name == "dtb").map_or(Pa(0), |dtb| dtb.destination.start)
    }

    /// Checks that everything is still what was loaded.
    ///
    /// # Errors
    /// [`KexecError::Changed`], [`KexecError::List`]; nothing of it depends on what is not checked yet.
    pub fn check(&self, machine: &Machine<'_>) -> Result<(), KexecError> {
        for segment in &self.segments {
            if segment.source == Source::InPlace && digest(machine, segment.destination) != segment.digest {
                return Err(KexecError::Changed { what: segment.name });
            }
        }
        // SAFETY: the frames were taken for the load; they are written to at the load, and later than this at the jump.
        let control = unsafe { machine.bytes(self.control) };
        let (pages, _) = control.as_chunks::<{ SEGMENT_ALIGN as usize }>();
        let is = |page: Option<&[u8; SEGMENT_ALIGN as usize]>, code: &[u8]| {
            page.is_some_and(|page| page.starts_with(code))
        };
        let stub = machine.entered == Entered::El2Stub;
        if !is(pages.first(), linmap_relocate::code())
            || stub && !is(pages.get(2), entry::el2_stub())
            || self.pen.is_some() && !pages.last().is_some_and(pen::is_empty)
        {
            return Err(KexecError::Changed { what: "the relocation code" });
        }
        if tables::digest(machine, self.transition.as_ref()) != self.tables {
            return Err(KexecError::Changed { what: "one of the transitional tables" });
        }
        // Before what it names: what a list says that has changed may lie where no memory is.
        if lists(machine, &self.moves)? != self.lists {
            return Err(KexecError::Changed { what: "the move list" });
        }
        if waiting(machine, &self.moves, self.bounce)? != self.waiting {
            return Err(KexecError::Changed { what: "what waits to be moved" });
        }
        Ok(())
    }

    /// Prints what would be moved where.
    pub fn show(&self) {
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
            let in_place = if segment.source == Source::InPlace { pages } else { 0 };
            let moved = pages - in_place - segment.zero;
            let mut source = ArrayString::<18>::new();
            // It fits: an address has 18 characters.
            let _ = match segment.source {
                Source::InPlace => source.write_str("in place"),
                Source::Pages => source.write_str("pages"),
                Source::At(pa) => write!(source, "{pa}"),
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
                "segment={} source={} destination={} bytes={} moved={moved} in_place={in_place} zero={} sha256={}",
                segment.name,
                match segment.source {
                    Source::InPlace => segment.destination.start,
                    Source::At(pa) => pa,
                    Source::Pages => Pa(0),
                },
                segment.destination.start,
                segment.len,
                segment.zero,
                segment.digest
            );
        }
        self.report("plan");
    }

    /// Prints the moves as Linux's list has them, a word for each page. The list and its page of zeros are written to
    /// memory that belongs to nothing else, and that is given back.
    ///
    /// # Errors
    /// [`KexecError::Changed`], [`KexecError::List`]: the plan is not what it was; [`KexecError::Memory`]: there is no
    /// memory for the list.
    pub fn list(&self, machine: &mut Machine<'_>) -> Result<(), KexecError> {
        // A plan that has changed may say any number of pages.
        if lists(machine, &self.moves)? != self.lists {
            return Err(KexecError::Changed { what: "the move list" });
        }
        let pages = self.moves.ind_pages(frame_at(machine))?;
        let everywhere = PaRange::new(Pa(0), machine.memblock.memory_end());
        let len = (1 + pages) * LIST_FRAME_LEN;
        // All that is free is no destination: those were taken at the load.
        let start = machine.memblock.alloc(len, LIST_FRAME_LEN, everywhere)?;
        let range = PaRange::new(start, Pa(start.0 + len));
        let listed = self.list_in(machine, range);
        machine.memblock.free(range)?;
        listed
    }

    /// Writes Linux's list into `range`, a page of zeros first, and prints it.
    fn list_in(&self, machine: &Machine<'_>, range: PaRange) -> Result<(), KexecError> {
        // SAFETY: the range was just taken.
        let bytes = unsafe { machine.bytes_mut(range) };
        bytes.fill(0);
        let zeros = range.start;
        let addresses = (1..range.len() / LIST_FRAME_LEN).map(|nth| Pa(zeros.0 + nth * LIST_FRAME_LEN));
        let pages = addresses.map(|pa| {
            let words = machine.layout.linear(pa).0 as *mut [u64; LIST_FRAME_WORDS];
            // SAFETY: it lies in the range, page by page, and is aligned; `bytes` is not used again.
            ListFrame { pa, words: unsafe { &mut *words } }
        });
        let mut counts = [0u64; 3];
        for entry in self.moves.ind_list(zeros, pages, frame_at(machine)) {
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

    /// The line for machines.
    pub fn report(&self, name: &str) {
        let moves = &self.moves;
        report!(
            "kexec={name} segments={} mmu={} lists={} longest={} extents={} ordered={} list_frames={} moved={} cleared={} bounced={} tables={} control={} list={} root={}",
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
            self.transition.as_ref().map_or(0, |both| both.linear.built().tables + both.code.built().tables),
            self.control.start,
            moves.lists.first().map_or(Pa(0), |list| list.first),
            self.transition.as_ref().map_or(Pa(0), |both| both.linear.root())
        );
    }
}

/// Gives the memory of a core file's notes back, if there is any.
pub fn free_notes(machine: &mut Machine<'_>, notes: PaRange) {
    if !notes.is_empty() {
        // As what else is given back: memblock may have no room to note it.
        let _ = machine.memblock.free(notes);
    }
}

/// The digest of the pages of `range`, which the linear map has.
pub fn digest(machine: &Machine<'_>, range: PaRange) -> Digest {
    let mut digest = Sha256::new();
    // SAFETY: who asks has put bytes there, or found some, and nothing writes to them meanwhile.
    digest.update(unsafe { machine.bytes(range) });
    digest.finish()
}

/// The digest of the frames of all of `moves`'s lists, one after the other.
pub fn lists(machine: &Machine<'_>, moves: &Moves) -> Result<Digest, WireError> {
    let mut digest = Sha256::new();
    let mut at = frame_at(machine);
    // Each frame is asked for once.
    let take_in = |frame| {
        let words = at(frame)?;
        // SAFETY: it was found mapped; nothing writes to it.
        digest.update(unsafe { machine.bytes(PaRange::from_len(frame, LIST_FRAME_LEN)?) });
        Some(words)
    };
    moves.records(take_in).try_for_each(|record| record.map(|_| ()))?;
    Ok(digest.finish())
}

/// The digest of what `moves` copies, in that order, but for what only passes through `bounce`.
pub fn waiting(machine: &Machine<'_>, moves: &Moves, bounce: PaRange) -> Result<Digest, WireError> {
    let mut digest = Sha256::new();
    for record in moves.records(frame_at(machine)) {
        if let Record::Copy { source, len, .. } = record? {
            let range = PaRange::new(source, Pa(source.0 + len));
            if !bounce.overlaps(range) {
                // SAFETY: sources are memory that was loaded, and nothing writes to them.
                digest.update(unsafe { machine.bytes(range) });
            }
        }
    }
    Ok(digest.finish())
}

/// How the frames of a move list are read.
pub fn frame_at<'m>(machine: &'m Machine<'_>) -> impl FnMut(Pa) -> Option<&'m [u64; LIST_FRAME_WORDS]> {
    |frame| {
        let range = PaRange::from_len(frame, LIST_FRAME_LEN)?;
        machine.mapped().any(|mapped| mapped.covers(range)).then_some(())?;
        // SAFETY: the linear map has the frame, aligned; any bytes are valid words, and nothing writes to them meanwhile.
        Some(unsafe { &*(machine.layout.linear(frame).0 as *const [u64; LIST_FRAME_WORDS]) })
    }
}
