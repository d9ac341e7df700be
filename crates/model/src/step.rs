//! Events, each carried out by the part of the machine that it concerns.

use linmap_trace::{Event, Recorded, Register, Use};

use crate::machine::{Check, InUse, Machine};
use crate::regime::Regime;
use crate::rules::Rule;
use crate::space::Space;
use crate::violation::Violation;

/// The most entries that one event may make the model compare.
pub(crate) const MAX_WORK: u64 = 1 << 28;

/// The most words that one event stores: more than any table has.
const MAX_FILL: u64 = 1 << 20;

impl Machine {
    /// Carries out `event`.
    ///
    /// # Errors
    /// The [`Violation`] that makes the event, or what was legal before it, unsafe. Every later
    /// event returns the same violation.
    pub fn step(&mut self, event: &Event) -> Check {
        if let Some(violation) = self.broken {
            return Err(violation);
        }
        self.now += 1;
        self.work = MAX_WORK;
        let number = self.events;
        self.events += 1;
        self.run(event).map_err(|violation| {
            // What these change is half done.
            self.links_whole &= !matches!(event, Event::Dsb { .. } | Event::Isb { .. } | Event::Write { .. });
            let violation = Violation { event: number, ..violation };
            self.broken = Some(violation);
            violation
        })
    }

    /// Carries out an event of which the place is known.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn step_recorded(&mut self, recorded: &Recorded) -> Check {
        self.pc = recorded.pc;
        self.step(&recorded.event)
    }

    pub(crate) fn run(&mut self, event: &Event) -> Check {
        match *event {
            Event::Store { cpu, pa, value, via } => {
                self.check_cpu(cpu)?;
                self.check_memory(pa, 8)?;
                if let Some(via) = via {
                    self.check_reaches(cpu, via, Use::Write, pa)?;
                }
                self.store(cpu, pa, value)
            }
            Event::Update { cpu, pa, value, old, via } => {
                self.check_cpu(cpu)?;
                self.check_memory(pa, 8)?;
                if let Some(via) = via {
                    self.check_reaches(cpu, via, Use::Write, pa)?;
                }
                self.hardware_updates(pa, old)?;
                self.store_updated(cpu, pa, value)
            }
            Event::Fill { cpu, pa, count, first, step } => {
                self.check_cpu(cpu)?;
                let len = count.checked_mul(8).ok_or(Violation::new(Rule::NotMemory).at_pa(pa))?;
                self.check_memory(pa, len)?;
                if count > MAX_FILL {
                    return Err(Violation::new(Rule::TooComplex).at_pa(pa));
                }
                self.fill(cpu, pa, count, first, step)
            }
            Event::Dsb { cpu, domain, access } => {
                self.check_cpu(cpu)?;
                self.dsb(cpu, domain, access)
            }
            Event::Dmb { cpu, domain, access } => {
                self.check_cpu(cpu)?;
                self.passed.any = true;
                self.dmb(cpu, domain, access);
                Ok(())
            }
            Event::Release { cpu, pa } => {
                self.check_cpu(cpu)?;
                self.store_release(cpu, pa);
                Ok(())
            }
            Event::Acquire { cpu, pa } => {
                self.check_cpu(cpu)?;
                self.load_acquire(cpu, pa);
                Ok(())
            }
            Event::Isb { cpu } => {
                self.check_cpu(cpu)?;
                self.isb(cpu)
            }
            Event::Thread { cpu, thread } => {
                self.check_cpu(cpu)?;
                self.pending.stored_by(cpu, thread);
                Ok(())
            }
            Event::User { cpu, thread } => {
                self.check_cpu(cpu)?;
                self.thread_returns(cpu, thread);
                Ok(())
            }
            Event::Tlbi { cpu, tlbi, operand } => {
                self.check_cpu(cpu)?;
                self.tlbi(cpu, tlbi, operand);
                Ok(())
            }
            Event::Write { cpu, register, value } => {
                self.check_cpu(cpu)?;
                match register {
                    Register::Ttbr0 => self.write_base(cpu, Space::Low, value),
                    Register::Ttbr1 => self.write_base(cpu, Space::High, value),
                    Register::Ttbr0El2 => self.write_base(cpu, Space::El2, value),
                    Register::Ttbr1El2 => self.write_base(cpu, Space::El2High, value),
                    Register::Ttbr0El3 => self.write_base(cpu, Space::El3, value),
                    Register::Hcr => self.write_hcr(cpu, value),
                    Register::Vtcr => self.write_vtcr(cpu, value),
                    Register::Vttbr => self.write_base(cpu, Space::Stage2, value),
                    Register::Tcr => self.write_tcr(cpu, Regime::El1, value),
                    Register::TcrEl2 => self.write_tcr(cpu, Regime::El2, value),
                    Register::TcrEl3 => self.write_tcr(cpu, Regime::El3, value),
                    Register::Mair => self.write_mair(cpu, Regime::El1, value),
                    Register::MairEl2 => self.write_mair(cpu, Regime::El2, value),
                    Register::MairEl3 => self.write_mair(cpu, Regime::El3, value),
                    Register::Sctlr => self.write_sctlr(cpu, Regime::El1, value),
                    Register::SctlrEl2 => self.write_sctlr(cpu, Regime::El2, value),
                    Register::SctlrEl3 => self.write_sctlr(cpu, Regime::El3, value),
                }
            }
            Event::Access { cpu, va, kind, pa } => {
                self.check_cpu(cpu)?;
                self.check_reaches(cpu, va, kind, pa)
            }
            Event::Faults { cpu, va, kind } => {
                self.check_cpu(cpu)?;
                self.check_faults(cpu, va, kind)
            }
            Event::Uses { cpu, va, len, kind } => {
                self.check_cpu(cpu)?;
                let last = len.checked_sub(1).and_then(|len| va.checked_add(len));
                let last = last.ok_or(Violation::new(Rule::Unmodelled).at_va(va))?;
                let in_use = InUse { va, last, kind };
                self.check_in_use(cpu, in_use)?;
                self.cpus[cpu].uses.push(in_use);
                Ok(())
            }
            Event::Unuses { cpu, va, len, kind } => {
                self.check_cpu(cpu)?;
                let last = va.wrapping_add(len).wrapping_sub(1);
                let uses = &mut self.cpus[cpu].uses;
                match uses.iter().position(|in_use| *in_use == InUse { va, last, kind }) {
                    Some(nth) => {
                        uses.swap_remove(nth);
                        Ok(())
                    }
                    None => Err(Violation::new(Rule::Unmodelled).on_cpu(cpu).at_va(va)),
                }
            }
            Event::Free { pa, len } => self.free(pa, len),
            Event::Settled => {
                self.check_settled()?;
                self.settled = Some(self.events - 1);
                Ok(())
            }
        }
    }
}
