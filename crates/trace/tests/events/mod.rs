//! Any event that a trace can have.

use linmap_trace::{Access, Domain, Event, Register, Tlbi, TlbiScope, Use};
use proptest::prelude::*;
use proptest::sample::select;

const SCOPES: [(TlbiScope, bool); 26] = [
    (TlbiScope::AllEl1, false),
    (TlbiScope::Asid, true),
    (TlbiScope::Va, true),
    (TlbiScope::VaLast, true),
    (TlbiScope::VaAnyAsid, true),
    (TlbiScope::VaAnyAsidLast, true),
    (TlbiScope::Range, true),
    (TlbiScope::RangeLast, true),
    (TlbiScope::RangeAnyAsid, true),
    (TlbiScope::RangeAnyAsidLast, true),
    (TlbiScope::AllEl2, false),
    (TlbiScope::VaEl2, true),
    (TlbiScope::VaEl2Last, true),
    (TlbiScope::RangeEl2, true),
    (TlbiScope::RangeEl2Last, true),
    (TlbiScope::AllEl3, false),
    (TlbiScope::VaEl3, true),
    (TlbiScope::VaEl3Last, true),
    (TlbiScope::RangeEl3, true),
    (TlbiScope::RangeEl3Last, true),
    (TlbiScope::AllStages, false),
    (TlbiScope::AllStagesVmid, false),
    (TlbiScope::Ipa, true),
    (TlbiScope::IpaLast, true),
    (TlbiScope::IpaRange, true),
    (TlbiScope::IpaRangeLast, true),
];

fn tlbi() -> impl Strategy<Value = Event> {
    (any::<usize>(), select(SCOPES.to_vec()), any::<bool>(), any::<u64>()).prop_map(
        |(cpu, (scope, takes_operand), broadcast, operand)| {
            let operand = if takes_operand { operand } else { 0 };
            Event::Tlbi { cpu, tlbi: Tlbi { scope, broadcast }, operand }
        },
    )
}

pub fn event() -> impl Strategy<Value = Event> {
    let cpu = any::<usize>;
    let kind = || select(vec![Use::Read, Use::Write, Use::Execute]);
    let range = || any::<u64>().prop_flat_map(|va| (Just(va), 1..=(u64::MAX - va).saturating_add(1).max(1)));
    let word = || (0..=u64::MAX / 8).prop_map(|word| 8 * word);
    let domain = select(vec![Domain::Nsh, Domain::Ish, Domain::Osh, Domain::Sy]);
    let accesses = vec![Access::All, Access::Stores, Access::Loads];
    let registers = vec![
        Register::Ttbr0,
        Register::Ttbr1,
        Register::Tcr,
        Register::Mair,
        Register::Ttbr0El2,
        Register::Ttbr1El2,
        Register::Ttbr0El3,
        Register::Vttbr,
        Register::Vtcr,
        Register::Hcr,
        Register::TcrEl2,
        Register::MairEl2,
        Register::TcrEl3,
        Register::MairEl3,
        Register::Sctlr,
        Register::SctlrEl2,
        Register::SctlrEl3,
    ];
    prop_oneof![
        (cpu(), word(), any::<u64>(), any::<Option<u64>>()).prop_map(|(cpu, pa, value, via)| Event::Store {
            cpu,
            pa,
            value,
            via
        }),
        (cpu(), word(), any::<u64>(), any::<Option<u64>>(), any::<Option<u64>>())
            .prop_map(|(cpu, pa, value, old, via)| Event::Update { cpu, pa, value, old, via }),
        (cpu(), word(), 1..=u64::MAX, any::<u64>(), any::<u64>())
            .prop_map(|(cpu, pa, count, first, step)| Event::Fill { cpu, pa, count, first, step }),
        (cpu(), domain.clone(), select(accesses.clone())).prop_map(|(cpu, domain, access)| Event::Dsb {
            cpu,
            domain,
            access
        }),
        (cpu(), domain, select(accesses)).prop_map(|(cpu, domain, access)| Event::Dmb {
            cpu,
            domain,
            access
        }),
        (cpu(), word()).prop_map(|(cpu, pa)| Event::Release { cpu, pa }),
        (cpu(), word()).prop_map(|(cpu, pa)| Event::Acquire { cpu, pa }),
        (cpu(), any::<u64>()).prop_map(|(cpu, thread)| Event::Thread { cpu, thread }),
        (cpu(), any::<u64>()).prop_map(|(cpu, thread)| Event::User { cpu, thread }),
        cpu().prop_map(|cpu| Event::Isb { cpu }),
        tlbi(),
        (cpu(), select(registers), any::<u64>()).prop_map(|(cpu, register, value)| Event::Write {
            cpu,
            register,
            value
        }),
        (cpu(), any::<u64>(), kind(), any::<u64>()).prop_map(|(cpu, va, kind, pa)| Event::Access {
            cpu,
            va,
            kind,
            pa
        }),
        (cpu(), any::<u64>(), kind()).prop_map(|(cpu, va, kind)| Event::Faults { cpu, va, kind }),
        (cpu(), range(), kind()).prop_map(|(cpu, (va, len), kind)| Event::Uses { cpu, va, len, kind }),
        (cpu(), range(), kind()).prop_map(|(cpu, (va, len), kind)| Event::Unuses { cpu, va, len, kind }),
        (0..1_u64 << 52, 1..1_u64 << 52).prop_map(|(pa, len)| Event::Free { pa: pa << 12, len: len << 12 }),
        Just(Event::Settled),
    ]
}
