//! The binary form, written.

use super::bytes::Writer;
use super::{Barrier, Context, HAS_PC, ISB, LONGEST, LONGEST_NOTE, OTHER_CPU, Record, kind};
use crate::event::{Event, Use};
use crate::line::Line;
use crate::names::{barrier_number, register_number, tlbi_number};
use crate::recorded::Recorded;

/// Writes records one after the other.
///
/// ```
/// use linmap_trace::binary::{Encoder, LONGEST, MAGIC, Record, VERSION};
/// use linmap_trace::{Event, Line};
///
/// let mut file = MAGIC.to_vec();
/// file.push(VERSION);
/// let mut encoder = Encoder::default();
/// let mut buffer = [0; LONGEST];
/// let isb = Record::Line(Line::from(Event::Isb { cpu: 0 }));
/// file.extend_from_slice(encoder.encode(&isb, &mut buffer));
/// assert_eq!(file.len(), MAGIC.len() + 2);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    context: Context,
}

impl Encoder {
    /// Writes `record` to `buffer` and returns its bytes.
    pub fn encode<'b>(&mut self, record: &Record<'_>, buffer: &'b mut [u8; LONGEST]) -> &'b [u8] {
        let mut out = Writer { bytes: buffer, len: 0 };
        match record {
            Record::End => out.byte(kind::END),
            Record::Vectors(va) => {
                out.byte(kind::VECTORS);
                out.number(*va);
            }
            Record::Idle(idle) => {
                out.byte(kind::IDLE);
                out.byte(match idle.barrier {
                    Barrier::Dsb(domain, access) => barrier_number(domain, access),
                    Barrier::Isb => ISB,
                });
                out.number(idle.pc);
                out.number(idle.count);
            }
            Record::Note(text) => {
                let mut len = text.len().min(LONGEST_NOTE);
                while !text.is_char_boundary(len) {
                    len -= 1;
                }
                out.byte(kind::NOTE);
                out.number(len as u64);
                text.bytes().take(len).for_each(|byte| out.byte(byte));
            }
            Record::Line(Line::Machine(head)) => {
                out.byte(kind::MACHINE);
                for number in [head.cpus as u64, head.bbm.into(), head.granule] {
                    out.number(number);
                }
                out.byte(head.va_bits);
                out.byte(head.pa_bits);
            }
            Record::Line(Line::Ram(ram)) => {
                out.byte(kind::RAM);
                out.number(ram.start);
                out.number(ram.len);
            }
            Record::Line(Line::Event(recorded)) => self.event(recorded, &mut out),
        }
        let len = out.len;
        buffer.get(..len).unwrap_or_default()
    }

    fn event(&mut self, recorded: &Recorded, out: &mut Writer<'_>) {
        let Context {
            cpu: before,
            pc,
            pa: last,
            value: last_value,
            operand: last_operand,
            word: last_word,
            thread: last_thread,
        } = &mut self.context;
        let kind = match recorded.event {
            Event::Store { via: None, .. } => kind::STORE,
            Event::Store { via: Some(_), .. } => kind::STORE_VIA,
            Event::Update { .. } => kind::UPDATE,
            Event::Fill { .. } => kind::FILL,
            Event::Dsb { .. } => kind::DSB,
            Event::Dmb { .. } => kind::DMB,
            Event::Release { .. } => kind::RELEASE,
            Event::Acquire { .. } => kind::ACQUIRE,
            Event::Isb { .. } => kind::ISB,
            Event::Thread { .. } => kind::THREAD,
            Event::User { .. } => kind::USER,
            Event::Tlbi { .. } => kind::TLBI,
            Event::Write { .. } => kind::MSR,
            Event::Access { .. } => kind::ACCESS,
            Event::Faults { .. } => kind::FAULTS,
            Event::Uses { .. } => kind::USES,
            Event::Unuses { .. } => kind::UNUSES,
            Event::Free { .. } => kind::FREE,
            Event::Settled => kind::SETTLED,
        };
        let cpu = recorded.event.cpu().map(|cpu| cpu as u64).filter(|cpu| cpu != before);
        let has_pc = if recorded.pc.is_some() { HAS_PC } else { 0 };
        out.byte(kind | has_pc | if cpu.is_some() { OTHER_CPU } else { 0 });
        if let Some(cpu) = cpu {
            out.number(cpu);
            *before = cpu;
        }
        if let Some(at) = recorded.pc {
            out.relative(at, pc);
        }
        match recorded.event {
            Event::Store { pa, value, via, .. } => {
                out.relative(pa / 8, last);
                out.relative(value, last_value);
                if let Some(via) = via {
                    out.number(via);
                }
            }
            Event::Update { pa, value, old, via, .. } => {
                out.relative(pa / 8, last);
                out.relative(value, last_value);
                out.byte(u8::from(old.is_some()) | u8::from(via.is_some()) << 1);
                for number in [old, via].into_iter().flatten() {
                    out.number(number);
                }
            }
            Event::Fill { pa, count, first, step, .. } => {
                out.relative(pa / 8, last);
                out.number(count);
                out.relative(first, last_value);
                out.number(step);
            }
            Event::Dsb { domain, access, .. } | Event::Dmb { domain, access, .. } => {
                out.byte(barrier_number(domain, access));
            }
            Event::Release { pa, .. } | Event::Acquire { pa, .. } => out.relative(pa / 8, last_word),
            Event::Thread { thread, .. } | Event::User { thread, .. } => out.relative(thread, last_thread),
            Event::Isb { .. } | Event::Settled => {}
            Event::Tlbi { tlbi, operand, .. } => {
                out.byte(tlbi_number(tlbi.scope) << 1 | u8::from(tlbi.broadcast));
                if tlbi.scope.takes_operand() {
                    out.relative(operand, last_operand);
                }
            }
            Event::Write { register, value, .. } => {
                out.byte(register_number(register));
                out.number(value);
            }
            Event::Access { va, kind, pa, .. } => {
                out.byte(use_number(kind));
                out.number(va);
                out.number(pa);
            }
            Event::Faults { va, kind, .. } => {
                out.byte(use_number(kind));
                out.number(va);
            }
            Event::Uses { va, len, kind, .. } | Event::Unuses { va, len, kind, .. } => {
                out.byte(use_number(kind));
                out.number(va);
                out.number(len);
            }
            Event::Free { pa, len } => {
                out.number(pa);
                out.number(len);
            }
        }
    }
}

fn use_number(kind: Use) -> u8 {
    match kind {
        Use::Read => 0,
        Use::Write => 1,
        Use::Execute => 2,
    }
}
