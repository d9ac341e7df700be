//! What the recorder knows of a guest's CPU.

use std::collections::BTreeMap;

use crate::regime::{REGIMES, Regime, SPACES, Space, hcr};
use crate::shape::Shape;
use crate::tree::Tree;
use crate::waiting::{Released, Releases};

/// The registers of a regime as they are.
#[derive(Clone, Copy, Default)]
pub struct Stage1 {
    pub sctlr: u64,
    pub ttbr: [u64; 2],
    pub tcr: u64,
    pub mair: u64,
    pub vbar: u64,
}

impl Stage1 {
    pub fn has_mmu(&self) -> bool {
        self.sctlr & 1 == 1
    }

    /// TCR, MAIR, TTBR0, TTBR1 and SCTLR.
    pub fn values(&self) -> [u64; 5] {
        [self.tcr, self.mair, self.ttbr[0], self.ttbr[1], self.sctlr]
    }
}

/// The registers of translation as they are.
#[derive(Clone, Copy, Default)]
pub struct Registers {
    pub stage1: [Stage1; REGIMES],
    pub hcr: u64,
    pub vtcr: u64,
    pub vttbr: u64,
}

impl Registers {
    pub fn of(&self, regime: Regime) -> &Stage1 {
        &self.stage1[regime as usize]
    }

    /// Whether `regime` has two halves.
    pub fn has_halves(&self, regime: Regime) -> bool {
        regime == Regime::El1 || regime == Regime::El2 && self.hcr & hcr::E2H != 0
    }

    /// How the tables of `space` are read. `None` while they are not walked.
    pub fn shape(&self, space: Space) -> Option<Shape> {
        match space {
            Space::Half { regime, upper } => {
                let own = self.of(regime);
                let shape = match (self.has_halves(regime), upper) {
                    (true, upper) => Shape::of(own.tcr, upper),
                    (false, false) => Shape::of_single(own.tcr),
                    (false, true) => None,
                };
                shape.filter(|_| own.has_mmu())
            }
            Space::Stage2 => Shape::of_stage2(self.vtcr).filter(|_| self.hcr & hcr::VM != 0),
        }
    }

    /// The value of the base register of `space`.
    pub fn base(&self, space: Space) -> u64 {
        match space {
            Space::Half { regime, upper } => self.of(regime).ttbr[usize::from(upper)],
            Space::Stage2 => self.vttbr,
        }
    }

    /// The ASID or VMID of the tree of `space`; 0 where it has none of its own.
    pub fn id(&self, space: Space) -> u16 {
        let field = |value: u64| (value >> 48) as u16;
        match space {
            Space::Stage2 => field(self.vttbr),
            Space::Half { upper: true, .. } => 0,
            Space::Half { regime, .. } if !self.has_halves(regime) => 0,
            Space::Half { regime, .. } => {
                let own = self.of(regime);
                field(own.ttbr[(own.tcr >> 22 & 1) as usize])
            }
        }
    }
}

/// A CPU.
#[derive(Default)]
pub struct Cpu {
    pub registers: Registers,
    /// What the trace has for TCR, MAIR, TTBR0, TTBR1 and SCTLR of each regime.
    pub recorded: [[Option<u64>; 5]; REGIMES],
    /// What the trace has for HCR_EL2, VTCR_EL2 and VTTBR_EL2.
    pub recorded_el2: [Option<u64>; 3],
    /// The trees that it walks, by space.
    pub roots: [Option<Tree>; SPACES],
    /// It has recorded stores that no DSB of its own has ordered.
    pub has_stores: bool,
    /// None of its own DMBs either.
    pub has_stores_since_dmb: bool,
    /// What it released.
    pub releases: Releases,
    /// How many DSBs it executed.
    pub dsbs: u64,
    /// What it loaded of other CPUs' releases, without acquire, since its last barrier of loads.
    pub loaded: Vec<Released>,
    /// How many groups of releases of other CPUs it knows.
    pub known: BTreeMap<usize, u64>,
    /// It may have taken access back, and of which thread that was is not recorded yet.
    pub has_edits: bool,
    /// Entries that it has made invalid since its last DSB: their addresses.
    pub broken: Vec<u64>,
    /// It has issued TLBIs that no DSB has completed.
    pub has_tlbis: bool,
    /// Some of them are broadcast.
    pub has_broadcast_tlbis: bool,
    /// Some of them are without nXS.
    pub has_full_tlbis: bool,
    /// When it issued the last TLBI that may take tables from walk caches, and whether it was
    /// broadcast, by the number of events; until a DSB completes it.
    pub taking: Option<(u64, bool)>,
    /// When it issued the last of those that is complete for this CPU.
    pub taken: u64,
    /// Registers of translation were written since its last context synchronization.
    pub is_unsynchronized: bool,
    /// How many events the trace had at its last context synchronization.
    pub synchronized: u64,
    /// ELR and SPSR of EL1, EL2 and EL3 at its last exception to there, until it returned.
    pub exceptions: [Option<(u64, u64)>; REGIMES],
    /// Its last ERET was to AArch32, and no exception was taken since.
    pub is_aarch32: bool,
    /// The page that it stored to last without a callback, virtual and physical.
    pub zeroed: Option<(u64, u64)>,
    /// It asked to be turned off, and was taken as off.
    pub is_leaving: bool,
}

impl Cpu {
    /// Whether it may have walked tables: some MMU of its was on.
    pub fn has_walked(&self) -> bool {
        self.recorded.iter().flatten().chain(&self.recorded_el2).any(Option::is_some)
    }
}
