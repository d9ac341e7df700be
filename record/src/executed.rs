//! Instructions that the guest is about to execute.

use std::sync::atomic::Ordering;

use linmap_trace::binary::{Barrier, Record};
use linmap_trace::{Access, Domain, Event, Head, Line, MAX_CPUS, Ram, Register, Tlbi, TlbiScope};

use crate::instruction::{Instruction, System};
use crate::memory::Memory;
use crate::recorder::{CurrentCpu, IS_STARTED, Recorder, Started, levels_of};
use crate::shape::Shape;

impl Recorder {
    /// `cpu` is about to execute `instruction` at `pc`.
    pub fn execute(&mut self, cpu: usize, pc: u64, instruction: Instruction, own: &dyn CurrentCpu) {
        match instruction {
            Instruction::Dsb(domain, access) => self.dsb(cpu, pc, domain, access),
            Instruction::Isb => {
                if !self.synchronize(cpu, pc) {
                    self.idle.count(pc, Barrier::Isb);
                }
            }
            Instruction::Eret => {
                self.cpus[cpu].exception = None;
                let _ = self.synchronize(cpu, pc);
            }
            Instruction::Tlbi(tlbi, rt) => self.tlbi(cpu, pc, tlbi, own.x(rt)),
            Instruction::Write(system, rt) => self.write(cpu, pc, system, own.x(rt), own),
            Instruction::Zero(rt) => self.zero(cpu, pc, own.x(rt)),
        }
    }

    /// `cpu` is about to execute the instruction at `pc`, which may be the first of a vector.
    pub fn at_vector(&mut self, cpu: usize, pc: u64, own: &dyn CurrentCpu) {
        if pc.wrapping_sub(self.cpus[cpu].registers.vbar) >= 0x800 {
            return;
        }
        // A branch into the vectors changes neither.
        let Some(now) = own.system("ELR_EL1").zip(own.system("SPSR_EL1")) else { return };
        if self.cpus[cpu].exception != Some(now) {
            self.cpus[cpu].exception = Some(now);
            let _ = self.synchronize(cpu, pc);
        }
    }

    /// Context synchronization. It matters once after each change. Returns whether it may have had
    /// an effect.
    fn synchronize(&mut self, cpu: usize, pc: u64) -> bool {
        self.cpus[cpu].is_unsynchronized = false;
        if self.started.is_none() {
            return true;
        }
        if self.cpus[cpu].synchronized == self.events {
            return false;
        }
        self.settle_cleared();
        self.put(Event::Isb { cpu }, Some(pc));
        self.cpus[cpu].synchronized = self.events;
        true
    }

    fn dsb(&mut self, cpu: usize, pc: u64, domain: Domain, access: Access) {
        self.settle_cleared();
        // One CPU is all that NSH has to reach.
        let domain = if domain == Domain::Nsh && self.cpus.len() == 1 { Domain::Ish } else { domain };
        let state = &mut self.cpus[cpu];
        let orders = domain != Domain::Nsh;
        if orders {
            state.ordered();
        }
        let completes = access == Access::All && state.has_tlbis;
        if self.started.is_none() {
            return;
        }
        if !completes && !state.has_stores {
            self.idle.count(pc, Barrier::Dsb(domain, access));
            return;
        }
        if orders {
            state.has_stores = false;
        }
        if completes {
            state.has_tlbis = false;
        }
        self.compare_touched();
        self.put(Event::Dsb { cpu, domain, access }, Some(pc));
        if completes {
            self.frames.invalidated();
        }
    }

    fn tlbi(&mut self, cpu: usize, pc: u64, tlbi: Tlbi, operand: u64) {
        if self.started.is_none() {
            return;
        }
        self.settle_cleared();
        self.compare_touched();
        let operand = if tlbi.scope.takes_operand() { operand } else { 0 };
        self.put(Event::Tlbi { cpu, tlbi, operand }, Some(pc));
        self.cpus[cpu].has_tlbis = true;
        self.cpus[cpu].zeroed = None;
        match tlbi.scope {
            TlbiScope::Asid => self.leave_trees(Some((operand >> 48) as u16)),
            TlbiScope::AllEl1 => self.leave_trees(None),
            _ => {}
        }
    }

