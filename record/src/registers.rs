//! Writes of the registers of translation, and CPUs that come and go.

use linmap_trace::binary::Record;
use linmap_trace::{Event, Register};

use crate::cpu::Registers;
use crate::instruction::{Name, System};
use crate::place::Place;
use crate::readable::Readable;
use crate::recorder::{CurrentCpu, MOST_VECTORS, Recorder};
use crate::regime::{Regime, Space, hcr};
use crate::shape::Shape;
use crate::tree::Tree;

/// The spaces of `regime`.
pub(crate) fn halves(regime: Regime) -> [Space; 2] {
    [false, true].map(|upper| Space::Half { regime, upper })
}

/// The tables of a root at `root`, each with the number of its entries.
pub(crate) fn root_tables(root: u64, shape: Shape) -> impl Iterator<Item = (u64, usize)> {
    let (all, each) = (shape.root_entries(), shape.entries());
    (0..all).step_by(each).map(move |first| (root + 8 * first as u64, each.min(all - first)))
}

impl Registers {
    /// Whether hardware updates leaves of any regime.
    pub fn has_updates(&self) -> bool {
        let of = |regime: &Regime| {
            let own = self.of(*regime);
            own.has_mmu() && own.tcr >> if self.has_halves(*regime) { 39 } else { 21 } & 1 == 1
        };
        Regime::ALL.iter().any(of) || self.hcr & hcr::VM != 0 && self.vtcr >> 21 & 1 == 1
    }

    /// TCR.IPS or PS.
    pub fn output_bits(&self, space: Space) -> u64 {
        match space {
            Space::Half { regime, .. } => {
                self.of(regime).tcr >> if self.has_halves(regime) { 32 } else { 16 } & 7
            }
            Space::Stage2 => self.vtcr >> 16 & 7,
        }
    }
}

impl Recorder {
    /// `cpu` is about to write `value` to a register.
    pub(crate) fn write(&mut self, cpu: usize, pc: u64, system: System, value: u64, own: &dyn CurrentCpu) {
        let place = Place::of(own);
        if matches!(system.name, Name::Hcr | Name::Vtcr | Name::Vttbr) {
            if place.el >= 2 {
                self.write_el2(cpu, pc, system.name, value);
            }
            return;
        }
        let Some(regime) = place.written(system) else { return };
        self.settle_unseen(None);
        let own_registers = &mut self.cpus[cpu].registers.stage1[regime as usize];
        let had_mmu = own_registers.has_mmu();
        match system.name {
            Name::Sctlr => own_registers.sctlr = value,
            Name::Ttbr0 => own_registers.ttbr[0] = value,
            Name::Ttbr1 => own_registers.ttbr[1] = value,
            Name::Tcr => own_registers.tcr = value,
            Name::Mair => own_registers.mair = value,
            Name::Vbar => {
                own_registers.vbar = value;
                // A kernel with KPTI writes it twice for each system call.
                let is_wanted = self.started.is_some() && value >> 63 == 1;
                if is_wanted && self.vectors.len() < MOST_VECTORS && self.vectors.insert(value) {
                    self.stream.put(&Record::Vectors(value));
                }
                return;
            }
            Name::Hcr | Name::Vtcr | Name::Vttbr => return,
        }
        let has_mmu = own_registers.has_mmu();
        self.cpus[cpu].zeroed = None;
        // With the MMU off what counts is whether the guest synchronized before it turned it on.
        let was_synchronized = !self.cpus[cpu].is_unsynchronized;
        self.cpus[cpu].is_unsynchronized = true;
        if !has_mmu && !had_mmu {
            return;
        }
        if self.started.is_none() && !self.start(own) {
            return;
        }
        self.compare_touched();
        if has_mmu {
            self.installed(cpu, pc, regime, !had_mmu && was_synchronized);
        } else {
            self.turned_off(cpu, Some(pc), regime);
        }
    }

