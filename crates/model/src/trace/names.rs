//! The architecture's names of what appears in traces.

use crate::event::{Access, Domain, Register, Tlbi, TlbiScope};

/// The TLBI instructions without the `is` of the broadcast forms, and whether they take an operand.
const TLBI: [(&str, TlbiScope, bool); 16] = [
    ("vmalle1", TlbiScope::AllEl1, false),
    ("aside1", TlbiScope::Asid, true),
    ("vae1", TlbiScope::Va, true),
    ("vale1", TlbiScope::VaLast, true),
    ("vaae1", TlbiScope::VaAnyAsid, true),
    ("vaale1", TlbiScope::VaAnyAsidLast, true),
    ("rvae1", TlbiScope::Range, true),
    ("rvale1", TlbiScope::RangeLast, true),
    ("rvaae1", TlbiScope::RangeAnyAsid, true),
    ("rvaale1", TlbiScope::RangeAnyAsidLast, true),
    ("alle2", TlbiScope::AllEl2, false),
    ("vae2", TlbiScope::VaEl2, true),
    ("vale2", TlbiScope::VaEl2Last, true),
    ("alle1", TlbiScope::AllStages, false),
    ("vmalls12e1", TlbiScope::AllStagesVmid, false),
    ("ipas2e1", TlbiScope::Ipa, true),
];

const REGISTERS: [(&str, Register); 6] = [
    ("ttbr0_el1", Register::Ttbr0),
    ("ttbr1_el1", Register::Ttbr1),
    ("tcr_el1", Register::Tcr),
    ("mair_el1", Register::Mair),
    ("ttbr0_el2", Register::Ttbr0El2),
    ("vttbr_el2", Register::Vttbr),
];

const BARRIERS: [(&str, Domain, Access); 8] = [
    ("nsh", Domain::Nsh, Access::All),
    ("nshst", Domain::Nsh, Access::Stores),
    ("ish", Domain::Ish, Access::All),
    ("ishst", Domain::Ish, Access::Stores),
    ("osh", Domain::Osh, Access::All),
    ("oshst", Domain::Osh, Access::Stores),
    ("sy", Domain::Sy, Access::All),
    ("st", Domain::Sy, Access::Stores),
];

fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

/// The TLBI instruction of a name.
pub(super) fn tlbi(word: &[u8]) -> Option<Tlbi> {
    TLBI.iter().find_map(|&(name, scope, _)| {
        let (stem, rest) = word.split_at_checked(name.len())?;
        let broadcast = match rest {
            [] => false,
            [b'i' | b'I', b's' | b'S'] => true,
            _ => return None,
        };
        is(stem, name).then_some(Tlbi { scope, broadcast })
    })
}

/// The name of a TLBI instruction, in two parts.
pub(super) fn of_tlbi(tlbi: Tlbi) -> (&'static str, &'static str) {
    let stem = TLBI.iter().find(|(_, scope, _)| *scope == tlbi.scope).map_or("", |(name, ..)| name);
    (stem, if tlbi.broadcast { "is" } else { "" })
}

/// Whether a TLBI instruction takes an operand.
pub(super) fn takes_operand(scope: TlbiScope) -> bool {
    TLBI.iter().any(|&(_, other, operand)| other == scope && operand)
}

/// The register of a name.
pub(super) fn register(word: &[u8]) -> Option<Register> {
    REGISTERS.iter().find(|(name, _)| is(word, name)).map(|(_, register)| *register)
}

/// The name of a register.
pub(super) fn of_register(register: Register) -> &'static str {
    REGISTERS.iter().find(|(_, other)| *other == register).map_or("", |(name, _)| name)
}

/// The DSB of an option.
pub(super) fn barrier(word: &[u8]) -> Option<(Domain, Access)> {
    BARRIERS.iter().find(|(name, ..)| is(word, name)).map(|&(_, domain, access)| (domain, access))
}

/// The option of a DSB.
pub(super) fn of_barrier(domain: Domain, access: Access) -> &'static str {
    BARRIERS.iter().find(|(_, d, a)| (*d, *a) == (domain, access)).map_or("", |(name, ..)| name)
}