    /// A whole ASID is invalidated, or all of them: trees of it that no CPU walks may be freed, and
    /// are followed again if some CPU walks them.
    fn leave_trees(&mut self, asid: Option<u16>) {
        let walked = |root: &(u64, u16)| self.cpus.iter().any(|cpu| cpu.roots.contains(&Some(*root)));
        let left: Vec<_> = self
            .trees
            .keys()
            .filter(|root| asid.is_none_or(|asid| root.1 == asid) && !walked(root))
            .copied()
            .collect();
        for root in left {
            self.trees.remove(&root);
            self.frames.unrefer(root.0);
        }
    }

    fn write(&mut self, cpu: usize, pc: u64, system: System, value: u64, own: &dyn CurrentCpu) {
        // Under HCR_EL2.E2H these names are EL2's registers.
        if own.system("CPSR").is_some_and(|pstate| pstate >> 2 & 3 != 1) {
            if !std::mem::replace(&mut self.has_other_levels, true) {
                self.note("registers of EL1 are written at EL2 or EL3: what happens there is not recorded");
            }
            return;
        }
        self.settle_cleared();
        let registers = &mut self.cpus[cpu].registers;
        let had_mmu = registers.has_mmu();
        match system {
            System::Sctlr => registers.sctlr = value,
            System::Ttbr0 => registers.ttbr0 = value,
            System::Ttbr1 => registers.ttbr1 = value,
            System::Tcr => registers.tcr = value,
            System::Mair => registers.mair = value,
            System::Vbar => {
                registers.vbar = value;
                if self.started.is_some() && value >> 63 == 1 {
                    self.stream.put(&Record::Vectors(value));
                }
                return;
            }
        }
        let has_mmu = registers.has_mmu();
        self.cpus[cpu].zeroed = None;
        // With the MMU off what counts is whether the guest synchronized before it turned it on.
        let was_synchronized = !self.cpus[cpu].is_unsynchronized;
        self.cpus[cpu].is_unsynchronized = true;
        if !has_mmu {
            if had_mmu {
                self.note(&format!("CPU {cpu} turned its MMU off; the model takes it as on"));
            }
            return;
        }
        if self.started.is_none() && !self.start(own) {
            return;
        }
        self.compare_touched();
        self.installed(cpu, pc, !had_mmu && was_synchronized);
    }

    /// Records the registers of translation that differ from what was recorded, as they take
    /// effect: with the MMU on. If `is_synchronized`, an ISB was executed with the MMU off behind
    /// those that were written then.
    fn installed(&mut self, cpu: usize, pc: u64, is_synchronized: bool) {
        for (nth, (register, value)) in self.cpus[cpu].registers.of_translation().into_iter().enumerate() {
            if self.cpus[cpu].recorded[nth] == Some(value) {
                continue;
            }
            self.cpus[cpu].recorded[nth] = Some(value);
            match register {
                Register::Ttbr0 => self.walk(cpu, false),
                Register::Ttbr1 => self.walk(cpu, true),
                // What the halves are read as may have changed.
                Register::Tcr if self.cpus[cpu].roots != [None; 2] => {
                    self.walk(cpu, false);
                    self.walk(cpu, true);
                }
                _ => {}
            }
            self.put(Event::Write { cpu, register, value }, Some(pc));
            if is_synchronized {
                self.put(Event::Isb { cpu }, Some(pc));
            }
        }
    }

