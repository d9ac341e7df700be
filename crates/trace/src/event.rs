//! Events: what CPUs do to translation tables and rely on, one event per instruction.

/// The accesses that a barrier orders.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// Reads and writes: the plain forms.
    All,
    /// Writes alone: the ST forms. They order stores but complete no TLBI.
    Stores,
    /// Reads, before all that follows: the LD forms. They order no stores and complete no TLBI.
    Loads,
}

/// The observers of a barrier.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Domain {
    /// NSH: the CPU itself.
    Nsh,
    /// ISH: all CPUs of the machine.
    Ish,
    /// OSH: at least as far as ISH.
    Osh,
    /// SY: the full system.
    Sy,
}

/// A TLBI instruction.
///
/// The OS forms are read as IS forms, because all CPUs of a machine are in one inner domain. The
/// nXS forms are read as those without: they differ in which accesses they wait for, not in what
/// they invalidate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tlbi {
    /// What it invalidates.
    pub scope: TlbiScope,
    /// Whether it reaches every CPU of the inner domain (the IS forms) or the issuing CPU alone.
    pub broadcast: bool,
}

/// What a TLBI invalidates. The operand is a field of the event.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TlbiScope {
    /// VMALLE1: all of EL1&0.
    AllEl1,
    /// ASIDE1: non-global entries of one ASID.
    Asid,
    /// VAE1: one address in one ASID, and global entries for it.
    Va,
    /// VALE1: as VAE1, leaf entries alone.
    VaLast,
    /// VAAE1: one address in every ASID.
    VaAnyAsid,
    /// VAALE1: as VAAE1, leaf entries alone.
    VaAnyAsidLast,
    /// RVAE1: a range of addresses in one ASID, and global entries for it.
    Range,
    /// RVALE1: as RVAE1, leaf entries alone.
    RangeLast,
    /// RVAAE1: a range of addresses in every ASID.
    RangeAnyAsid,
    /// RVAALE1: as RVAAE1, leaf entries alone.
    RangeAnyAsidLast,
    /// ALLE2: all of EL2.
    AllEl2,
    /// VAE2: one address of EL2; with HCR_EL2.E2H in one ASID, and global entries for it.
    VaEl2,
    /// VALE2: as VAE2, leaf entries alone.
    VaEl2Last,
    /// RVAE2: a range of addresses of EL2, in one ASID as VAE2.
    RangeEl2,
    /// RVALE2: as RVAE2, leaf entries alone.
    RangeEl2Last,
    /// ALLE3: all of EL3.
    AllEl3,
    /// VAE3: one address of EL3.
    VaEl3,
    /// VALE3: as VAE3, leaf entries alone.
    VaEl3Last,
    /// RVAE3: a range of addresses of EL3.
    RangeEl3,
    /// RVALE3: as RVAE3, leaf entries alone.
    RangeEl3Last,
    /// ALLE1: all of EL1&0, both stages, every VMID.
    AllStages,
    /// VMALLS12E1: both stages of the current VMID.
    AllStagesVmid,
    /// IPAS2E1: stage 2 of one intermediate physical address in the current VMID. Entries that
    /// combine both stages stay.
    Ipa,
    /// IPAS2LE1: as IPAS2E1, leaf entries alone.
    IpaLast,
    /// RIPAS2E1: a range of intermediate physical addresses, as IPAS2E1.
    IpaRange,
    /// RIPAS2LE1: as RIPAS2E1, leaf entries alone.
    IpaRangeLast,
}

