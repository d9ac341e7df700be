//! A CPU whose instructions are events.

use std::ptr::NonNull;

use linmap_table::cpu::{self, Cpu};
use linmap_trace::{Access, Domain, Event, Register, Tlbi, Use};
use linmap_vmsa::{Descriptor, Va};

use crate::regime::BoardRegime;
use crate::state::{OpenFrame, Shared, State};
use crate::window::BoardWindow;

/// Where stores of code under test go when their address has no certain translation.
const NOWHERE: u64 = u64::MAX << 20;

/// A CPU of the board, as one translation regime sees it.
#[derive(Clone, Debug)]
pub struct BoardCpu {
    shared: Shared,
    number: usize,
    regime: BoardRegime,
}

impl BoardCpu {
    pub(crate) fn new(shared: Shared, number: usize, regime: BoardRegime) -> Self {
        Self { shared, number, regime }
    }

    fn event(&self, event: Event) {
        self.shared.state().event_in_memory(event);
    }

    fn write(&self, register: Register, value: u64) {
        self.event(Event::Write { cpu: self.number, register, value });
    }
}

// SAFETY: the model does what it is told, and its memory is what windows reach.
unsafe impl Cpu for BoardCpu {
    type Frames = BoardWindow;

    unsafe fn store(&mut self, entry: NonNull<u64>, descriptor: Descriptor) {
        let mut state = self.shared.state();
        let pa = state.memory.address(entry);
        // If this is the entry of a fixmap slot, the slot is closed.
        let closes_slot = state.is_entry_of_open(self.number, pa);
        match closes_slot {
            true => state.sync(),
            false => state.sync_words(pa, 1),
        }
        // SAFETY: the caller's promise: an entry of a table, which lies in one of the board's
        // frames.
        unsafe { entry.write(descriptor.0) };
        state.event(Event::Store { cpu: self.number, pa, value: descriptor.0, via: None });
        if !closes_slot {
            return;
        }
        let State { machine, open, .. } = &mut *state;
        let cpu = self.number;
        open.retain(|open| {
            open.cpu != cpu
                || open.va.is_none_or(|va| {
                    !machine.is_entry_for(pa, va)
                        || machine.is_in_use(cpu, va)
                        || machine.translate(cpu, va, Use::Write) == Ok(open.frame)
                })
        });
    }

    unsafe fn store_run(&mut self, entries: NonNull<u64>, count: usize, first: Descriptor, step: u64) {
        if count == 0 {
            return;
        }
        let mut state = self.shared.state();
        let pa = state.memory.address(entries);
        state.sync_words(pa, count as u64);
        let value = |index| first.0.wrapping_add(step.wrapping_mul(index));
        for index in 0..count {
            // SAFETY: the caller's promise: entries of one table, which lies in one of the board's
            // frames.
            unsafe { entries.add(index).write(value(index as u64)) };
        }
        let (cpu, count) = (self.number, count as u64);
        state.event(Event::Fill { cpu, pa, count, first: first.0, step });
    }

    unsafe fn reach(&mut self, va: Va) -> NonNull<u64> {
        let mut state = self.shared.synced();
        let cpu = self.number;
        match state.machine.translate(cpu, va.0, Use::Write) {
            Ok(pa) => {
                let bytes = state.granule();
                state.event(Event::Access { cpu, va: va.0, kind: Use::Write, pa });
                let (frame, va) = (pa & !(bytes - 1), Some(va.0 & !(bytes - 1)));
                state.open.push(OpenFrame { cpu, frame, va });
                state.memory.word(pa)
            }
            Err(violation) => {
                state.violation = state.violation.or(Some(violation));
                state.memory.word(NOWHERE)
            }
        }
    }

    unsafe fn frames_at(&mut self, offset: u64) -> BoardWindow {
        BoardWindow::new(self.shared.clone(), self.number, Some(offset))
    }

    fn dsb(&mut self, dsb: cpu::Dsb) {
        let (domain, access) = match dsb {
            cpu::Dsb::Ishst => (Domain::Ish, Access::Stores),
            cpu::Dsb::Ish => (Domain::Ish, Access::All),
            cpu::Dsb::Nsh => (Domain::Nsh, Access::All),
        };
        self.event(Event::Dsb { cpu: self.number, domain, access });
    }

    fn isb(&mut self) {
        self.event(Event::Isb { cpu: self.number });
    }

    fn tlbi(&mut self, tlbi: cpu::Tlbi) {
        let (scope, broadcast, operand) = self.regime.instruction(tlbi);
        self.event(Event::Tlbi { cpu: self.number, tlbi: Tlbi { scope, broadcast }, operand });
    }

    unsafe fn clean_and_invalidate(&mut self, va: Va, len: u64) {
        // The model has no caches. It judges that the addresses are mapped, once a page.
        let page = self.shared.state().granule();
        let mut at = va.0 & !(page - 1);
        while at.wrapping_sub(va.0 & !(page - 1)) < len + (va.0 & (page - 1)) {
            let mut state = self.shared.synced();
            match state.machine.translate(self.number, at, Use::Read) {
                Ok(pa) => state.event(Event::Access { cpu: self.number, va: at, kind: Use::Read, pa }),
                Err(violation) => state.violation = state.violation.or(Some(violation)),
            }
            at = at.wrapping_add(page);
        }
    }

    unsafe fn write_ttbr0(&mut self, value: u64) {
        self.write(self.regime.root(), value);
    }

    unsafe fn write_ttbr1(&mut self, value: u64) {
        self.write(Register::Ttbr1, value);
    }

    unsafe fn write_tcr(&mut self, value: u64) {
        self.write(Register::Tcr, value);
    }
}
