//! Writing: events become records, as far as casemate can express them.

use std::fmt::Write as _;

use linmap_trace::{Access, Domain, Event, PAGE, Register, Tlbi, TlbiScope};
use thiserror::Error;

use crate::trace::Trace;
use crate::trace::ranges::Ranges;

/// The most records written: beyond this a trace is not for another tool.
const MOST_RECORDS: u64 = 1 << 20;
/// Bits of virtual address within a half.
const VA_BITS: u32 = 48;
const VA_PAGES: u64 = 1 << (VA_BITS - 12);
/// BADDR of a TTBR at 48 bits, and its ASID.
const BADDR: u64 = 0x0000_ffff_ffff_f000;
const ASID: u64 = 0xffff << 48;

/// The translations that are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// Those of EL2 and of stage 2, as they are.
    Hypervisor,
    /// The half of EL1 below, that of TTBR0_EL1, as if it were EL2's.
    El1Lower,
    /// The half of EL1 above, that of TTBR1_EL1, as if it were EL2's.
    El1Upper,
}

/// Why a trace cannot be expressed in casemate's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The machine.
    #[error("casemate supports only machines with 48 bits of address and granules of 4 KiB")]
    Machine,
    /// An event.
    #[error("event {index}: {why}")]
    Event {
        /// The index of the event, from 0.
        index: usize,
        /// What casemate cannot express about it.
        why: &'static str,
    },
    /// More records than a tool would read.
    #[error("event {index} exceeds the limit of 1048576 records")]
    TooLong {
        /// The index of the event that exceeds the limit, from 0.
        index: usize,
    },
}

/// Writes a trace for casemate's checker. Run the checker without its check of locks
/// (`casemate-check --racy`); it takes translation as enabled.
///
/// Stores, barriers, TLBIs, roots and freed frames are written. `via`, accesses, uses and `Settled`
/// are expectations that casemate cannot express; they are left out. In addition to the table of
/// [the module](super):
///
/// - Each word is initialised by a `mem-init`, of its own or with its neighbours, before its first
///   store, so that casemate objects to a walk of any other word. Freed words are forgotten.
/// - DSB OSH and SY are written as `ish`, which is as far as they reach here.
/// - A freed root is released first.
/// - TCR, MAIR and FEAT_BBM are left out. casemate assumes level 0, so it objects to some edits
///   that are legal at higher levels.
///
/// **EL1 as EL2.** A half of EL1 is a tree of the same shape as that of EL2, 48 bits from one root.
/// Only the operands of TLBIs name virtual addresses. VA\[55:48\] selects the half, and EL2 has
/// the lower half alone. So these bits are cleared for the half that is written, and TLBIs of the
/// other half, which do not affect this one, are left out. VMALLE1 becomes ALLE2, VAAE1 and VAALE1
/// become VAE2 and VALE2, and a range becomes one of these for each page. EL2 has no ASIDs: forms
/// that name one are refused, because they may invalidate less. casemate treats each root of EL2 as
/// a rival of the one before, so a trace with two roots of the written half is refused too.
///
/// # Errors
/// [`WriteError`] for the machine, or for the first event that casemate cannot express.
pub fn write(trace: &Trace, told: Told) -> Result<String, WriteError> {
    let config = &trace.config;
    if (config.granule, config.va_bits) != (PAGE, 48) || config.pa_bits > 48 {
        return Err(WriteError::Machine);
    }
    let mut writer = Writer {
        told,
        text: String::new(),
        index: 0,
        records: 0,
        known: Ranges::default(),
        roots: Vec::new(),
    };
    for (index, event) in trace.events.iter().enumerate() {
        writer.index = index;
        writer.event(event)?;
    }
    Ok(writer.text)
}

struct Writer {
    told: Told,
    text: String,
    index: usize,
    records: u64,
    /// Memory that records have initialised.
    known: Ranges,
    /// Roots that were written and not freed.
    roots: Vec<u64>,
}

