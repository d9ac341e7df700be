//! What happens on the modelled machine, one event an instruction.

/// What a DSB waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// Reads and writes: the plain forms.
    All,
    /// Writes alone: the ST forms. They order stores but complete no TLBI.
    Stores,
}

/// The observers a DSB waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Domain {
    /// NSH: the CPU itself.
    Nsh,
    /// ISH: all CPUs of the machine.
    Ish,
    /// OSH: at least as far as ISH.
    Osh,
    /// The full system.
    Sy,
}

/// The TLBI instructions of the model.
///
/// Names are the architecture's, in lower case without `tlbi`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tlbi {
    /// What it invalidates.
    pub scope: TlbiScope,
    /// Whether every CPU of the inner domain does so (the IS forms), or this one alone.
    pub broadcast: bool,
}

/// What a TLBI invalidates. The operand comes with the event.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TlbiScope {
    /// VMALLE1: all of EL1&0.
    AllEl1,
    /// ASIDE1: what is not global, of one ASID.
    Asid,
    /// VAE1: one address in one ASID, and global entries for it.
    Va,
    /// VALE1: the same, leaf entries alone.
    VaLast,
    /// VAAE1: one address in every ASID.
    VaAnyAsid,
    /// VAALE1: the same, leaf entries alone.
    VaAnyAsidLast,
    /// RVAE1: a range of addresses in one ASID, and global entries for it.
    Range,
    /// RVALE1: the same, leaf entries alone.
    RangeLast,
    /// RVAAE1: a range of addresses in every ASID.
    RangeAnyAsid,
    /// RVAALE1: the same, leaf entries alone.
    RangeAnyAsidLast,
    /// ALLE2: all of EL2.
    AllEl2,
    /// VAE2: one address of EL2.
    VaEl2,
    /// VALE2: the same, leaf entries alone.
    VaEl2Last,
    /// ALLE1: all of EL1&0, both stages, every VMID.
    AllStages,
    /// VMALLS12E1: both stages of the current VMID.
    AllStagesVmid,
    /// IPAS2E1: stage 2 of one intermediate physical address in the current VMID; nothing that combines both stages.
    Ipa,
}

/// The registers that say where tables are and how they are read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Register {
    /// TTBR0_EL1.
    Ttbr0,
    /// TTBR1_EL1. Its ASID field means nothing: TCR.A1 is 0.
    Ttbr1,
    /// TCR_EL1.
    Tcr,
    /// MAIR_EL1.
    Mair,
    /// TTBR0_EL2, of a regime with one half (E2H = 0).
    Ttbr0El2,
    /// VTTBR_EL2: stage 2.
    Vttbr,
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
        /// Where, physically; a multiple of 8.
        pa: u64,
        /// What.
        value: u64,
        /// The virtual address that the store went through, to be checked like any access; `None` with the MMU off or
        /// when it does not matter.
        via: Option<u64>,
    },
    /// `count` 64-bit stores to consecutive words: `first`, `first + step` and so on (wrapping), in no particular order.
    Fill {
        /// The CPU that stores.
        cpu: usize,
        /// The first word, physically; a multiple of 8.
        pa: u64,
        /// How many words.
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
        /// For whom.
        domain: Domain,
        /// For what.
        access: Access,
    },
    /// An instruction synchronization barrier, or another context synchronization event: exception entry and return.
    Isb {
        /// The CPU whose context is synchronised.
        cpu: usize,
    },
    /// A TLB invalidation.
    Tlbi {
        /// The CPU that issues it.
        cpu: usize,
        /// Which.
        tlbi: Tlbi,
        /// The register operand; 0 for the forms without one.
        operand: u64,
    },
    /// A write of a system register.
    Write {
        /// The CPU whose register it is.
        cpu: usize,
        /// Which.
        register: Register,
        /// The new value.
        value: u64,
    },
    /// An access that must reach `pa` whatever the TLBs hold.
    Access {
        /// The CPU that accesses.
        cpu: usize,
        /// Where.
        va: u64,
        /// How.
        kind: Use,
        /// What it must translate to.
        pa: u64,
    },
    /// An access that must fault whatever the TLBs hold.
    Faults {
        /// The CPU that accesses.
        cpu: usize,
        /// Where.
        va: u64,
        /// How.
        kind: Use,
    },
    /// From here on the CPU may access any byte of a range at any moment: its code, stack, vectors, or tables.
    Uses {
        /// The CPU.
        cpu: usize,
        /// The first address.
        va: u64,
        /// How many bytes.
        len: u64,
        /// How.
        kind: Use,
    },
    /// The end of what [`Uses`](Self::Uses) said of exactly this range.
    Unuses {
        /// The CPU.
        cpu: usize,
        /// The first address.
        va: u64,
        /// How many bytes.
        len: u64,
        /// How.
        kind: Use,
    },
    /// Frames go to somebody else: they must be reachable by no walk, and what they hold is unknown from now on.
    Free {
        /// The first frame.
        pa: u64,
        /// How many bytes.
        len: u64,
    },
    /// Software considers the edit complete: every access from now on has to see the tables as they are in memory.
    Settled,
}
