//! A payload that is loaded.

use arrayvec::ArrayVec;
use linmap::MemblockFrames;
use linmap_kexec::{Moves, SEGMENT_ALIGN, Transition};
use linmap_vmsa::{Pa, PaRange};

use crate::arch::cpu_set::CpuSet;
use crate::arch::el2_stub;
use crate::arch::entered::Entered;
use crate::kexec::allocations::PayloadMemory;
use crate::kexec::digests::{self, LoadDigests};
use crate::kexec::error::KexecError;
use crate::kexec::segment::{MAX_SEGMENTS, Segment, Staged};
use crate::kexec::tables;
use crate::memory::physical::Memory;
use crate::smp::pen::{self, Pen};

/// A payload that is ready to be entered.
#[derive(Debug)]
pub struct Loaded {
    /// Its parts.
    pub segments: ArrayVec<Segment, MAX_SEGMENTS>,
    /// What is moved at the hand-over.
    pub moves: Moves,
    /// The digests, if the load was asked to take them.
    pub digests: Option<LoadDigests>,
    /// The tables for the move. `None` to move with the MMU off, or when nothing is moved.
    pub transition: Option<Transition>,
    /// The frames of the relocation code, its orders, the EL2 stub if the kernel was entered at EL2
    /// without VHE, and the pen if there is one.
    pub control: PaRange,
    /// Where CPUs from spin tables wait for the payload.
    pub pen: Option<Pen>,
    /// The CPUs that the payload finds there.
    pub penned: CpuSet,
    /// Whether a CPU that timed out may use these frames, now or later.
    pub is_in_use: bool,
    /// The payload's entry point.
    pub entry: Pa,
    /// Where a crash kernel finds the notes of the core file; empty for any other payload.
    pub notes: PaRange,
}

impl Loaded {
    /// Frees all its memory. `memory` is where it was loaded to.
    pub fn unload(self, mut memory: PayloadMemory<'_>) {
        if let Some(transition) = self.transition {
            let mut window = memory.memory.tables();
            let geometry = memory.memory.geometry();
            let mut frames = MemblockFrames::new(&mut memory.memory.memblock, geometry);
            transition.linear.release(&mut window, &mut frames);
            transition.code.release(&mut window, &mut frames);
        }
        memory.release();
        free_notes(memory.memory, self.notes);
    }

    /// The destination of its device tree.
    pub fn dtb(&self) -> Pa {
        self.segments.iter().find(|segment| segment.name == "dtb").map_or(Pa(0), |dtb| dtb.destination.start)
    }

    /// The number of tables for the move.
    pub fn table_count(&self) -> u64 {
        self.transition.as_ref().map_or(0, |both| both.linear.built().tables + both.code.built().tables)
    }

    /// Checks that nothing has changed since the load. Nothing is used before it is checked.
    ///
    /// # Errors
    /// [`KexecError::NoDigests`], [`KexecError::Changed`], [`KexecError::List`].
    pub fn check(&self, memory: &Memory, entered: Entered) -> Result<&LoadDigests, KexecError> {
        let taken = self.digests.as_ref().ok_or(KexecError::NoDigests)?;
        self.check_segments(memory, taken, |staged| staged == Staged::InPlace)?;
        if !self.is_code_unchanged(memory, entered) {
            return Err(KexecError::Changed { what: "the relocation code" });
        }
        if tables::digest(memory, self.transition.as_ref()) != taken.tables {
            return Err(KexecError::Changed { what: "one of the transitional tables" });
        }
        // A list that has changed may name memory that does not exist, so it is checked before what
        // it names.
        if digests::lists(memory, &self.moves)? != taken.lists {
            return Err(KexecError::Changed { what: "the move list" });
        }
        self.check_segments(memory, taken, |staged| staged != Staged::InPlace)?;
        Ok(taken)
    }

    /// Checks the segments that are staged as `are_meant` says.
    fn check_segments(
        &self,
        memory: &Memory,
        taken: &LoadDigests,
        are_meant: impl Fn(Staged) -> bool,
    ) -> Result<(), KexecError> {
        for (segment, digest) in self.segments.iter().zip(&taken.segments) {
            if are_meant(segment.staged) && digests::segment(memory, &self.moves, segment)? != *digest {
                return Err(KexecError::Changed { what: segment.name });
            }
        }
        Ok(())
    }

    /// Whether relocation code, EL2 stub and pen are as they were written.
    fn is_code_unchanged(&self, memory: &Memory, entered: Entered) -> bool {
        // SAFETY: the frames were allocated for the load. They are only written at the load and at
        // the jump.
        let control = unsafe { memory.bytes(self.control) };
        let (pages, _) = control.as_chunks::<{ SEGMENT_ALIGN as usize }>();
        let is = |page: Option<&[u8; SEGMENT_ALIGN as usize]>, code: &[u8]| {
            page.is_some_and(|page| page.starts_with(code))
        };
        is(pages.first(), linmap_relocate::code())
            && (entered != Entered::El2Stub || is(pages.get(2), el2_stub::vectors()))
            && (self.pen.is_none() || pages.last().is_some_and(pen::is_empty))
    }
}

/// Frees the memory of a core file's notes, if there is any.
pub fn free_notes(memory: &mut Memory, notes: PaRange) {
    if !notes.is_empty() {
        // Memblock only refuses when it needs one more region than it has room for; that stays
        // reserved.
        let _ = memory.memblock.free(notes);
    }
}
