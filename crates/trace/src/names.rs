//! The names of instructions and registers, as the architecture spells them, in lower case.

use crate::event::{Access, Domain, Register, Tlbi, TlbiScope, Use};

/// The TLBI instructions without the `is` of the broadcast forms, and whether they take an operand.
const TLBI: [(&str, TlbiScope, bool); 26] = [
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
    ("rvae2", TlbiScope::RangeEl2, true),
    ("rvale2", TlbiScope::RangeEl2Last, true),
    ("alle3", TlbiScope::AllEl3, false),
    ("vae3", TlbiScope::VaEl3, true),
    ("vale3", TlbiScope::VaEl3Last, true),
    ("rvae3", TlbiScope::RangeEl3, true),
    ("rvale3", TlbiScope::RangeEl3Last, true),
    ("alle1", TlbiScope::AllStages, false),
    ("vmalls12e1", TlbiScope::AllStagesVmid, false),
    ("ipas2e1", TlbiScope::Ipa, true),
    ("ipas2le1", TlbiScope::IpaLast, true),
    ("ripas2e1", TlbiScope::IpaRange, true),
    ("ripas2le1", TlbiScope::IpaRangeLast, true),
];

const REGISTERS: [(&str, Register); 17] = [
    ("ttbr0_el1", Register::Ttbr0),
    ("ttbr1_el1", Register::Ttbr1),
    ("tcr_el1", Register::Tcr),
    ("mair_el1", Register::Mair),
    ("ttbr0_el2", Register::Ttbr0El2),
    ("ttbr1_el2", Register::Ttbr1El2),
    ("ttbr0_el3", Register::Ttbr0El3),
    ("vttbr_el2", Register::Vttbr),
    ("vtcr_el2", Register::Vtcr),
    ("hcr_el2", Register::Hcr),
    ("tcr_el2", Register::TcrEl2),
    ("mair_el2", Register::MairEl2),
    ("tcr_el3", Register::TcrEl3),
    ("mair_el3", Register::MairEl3),
    ("sctlr_el1", Register::Sctlr),
    ("sctlr_el2", Register::SctlrEl2),
    ("sctlr_el3", Register::SctlrEl3),
];

const BARRIERS: [(&str, Domain, Access); 12] = [
    ("nsh", Domain::Nsh, Access::All),
    ("nshst", Domain::Nsh, Access::Stores),
    ("ish", Domain::Ish, Access::All),
    ("ishst", Domain::Ish, Access::Stores),
    ("osh", Domain::Osh, Access::All),
    ("oshst", Domain::Osh, Access::Stores),
    ("sy", Domain::Sy, Access::All),
    ("st", Domain::Sy, Access::Stores),
    ("nshld", Domain::Nsh, Access::Loads),
    ("ishld", Domain::Ish, Access::Loads),
    ("oshld", Domain::Osh, Access::Loads),
    ("ld", Domain::Sy, Access::Loads),
];

fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

impl Tlbi {
    /// The instruction called `name`, in either case. The OS forms are read as IS forms, and the
    /// nXS forms as those without.
    ///
    /// ```
    /// use linmap_trace::{Tlbi, TlbiScope};
    ///
    /// let broadcast = Tlbi { scope: TlbiScope::VaAnyAsid, broadcast: true };
    /// assert_eq!(Tlbi::named(b"VAAE1IS"), Some(broadcast));
    /// assert_eq!(Tlbi::named(b"vaae1osnxs"), Some(broadcast));
    /// assert_eq!(Tlbi::named(b"vaae1ish"), None);
    /// ```
    pub fn named(name: &[u8]) -> Option<Self> {
        TLBI.iter().find_map(|&(stem, scope, _)| {
            let (start, rest) = name.split_at_checked(stem.len())?;
            let forms = [("", false), ("is", true), ("os", true)];
            let rest = match rest.split_last_chunk() {
                Some((rest, nxs @ [_, _, _])) if is(nxs, "nxs") => rest,
                _ => rest,
            };
            let (_, broadcast) = forms.into_iter().find(|(form, _)| is(rest, form))?;
            is(start, stem).then_some(Self { scope, broadcast })
        })
    }
}

impl TlbiScope {
    /// The instruction's name without the `is` of its broadcast form.
    pub fn name(self) -> &'static str {
        TLBI.iter().find(|(_, scope, _)| *scope == self).map_or("", |(name, ..)| name)
    }

    /// Whether the instruction takes an operand.
    pub fn takes_operand(self) -> bool {
        TLBI.iter().any(|&(_, scope, operand)| scope == self && operand)
    }
}

impl Register {
    /// The register called `name`, in either case.
    pub fn named(name: &[u8]) -> Option<Self> {
        REGISTERS.iter().find(|(own, _)| is(name, own)).map(|(_, register)| *register)
    }

    /// The register's name.
    pub fn name(self) -> &'static str {
        REGISTERS.iter().find(|(_, register)| *register == self).map_or("", |(name, _)| name)
    }
}

impl Use {
    /// The kind of access called `name`: `read`, `write` or `exec`.
    pub fn named(name: &[u8]) -> Option<Self> {
        [Self::Read, Self::Write, Self::Execute].into_iter().find(|kind| kind.name().as_bytes() == name)
    }

    /// The name of the kind of access.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Execute => "exec",
        }
    }
}

/// What the DSB or DMB with the option `name`, in either case, orders.
///
/// ```
/// use linmap_trace::{Access, Domain, barrier_named};
///
/// assert_eq!(barrier_named(b"ishst"), Some((Domain::Ish, Access::Stores)));
/// ```
pub fn barrier_named(name: &[u8]) -> Option<(Domain, Access)> {
    BARRIERS.iter().find(|(own, ..)| is(name, own)).map(|&(_, domain, access)| (domain, access))
}

/// The option of the DSB or DMB that orders `access` for `domain`.
pub fn barrier_name(domain: Domain, access: Access) -> &'static str {
    BARRIERS.iter().find(|(_, d, a)| (*d, *a) == (domain, access)).map_or("", |(name, ..)| name)
}

/// The number of a TLBI in the binary form: its place in the list, which only ever grows.
pub(crate) fn tlbi_number(scope: TlbiScope) -> u8 {
    TLBI.iter().position(|(_, own, _)| *own == scope).unwrap_or(0) as u8
}

/// The TLBI with this number.
pub(crate) fn tlbi_numbered(number: u8) -> Option<TlbiScope> {
    TLBI.get(usize::from(number)).map(|(_, scope, _)| *scope)
}

/// The number of a register in the binary form, as [`tlbi_number`].
pub(crate) fn register_number(register: Register) -> u8 {
    REGISTERS.iter().position(|(_, own)| *own == register).unwrap_or(0) as u8
}

/// The register with this number.
pub(crate) fn register_numbered(number: u8) -> Option<Register> {
    REGISTERS.get(usize::from(number)).map(|(_, register)| *register)
}

/// The number of a barrier's option in the binary form, as [`tlbi_number`].
pub(crate) fn barrier_number(domain: Domain, access: Access) -> u8 {
    BARRIERS.iter().position(|(_, d, a)| (*d, *a) == (domain, access)).unwrap_or(0) as u8
}

/// What the barrier with this number orders.
pub(crate) fn barrier_numbered(number: u8) -> Option<(Domain, Access)> {
    BARRIERS.get(usize::from(number)).map(|&(_, domain, access)| (domain, access))
}
