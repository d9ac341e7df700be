//! Reading: records become events, and the pages that they name become memory.

use std::collections::BTreeMap;

use linmap_trace::{Access, Domain, Event, MAX_CPUS, Malformed, PAGE, Quote, Register, Tlbi, barrier_named};

use super::record::{Field, Item, Position, Record, Records};
use crate::config::Config;
use crate::trace::Trace;
use crate::trace::ranges::Ranges;
use crate::trace::read_error::{Problem, ReadError};

const PA_BITS: u8 = 48;
/// HCR_EL2.E2H: EL2 has two halves and ASIDs.
const HCR_E2H: u64 = 1 << 34;

/// The content of a casemate trace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CasemateTrace {
    /// What happens on the machine.
    pub trace: Trace,
    /// The mistake that casemate found; `None` without a message in the file.
    pub verdict: Option<String>,
    /// The records without an event.
    pub out_of_scope: Vec<Skipped>,
}

/// A record without an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Skipped {
    /// Its line, from 1.
    pub line: usize,
    /// Its name, and why it has no event.
    pub reason: &'static str,
}

/// Reads a trace of casemate.
///
/// # Errors
/// A [`ReadError`] with the first record that is not as the [module](super) says.
pub fn read(file: &[u8]) -> Result<CasemateTrace, ReadError> {
    let mut records = Records::new(file);
    let mut reader = Reader::default();
    let mut verdict: Option<String> = None;
    let mut last = None;
    while let Some(item) = records.next()? {
        match item {
            Item::Message(message) => {
                let message = String::from_utf8_lossy(message);
                match &mut verdict {
                    None => verdict = Some(message.into_owned()),
                    Some(verdict) => {
                        verdict.push('\n');
                        verdict.push_str(&message);
                    }
                }
            }
            Item::Record(record) if verdict.is_some() => {
                let problem = Problem::expected("nothing after a message", record.name);
                return Err(record.position.error(problem));
            }
            Item::Record(mut record) => {
                let field = record.field(&["id"])?;
                let id = field.decimal()?;
                if let Some(last) = last.filter(|last| id <= *last) {
                    return Err(field.position.error(Problem::Order { id, last }));
                }
                last = Some(id);
                reader.record(&mut record)?;
                record.end()?;
            }
        }
    }
    let ram = reader.ram.iter().map(|(start, end)| (start, end - start)).collect();
    let config = Config {
        cpus: reader.cpus.max(1),
        bbm: 0,
        granule: PAGE,
        va_bits: 48,
        pa_bits: PA_BITS,
        ram,
        leniency: crate::config::Leniency::Strict,
    };
    Ok(CasemateTrace {
        trace: Trace { config, events: reader.events },
        verdict,
        out_of_scope: reader.out_of_scope,
    })
}

/// One translation regime of one CPU.
#[derive(Clone, Copy, Default)]
struct Regime {
    /// Translation was disabled.
    off: bool,
    /// The value of the register that holds the root.
    root: Option<u64>,
}

#[derive(Default)]
struct Reader {
    /// EL2 and stage 2 of each CPU.
    regimes: BTreeMap<usize, [Regime; 2]>,
    cpus: usize,
    ram: Ranges,
    events: Vec<Event>,
    out_of_scope: Vec<Skipped>,
}

