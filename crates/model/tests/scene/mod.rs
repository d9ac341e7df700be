//! A small machine and the steps of an edit, for the tests of the rules.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use linmap_model::event::{Access, Domain, Register, Tlbi, TlbiScope, Use};
use linmap_model::{Config, Event, Machine, Rule, Violation};

pub const RAM: u64 = 0x4000_0000;
pub const ROOT: u64 = RAM;
pub const L1: u64 = RAM + 0x1_0000;
pub const L2: u64 = RAM + 0x2_0000;
pub const L3: u64 = RAM + 0x3_0000;
pub const SPARE: u64 = RAM + 0x4_0000;
pub const OTHER: u64 = RAM + 0x5_0000;
/// Two trees for TTBR0: the roots. Tables for level 1, 2 and 3 follow.
pub const A: u64 = RAM + 0x8_0000;
pub const B: u64 = RAM + 0x9_0000;
pub const A3: u64 = A + 0x3000;
pub const B3: u64 = B + 0x3000;
/// The first address of TTBR1's half.
pub const VA: u64 = 0xffff_0000_0000_0000;

/// Valid, AF, inner shareable, never executed; a page unless `BLOCK` is taken off.
pub const PAGE: u64 = 0x0060_0000_0000_0703;
pub const BLOCK: u64 = PAGE & !2;
pub const READ_ONLY: u64 = 1 << 7;
pub const NON_GLOBAL: u64 = 1 << 11;
pub const CONTIGUOUS: u64 = 1 << 52;
pub const NO_TRANSLATION: u64 = 1 << 16;
pub const DEVICE: u64 = 1 << 2;
pub const TABLE: u64 = 3;

pub const ALL: Tlbi = Tlbi { scope: TlbiScope::AllEl1, broadcast: true };
pub const ALL_LOCAL: Tlbi = Tlbi { scope: TlbiScope::AllEl1, broadcast: false };
pub const BY_VA: Tlbi = Tlbi { scope: TlbiScope::VaAnyAsid, broadcast: true };
pub const BY_VA_LAST: Tlbi = Tlbi { scope: TlbiScope::VaAnyAsidLast, broadcast: true };
pub const BY_RANGE: Tlbi = Tlbi { scope: TlbiScope::RangeAnyAsid, broadcast: true };

/// A machine whose TTBR1 tree has one table at each level below the root, all empty.
pub struct Scene {
    pub machine: Machine,
    pub verdict: Result<(), Violation>,
    pub granule: u64,
}

impl Scene {
    pub fn new(bbm: u8, cpus: usize) -> Self {
        Self::with_granule(bbm, cpus, 0x1000)
    }

    pub fn with_granule(bbm: u8, cpus: usize, granule: u64) -> Self {
        let ram = vec![(RAM, 0x10_0000)];
        let config = Config {
            cpus,
            bbm,
            granule,
            va_bits: 48,
            pa_bits: 48,
            ram,
            leniency: linmap_model::Leniency::Strict,
        };
        let mut scene = Self::bare(&config);
        for table in [ROOT, L1, L2, L3] {
            scene.zero(table);
        }
        scene.store(ROOT, L1 | TABLE).store(L1, L2 | TABLE).store(L2, L3 | TABLE).ordered();
        for cpu in 0..cpus {
            scene.root(cpu, ROOT);
        }
        scene
    }

    /// A machine without tables.
    pub fn bare(config: &Config) -> Self {
        Self { machine: Machine::new(config).unwrap(), verdict: Ok(()), granule: config.granule }
    }

    pub fn event(&mut self, event: Event) -> &mut Self {
        if self.verdict.is_ok() {
            self.verdict = self.machine.step(&event);
        }
        self
    }

    pub fn zero(&mut self, table: u64) -> &mut Self {
        let count = self.granule / 8;
        self.event(Event::Fill { cpu: 0, pa: table, count, first: 0, step: 0 })
    }

    pub fn store(&mut self, pa: u64, value: u64) -> &mut Self {
        self.event(Event::Store { cpu: 0, pa, value, via: None })
    }

    pub fn dsb(&mut self, access: Access) -> &mut Self {
        self.event(Event::Dsb { cpu: 0, domain: Domain::Ish, access })
    }