    /// Follows the tree of a half.
    fn walk(&mut self, cpu: usize, upper: bool) {
        let registers = self.cpus[cpu].registers;
        let ttbr = if upper { registers.ttbr1 } else { registers.ttbr0 };
        let root = Shape::of(registers.tcr, upper).map(|shape| {
            let named = if registers.tcr >> 22 & 1 == 1 { registers.ttbr1 } else { registers.ttbr0 };
            let asid = if upper { 0 } else { (named >> 48) as u16 };
            let root = (shape.root(ttbr), asid);
            let before = self.trees.get(&root).copied();
            if before != Some(shape.start) {
                if before.is_some() {
                    // By another size: what it leads to is read as tables of other levels.
                    self.give_up(self.frames.of(root.0));
                }
                self.link(root.0, shape.start, shape.root_entries());
                self.trees.insert(root, shape.start);
            }
            root
        });
        self.cpus[cpu].roots[usize::from(upper)] = root;
    }

    /// Begins the trace, as the first CPU turns its MMU on.
    fn start(&mut self, own: &dyn CurrentCpu) -> bool {
        if self.has_failed {
            return false;
        }
        let memory = match Memory::map(&self.memory_file, &self.layout_file) {
            Ok(memory) => memory,
            Err(error) => {
                self.has_failed = true;
                self.note(&format!("nothing is recorded: {error}"));
                return false;
            }
        };
        let Some(shape) = self.shape() else {
            self.note("the MMU is on with both halves off");
            return false;
        };
        self.frames.set_granule(shape.granule);
        let tcr = self.cpus.iter().find(|cpu| cpu.registers.has_mmu()).map_or(0, |cpu| cpu.registers.tcr);
        let bbm = own.system("ID_AA64MMFR2_EL1").map_or(0, |mmfr2| (mmfr2 >> 52 & 0xf) as u8);
        self.stream.put(&Record::Line(Line::Machine(Head {
            cpus: self.cpus.len() + 1,
            bbm: bbm.min(3),
            granule: 1 << shape.granule,
            va_bits: shape.va_bits as u8,
            pa_bits: if tcr >> 32 & 7 >= 6 { 52 } else { 48 },
        })));
        for (start, len) in memory.ranges() {
            self.stream.put(&Record::Line(Line::Ram(Ram { start, len })));
        }
        if self.cpus.len() >= MAX_CPUS {
            self.note("a machine with more CPUs than a trace can have");
        }
        self.started = Some(Started { memory });
        IS_STARTED.store(true, Ordering::Relaxed);
        true
    }

    /// DC ZVA of the block of `va`: it is in memory by the next event.
    fn zero(&mut self, cpu: usize, pc: u64, va: u64) {
        if self.started.is_none() {
            return;
        }
        let page = va >> 12;
        let pa = match self.cpus[cpu].zeroed {
            Some((last, pa)) if last == page => Some(pa),
            _ => self.translate(cpu, va),
        };
        let Some(pa) = pa else { return };
        self.cpus[cpu].zeroed = Some((page, pa));
        let frame = self.frames.of(pa);
        if self.frames.get_mut(frame).is_none() {
            return;
        }
        if self.cleared.is_some_and(|(other, ..)| other != frame) {
            self.settle_cleared();
        }
        self.cleared = Some((frame, cpu, pc));
    }

    /// The page that `va` is on, by a walk of the tables in memory.
    fn translate(&self, cpu: usize, va: u64) -> Option<u64> {
        let registers = self.cpus[cpu].registers;
        if !registers.has_mmu() {
            return Some(va & !0xfff);
        }
        let upper = va >> 55 & 1 == 1;
        let shape = Shape::of(registers.tcr, upper)?;
        let mut table = shape.root(if upper { registers.ttbr1 } else { registers.ttbr0 });
        let mut entries = shape.root_entries() as u64;
        for level in shape.start..=3 {
            let shift = shape.shift(level);
            let descriptor = self.word(table + 8 * (va >> shift & (entries - 1)))?;
            match shape.table(level, descriptor) {
                Some(next) => (table, entries) = (next, shape.entries() as u64),
                None if descriptor & 1 == 0 => return None,
                None => {
                    let below = (1 << shift) - 1;
                    return Some((shape.address(descriptor) & !below | va & below) & !0xfff);
                }
            }
        }
        None
    }