impl Writer {
    fn event(&mut self, event: &Event) -> Result<(), WriteError> {
        match *event {
            Event::Store { cpu, pa, value, .. } | Event::Update { cpu, pa, value, .. } => {
                self.fill(cpu, pa, 1, value, 0)
            }
            Event::Fill { cpu, pa, count, first, step } => self.fill(cpu, pa, count, first, step),
            Event::Dsb { cpu, domain, access } => {
                let kind = match (domain, access) {
                    (Domain::Nsh, Access::All) => "nsh",
                    (Domain::Nsh, Access::Stores) => return Err(self.cannot("casemate has no DSB NSHST")),
                    (_, Access::All) => "ish",
                    (_, Access::Stores) => "ishst",
                    (_, Access::Loads) => return Ok(()),
                };
                self.record("barrier", cpu, format_args!("dsb (kind {kind})"))
            }
            Event::Isb { cpu } => self.record("barrier", cpu, format_args!("isb")),
            // The model has no order weaker than a DSB there.
            Event::Dmb { .. } | Event::Release { .. } | Event::Acquire { .. } => Ok(()),
            Event::Tlbi { cpu, tlbi, operand } => self.tlbi(cpu, tlbi, operand),
            Event::Write { cpu, register, value } => self.register(cpu, register, value),
            Event::Free { pa, len } => self.free(pa, len),
            Event::Access { .. }
            | Event::Faults { .. }
            | Event::Uses { .. }
            | Event::Unuses { .. }
            | Event::Thread { .. }
            | Event::User { .. }
            | Event::Settled => Ok(()),
        }
    }

    fn cannot(&self, why: &'static str) -> WriteError {
        WriteError::Event { index: self.index, why }
    }

    /// Writes a record. Its number is that of the record, its source that of the event.
    fn record(&mut self, name: &str, cpu: usize, fields: std::fmt::Arguments<'_>) -> Result<(), WriteError> {
        let (id, index) = (self.records, self.index);
        if id == MOST_RECORDS {
            return Err(WriteError::TooLong { index });
        }
        self.records += 1;
        // Writing to a String can't fail.
        let _ = writeln!(self.text, "({name} (id {id}) (tid {cpu}) {fields} (src \"event:{index}\"))");
        Ok(())
    }

    fn fill(&mut self, cpu: usize, pa: u64, count: u64, first: u64, step: u64) -> Result<(), WriteError> {
        let end = count.checked_mul(8).and_then(|len| pa.checked_add(len));
        let end = end.filter(|end| *end <= 1 << 48).ok_or_else(|| self.cannot("beyond 48 bits"))?;
        if count > MOST_RECORDS && (first, step) != (0, 0) {
            return Err(WriteError::TooLong { index: self.index });
        }
        let gaps = self.known.gaps(pa, end);
        for &(from, to) in &gaps {
            self.record("mem-init", cpu, format_args!("(address {from:#x}) (size {:#x})", to - from))?;
        }
        self.known.insert(pa, end);
        if (first, step) == (0, 0) && gaps == [(pa, end)] {
            return Ok(());
        }
        let mut value = first;
        for at in (pa..end).step_by(8) {
            let fields = format_args!("(mem-order plain) (address {at:#x}) (value {value:#x})");
            self.record("mem-write", cpu, fields)?;
            value = value.wrapping_add(step);
        }
        Ok(())
    }

    fn free(&mut self, pa: u64, len: u64) -> Result<(), WriteError> {
        let end = pa.checked_add(len).filter(|end| (pa | end).is_multiple_of(PAGE));
        let end = end.ok_or_else(|| self.cannot("not whole pages"))?;
        let (gone, roots): (Vec<_>, Vec<_>) = self.roots.iter().partition(|root| (pa..end).contains(*root));
        self.roots = roots;
        for root in gone {
            self.record("hint", 0, format_args!("(kind release_table) (location {root:#x}) (value 0x0)"))?;
        }
        // casemate's checker hangs when a page is freed that no record has initialised.
        let mut pages = Ranges::default();
        for (from, to) in self.known.remove(pa, end) {
            pages.insert(from & !(PAGE - 1), to.next_multiple_of(PAGE));
        }
        for (from, to) in pages.iter() {
            self.record("mem-free", 0, format_args!("(address {from:#x}) (size {:#x})", to - from))?;
        }
        Ok(())
    }

