//! What the recorder knows of a guest's CPU.

use linmap_trace::Register;

/// A store since a CPU's last DSB to a frame that is not followed: it may be linked before it is
/// ordered.
#[derive(Clone, Copy)]
pub struct Candidate {
    pub pa: u64,
    pub value: u64,
    pub pc: u64,
}

/// The most stores that are kept. Earlier ones count as ordered.
pub const MOST_CANDIDATES: usize = 1 << 14;

/// The registers of EL1 as they are.
#[derive(Clone, Copy, Default)]
pub struct Registers {
    pub sctlr: u64,
    pub ttbr0: u64,
    pub ttbr1: u64,
    pub tcr: u64,
    pub mair: u64,
    pub vbar: u64,
}

impl Registers {
    pub fn has_mmu(&self) -> bool {
        self.sctlr & 1 == 1
    }

    /// Those of translation, in the order in which a trace has them.
    pub fn of_translation(&self) -> [(Register, u64); 4] {
        [
            (Register::Tcr, self.tcr),
            (Register::Mair, self.mair),
            (Register::Ttbr0, self.ttbr0),
            (Register::Ttbr1, self.ttbr1),
        ]
    }
}

/// A CPU.
#[derive(Default)]
pub struct Cpu {
    pub registers: Registers,
    /// What the trace has for TCR, MAIR, TTBR0 and TTBR1.
    pub recorded: [Option<u64>; 4],
    /// The roots that it walks: of TTBR0 and TTBR1.
    pub roots: [Option<(u64, u16)>; 2],
    /// Stores since its last DSB.
    pub candidates: Vec<Candidate>,
    /// Where the next one goes, if there are as many as are kept.
    pub next: usize,
    /// It has recorded stores that no DSB of its own has ordered.
    pub has_stores: bool,
    /// It has issued TLBIs that no DSB has completed.
    pub has_tlbis: bool,
    /// Registers of translation were written since its last context synchronization.
    pub is_unsynchronized: bool,
    /// How many events the trace had at its last context synchronization.
    pub synchronized: u64,
    /// ELR and SPSR at its last exception, until it returned.
    pub exception: Option<(u64, u64)>,
    /// The page that its last DC ZVA cleared, virtual and physical.
    pub zeroed: Option<(u64, u64)>,
}

impl Cpu {
    /// Keeps a store.
    pub fn keep(&mut self, candidate: Candidate) {
        if self.candidates.len() < MOST_CANDIDATES {
            self.candidates.push(candidate);
        } else {
            self.candidates[self.next] = candidate;
            self.next = (self.next + 1) % MOST_CANDIDATES;
        }
    }

    /// A DSB has ordered its stores.
    pub fn ordered(&mut self) {
        self.candidates.clear();
        self.next = 0;
    }

    /// Its stores to the words of a frame, oldest first.
    pub fn candidates_in(&self, frame: u64, len: u64) -> Vec<Candidate> {
        let (newer, older) = self.candidates.split_at(self.next.min(self.candidates.len()));
        let in_frame = |at: &&Candidate| at.pa >= frame && at.pa - frame < len;
        older.iter().chain(newer).filter(in_frame).copied().collect()
    }
}
