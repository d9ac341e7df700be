//! What `settled` accepts every access agrees with, in every regime: on random edits of two trees
//! by two CPUs that switch between them, with ASIDs or VMIDs, entries in common, hierarchical
//! permissions and updates by hardware.

mod scene;

use linmap_model::event::{Access, Domain, Register, Tlbi, TlbiScope, Use};
use linmap_model::{Config, Event, Machine};
use proptest::prelude::*;
use proptest::sample::select;
use scene::{A, B, RAM};

const PAGES: u64 = 6;
const ACCESSED: u64 = 1 << 10;
const READ_ONLY: u64 = 1 << 7;
const PXN: u64 = 1 << 53;
const XN: u64 = 1 << 54;
const DBM: u64 = 1 << 51;
const TABLE: u64 = 3;

/// A regime, as the tests of this file need it.
#[derive(Clone, Copy, Debug)]
struct Regime {
    base: Register,
    /// Written first: E2H, or how stage 2 is read.
    control: Option<(Register, u64)>,
    /// The identifiers of the two trees.
    ids: [u64; 2],
    /// The first address.
    start: u64,
    /// All of it; one address.
    tlbis: [TlbiScope; 2],
    /// Whether the leaves of stage 2 stand in its tables.
    stage_2: bool,
    /// Whether PXN and nG have a meaning.
    el0: bool,
    /// Whether hardware sets the access flag, and the dirty state.
    updates: [bool; 2],
}

/// T0SZ = T1SZ = 25, TG1 = 4K, IPS = 48 bits, AS.
const TCR: u64 = 25 | 25 << 16 | 0b10 << 30 | 0b101 << 32 | 1 << 36;
/// 39 bits from level 1, PS = 48 bits.
const VTCR: u64 = 1 << 31 | 25 | 1 << 6 | 0b101 << 16;
const E2H: u64 = 1 << 34;

fn regime() -> impl Strategy<Value = Regime> {
    let el1 = Regime {
        base: Register::Ttbr0,
        control: Some((Register::Tcr, TCR)),
        ids: [1, 2],
        start: 0,
        tlbis: [TlbiScope::AllEl1, TlbiScope::VaAnyAsid],
        stage_2: false,
        el0: true,
        updates: [false; 2],
    };
    let high = Regime { base: Register::Ttbr1, ids: [0, 0], start: u64::MAX << 39, ..el1 };
    let marks = |regime: Regime, ha, hd| {
        let control = regime.control.map(|(register, value)| (register, value | ha | hd));
        Regime { control, updates: [ha != 0, hd != 0], ..regime }
    };
    let el2 = Regime {
        base: Register::Ttbr0El2,
        control: None,
        ids: [0, 0],
        tlbis: [TlbiScope::AllEl2, TlbiScope::VaEl2],
        el0: false,
        ..el1
    };
    let el2_and_0 = Regime { control: Some((Register::Hcr, E2H)), ids: [0, 1], el0: true, ..el2 };
    let upper = Regime { base: Register::Ttbr1El2, ids: [0, 0], start: high.start, ..el2_and_0 };
    let el3 = Regime { base: Register::Ttbr0El3, tlbis: [TlbiScope::AllEl3, TlbiScope::VaEl3], ..el2 };
    let guest = Regime {
        base: Register::Vttbr,
        control: Some((Register::Vtcr, VTCR)),
        ids: [1, 2],
        tlbis: [TlbiScope::AllStagesVmid, TlbiScope::Ipa],
        stage_2: true,
        el0: false,
        ..el1
    };
    select(vec![
        el1,
        marks(el1, 1 << 39, 0),
        marks(el1, 1 << 39, 1 << 40),
        high,
        el2,
        el2_and_0,
        upper,
        el3,
        guest,
        marks(guest, 1 << 21, 1 << 22),
    ])
}

/// The tables of a root: level 1, 2 and 3 follow each other.
fn table(root: u64, level: u64) -> u64 {
    root + 0x1000 * (level - 1)
}

fn leaf(regime: Regime) -> impl Strategy<Value = u64> {
    // Never executed, inner shareable, read and write; AP[2] takes that away, S2AP[1] gives it.
    let plain = if regime.stage_2 { XN | 0x7ff } else { PXN | XN | 0x703 };
    let read = plain ^ READ_ONLY;
    let local = if regime.el0 { 1 << 11 } else { 0 };
    let execute = if regime.stage_2 || !regime.el0 { XN } else { PXN };
    let variants = vec![plain, plain, read, read | DBM, plain | DBM, plain & !ACCESSED, read & !execute];
    (select(variants), select(vec![0, local, local])).prop_map(|(leaf, local)| leaf | local)
}