/// The registers that say where tables are and how they are read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Register {
    /// TTBR0_EL1.
    Ttbr0,
    /// TTBR1_EL1. Its ASID field counts with TCR.A1.
    Ttbr1,
    /// TCR_EL1.
    Tcr,
    /// MAIR_EL1.
    Mair,
    /// TTBR0_EL2.
    Ttbr0El2,
    /// TTBR1_EL2: the second half of EL2&0. Needs HCR_EL2.E2H.
    Ttbr1El2,
    /// TTBR0_EL3.
    Ttbr0El3,
    /// VTTBR_EL2: stage 2.
    Vttbr,
    /// VTCR_EL2: how stage 2 is read.
    Vtcr,
    /// HCR_EL2, of which E2H decides what EL2's tables are, and with TGE which regime EL1's TLBIs
    /// are for; VM turns stage 2 on.
    Hcr,
    /// TCR_EL2: with HCR_EL2.E2H in the form of TCR_EL1.
    TcrEl2,
    /// MAIR_EL2.
    MairEl2,
    /// TCR_EL3.
    TcrEl3,
    /// MAIR_EL3.
    MairEl3,
    /// SCTLR_EL1, of which M turns stage 1 of EL1&0 on. A regime whose register was never written
    /// counts as on.
    Sctlr,
    /// SCTLR_EL2, for EL2 or EL2&0.
    SctlrEl2,
    /// SCTLR_EL3.
    SctlrEl3,
}

/// How memory is accessed through the MMU.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Use {
    /// A read of data.
    Read,
    /// A write of data.
    Write,
    /// An instruction fetch.
    Execute,
}

/// One event. CPUs are numbered from 0; addresses and lengths are in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// An aligned 64-bit store.
    Store {
        /// The CPU that stores.
        cpu: usize,
        /// The physical address, a multiple of 8.
        pa: u64,
        /// The value stored.
        value: u64,
        /// The virtual address that the store goes through, checked like any access. `None` with
        /// the MMU off, or when it does not matter.
        via: Option<u64>,
    },
    /// An atomic read-modify-write of an aligned 64-bit word (SWP, CAS, LDSET, LDCLR): what
    /// hardware updated in the old value is not lost, and software learns of it.
    Update {
        /// The CPU.
        cpu: usize,
        /// The physical address, a multiple of 8.
        pa: u64,
        /// The value afterwards, apart from what hardware may have updated.
        value: u64,
        /// The value before, if a compare-exchange found it: hardware had updated no more of it.
        old: Option<u64>,
        /// The virtual address that it goes through, as in [`Store`](Self::Store).
        via: Option<u64>,
    },
    /// `count` 64-bit stores to consecutive words, in no particular order: `first`,
    /// `first + step` and so on (wrapping).
    Fill {
        /// The CPU that stores.
        cpu: usize,
        /// The physical address of the first word, a multiple of 8.
        pa: u64,
        /// The number of words.
        count: u64,
        /// The first value.
        first: u64,
        /// What each next value adds.
        step: u64,
    },
    /// A data synchronization barrier.
    Dsb {
        /// The CPU that waits.
        cpu: usize,
        /// The observers it waits for.
        domain: Domain,
        /// The accesses it waits for.
        access: Access,
    },
    /// A data memory barrier. What the CPU accessed before is ordered before what it accesses
    /// behind. No walk waits for it.
    Dmb {
        /// The CPU whose accesses are ordered.
        cpu: usize,
        /// The observers for whom.
        domain: Domain,
        /// The accesses that are ordered.
        access: Access,
    },
    /// A store-release (STLR, STLXR, an atomic with release): what the CPU accessed before is
    /// ordered before it. The word is any memory, such as a lock; its value does not matter.
    Release {
        /// The CPU that stores.
        cpu: usize,
        /// The physical address of the aligned 64-bit word that it stores to.
        pa: u64,
    },
    /// A load-acquire (LDAR, LDAPR, LDAXR, an atomic with acquire): it is ordered before what the
    /// CPU accesses behind.
    Acquire {
        /// The CPU that loads.
        cpu: usize,
        /// The physical address of the aligned 64-bit word that it loads from.
        pa: u64,
    },
    /// An instruction synchronization barrier, or another context synchronization event: exception
    /// entry and return.
    Isb {
        /// The CPU whose context is synchronized.
        cpu: usize,
    },
    /// Which thread made the stores of the CPU since its last [`Thread`](Self::Thread) or
    /// [`User`](Self::User).
    Thread {
        /// The CPU that stored.
        cpu: usize,
        /// A number that tells threads apart: where its stack is, for example.
        thread: u64,
    },
    /// A thread returns to EL0. Stores of the CPU that no [`Thread`](Self::Thread) came after are
    /// of this thread, too.
    User {
        /// The CPU that executes the ERET.
        cpu: usize,
        /// The thread, as in [`Thread`](Self::Thread).
        thread: u64,
    },
    /// A TLB invalidation.
    Tlbi {
        /// The CPU that issues it.
        cpu: usize,
        /// The instruction.
        tlbi: Tlbi,
        /// The register operand; 0 for the forms without one.
        operand: u64,
    },
    /// A write of a system register.
    Write {
        /// The CPU whose register is written.
        cpu: usize,
        /// The register.
        register: Register,
        /// The new value.
        value: u64,
    },
    /// An access that must reach `pa` whatever the TLBs hold.
    Access {
        /// The CPU that accesses.
        cpu: usize,
        /// The virtual address.
        va: u64,
        /// How it is accessed.
        kind: Use,
        /// The physical address it must translate to.
        pa: u64,
    },
    /// An access that must fault whatever the TLBs hold.
    Faults {
        /// The CPU that accesses.
        cpu: usize,
        /// The virtual address.
        va: u64,
        /// How it is accessed.
        kind: Use,
    },
    /// From here on the CPU may access any byte of a range at any moment: its code, stack, vectors,
    /// or tables.
    Uses {
        /// The CPU.
        cpu: usize,
        /// The first address.
        va: u64,
        /// The length in bytes.
        len: u64,
        /// How it is accessed.
        kind: Use,
    },
    /// Ends what [`Uses`](Self::Uses) said of exactly this range.
    Unuses {
        /// The CPU.
        cpu: usize,
        /// The first address.
        va: u64,
        /// The length in bytes.
        len: u64,
        /// How it was accessed.
        kind: Use,
    },
    /// Frames are given to another owner: no walk may reach them, and their content is unknown from
    /// now on.
    Free {
        /// The first frame.
        pa: u64,
        /// The length in bytes.
        len: u64,
    },
    /// Software considers the edit complete: every access from now on has to see the tables as they
    /// are in memory.
    Settled,
}

