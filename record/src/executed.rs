//! Instructions that the guest is about to execute.

use std::sync::atomic::Ordering;

use linmap_trace::binary::{Barrier, Record};
use linmap_trace::{Access, Domain, Event, Head, Line, MAX_CPUS, Ram, Tlbi, TlbiScope};

use crate::instruction::Instruction;
use crate::memory::Memory;
use crate::place::Place;
use crate::readable::Readable;
use crate::recorder::{CurrentCpu, IS_STARTED, Recorder, Started};
use crate::regime::{Regime, Space};
use crate::registers::{halves, root_tables};
use crate::reset::has_no_mmu;
use crate::tree::Tree;

impl Recorder {
    /// `cpu` is about to execute `instruction` at `pc`.
    pub fn execute(&mut self, cpu: usize, pc: u64, instruction: Instruction, own: &dyn CurrentCpu) {
        // What looks like one of A64 is another of A32, at addresses of 32 bits.
        if self.cpus[cpu].is_aarch32 && pc >> 32 == 0 {
            return;
        }
        if self.cpus[cpu].is_leaving {
            self.is_still_there(cpu, pc, own);
        }
        if self.asked_for_reset.take().is_some() && has_no_mmu(own) || self.is_reset(cpu, own) {
            self.reset(cpu, pc);
        }
        self.actor = cpu;
        if matches!(instruction, Instruction::Dsb(..)) {
            self.note_thread(cpu, own);
        }
        match instruction {
            // It completes nothing that matters.
            Instruction::Dsb(domain, Access::Loads) => self.dmb(cpu, pc, domain, Access::Loads),
            Instruction::Dsb(domain, access) => self.execute_dsb(cpu, pc, domain, access, own),
            Instruction::DsbNxs(domain) => {
                // It completes TLBIs with nXS alone (Arm ARM B2.3, DSB). Stores of tables are to
                // memory with XS clear.
                let completes = !self.cpus[cpu].has_full_tlbis;
                let access = if completes { Access::All } else { Access::Stores };
                self.execute_dsb(cpu, pc, domain, access, own);
            }
            Instruction::Isb => {
                if !self.synchronize(cpu, pc) {
                    self.idle.count(pc, Barrier::Isb);
                }
            }
            Instruction::Eret => {
                let el = Place::of(own).el;
                if let Some(exception) = self.cpus[cpu].exceptions.get_mut(usize::from(el).wrapping_sub(1)) {
                    *exception = None;
                }
                let is_to_el0 = self.returns(cpu, el, own);
                let _ = self.synchronize(cpu, pc);
                if is_to_el0 {
                    self.thread_returns(cpu, pc, own);
                }
            }
            Instruction::Tlbi(tlbi, rt) | Instruction::TlbiNxs(tlbi, rt) => {
                let place = Place::of(own);
                if place.executes_tlbi(tlbi) {
                    let broadcast = tlbi.broadcast || place.broadcasts();
                    self.tlbi(cpu, pc, Tlbi { broadcast, ..tlbi }, own.x(rt), place);
                    let is_full = matches!(instruction, Instruction::Tlbi(..));
                    self.cpus[cpu].has_full_tlbis |= is_full && self.cpus[cpu].has_tlbis;
                }
            }
            Instruction::Write(system, rt) => self.write(cpu, pc, system, own.x(rt), own),
            Instruction::Call { is_smc } => {
                /// PSCI's functions.
                const CPU_OFF: u32 = 0x8400_0002;
                const SYSTEM_RESET: u32 = 0x8400_0009;
                const SYSTEM_RESET2: u32 = 0x8400_0012;
                let function = own.x(0) as u32;
                if Place::of(own).calls_firmware(is_smc) {
                    // SYSTEM_RESET2 has a form with 64-bit arguments.
                    match function & !(1 << 30) {
                        CPU_OFF if function == CPU_OFF => self.left(cpu, pc),
                        SYSTEM_RESET | SYSTEM_RESET2 if self.started.is_some() => self.asks_for_reset(pc),
                        _ => {}
                    }
                }
            }
            Instruction::Dmb(domain, access) => self.dmb(cpu, pc, domain, access),
            Instruction::Zero(rt) => self.zero(cpu, pc, own.x(rt), own),
            Instruction::Set { stage, to, left, value } => {
                self.set(cpu, pc, stage, [own.x(to), own.x(left), own.x(value)], own);
            }
            Instruction::Copy { stage, to, left } => {
                self.copy(cpu, pc, stage, [own.x(to), own.x(left)], own);
            }
        }
    }

