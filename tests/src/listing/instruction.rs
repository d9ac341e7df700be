//! The instructions that the reader knows.

/// A label or a system instruction. Operands are as written, without white space around them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Instruction<'s> {
    /// `name:`, a numeric local label too.
    Label(&'s str),
    /// `msr register, value`; the value is a general register, or an immediate with its `#`.
    Msr {
        /// What is written.
        register: Register,
        /// With what.
        value: &'s str,
    },
    /// `tlbi operation` and its register, if it takes one.
    Tlbi {
        /// What is invalidated.
        operation: Tlbi,
        /// The register with the address.
        operand: Option<&'s str>,
    },
    /// `dsb`.
    Dsb(Dsb),
    /// `isb`.
    Isb,
    /// `ic iallu`: all instructions that this CPU has cached.
    IcIallu,
    /// `dc`, by the address in a register.
    Dc {
        /// What happens to the line.
        operation: Dc,
        /// The register with the address.
        address: &'s str,
    },
    /// `br register`.
    Br(&'s str),
    /// `bl label`: the label's instructions come next, up to a `ret`.
    Bl(&'s str),
    /// `ret`, by the register it names or else x30.
    Ret(&'s str),
    /// `eret`: continues at ELR with SPSR, and synchronises the context.
    Eret,
    /// `hvc immediate`.
    Hvc(&'s str),
    /// `smc immediate`.
    Smc(&'s str),
}

macro_rules! named {
    (
        $(#[$meta:meta])*
        $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal),+ $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)+
        }

        impl $name {
            /// The one that the assembler calls `text`.
            pub(super) fn from_text(text: &str) -> Option<Self> {
                [$(($text, Self::$variant)),+]
                    .into_iter()
                    .find_map(|(name, value)| name.eq_ignore_ascii_case(text).then_some(value))
            }
        }
    };
}

named! {
    /// A register that the kernel's assembly writes.
    Register {
        /// The root of the lower half.
        Ttbr0El1 = "ttbr0_el1",
        /// The root of the upper half.
        Ttbr1El1 = "ttbr1_el1",
        /// VA sizes and granules of both halves.
        TcrEl1 = "tcr_el1",
        /// TCR2_EL1, by its encoding.
        Tcr2El1 = "s3_0_c2_c0_3",
        /// Memory types.
        MairEl1 = "mair_el1",
        /// MMU and caches on and off.
        SctlrEl1 = "sctlr_el1",
        /// SCTLR2_EL1, by its encoding.
        Sctlr2El1 = "s3_0_c1_c0_3",
        /// Exception vectors.
        VbarEl1 = "vbar_el1",
        /// Where an exception returns to.
        ElrEl1 = "elr_el1",
        /// The state it returns to.
        SpsrEl1 = "spsr_el1",
        /// Floating-point traps.
        CpacrEl1 = "cpacr_el1",
        /// Which stack pointer is used.
        SpSel = "spsel",
        /// Where the kernel stores the number of the CPU.
        TpidrEl1 = "tpidr_el1",
        /// Masks interrupts.
        DaifSet = "daifset",
        /// EL2's configuration, E2H and TGE.
        HcrEl2 = "hcr_el2",
        /// EL2's MMU and caches on and off.
        SctlrEl2 = "sctlr_el2",
        /// The root of stage 2, and the VMID.
        VttbrEl2 = "vttbr_el2",
        /// EL2's exception vectors.
        VbarEl2 = "vbar_el2",
        /// Where EL2's exception returns to.
        ElrEl2 = "elr_el2",
        /// The state it returns to.
        SpsrEl2 = "spsr_el2",
        /// EL2's floating-point traps.
        CptrEl2 = "cptr_el2",
        /// Debug and performance monitors: traps, and how many counters are EL1's.
        MdcrEl2 = "mdcr_el2",
        /// Traps of AArch32 system registers.
        HstrEl2 = "hstr_el2",
        /// Who may use counters and timers.
        CnthctlEl2 = "cnthctl_el2",
        /// What is subtracted from the counter.
        CntvoffEl2 = "cntvoff_el2",
        /// The system registers of a GICv3's CPU interface on and off, by its encoding:
        /// ICC_SRE_EL2.
        IccSreEl2 = "s3_4_c12_c9_5",
        /// Virtual interrupts, by its encoding: ICH_HCR_EL2.
        IchHcrEl2 = "s3_4_c12_c11_0",
        /// The MIDR that EL1 reads.
        VpidrEl2 = "vpidr_el2",
        /// The MPIDR that EL1 reads.
        VmpidrEl2 = "vmpidr_el2",
    }
}

named! {
    /// A TLB invalidation.
    Tlbi {
        /// Everything of the regime, on this CPU.
        Vmalle1 = "vmalle1",
        /// Everything of EL1&0, both stages and every VMID, on this CPU.
        Alle1 = "alle1",
        /// Everything of EL2's own regime, on this CPU.
        Alle2 = "alle2",
        /// Everything of the regime, on every CPU of the inner domain.
        Vmalle1is = "vmalle1is",
        /// One address, every ASID, walk-cache entries too, on every CPU of the inner domain.
        Vaae1is = "vaae1is",
        /// One address, every ASID, leaf entries alone, on every CPU of the inner domain.
        Vaale1is = "vaale1is",
    }
}

named! {
    /// What a DSB waits for.
    Dsb {
        /// All accesses, the whole system.
        Sy = "sy",
        /// All accesses, the inner domain.
        Ish = "ish",
        /// Stores, the inner domain.
        Ishst = "ishst",
        /// All accesses, this CPU.
        Nsh = "nsh",
    }
}

named! {
    /// What happens to a cache line.
    Dc {
        /// Written back and dropped, to the point of coherency.
        Civac = "civac",
        /// Dropped, to the point of coherency.
        Ivac = "ivac",
    }
}