impl Event {
    /// The CPU that the event happens on; `None` for events of the whole machine.
    pub const fn cpu(&self) -> Option<usize> {
        match *self {
            Self::Store { cpu, .. }
            | Self::Update { cpu, .. }
            | Self::Fill { cpu, .. }
            | Self::Dsb { cpu, .. }
            | Self::Dmb { cpu, .. }
            | Self::Release { cpu, .. }
            | Self::Acquire { cpu, .. }
            | Self::Isb { cpu }
            | Self::Thread { cpu, .. }
            | Self::User { cpu, .. }
            | Self::Tlbi { cpu, .. }
            | Self::Write { cpu, .. }
            | Self::Access { cpu, .. }
            | Self::Faults { cpu, .. }
            | Self::Uses { cpu, .. }
            | Self::Unuses { cpu, .. } => Some(cpu),
            Self::Free { .. } | Self::Settled => None,
        }
    }

    /// The physical memory that the event stores to or frees, as its first byte and its length;
    /// the length is `None` when it exceeds 64 bits. `None` for all other events.
    pub const fn memory(&self) -> Option<(u64, Option<u64>)> {
        match *self {
            Self::Store { pa, .. } | Self::Update { pa, .. } => Some((pa, Some(8))),
            Self::Fill { pa, count, .. } => Some((pa, count.checked_mul(8))),
            Self::Free { pa, len } => Some((pa, Some(len))),
            _ => None,
        }
    }
}