    fn register(&mut self, cpu: usize, register: Register, mut value: u64) -> Result<(), WriteError> {
        let name = match (self.told, register) {
            (Told::Hypervisor, Register::Ttbr0El2 | Register::Vttbr) => register.name(),
            (Told::Hypervisor, Register::Ttbr1El2 | Register::Ttbr0El3 | Register::Vtcr | Register::Hcr) => {
                return Err(self.cannot("casemate has no such register"));
            }
            (Told::Hypervisor, _) => return Err(self.cannot("casemate has no registers of EL1")),
            (
                _,
                Register::Ttbr0El2
                | Register::Ttbr1El2
                | Register::Ttbr0El3
                | Register::Vttbr
                | Register::Vtcr
                | Register::Hcr,
            ) => {
                return Err(self.cannot("a register of EL2, while EL1 is written as EL2"));
            }
            (Told::El1Lower, Register::Ttbr0) | (Told::El1Upper, Register::Ttbr1) => {
                if value & ASID != 0 {
                    return Err(self.cannot("EL2 has no ASIDs"));
                }
                value &= BADDR;
                if self.roots.iter().any(|root| *root != value) {
                    return Err(self.cannot("casemate treats a second root as a rival of the first"));
                }
                Register::Ttbr0El2.name()
            }
            // The root of the other half, TCR and MAIR.
            _ => return Ok(()),
        };
        let root = value & BADDR;
        if !self.roots.contains(&root) {
            self.roots.push(root);
        }
        self.record("sysreg-write", cpu, format_args!("(sysreg {name}) (value {value:#x})"))
    }

    fn tlbi(&mut self, cpu: usize, tlbi: Tlbi, operand: u64) -> Result<(), WriteError> {
        match self.told {
            Told::Hypervisor => match tlbi.scope {
                TlbiScope::AllEl1
                | TlbiScope::AllEl2
                | TlbiScope::VaEl2
                | TlbiScope::VaEl2Last
                | TlbiScope::AllStages
                | TlbiScope::AllStagesVmid
                | TlbiScope::Ipa => self.plain_tlbi(cpu, tlbi, operand),
                _ => Err(self.cannot("casemate has no TLBI by address of EL1")),
            },
            Told::El1Lower | Told::El1Upper => self.el1_tlbi(cpu, tlbi, operand),
        }
    }

    fn plain_tlbi(&mut self, cpu: usize, tlbi: Tlbi, operand: u64) -> Result<(), WriteError> {
        if tlbi.scope.takes_operand() {
            if !tlbi.broadcast {
                return Err(self.cannot("casemate has only broadcast TLBIs by address"));
            }
            self.record("tlbi", cpu, format_args!("{tlbi} (value {operand:#x})"))
        } else {
            self.record("tlbi", cpu, format_args!("{tlbi}"))
        }
    }

    /// A TLBI of EL1 as one of EL2.
    fn el1_tlbi(&mut self, cpu: usize, tlbi: Tlbi, operand: u64) -> Result<(), WriteError> {
        let upper = self.told == Told::El1Upper;
        let el2 = |scope| Tlbi { scope, ..tlbi };
        let scope = match tlbi.scope {
            TlbiScope::AllEl1 => return self.plain_tlbi(cpu, el2(TlbiScope::AllEl2), 0),
            TlbiScope::VaAnyAsid | TlbiScope::RangeAnyAsid => TlbiScope::VaEl2,
            TlbiScope::VaAnyAsidLast | TlbiScope::RangeAnyAsidLast => TlbiScope::VaEl2Last,
            TlbiScope::Asid | TlbiScope::Va | TlbiScope::VaLast | TlbiScope::Range | TlbiScope::RangeLast => {
                return Err(self.cannot("EL2 has no ASIDs"));
            }
            _ => return Err(self.cannot("a TLBI of EL2 or stage 2, while EL1 is written as EL2")),
        };
        let (first, pages, hint) = if matches!(tlbi.scope, TlbiScope::VaAnyAsid | TlbiScope::VaAnyAsidLast) {
            // VA[55:12] in bits 43:0, the level hint in 47:44. Bits 55:48 of an address in a half
            // are identical.
            let half = if upper { 0xff } else { 0 };
            if operand >> (VA_BITS - 12) & 0xff != half {
                return Ok(());
            }
            (operand & (VA_PAGES - 1), 1, operand & (0xf << 44))
        } else {
            // VA[48:12] in bits 36:0, NUM in 43:39, SCALE in 45:44, the granule in 47:46. Bit 48 of
            // the address is sign-extended.
            if operand >> 46 & 3 != 1 {
                return Err(self.cannot("a range of another granule than 4 KiB"));
            }
            if (operand >> 36 & 1 == 1) != upper {
                return Ok(());
            }
            let pages = ((operand >> 39 & 0x1f) + 1) << (5 * (operand >> 44 & 3) + 1);
            (operand & (VA_PAGES - 1), pages, 0)
        };
        // A range ends with its half.
        for page in first..(first + pages).min(VA_PAGES) {
            self.plain_tlbi(cpu, el2(scope), hint | page)?;
        }
        Ok(())
    }
}