    /// `cpu` is about to execute the instruction at `pc`, which may be the first of a vector.
    pub fn at_vector(&mut self, cpu: usize, pc: u64, own: &dyn CurrentCpu) {
        let el = Place::of(own).el;
        let Some(regime) = Regime::ALL.get(usize::from(el).wrapping_sub(1)) else { return };
        if pc.wrapping_sub(self.cpus[cpu].registers.of(*regime).vbar) >= 0x800 {
            return;
        }
        self.is_privileged(cpu);
        self.note_thread(cpu, own);
        self.cpus[cpu].is_aarch32 = false;
        // A branch into the vectors changes neither.
        let Some(now) = own.system(Readable::Elr(*regime)).zip(own.system(Readable::Spsr(*regime))) else {
            return;
        };
        if self.cpus[cpu].exceptions[*regime as usize] != Some(now) {
            self.cpus[cpu].exceptions[*regime as usize] = Some(now);
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
        self.settle_unseen(None);
        self.put(Event::Isb { cpu }, Some(pc));
        self.cpus[cpu].synchronized = self.events;
        true
    }

    fn execute_dsb(&mut self, cpu: usize, pc: u64, domain: Domain, access: Access, own: &dyn CurrentCpu) {
        if domain == Domain::Nsh {
            let upgrades = Place::of(own).upgrades_barriers();
            self.dsb(cpu, pc, if upgrades { Domain::Ish } else { Domain::Nsh }, access);
        } else {
            self.dsb(cpu, pc, domain, access);
            self.rely_on_own(cpu, pc, own);
        }
    }

    fn dsb(&mut self, cpu: usize, pc: u64, domain: Domain, access: Access) {
        self.settle_unseen(None);
        // One CPU is all that NSH has to reach.
        let domain = if domain == Domain::Nsh && self.cpus.len() == 1 { Domain::Ish } else { domain };
        let orders = domain != Domain::Nsh;
        if orders && access == Access::All && self.started.is_some() {
            self.take_over_loaded(cpu, pc);
        }
        let state = &mut self.cpus[cpu];
        if orders {
            state.dsbs += 1;
            state.releases.dsb();
            self.log.dsb(cpu);
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
            state.has_stores_since_dmb = false;
        }
        if completes {
            // NSH completes what is for this CPU alone (Arm ARM D8.17, RPSMWS).
            state.has_broadcast_tlbis &= !orders;
            state.has_tlbis = state.has_broadcast_tlbis;
            state.has_full_tlbis &= state.has_tlbis;
        }
        self.compare_touched();
        self.put(Event::Dsb { cpu, domain, access }, Some(pc));
        if completes {
            self.complete(cpu, orders);
        }
    }

    fn tlbi(&mut self, cpu: usize, pc: u64, tlbi: Tlbi, operand: u64, place: Place) {
        if self.started.is_none() {
            return;
        }
        self.settle_unseen(None);
        self.compare_touched();
        let operand = if tlbi.scope.takes_operand() { operand } else { 0 };
        // One that is not broadcast says nothing of what other CPUs hold.
        if tlbi.broadcast || self.is_alone(cpu) {
            self.leave_invalidated(cpu, tlbi.scope, operand, place);
        }
        self.put(Event::Tlbi { cpu, tlbi, operand }, Some(pc));
        self.cpus[cpu].has_tlbis = true;
        self.cpus[cpu].has_broadcast_tlbis |= tlbi.broadcast;
        self.cpus[cpu].zeroed = None;
        self.issued(cpu, tlbi);
    }

    /// `cpu` issues a TLBI of all of `scope` that every CPU obeys.
    pub(crate) fn leave_invalidated(&mut self, cpu: usize, scope: TlbiScope, operand: u64, place: Place) {
        let el1 = halves(if place.is_host() { Regime::El2 } else { Regime::El1 });
        let vmid = (self.cpus[cpu].registers.vttbr >> 48) as u16;
        match scope {
            // What an upper half has is of every ASID, for all that the recorder knows.
            TlbiScope::Asid => self.leave_trees(&el1[..1], Some((operand >> 48) as u16)),
            TlbiScope::AllEl1 => self.leave_trees(&el1, None),
            TlbiScope::AllEl2 => self.leave_trees(&halves(Regime::El2), None),
            TlbiScope::AllEl3 => self.leave_trees(&halves(Regime::El3), None),
            TlbiScope::AllStages => {
                self.leave_trees(&halves(Regime::El1), None);
                self.leave_trees(&[Space::Stage2], None);
            }
            TlbiScope::AllStagesVmid => {
                self.leave_trees(&halves(Regime::El1), None);
                self.leave_trees(&[Space::Stage2], Some(vmid));
            }
            _ => {}
        }
    }

    /// A whole identifier is invalidated, or all of `spaces`: trees of it that no CPU walks may be
    /// freed, and are followed again if some CPU walks them.
    pub(crate) fn leave_trees(&mut self, spaces: &[Space], id: Option<u16>) {
        let walked = |tree: &Tree| self.cpus.iter().any(|cpu| cpu.roots.contains(&Some(*tree)));
        let is_left =
            |tree: &Tree| spaces.contains(&tree.space) && id.is_none_or(|id| tree.id == id) && !walked(tree);
        let left: Vec<_> = self.trees.keys().filter(|tree| is_left(tree)).copied().collect();
        for tree in left {
            if let Some(shape) = self.trees.remove(&tree) {
                for (frame, _) in root_tables(tree.root, shape) {
                    self.frames.unrefer(frame);
                }
            }
        }
    }

    /// Begins the trace, as the first CPU turns its MMU on.
    pub(crate) fn start(&mut self, own: &dyn CurrentCpu) -> bool {
        if self.has_failed {
            return false;
        }
        let memory = match Memory::map(&self.memory_file, &self.layout_file, self.read_rom) {
            Ok(memory) => memory,
            Err(error) => {
                self.has_failed = true;
                eprintln!("linmap-record: {error}");
                return false;
            }
        };
        let shapes = self.cpus.iter().flat_map(|cpu| {
            let spaces = Regime::ALL.into_iter().flat_map(halves);
            spaces.filter_map(|space| Some((cpu.registers.shape(space)?, cpu.registers.output_bits(space))))
        });
        let Some((shape, bits)) = shapes.max_by_key(|(_, bits)| *bits) else {
            self.note("the MMU is on with both halves off");
            return false;
        };
        self.frames.set_granule(shape.granule);
        // LPA2 may be turned on later. A CPU has 52 bits for 64K only where TCR says so first.
        let range = own.system(Readable::Mmfr0).map_or(0, |mmfr0| mmfr0 & 0xf);
        let has_52_bits = shape.granule < 16 && range >= 6;
        let bbm = own.system(Readable::Mmfr2).map_or(0, |mmfr2| (mmfr2 >> 52 & 0xf) as u8);
        self.stream.put(&Record::Line(Line::Machine(Head {
            cpus: self.cpus.len() + 1,
            bbm: bbm.min(3),
            granule: 1 << shape.granule,
            va_bits: shape.va_bits as u8,
            pa_bits: if bits >= 6 || has_52_bits { 52 } else { 48 },
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
    pub(crate) fn compare_touched(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for &frame in &touched {
            self.compare(frame);
        }
        touched.clear();
        self.touched = touched;
    }

    /// Compares `frame` with memory. What differs is made good. It was updated by hardware, written
    /// by a device, or is an error of the recorder.
    fn compare(&mut self, frame: u64) {
        /// Words that no instruction stores at once are a device's, but for those of `unseen`.
        const OF_DEVICE: usize = 64;
        let has_updates = self.cpus.iter().any(|cpu| cpu.registers.has_updates());
        let mut differing = self.differing(frame);
        for &(pa, _, now) in &differing {
            self.set_recorded(frame, pa, now);
        }
        let shapes = self.frames.get_mut(frame).map(|state| state.tables.iter().map(|table| table.shape));
        let shapes: Vec<_> = shapes.into_iter().flatten().collect();
        differing.retain(|&(_, before, now)| {
            let is_updated = |before| shapes.iter().any(|shape| shape.is_updated(before, now));
            !(has_updates && before.is_some_and(is_updated))
        });
        for run in differing.chunk_by(|(pa, ..), (next, ..)| pa + 8 == *next) {
            let [(first, before, now), ..] = *run else { continue };
            if run.len() >= OF_DEVICE {
                let len = 8 * run.len();
                self.device_words += run.len();
                self.note(&format!("a device wrote {len} bytes at {first:#x}, which is a table"));
            } else {
                self.differences += run.len() as u64;
                let before = before.map_or("nothing".to_owned(), |before| format!("{before:#x}"));
                self.note(&format!(
                    "the recorder missed a store: {first:#x} holds {now:#x}, recorded was {before}"
                ));
            }
            for &(pa, before, now) in run {
                self.relink(pa, before, Some(now));
            }
            let words: Vec<_> = run.iter().map(|&(pa, _, now)| (pa, now)).collect();
            let cpu = self.observer();
            self.put_words(cpu, None, &words);
            // Whoever waits for the device finds it there.
            self.put(Event::Dsb { cpu, domain: Domain::Ish, access: Access::All }, None);
        }
    }

    /// Compares all that is followed with memory.
    pub(crate) fn compare_all(&mut self) {
        self.settle_unseen(None);
        for frame in self.frames.followed() {
            self.compare(frame);
        }
    }

    /// The guest has ended.
    pub fn end(&mut self) {
        if self.started.is_none() {
            // A trace of no machine is none.
            self.stream.end_empty();
            return;
        }
        self.compare_all();
        let mut summary = format!(
            "recorded: {} events, at most {} frames followed, {} stores missed",
            self.events, self.frames.most, self.differences
        );
        if self.device_words > 0 {
            summary += &format!(", {} words of tables written by devices", self.device_words);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A CPU at an exception level, with the SPSR of an ERET to come.
    struct Now {
        el: u64,
        spsr: u64,
    }

    impl CurrentCpu for Now {
        fn x(&self, _: u8) -> u64 {
            0
        }

        fn system(&self, register: Readable) -> Option<u64> {
            match register {
                Readable::Pstate => Some(self.el << 2),
                Readable::Spsr(Regime::El1) => Some(self.spsr),
                _ => None,
            }
        }
    }

    const PC: u64 = 0xffff_8000_0000_1000;
    const AT_EL1: Now = Now { el: 1, spsr: 0 };

    fn is_recorded(recorder: &mut Recorder, pc: u64, word: u32, own: &Now) -> bool {
        let before = recorder.events;
        recorder.execute(0, pc, Instruction::of(word).expect("it matters"), own);
        recorder.events > before
    }

    const DSB_NSH: u32 = 0xd503_379f;
    const DSB_ISH: u32 = 0xd503_3b9f;
    const TLBI_VMALLE1: u32 = 0xd508_871f;
    const TLBI_VMALLE1IS: u32 = 0xd508_831f;
    const ERET: u32 = 0xd69f_03e0;

    #[test]
    fn a_broadcast_tlbi_waits_for_a_dsb_behind_one_of_this_cpu_alone() {
        let mut recorder = Recorder::begun(2);
        for word in [TLBI_VMALLE1IS, TLBI_VMALLE1, DSB_NSH, DSB_ISH] {
            assert!(is_recorded(&mut recorder, PC, word, &AT_EL1), "{word:#x}");
        }
        assert!(!is_recorded(&mut recorder, PC, DSB_ISH, &AT_EL1), "nothing is left to complete");
        for word in [TLBI_VMALLE1, DSB_NSH] {
            assert!(is_recorded(&mut recorder, PC, word, &AT_EL1), "{word:#x}");
        }
        assert!(!is_recorded(&mut recorder, PC, DSB_ISH, &AT_EL1), "nothing is left to complete");
    }

    #[test]
    fn a_dsb_with_nxs_completes_tlbis_with_nxs_alone() {
        const DSB_ISH_NXS: u32 = 0xd503_3a3f;
        const TLBI_VMALLE1IS_NXS: u32 = 0xd508_931f;
        let is_complete = |words: &[u32]| {
            let mut recorder = Recorder::begun(1);
            for word in words {
                let _ = is_recorded(&mut recorder, PC, *word, &AT_EL1);
            }
            !recorder.cpus[0].has_tlbis
        };
        assert!(is_complete(&[TLBI_VMALLE1IS_NXS, DSB_ISH_NXS]));
        assert!(is_complete(&[TLBI_VMALLE1IS_NXS, DSB_ISH]));
        assert!(is_complete(&[TLBI_VMALLE1IS, DSB_ISH, TLBI_VMALLE1IS_NXS, DSB_ISH_NXS]));
        assert!(!is_complete(&[TLBI_VMALLE1IS, DSB_ISH_NXS]));
    }

    #[test]
    fn what_el0_can_not_execute_is_not_recorded() {
        let mut recorder = Recorder::begun(1);
        assert!(!is_recorded(&mut recorder, 0x1000, TLBI_VMALLE1IS, &Now { el: 0, spsr: 0 }));
        assert!(is_recorded(&mut recorder, PC, TLBI_VMALLE1IS, &AT_EL1));
    }

    #[test]
    fn words_of_a32_are_no_instructions_of_a64() {
        let mut recorder = Recorder::begun(1);
        assert!(is_recorded(&mut recorder, PC, TLBI_VMALLE1IS, &AT_EL1));
        // To EL0 in AArch32.
        assert!(is_recorded(&mut recorder, PC, ERET, &Now { el: 1, spsr: 0x10 }));
        // The CPSR that QEMU shows need not be that of AArch32.
        for word in [DSB_ISH, TLBI_VMALLE1IS, ERET] {
            assert!(!is_recorded(&mut recorder, 0x1_0000, word, &AT_EL1), "{word:#x}");
        }
        // An exception to a kernel in the upper half.
        assert!(is_recorded(&mut recorder, PC, DSB_ISH, &AT_EL1));
    }
}
