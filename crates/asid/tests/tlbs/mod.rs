//! Plain CPUs with TLBs that hold all they may.

use std::collections::BTreeSet;

/// A space and the identifier that it has.
pub type Run = (usize, u16);

/// The TLB and the TTBR of one CPU.
#[derive(Clone, Debug, Default)]
pub struct Tlb {
    /// Every space that may have left entries under an identifier.
    held: BTreeSet<Run>,
    /// What the TTBR holds.
    pub ttbr: Option<Run>,
    /// Whether the CPU is about to write another value there.
    pub is_switching: bool,
}

impl Tlb {
    /// Invalidates everything. What the TTBR leads to may be cached again at once.
    pub fn invalidate(&mut self) {
        self.held = self.ttbr.into_iter().collect();
    }

    /// Writes the TTBR.
    ///
    /// # Errors
    /// Another space that the CPU may hold entries of under the same identifier.
    pub fn write(&mut self, run: Run) -> Result<(), usize> {
        let (space, id) = run;
        self.ttbr = Some(run);
        self.is_switching = false;
        self.held.insert(run);
        match self.held.iter().find(|held| held.1 == id && held.0 != space) {
            Some(other) => Err(other.0),
            None => Ok(()),
        }
    }

    /// Whether the CPU runs another space by the identifier of `run`, or the same one by another.
    pub fn disagrees(&self, (space, id): Run) -> bool {
        self.ttbr.is_some_and(|own| !self.is_switching && (own.0 == space) != (own.1 == id))
    }
}