    pub fn isb(&mut self, cpu: usize) -> &mut Self {
        self.event(Event::Isb { cpu })
    }

    /// DSB ISHST, ISB.
    pub fn ordered(&mut self) -> &mut Self {
        self.dsb(Access::Stores).isb(0)
    }

    pub fn tlbi(&mut self, tlbi: Tlbi, operand: u64) -> &mut Self {
        self.event(Event::Tlbi { cpu: 0, tlbi, operand })
    }

    /// DSB ISHST, TLBI, DSB ISH, ISB.
    pub fn invalidated(&mut self, tlbi: Tlbi, operand: u64) -> &mut Self {
        self.dsb(Access::Stores).tlbi(tlbi, operand).dsb(Access::All).isb(0)
    }

    pub fn root(&mut self, cpu: usize, table: u64) -> &mut Self {
        self.event(Event::Write { cpu, register: Register::Ttbr1, value: table }).isb(cpu)
    }

    pub fn settled(&mut self) -> &mut Self {
        self.event(Event::Settled)
    }

    pub fn reaches(&mut self, cpu: usize, va: u64, kind: Use, pa: u64) -> &mut Self {
        self.event(Event::Access { cpu, va, kind, pa })
    }

    pub fn faults(&mut self, cpu: usize, va: u64) -> &mut Self {
        self.event(Event::Faults { cpu, va, kind: Use::Read })
    }

    pub fn uses(&mut self, va: u64, len: u64, kind: Use) -> &mut Self {
        self.event(Event::Uses { cpu: 0, va, len, kind })
    }

    /// Sixteen pages with the contiguous bit, in the first run of `L3`.
    pub fn run(&mut self, more: u64) -> &mut Self {
        let first = PAGE | CONTIGUOUS | more;
        self.event(Event::Fill { cpu: 0, pa: L3, count: 16, first, step: 0x1000 })
    }

    /// A whole table of pages at `table`, for the 2 MiB from `pa` on.
    pub fn pages(&mut self, table: u64, pa: u64) -> &mut Self {
        self.event(Event::Fill { cpu: 0, pa: table, count: 512, first: PAGE | pa, step: 0x1000 })
    }

    pub fn write(&mut self, cpu: usize, register: Register, value: u64) -> &mut Self {
        self.event(Event::Write { cpu, register, value })
    }

    /// A table at each level below `root` and three pages after it, empty, and in no TTBR.
    pub fn tree(&mut self, root: u64) -> &mut Self {
        for level in 0..4 {
            self.zero(root + 0x1000 * level);
        }
        for level in 0..3 {
            self.store(root + 0x1000 * level, (root + 0x1000 * (level + 1)) | TABLE);
        }
        self.ordered()
    }

    #[track_caller]
    pub fn legal(&self) {
        assert_eq!(self.verdict, Ok(()));
    }

    #[track_caller]
    pub fn breaks(&self, rule: Rule) {
        match self.verdict {
            Ok(()) => panic!("nothing was found, not even {rule:?}"),
            Err(violation) => assert_eq!(violation.rule, rule, "{violation}"),
        }
    }
}

/// The operand of a TLBI by address, no level hint.
pub fn va(address: u64) -> u64 {
    address >> 12 & 0xfff_ffff_ffff
}

/// The operand of a TLBI by range over 4K pages: (num + 1) << (5 * scale + 1) of them.
pub fn range(address: u64, num: u64, scale: u64) -> u64 {
    address >> 12 & 0x1f_ffff_ffff | num << 39 | scale << 44 | 0b01 << 46
}

pub fn broadcast(scope: TlbiScope) -> Tlbi {
    Tlbi { scope, broadcast: true }
}

pub fn asid(asid: u64) -> u64 {
    asid << 48
}

pub fn free(pa: u64) -> Event {
    Event::Free { pa, len: 0x1000 }
}

/// `A` in TTBR0 with ASID 1, a leaf at address 0, and `B` in no TTBR.
pub fn user(leaf: u64, cpus: usize) -> Scene {
    let mut scene = Scene::new(3, cpus);
    scene.tree(A).tree(B);
    for cpu in 0..cpus {
        scene.write(cpu, Register::Ttbr0, A | asid(1)).isb(cpu);
    }
    scene.store(A3, leaf).ordered();
    scene
}