/// What happens in one go.
fn step(regime: Regime) -> impl Strategy<Value = Vec<Event>> {
    let dsb = |cpu, access| Event::Dsb { cpu, domain: Domain::Ish, access };
    let roots = || select(vec![(A, 0), (A, 0), (B, 1)]);
    let [all, by_address] = regime.tlbis;
    let published = move |cpu: usize, scope, broadcast, operand| {
        let tlbi = Event::Tlbi { cpu, tlbi: Tlbi { scope, broadcast }, operand };
        vec![dsb(cpu, Access::Stores), tlbi, dsb(cpu, Access::All), Event::Isb { cpu }]
    };
    let bits = if regime.stage_2 {
        vec![0]
    } else if regime.el0 {
        vec![0, 0b1000, 0b0001, 0b0100]
    } else {
        vec![0, 0b1000, 0b0010]
    };
    let stored = (roots(), 0..PAGES, leaf(regime), any::<bool>(), any::<bool>());
    prop_oneof![
        6 => stored.prop_map(|((root, _), page, leaf, valid, plain)| {
            let value = if valid { leaf | page << 12 } else { 0 };
            let pa = table(root, 3) + 8 * page;
            if plain {
                vec![Event::Store { cpu: 0, pa, value, via: None }]
            } else {
                vec![Event::Update { cpu: 0, pa, value, old: None, via: None }]
            }
        }),
        2 => (roots(), 1..3_u64, select(bits)).prop_map(|((root, _), level, bits)| {
            let value = table(root, level + 1) | TABLE | bits << 59;
            vec![Event::Store { cpu: 0, pa: table(root, level), value, via: None }]
        }),
        4 => (0..2_usize, any::<bool>()).prop_map(move |(cpu, broadcast)| published(cpu, all, broadcast, 0)),
        2 => (0..2_usize, 0..PAGES).prop_map(move |(cpu, page)| {
            let operand = (regime.start >> 12 & 0xfff_ffff_ffff) + page;
            published(cpu, by_address, true, operand)
        }),
        1 => (0..2_usize).prop_map(move |cpu| vec![dsb(cpu, Access::Stores), Event::Isb { cpu }]),
        2 => (0..2_usize, roots(), 0..2_u64).prop_map(move |(cpu, (root, nth), cnp)| {
            let value = root | regime.ids[nth] << 48 | cnp;
            vec![Event::Write { cpu, register: regime.base, value }, Event::Isb { cpu }]
        }),
    ]
}

/// A machine whose CPUs walk `A`, and what was done to it.
fn machine(regime: Regime, bbm: u8, events: &[Event]) -> Machine {
    let ram = vec![(RAM, 0x10_0000)];
    let config = Config {
        cpus: 2,
        bbm,
        granule: 0x1000,
        va_bits: 39,
        pa_bits: 48,
        ram,
        leniency: linmap_model::Leniency::Strict,
    };
    let mut machine = Machine::new(&config).unwrap();
    let mut start = Vec::new();
    for root in [A, B] {
        start.push(Event::Fill { cpu: 0, pa: root, count: 3 * 512, first: 0, step: 0 });
        for level in 1..3 {
            let value = table(root, level + 1) | TABLE;
            start.push(Event::Store { cpu: 0, pa: table(root, level), value, via: None });
        }
    }
    start.push(Event::Dsb { cpu: 0, domain: Domain::Ish, access: Access::All });
    for cpu in 0..2 {
        if let Some((register, value)) = regime.control {
            start.extend([Event::Write { cpu, register, value }, Event::Isb { cpu }]);
        }
        let value = A | regime.ids[0] << 48;
        start.extend([Event::Write { cpu, register: regime.base, value }, Event::Isb { cpu }]);
    }
    for event in start.iter().chain(events) {
        assert_eq!(machine.step(event), Ok(()), "{event}");
    }
    machine
}

/// What the tables of `root` say of an access now.
fn expected(machine: &Machine, regime: Regime, root: u64, access: (usize, u64, Use)) -> Event {
    let (cpu, page, kind) = access;
    let va = regime.start + (page << 12);
    let word = machine.word(table(root, 3) + 8 * page).unwrap();
    let taken = (1..3).fold(0, |taken, level| taken | machine.word(table(root, level)).unwrap() >> 59);
    let [accessed, dirty] = regime.updates;
    let writable = if regime.stage_2 { word & READ_ONLY != 0 } else { word & READ_ONLY == 0 };
    let allowed = match kind {
        Use::Read => true,
        Use::Write => (writable || dirty && word & DBM != 0) && taken & 0b1000 == 0,
        Use::Execute if regime.el0 => word & PXN == 0 && taken & 0b0001 == 0,
        Use::Execute => word & XN == 0 && taken & 0b0010 == 0,
    };
    if word & 1 == 1 && (accessed || word & ACCESSED != 0) && allowed {
        Event::Access { cpu, va, kind, pa: page << 12 }
    } else {
        Event::Faults { cpu, va, kind }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8_000))]

    #[test]
    fn what_is_settled_every_access_agrees_with(
        (regime, steps) in regime().prop_flat_map(|regime| {
            (Just(regime), prop::collection::vec(step(regime), 1..16))
        }),
        bbm in 0..4_u8,
    ) {
        // Events that break a rule are left out.
        let mut legal = Vec::new();
        let mut present = machine(regime, bbm, &legal);
        let mut roots = [A; 2];
        for event in steps.into_iter().flatten() {
            if present.step(&event).is_err() {
                present = machine(regime, bbm, &legal);
                continue;
            }
            if let Event::Write { cpu, value, .. } = event {
                roots[cpu] = value & 0xffff_ffff_f000;
            }
            legal.push(event);
        }
        if present.step(&Event::Settled).is_err() {
            return Ok(());
        }
        for (cpu, root) in roots.into_iter().enumerate() {
            present.step(&Event::Isb { cpu }).unwrap();
            for page in 0..PAGES {
                for kind in [Use::Read, Use::Write, Use::Execute] {
                    let access = expected(&present, regime, root, (cpu, page, kind));
                    prop_assert_eq!(present.step(&access), Ok(()), "{} after {:#?}", access, legal);
                }
            }
        }
    }
}