impl Reader {
    /// Reads a record after its `id`.
    fn record(&mut self, record: &mut Record<'_>) -> Result<(), ReadError> {
        let tid = record.field(&["tid", "thread"])?;
        let cpu = tid.decimal()?;
        let Some(cpu) = usize::try_from(cpu).ok().filter(|cpu| *cpu < MAX_CPUS) else {
            return Err(tid.position.error(Problem::NoSuchCpu { cpu, cpus: MAX_CPUS }));
        };
        self.cpus = self.cpus.max(cpu + 1);
        let line = record.position.line;
        match record.name {
            b"mem-write" => {
                let order = record.field(&["mem-order"])?;
                if !is_any(&order, &["plain", "release"]) {
                    return Err(order.unexpected("plain or release"));
                }
                let at = record.field(&["address"])?;
                let pa = multiple(&at, 8)?;
                self.declare(at.position, pa, 8)?;
                let value = record.field(&["value"])?.hex()?;
                self.events.push(Event::Store { cpu, pa, value, via: None });
            }
            b"mem-init" => {
                let (pa, len) = self.range(record, 8)?;
                self.events.push(Event::Fill { cpu, pa, count: len / 8, first: 0, step: 0 });
                self.events.push(Event::Dsb { cpu, domain: Domain::Ish, access: Access::Stores });
            }
            b"mem-set" => {
                let (pa, len) = self.range(record, 8)?;
                let field = record.field(&["value"])?;
                let byte = u8::try_from(field.hex()?)
                    .map_err(|_| field.position.error(Malformed::TooLarge(Quote::of(field.value))))?;
                let first = u64::from_ne_bytes([byte; 8]);
                self.events.push(Event::Fill { cpu, pa, count: len / 8, first, step: 0 });
            }
            b"mem-free" => {
                let (pa, len) = self.range(record, PAGE)?;
                self.events.push(Event::Free { pa, len });
            }
            b"mem-read" => {
                read_all(record, &["address", "value"])?;
                self.skip(line, "mem-read: reads of tables by software change nothing");
            }
            b"lock" | b"trylock" | b"unlock" => {
                read_all(record, &["address"])?;
                self.skip(line, "lock, trylock, unlock: locks do not affect walkers");
            }
            b"barrier" => self.events.push(barrier(cpu, record)?),
            b"tlbi" => {
                let name = record.field(&["kind"])?;
                let tlbi = Tlbi::named(name.value)
                    .ok_or_else(|| name.position.error(Malformed::UnknownTlbi(Quote::of(name.value))))?;
                let operand = if tlbi.scope.takes_operand() { record.field(&["value"])?.hex()? } else { 0 };
                self.events.push(Event::Tlbi { cpu, tlbi, operand });
            }
            b"sysreg-write" | b"msr" => self.register(cpu, record)?,
            b"hint" => self.hint(record)?,
            name => return Err(record.position.error(Malformed::UnknownEvent(Quote::of(name)))),
        }
        Ok(())
    }

    fn hint(&mut self, record: &mut Record<'_>) -> Result<(), ReadError> {
        let line = record.position.line;
        let kind = record.field(&["kind"])?;
        let at = record.field(&["location"])?;
        let location = at.hex()?;
        record.field(&["value"])?.hex()?;
        if is_any(&kind, &["release_table"]) {
            let pa = multiple(&at, PAGE)?;
            self.declare(at.position, pa, PAGE)?;
            self.events.push(Event::Free { pa: location, len: PAGE });
        } else if is_any(&kind, &["set_owner_root"]) {
            self.skip(line, "hint set_owner_root: the owner of a table does not affect walkers");
        } else if is_any(&kind, &["set_root_lock"]) {
            self.skip(line, "hint set_root_lock: locks do not affect walkers");
        } else if is_any(&kind, &["set_pte_thread_owner"]) {
            self.skip(line, "hint set_pte_thread_owner: the owner of an entry does not affect walkers");
        } else {
            return Err(kind.unexpected("the kind of a hint"));
        }
        Ok(())
    }

