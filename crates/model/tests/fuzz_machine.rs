//! Machines of every shape under events of every kind, sensible or not: a verdict, and never a
//! panic.
//!
//! `LINMAP_FUZZ_CASES` sets how many machines; without it 800, or 20 000 with `LINMAP_SOAK=1`.

use linmap_model::event::{Access, Domain, Register, Tlbi, TlbiScope, Use};
use linmap_model::{Config, Event, Machine};
use proptest::prelude::*;

const RAM: u64 = 0x4000_0000;
const FRAMES: u64 = 12;

fn config() -> impl Strategy<Value = Config> {
    let granule = prop_oneof![Just(0x1000u64), Just(0x4000), Just(0x1_0000)];
    let pa_bits = prop_oneof![Just(36u8), Just(48), Just(52)];
    (1..=4usize, 0..=3u8, granule, 25..=52u8, pa_bits).prop_map(|(cpus, bbm, granule, va_bits, pa_bits)| {
        Config {
            cpus,
            bbm,
            granule,
            va_bits,
            pa_bits,
            ram: vec![(RAM, FRAMES * granule)],
            leniency: linmap_model::Leniency::Strict,
        }
    })
}

/// An address in memory that tables are likely to have.
fn pa(granule: u64) -> impl Strategy<Value = u64> {
    let entry = prop_oneof![3 => 0..8u64, 1 => 0..granule / 8, 1 => granule / 8 - 8..granule / 8];
    (0..FRAMES, entry).prop_map(move |(frame, entry)| RAM + frame * granule + 8 * entry)
}

fn descriptor(granule: u64) -> impl Strategy<Value = u64> {
    let attributes = prop_oneof![
        Just(0x0060_0000_0000_0703u64),
        Just(0x0060_0000_0000_0701),
        Just(0x0070_0000_0000_0703),
        Just(0x0060_0000_0000_0f83),
        Just(0x0060_0000_0001_0701),
        Just(0x0068_0000_0000_0383),
        Just(3),
        Just(0x4800_0000_0000_0003),
        Just(0x3000_0000_0000_0003),
        Just(0),
    ];
    let address = prop_oneof![(0..FRAMES).prop_map(move |frame| RAM + frame * granule), 0..1u64 << 48];
    prop_oneof![
        9 => (attributes, address, 0..12u32).prop_map(|(attributes, address, drop)| {
            attributes | address & 0x0000_ffff_ffff_f000 & (u64::MAX << (4 * drop))
        }),
        1 => any::<u64>(),
    ]
}

fn va(va_bits: u8) -> impl Strategy<Value = u64> {
    let near = prop_oneof![0..0x10_0000u64, Just(0), any::<u64>()];
    (near, any::<bool>()).prop_map(move |(near, high)| if high { u64::MAX << va_bits | near } else { near })
}

fn kind() -> impl Strategy<Value = Use> {
    prop_oneof![Just(Use::Read), Just(Use::Write), Just(Use::Execute)]
}

fn tlbi() -> impl Strategy<Value = Tlbi> {
    let scope = prop::sample::select(vec![
        TlbiScope::AllEl1,
        TlbiScope::Asid,
        TlbiScope::Va,
        TlbiScope::VaLast,
        TlbiScope::VaAnyAsid,
        TlbiScope::VaAnyAsidLast,
        TlbiScope::Range,
        TlbiScope::RangeLast,
        TlbiScope::RangeAnyAsid,
        TlbiScope::RangeAnyAsidLast,
        TlbiScope::AllEl2,
        TlbiScope::VaEl2,
        TlbiScope::VaEl2Last,
        TlbiScope::AllStages,
        TlbiScope::AllStagesVmid,
        TlbiScope::Ipa,
        TlbiScope::IpaLast,
        TlbiScope::IpaRange,
        TlbiScope::IpaRangeLast,
        TlbiScope::RangeEl2,
        TlbiScope::RangeEl2Last,
        TlbiScope::AllEl3,
        TlbiScope::VaEl3,
        TlbiScope::VaEl3Last,
        TlbiScope::RangeEl3,
        TlbiScope::RangeEl3Last,
    ]);
    (scope, any::<bool>()).prop_map(|(scope, broadcast)| Tlbi { scope, broadcast })
}