    /// Records the registers of `regime` that differ from what was recorded, as they take effect:
    /// with the MMU on. If `is_synchronized`, an ISB was executed with the MMU off behind those
    /// that were written then.
    fn installed(&mut self, cpu: usize, pc: u64, regime: Regime, is_synchronized: bool) {
        self.put_el2(cpu, pc);
        let registers = self.cpus[cpu].registers;
        let values = registers.of(regime).values();
        for (nth, (register, value)) in regime.registers().into_iter().zip(values).enumerate() {
            let Some(register) = register else { continue };
            let before = self.cpus[cpu].recorded[regime as usize][nth];
            let is_sctlr = nth == 4;
            let is_known = if is_sctlr {
                before.is_some_and(|before| before & 1 == value & 1)
            } else {
                before == Some(value)
            };
            if is_known || nth == 3 && !registers.has_halves(regime) {
                continue;
            }
            self.cpus[cpu].recorded[regime as usize][nth] = Some(value);
            let [low, high] = halves(regime);
            match nth {
                2 => self.walk(cpu, low),
                3 => self.walk(cpu, high),
                // What the halves are read as may have changed, or is walked again.
                0 if [low, high].iter().all(|half| self.cpus[cpu].roots[half.index()].is_none()) => {}
                0 | 4 => {
                    self.walk(cpu, low);
                    self.walk(cpu, high);
                }
                _ => {}
            }
            self.put(Event::Write { cpu, register, value }, Some(pc));
            if is_synchronized {
                self.put(Event::Isb { cpu }, Some(pc));
            }
        }
    }

    /// The MMU of `cpu` is off for `regime`.
    fn turned_off(&mut self, cpu: usize, pc: Option<u64>, regime: Regime) {
        let value = self.cpus[cpu].registers.of(regime).sctlr;
        let recorded = &mut self.cpus[cpu].recorded[regime as usize][4];
        if recorded.replace(value).is_none_or(|before| before & 1 == 0) {
            return;
        }
        for half in halves(regime) {
            self.cpus[cpu].roots[half.index()] = None;
        }
        if let Some(register) = regime.registers()[4] {
            self.put(Event::Write { cpu, register, value }, pc);
        }
        if !self.cpus.iter().any(|cpu| cpu.registers.of(regime).has_mmu()) {
            // What CPUs hold of them is of no use to any: they are memory like other.
            self.leave_trees(&halves(regime), None);
        }
        // A kernel that hands over to the next has all MMUs off in between. The next one uses the
        // memory before it invalidates anything more.
        if self.cpus.iter().all(|cpu| cpu.roots.iter().all(Option::is_none)) {
            self.give_up_all();
        }
    }

    /// `cpu` is about to write HCR_EL2, VTCR_EL2 or VTTBR_EL2.
    fn write_el2(&mut self, cpu: usize, pc: u64, name: Name, value: u64) {
        self.settle_unseen(None);
        let registers = &mut self.cpus[cpu].registers;
        let before = registers.hcr;
        match name {
            Name::Hcr => registers.hcr = value,
            Name::Vtcr => registers.vtcr = value,
            _ => registers.vttbr = value,
        }
        let has_changed = (before ^ registers.hcr) & hcr::E2H != 0;
        let has_mmu = registers.of(Regime::El2).has_mmu();
        self.cpus[cpu].is_unsynchronized = true;
        self.cpus[cpu].zeroed = None;
        if has_changed {
            // TCR_EL2 has another form.
            self.cpus[cpu].recorded[Regime::El2 as usize] = [None, None, None, None, None];
        }
        if self.started.is_none() {
            return;
        }
        self.compare_touched();
        self.put_el2(cpu, pc);
        if has_changed && has_mmu {
            self.installed(cpu, pc, Regime::El2, false);
        }
    }