    /// Records what DC ZVA has stored by now.
    pub fn settle_cleared(&mut self) {
        let Some((frame, cpu, pc)) = self.cleared.take() else { return };
        let differing = self.differing(frame);
        let shape = self.shape();
        for &(pa, before, _) in &differing {
            let Some(state) = self.frames.get_mut(frame) else { return };
            let levels = state.levels;
            // The store that is about to be recorded may have put another value there since.
            self.set_recorded(frame, pa, 0);
            if let Some(shape) = shape {
                for old in levels_of(levels).filter_map(|level| shape.table(level, before?)) {
                    self.frames.unrefer(self.frames.of(old));
                }
            }
        }
        let words: Vec<_> = differing.iter().map(|&(pa, ..)| (pa, 0)).collect();
        if !words.is_empty() {
            self.put_words(cpu, Some(pc), &words);
            self.cpus[cpu].has_stores = true;
        }
    }

    /// The words of `frame` that memory has otherwise than they were recorded.
    fn differing(&mut self, frame: u64) -> Vec<(u64, Option<u64>, u64)> {
        let Some(started) = &self.started else { return Vec::new() };
        let Some(state) = self.frames.get_mut(frame) else { return Vec::new() };
        let words = (frame..).step_by(8).zip(&state.recorded);
        words
            .filter_map(|(pa, recorded)| {
                let now = started.memory.word(pa)?;
                (*recorded != Some(now)).then_some((pa, *recorded, now))
            })
            .collect()
    }

    /// Compares the frames that were stored to with memory.
    fn compare_touched(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for &frame in &touched {
            self.compare(frame);
        }
        touched.clear();
        self.touched = touched;
    }

    /// Compares `frame` with memory. Hardware updates apart, a difference is an error of the
    /// recorder, and is made good.
    fn compare(&mut self, frame: u64) {
        let has_updates = self.cpus.iter().any(|cpu| cpu.registers.tcr >> 39 & 1 == 1);
        for (pa, before, now) in self.differing(frame) {
            self.set_recorded(frame, pa, now);
            if has_updates && before.is_some_and(|before| is_updated(before, now)) {
                continue;
            }
            self.differences += 1;
            let before = before.map_or("nothing".to_owned(), |before| format!("{before:#x}"));
            self.note(&format!("the recorder missed a store: {pa:#x} holds {now:#x}, recorded was {before}"));
            let levels = self.frames.get_mut(frame).map_or(0, |state| state.levels);
            self.relink(frame, levels, None, Some(now));
            self.put(Event::Store { cpu: self.observer(), pa, value: now, via: None }, None);
        }
    }

    /// The guest has ended.
    pub fn end(&mut self) {
        self.settle_cleared();
        for frame in self.frames.followed() {
            self.compare(frame);
        }
        let summary = format!(
            "recorded: {} events, at most {} tables at a time, {} stores missed",
            self.events, self.frames.most, self.differences
        );
        for idle in self.idle.take() {
            self.stream.put(&Record::Idle(idle));
        }
        self.stream.put(&Record::Note(&summary));
        if self.started.is_some() {
            self.stream.put(&Record::End);
        }
        self.stream.flush();
    }
}

/// Whether `now` is `before` with what hardware sets: the access flag, or with DBM the right to
/// write.
fn is_updated(before: u64, now: u64) -> bool {
    const AF: u64 = 1 << 10;
    const READ_ONLY: u64 = 1 << 7;
    const DBM: u64 = 1 << 51;
    let af = before | now & AF;
    af == now || before & DBM != 0 && af & !READ_ONLY == now
}