fn event(config: &Config) -> impl Strategy<Value = Event> + use<> {
    let Config { granule, va_bits, pa_bits, cpus, .. } = *config;
    let cpu = 0..cpus + usize::from(va_bits == 25);
    let register = prop::sample::select(vec![
        Register::Ttbr0,
        Register::Ttbr1,
        Register::Ttbr1,
        Register::Tcr,
        Register::Tcr,
        Register::Mair,
        Register::Ttbr0El2,
        Register::Ttbr1El2,
        Register::Ttbr0El3,
        Register::Vtcr,
        Register::Hcr,
        Register::TcrEl2,
        Register::MairEl2,
        Register::TcrEl3,
        Register::MairEl3,
        Register::Sctlr,
        Register::SctlrEl2,
        Register::SctlrEl3,
        Register::Vttbr,
    ]);
    let domain = prop::sample::select(vec![Domain::Nsh, Domain::Ish, Domain::Osh, Domain::Sy]);
    let access = prop::sample::select(vec![Access::All, Access::Stores]);
    let value = prop_oneof![
        (0..FRAMES, 0..3u64, 0..2u64)
            .prop_map(move |(frame, id, cnp)| (RAM + frame * granule) | (id << 48) | cnp),
        // E2H, and what else HCR_EL2, TCR_EL1 and VTCR_EL2 have.
        prop::sample::select(vec![0, 1, 1 << 34, 1 << 34 | 1 << 27, 0x5_b510_3510]),
        // TCR_EL1 of this machine: EPD0, A1, EPD1, HA, HD, HPD0 and HPD1, or a part of them.
        (any::<u64>(), any::<bool>()).prop_map(move |(bits, plain)| {
            let size = 64 - u64::from(va_bits);
            let (tg0, tg1) =
                [(0b00, 0b10), (0b10, 0b01), (0b01, 0b11)][granule.trailing_zeros() as usize / 2 - 6];
            let bits = if plain { 0 } else { bits } & (1 << 7 | 1 << 22 | 1 << 23 | 0b1111 << 39);
            let ds = u64::from(granule < 0x1_0000 && (va_bits > 48 || pa_bits > 48)) << 59;
            size | size << 16 | tg0 << 14 | tg1 << 30 | 0b110 << 32 | 1 << 36 | ds | bits
        }),
        (16..40u64, 0..4u64, 0..3u64, 0..7u64)
            .prop_map(|(t0sz, sl0, tg0, ps)| { 1 << 31 | t0sz | sl0 << 6 | tg0 << 14 | ps << 16 }),
        any::<u64>()
    ];
    let operand = prop_oneof![va(va_bits).prop_map(|va| va >> 12 & 0xfff_ffff_ffff), any::<u64>()];
    prop_oneof![
        12 => (cpu.clone(), pa(granule), descriptor(granule), prop::option::weighted(0.1, va(va_bits)))
            .prop_map(|(cpu, pa, value, via)| Event::Store { cpu, pa, value, via }),
        3 => (cpu.clone(), pa(granule), descriptor(granule))
            .prop_map(|(cpu, pa, value)| Event::Update { cpu, pa, value, old: None, via: None }),
        6 => (cpu.clone(), 0..FRAMES, descriptor(granule), prop_oneof![Just(0), Just(granule)])
            .prop_map(move |(cpu, frame, first, step)| Event::Fill {
                cpu, pa: RAM + frame * granule, count: granule / 8, first, step }),
        4 => (cpu.clone(), domain, access)
            .prop_map(|(cpu, domain, access)| Event::Dsb { cpu, domain, access }),
        3 => cpu.clone().prop_map(|cpu| Event::Isb { cpu }),
        4 => (cpu.clone(), tlbi(), operand)
            .prop_map(|(cpu, tlbi, operand)| Event::Tlbi { cpu, tlbi, operand }),
        4 => (cpu.clone(), register, value)
            .prop_map(|(cpu, register, value)| Event::Write { cpu, register, value }),
        1 => (cpu.clone(), va(va_bits), kind(), any::<u64>())
            .prop_map(|(cpu, va, kind, pa)| Event::Access { cpu, va, kind, pa }),
        2 => (cpu.clone(), va(va_bits), kind()).prop_map(|(cpu, va, kind)| Event::Faults { cpu, va, kind }),
        1 => (cpu.clone(), va(va_bits), any::<u64>(), kind())
            .prop_map(|(cpu, va, len, kind)| Event::Uses { cpu, va, len, kind }),
        1 => (cpu, va(va_bits), any::<u64>(), kind())
            .prop_map(|(cpu, va, len, kind)| Event::Unuses { cpu, va, len, kind }),
        1 => (0..FRAMES).prop_map(move |frame| Event::Free { pa: RAM + frame * granule, len: granule }),
        1 => Just(Event::Settled),
    ]
}

fn cases() -> u32 {
    let is_soak = std::env::var_os("LINMAP_SOAK").is_some_and(|value| !value.is_empty() && value != "0");
    let unset = if is_soak { 20_000 } else { 800 };
    std::env::var("LINMAP_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(unset)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn any_machine_gives_a_verdict_on_any_events(
        (config, events) in config().prop_flat_map(|config| {
            let events = prop::collection::vec(event(&config), 0..80);
            (Just(config), events)
        })
    ) {
        let mut machine = Machine::new(&config).unwrap();
        // Most events break a rule: those are left out, and the rest goes on without them.
        let mut legal = Vec::new();
        for event in events {
            if machine.step(&event).is_ok() {
                legal.push(event);
                continue;
            }
            machine = Machine::new(&config).unwrap();
            for event in &legal {
                prop_assert_eq!(machine.step(event), Ok(()), "the same events, another verdict");
            }
        }
    }
}