    /// Records HCR_EL2, VTCR_EL2 and VTTBR_EL2 where they differ from what was recorded. The last
    /// two have no meaning while VTCR_EL2 says nothing that a walk could go by.
    fn put_el2(&mut self, cpu: usize, pc: u64) {
        let registers = self.cpus[cpu].registers;
        let is_on = registers.hcr & hcr::VM != 0;
        let [hcr_before, vtcr, vttbr] = self.cpus[cpu].recorded_el2;
        let is_set = is_on || Shape::of_stage2(registers.vtcr).is_some();
        let is_known = hcr_before.unwrap_or(0) & hcr::RECORDED == registers.hcr & hcr::RECORDED;
        let mut events = Vec::new();
        if is_set && vtcr != Some(registers.vtcr) {
            events.push((1, Register::Vtcr, registers.vtcr));
        }
        if is_set && vttbr != Some(registers.vttbr) {
            events.push((2, Register::Vttbr, registers.vttbr));
        }
        match (is_known, hcr_before) {
            // What was never recorded counts as on.
            (true, None) if !events.is_empty() => events.insert(0, (0, Register::Hcr, registers.hcr)),
            (true, _) => {}
            // Before stage 2 is on its registers are set, and after it is off.
            (false, _) if is_on => events.push((0, Register::Hcr, registers.hcr)),
            (false, _) => events.insert(0, (0, Register::Hcr, registers.hcr)),
        }
        if events.is_empty() {
            return;
        }
        if is_on {
            self.walk(cpu, Space::Stage2);
        } else {
            self.cpus[cpu].roots[Space::Stage2.index()] = None;
        }
        for (nth, register, value) in events {
            self.cpus[cpu].recorded_el2[nth] = Some(value);
            self.put(Event::Write { cpu, register, value }, Some(pc));
        }
    }

    /// Follows the tree of `space`.
    fn walk(&mut self, cpu: usize, space: Space) {
        let registers = self.cpus[cpu].registers;
        let shape = registers.shape(space);
        let followed = shape.filter(|shape| self.frames.len() == 1 << shape.granule);
        if followed != shape && !std::mem::replace(&mut self.has_other_granule, true) {
            self.note("tables of another granule than the first MMU's are not followed");
        }
        let tree = followed.map(|shape| {
            let tree = Tree { space, root: shape.root(registers.base(space)), id: registers.id(space) };
            let before = self.trees.get(&tree).copied();
            if before != Some(shape) {
                if let Some(before) = before {
                    // By another size: what it leads to is read as tables of other levels.
                    for (frame, _) in root_tables(tree.root, before) {
                        self.give_up_table(frame);
                    }
                }
                for (table, entries) in root_tables(tree.root, shape) {
                    self.link(table, shape.start, entries, shape);
                }
                self.trees.insert(tree, shape);
            }
            tree
        });
        self.cpus[cpu].roots[space.index()] = tree;
    }

    /// `cpu` asks its firmware to turn it off. It comes back by a reset, if at all: with every MMU
    /// off.
    pub(crate) fn left(&mut self, cpu: usize, pc: u64) {
        self.cpus[cpu].is_leaving = true;
        for regime in Regime::ALL {
            self.cpus[cpu].registers.stage1[regime as usize].sctlr &= !1;
            if self.started.is_some() {
                self.turned_off(cpu, Some(pc), regime);
            }
        }
        self.cpus[cpu].registers.hcr = 0;
        if self.started.is_some() {
            self.put_el2(cpu, pc);
            self.put(Event::Isb { cpu }, Some(pc));
        }
    }

    /// `cpu` executes, though it asked to be turned off: it was turned on again, or it was not
    /// turned off.
    pub(crate) fn is_still_there(&mut self, cpu: usize, pc: u64, own: &dyn CurrentCpu) {
        self.cpus[cpu].is_leaving = false;
        self.cpus[cpu].registers.hcr = Place::of(own).hcr;
        for regime in Regime::ALL {
            let sctlr = own.system(Readable::Sctlr(regime)).unwrap_or(0);
            self.cpus[cpu].registers.stage1[regime as usize].sctlr = sctlr;
            if sctlr & 1 == 1 && self.started.is_some() {
                self.installed(cpu, pc, regime, false);
            }
        }
    }
}
