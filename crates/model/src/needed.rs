//! Whether an invalidation has anything to remove.

use linmap_trace::Tlbi;

use crate::cached::Held;
use crate::machine::Machine;
use crate::space::Space;

impl Machine {
    /// Whether a TLBI that `cpu` issues now is needed: what it reaches may be held otherwise than
    /// the tables have it. That is a descriptor which was overwritten, or a tree that a register
    /// left. Returns true where it is not known, as before `cpu` walks any tree.
    ///
    /// ```
    /// use linmap_model::event::{Access, Domain, Register, Tlbi, TlbiScope};
    /// use linmap_model::{Config, Event, Leniency, Machine};
    ///
    /// let ram = vec![(0x4000_0000, 0x10000)];
    /// let leniency = Leniency::Strict;
    /// let config = Config { cpus: 1, bbm: 0, granule: 0x1000, va_bits: 39, pa_bits: 48, ram, leniency };
    /// let mut machine = Machine::new(&config).unwrap();
    /// let root = 0x4000_0000;
    /// let register = Register::Ttbr1;
    /// machine.step(&Event::Fill { cpu: 0, pa: root, count: 512, first: 0, step: 0 }).unwrap();
    /// machine.step(&Event::Dsb { cpu: 0, domain: Domain::Ish, access: Access::All }).unwrap();
    /// machine.step(&Event::Write { cpu: 0, register, value: root }).unwrap();
    /// machine.step(&Event::Isb { cpu: 0 }).unwrap();
    /// // A block appears where nothing was: nothing of it can be held.
    /// machine.step(&Event::Store { cpu: 0, pa: root, value: 0x4000_0701, via: None }).unwrap();
    /// let all = Tlbi { scope: TlbiScope::AllEl1, broadcast: false };
    /// assert!(!machine.is_needed(0, all, 0));
    /// // It goes again.
    /// machine.step(&Event::Store { cpu: 0, pa: root, value: 0, via: None }).unwrap();
    /// assert!(machine.is_needed(0, all, 0));
    /// ```
    pub fn is_needed(&self, cpu: usize, tlbi: Tlbi, operand: u64) -> bool {
        let Some(state) = self.cpus.get(cpu) else { return true };
        if state.walks.iter().all(Vec::is_empty) {
            return true;
        }
        let scope = self.scope_of(cpu, tlbi, operand);
        let reached = if scope.broadcast { self.everyone() } else { 1 << cpu };
        let is_reached = |space: Space, held: &Held| {
            let root = &self.roots[held.root as usize];
            let is_global = self.leaf(held.root, held.level, held.value).is_some_and(|leaf| leaf.global);
            held.cpus & reached != 0 && scope.is_of(space, root.id, is_global)
        };
        self.spaces().filter(|space| scope.reaches(*space)).any(|space| {
            let (at, cached) = (space.index(), self.cached.of(space));
            if let Some((first, last)) = scope.range {
                let held = cached.touching(self.shapes[at], first, last);
                return held.iter().any(|held| is_reached(space, held));
            }
            let mut cpus =
                self.cpus.iter().enumerate().filter(|(nth, _)| reached >> nth & 1 == 1).map(|(_, cpu)| cpu);
            let is_of = |root: u32| scope.is_of(space, self.roots[root as usize].id, false);
            cached.all().any(|held| is_reached(space, held))
                || self.roots.iter().any(|root| root.space == space && root.retired.is_some())
                || cpus.any(|cpu| cpu.walks[at].len() > 1 || cpu.left[at].iter().any(|left| is_of(left.root)))
        })
    }

    /// The number of tables that walks may reach now.
    pub fn reachable_tables(&self) -> usize {
        self.tables.len()
    }
}