    fn register(&mut self, cpu: usize, record: &mut Record<'_>) -> Result<(), ReadError> {
        let line = record.position.line;
        let name = record.field(&["sysreg"])?;
        let field = record.field(&["value"])?;
        let value = field.hex()?;
        if is_any(&name, &["tcr_el2", "vtcr_el2"]) {
            // T0SZ in bits 5:0, TG0 in bits 15:14.
            let (t0sz, tg0) = (value & 0x3f, value >> 14 & 3);
            if (t0sz, tg0) != (16, 0) {
                let rest = "a translation not of 48 bits at a granule of 4 KiB";
                return Err(field.position.error(Problem::Unsupported(rest)));
            }
            return Ok(());
        }
        if is_any(&name, &["mair_el2"]) {
            self.skip(line, "mair_el2: memory types of EL2 are not modelled");
            return Ok(());
        }
        let [el2, stage_2] = self.regimes.entry(cpu).or_default();
        let (regime, register) = if is_any(&name, &["ttbr0_el2", "ttbr_el2", "sctlr_el2"]) {
            (el2, Register::Ttbr0El2)
        } else if is_any(&name, &["vttbr_el2", "hcr_el2"]) {
            (stage_2, Register::Vttbr)
        } else {
            return Err(name.position.error(Malformed::UnknownRegister(Quote::of(name.value))));
        };
        if is_any(&name, &["hcr_el2"]) && value & HCR_E2H != 0 {
            return Err(field.position.error(Problem::Unsupported("EL2 with two halves (E2H)")));
        }
        let before = regime.root.filter(|_| !regime.off);
        if is_any(&name, &["sctlr_el2", "hcr_el2"]) {
            regime.off = value & 1 == 0;
            if regime.off && before.is_some() {
                return Err(field.position.error(Problem::Unsupported("translation that is turned off")));
            }
            // On already: the same root is not written again.
            if before.is_some() {
                return Ok(());
            }
        } else {
            regime.root = Some(value);
        }
        if let Some(value) = regime.root.filter(|_| !regime.off) {
            self.events.push(Event::Write { cpu, register, value });
        }
        Ok(())
    }

    fn skip(&mut self, line: usize, reason: &'static str) {
        self.out_of_scope.push(Skipped { line, reason });
    }

    /// The fields `address` and `size`.
    fn range(&mut self, record: &mut Record<'_>, unit: u64) -> Result<(u64, u64), ReadError> {
        let at = record.field(&["address"])?;
        let pa = multiple(&at, unit)?;
        let size = record.field(&["size"])?;
        let len = multiple(&size, unit)?;
        if len == 0 {
            return Err(size.position.error(Malformed::Empty));
        }
        self.declare(at.position, pa, len)?;
        Ok((pa, len))
    }

    /// Declares the pages of a range as memory.
    fn declare(&mut self, position: Position, start: u64, len: u64) -> Result<(), ReadError> {
        let end = start.checked_add(len).filter(|end| *end <= 1 << PA_BITS);
        let end = end.ok_or_else(|| position.error(Problem::OutsideRam { start, len }))?;
        self.ram.insert(start & !(PAGE - 1), end.next_multiple_of(PAGE));
        Ok(())
    }
}

fn barrier(cpu: usize, record: &mut Record<'_>) -> Result<Event, ReadError> {
    let name = record.field(&["barrier"])?;
    if is_any(&name, &["isb"]) {
        return Ok(Event::Isb { cpu });
    }
    if !is_any(&name, &["dsb"]) {
        return Err(name.position.error(Malformed::UnknownBarrier(Quote::of(name.value))));
    }
    let kind = record.field(&["kind"])?;
    let (domain, access) = barrier_named(kind.value)
        .ok_or_else(|| kind.position.error(Malformed::UnknownBarrier(Quote::of(kind.value))))?;
    Ok(Event::Dsb { cpu, domain, access })
}

/// Reads number fields without a meaning here.
fn read_all(record: &mut Record<'_>, names: &[&'static str]) -> Result<(), ReadError> {
    names.iter().try_for_each(|&name| record.field(&[name])?.hex().map(drop))
}

fn is_any(field: &Field<'_>, names: &[&str]) -> bool {
    names.iter().any(|name| field.value.eq_ignore_ascii_case(name.as_bytes()))
}

fn multiple(field: &Field<'_>, multiple: u64) -> Result<u64, ReadError> {
    let value = field.hex()?;
    if value.is_multiple_of(multiple) {
        Ok(value)
    } else {
        Err(field.position.error(Malformed::Unaligned { value, multiple }))
    }
}
