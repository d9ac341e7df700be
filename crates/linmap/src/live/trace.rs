//! Changes as they happen, in the machine model's own format of traces: what `linmap.trace=1` prints.
//!
//! The lines are those that the model reads (`linmap_model::trace::text`), so that a run of the kernel can be judged on the
//! host. [`opening`] gives the machine and its tables, [`plan`] a change that is about to be applied in use,
//! [`parked_plan`] one that was applied parked. A line goes to `line` without its end. CPU 0 is the one that edits.
//!
//! Nothing is allocated: consecutive entries are printed as runs, and tables are walked a level at a time.

use core::fmt::Arguments;

use linmap_live::{Edit, EveryLeaf, Invalidation, Reach, Step, Store};
use linmap_table::TableWindow;
use linmap_table::cpu::Dsb;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::registers::ttbr;
use linmap_vmsa::tlbi::{RangeOperand, VaOperand};
use linmap_vmsa::{Decoded, Descriptor, Geometry, Granule, Level, Pa, PaRange, Va};

use crate::layout::Layout;

/// The most CPUs that a trace has (a limit of the model).
pub const MAX_CPUS: usize = 64;

/// The root tables that TTBR1 ever holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Roots {
    /// Of the live tree.
    pub live: Pa,
    /// Of the one that translates nothing.
    pub nothing: Pa,
    /// Of the one that the editor runs on while all others are parked.
    pub surgery: Pa,
}

/// The CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    /// How many there can be, at most [`MAX_CPUS`]; numbers are below.
    pub cpus: usize,
    /// The least BBM level of them.
    pub bbm: BbmLevel,
    /// The shape of the kernel's half.
    pub geometry: Geometry,
}

/// Prints what a trace begins with: the machine, the memory that tables may ever lie in (whole pages of it, memory that may be
/// added included), the tables of all roots as they are, and TTBR1 of the CPUs in `running`. For a CPU that starts
/// later there is [`starts`].
pub fn opening<W: TableWindow>(
    line: &mut impl FnMut(Arguments<'_>),
    machine: Machine,
    memory: impl IntoIterator<Item = PaRange>,
    roots: Roots,
    running: impl IntoIterator<Item = usize>,
    window: &mut W,
) {
    let Machine { cpus, bbm, geometry } = machine;
    let granule = match geometry.granule() {
        Granule::K4 => "4K",
        Granule::K16 => "16K",
        Granule::K64 => "64K",
    };
    let (bbm, va, pa) = (bbm.number(), geometry.va_bits(), geometry.pa_bits());
    line(format_args!("machine cpus={cpus} bbm={bbm} granule={granule} va={va} pa={pa}"));
    for range in memory {
        let whole = range.align_inward(0x1000);
        if !whole.is_empty() {
            line(format_args!("ram {:#x} {:#x}", whole.start.0, whole.len()));
        }
    }
    let mut tables = Tables { geometry, window, before: &[] };
    for root in [roots.live, roots.nothing, roots.surgery] {
        tables.fill(line, geometry.start_level(), root);
    }
    line(format_args!("0 dsb ish"));
    for cpu in running {
        starts(line, geometry, roots, cpu);
    }
}

/// Prints that `cpu` comes to the live root, having had none.
pub fn starts(line: &mut impl FnMut(Arguments<'_>), geometry: Geometry, roots: Roots, cpu: usize) {
    arrives(line, geometry, cpu, roots.live);
}

/// Prints that `cpu` leaves the live root for good.
pub fn stops(line: &mut impl FnMut(Arguments<'_>), geometry: Geometry, roots: Roots, cpu: usize) {
    leaves(line, geometry, cpu, roots.nothing);
}

/// Prints the checked plan that is about to be applied while the tree is in use: new tables, then all that the plan does,
/// with the values that entries get. `window` reaches the tables as they are before.
pub fn plan<W: TableWindow>(
    line: &mut impl FnMut(Arguments<'_>),
    geometry: Geometry,
    roots: Roots,
    steps: &[Step],
    window: &mut W,
) {
    new_tables(line, geometry, steps, window);
    for (nth, step) in steps.iter().enumerate() {
        let before = steps.get(..nth).unwrap_or_default();
        Tables { geometry, window, before }.step(line, roots.live, step);
    }
    frees(line, geometry, steps, window);
    line(format_args!("settled"));
}

/// Prints the plan that was applied while the CPUs in `running`, CPU 0 among them, were parked: how they left, new tables,
/// all that the plan did, how they came back. `window` reaches the tables as they are now, before any frame goes back; since
/// nobody walked them, it does not matter which values an entry had in between.
pub fn parked_plan<W: TableWindow>(
    line: &mut impl FnMut(Arguments<'_>),
    geometry: Geometry,
    roots: Roots,
    running: impl IntoIterator<Item = usize> + Clone,
    steps: &[Step],
    window: &mut W,
) {
    let waiters = || running.clone().into_iter().filter(|cpu| *cpu != 0);
    for cpu in waiters() {
        leaves(line, geometry, cpu, roots.nothing);
    }
    leaves(line, geometry, 0, roots.nothing);
    arrives(line, geometry, 0, roots.surgery);
    new_tables(line, geometry, steps, window);
    for step in steps {
        Tables { geometry, window, before: &[] }.step(line, roots.live, step);
    }
    leaves(line, geometry, 0, roots.nothing);
    arrives(line, geometry, 0, roots.live);
    for cpu in waiters() {
        arrives(line, geometry, cpu, roots.live);
    }
    frees(line, geometry, steps, window);
    line(format_args!("settled"));
}

/// From a root to nothing, with nothing cached.
fn leaves(line: &mut impl FnMut(Arguments<'_>), geometry: Geometry, cpu: usize, nothing: Pa) {
    line(format_args!("{cpu} msr ttbr1_el1 {:#x}", ttbr(geometry, nothing, 0)));
    line(format_args!("{cpu} isb"));
    line(format_args!("{cpu} tlbi vmalle1"));
    line(format_args!("{cpu} dsb nsh"));
    line(format_args!("{cpu} isb"));
}

/// From nothing to a root.
fn arrives(line: &mut impl FnMut(Arguments<'_>), geometry: Geometry, cpu: usize, root: Pa) {
    line(format_args!("{cpu} msr ttbr1_el1 {:#x}", ttbr(geometry, root, 0)));
    line(format_args!("{cpu} isb"));
}

/// Every table that a store of the plan links, with all below it.
fn new_tables<W: TableWindow>(
    line: &mut impl FnMut(Arguments<'_>),
    geometry: Geometry,
    steps: &[Step],
    window: &mut W,
) {
    for step in steps {
        let Step::Store(Store { level, count, edit: edit @ Edit::Write { .. }, .. }) = step else { continue };
        let Some(next) = level.next() else { continue };
        for nth in 0..usize::from(*count) {
            if let Decoded::Table(table) = edit.of(Descriptor::INVALID, nth).decode(geometry, *level) {
                Tables { geometry, window, before: &[] }.fill(line, next, table);
            }
        }
    }
}

/// The frames that go back when the plan is done.
fn frees<W: TableWindow>(
    line: &mut impl FnMut(Arguments<'_>),
    geometry: Geometry,
    steps: &[Step],
    window: &mut W,
) {
    for step in steps {
        if let Step::Free { table, level, .. } = *step {
            Tables { geometry, window, before: steps }.free(line, level, table);
        }
    }
}

/// Bits of descriptors in which the entries of one run may differ.
const ADDRESS: u64 = 0xffff_ffff_f000;

/// Consecutive words that are printed as one.
#[derive(Clone, Copy)]
struct Words {
    pa: u64,
    first: u64,
    count: u64,
    step: u64,
}

impl Words {
    /// Whether `value` at `pa` goes on with it, and then with what difference from word to word.
    fn goes_on(&self, pa: u64, value: u64) -> Option<u64> {
        let last = self.first.wrapping_add(self.step.wrapping_mul(self.count - 1));
        let step = value.wrapping_sub(last);
        let alike = value == last || (value != 0 && last != 0 && (value ^ last) & !ADDRESS == 0);
        let fits = pa == self.pa + 8 * self.count && alike && (self.count == 1 || step == self.step);
        fits.then_some(step)
    }

    fn print(&self, line: &mut impl FnMut(Arguments<'_>)) {
        let Self { pa, first, count, step } = *self;
        if count == 1 {
            line(format_args!("0 store {pa:#x} {first:#x}"));
        } else {
            line(format_args!("0 fill {pa:#x} count={count} first={first:#x} step={step:#x}"));
        }
    }
}

/// Words being joined.
struct Joined<'l, L: FnMut(Arguments<'_>)> {
    words: Option<Words>,
    line: &'l mut L,
}

impl<L: FnMut(Arguments<'_>)> Joined<'_, L> {
    fn push(&mut self, pa: u64, value: u64) {
        if let Some(words) = &mut self.words {
            if let Some(step) = words.goes_on(pa, value) {
                words.step = step;
                words.count += 1;
                return;
            }
            words.print(self.line);
        }
        self.words = Some(Words { pa, first: value, count: 1, step: 0 });
    }

    fn end(self) {
        if let Some(words) = self.words {
            words.print(self.line);
        }
    }
}

/// Tables as they are when the steps in `before` have been applied to them.
struct Tables<'t, W> {
    geometry: Geometry,
    window: &'t mut W,
    before: &'t [Step],
}

impl<W: TableWindow> Tables<'_, W> {
    /// An entry of `table`; `index` is below the number of its entries.
    fn entry(&mut self, level: Level, table: Pa, index: usize) -> Descriptor {
        let pointer = self.window.open(level, table);
        // SAFETY: `open` gives a whole table, and every caller's index is one of its entries. The table may be live, so the
        // read is volatile.
        let mut entry = Descriptor(unsafe { pointer.add(index).read_volatile() });
        self.window.close(level);
        for step in self.before {
            if let Step::Store(store) = step
                && store.table == table
                && let Some(nth) = index.checked_sub(usize::from(store.index))
                && nth < usize::from(store.count)
            {
                entry = store.edit.of(entry, nth);
            }
        }
        entry
    }

    /// The table that an entry leads to, and its level.
    fn below(&mut self, level: Level, table: Pa, index: usize) -> Option<(Level, Pa)> {
        let next = level.next()?;
        match self.entry(level, table, index).decode(self.geometry, level) {
            Decoded::Table(below) => Some((next, below)),
            Decoded::Leaf(_) | Decoded::Invalid => None,
        }
    }

    /// Prints what stands in `table` and in all tables below it, the lowest first.
    fn fill(&mut self, line: &mut impl FnMut(Arguments<'_>), level: Level, table: Pa) {
        let entries = self.geometry.entries(level);
        for index in 0..entries {
            if let Some((next, below)) = self.below(level, table, index) {
                self.fill(line, next, below);
            }
        }
        let mut words = Joined { words: None, line };
        for index in 0..entries {
            words.push(table.0 + 8 * index as u64, self.entry(level, table, index).0);
        }
        words.end();
    }

    /// Prints that the frames of `table` and of all tables below it go back, the lowest first.
    fn free(&mut self, line: &mut impl FnMut(Arguments<'_>), level: Level, table: Pa) {
        for index in 0..self.geometry.entries(level) {
            if let Some((next, below)) = self.below(level, table, index) {
                self.free(line, next, below);
            }
        }
        line(format_args!("free {:#x} {:#x}", table.0, self.geometry.granule().bytes()));
    }

    /// Prints a step of a plan for the tree at `root`.
    fn step(&mut self, line: &mut impl FnMut(Arguments<'_>), root: Pa, step: &Step) {
        match step {
            Step::Store(store) => self.store(line, store),
            Step::EveryLeaf(leaves) => {
                let level = self.geometry.start_level();
                self.every_leaf(line, leaves, root, level, Layout::base(self.geometry));
            }
            Step::Dsb(Dsb::Ishst) => line(format_args!("0 dsb ishst")),
            Step::Dsb(Dsb::Ish) => line(format_args!("0 dsb ish")),
            Step::Dsb(Dsb::Nsh) => line(format_args!("0 dsb nsh")),
            Step::Isb => line(format_args!("0 isb")),
            Step::Invalidate(invalidation) => invalidate(line, self.geometry, *invalidation),
            // Printed in the end.
            Step::Free { .. } => {}
        }
    }

    fn store(&mut self, line: &mut impl FnMut(Arguments<'_>), store: &Store) {
        let mut words = Joined { words: None, line };
        for nth in 0..usize::from(store.count) {
            let index = usize::from(store.index) + nth;
            let value = match store.edit {
                Edit::Write { .. } => store.edit.of(Descriptor::INVALID, nth),
                Edit::Bits { .. } => store.edit.of(self.entry(store.level, store.table, index), nth),
            };
            words.push(store.table.0 + 8 * index as u64, value.0);
        }
        words.end();
    }

    /// Prints stores to the leaves, valid or invalidated, that `leaves` names in `table` and below, which translates from
    /// `base`.
    fn every_leaf(
        &mut self,
        line: &mut impl FnMut(Arguments<'_>),
        leaves: &EveryLeaf,
        table: Pa,
        level: Level,
        base: Va,
    ) {
        let bytes = self.geometry.entry_bytes(level);
        let entries = self.geometry.entries(level);
        let va = |index: usize| base.0 + index as u64 * bytes;
        let named = |index: usize| va(index) <= leaves.last.0 && leaves.first.0 <= va(index) + (bytes - 1);
        for index in (0..entries).filter(|index| named(*index)) {
            if let Some((next, below)) = self.below(level, table, index) {
                self.every_leaf(line, leaves, below, next, Va(va(index)));
            }
        }
        let mut words = Joined { words: None, line };
        for index in (0..entries).filter(|index| named(*index)) {
            let entry = self.entry(level, table, index);
            if entry != Descriptor::INVALID && self.below(level, table, index).is_none() {
                words.push(table.0 + 8 * index as u64, entry.0 & !leaves.clear | leaves.set);
            }
        }
        words.end();
    }
}

/// Prints the instructions of one invalidation.
fn invalidate(line: &mut impl FnMut(Arguments<'_>), geometry: Geometry, invalidation: Invalidation) {
    match invalidation {
        Invalidation::All => line(format_args!("0 tlbi vmalle1is")),
        Invalidation::ByVa { va, count, shift, reach } => {
            let name = match reach {
                Reach::LastLevel => "vaale1is",
                Reach::AllLevels => "vaae1is",
            };
            for nth in 0..u64::from(count) {
                let operand = VaOperand::any_asid(Va(va.0.wrapping_add(nth << shift)));
                line(format_args!("0 tlbi {name} {:#x}", operand.0));
            }
        }
        Invalidation::ByRange { va, pages, reach } => {
            let name = match reach {
                Reach::LastLevel => "rvaale1is",
                Reach::AllLevels => "rvaae1is",
            };
            match RangeOperand::any_asid(geometry, va, pages) {
                Some((operand, _)) => line(format_args!("0 tlbi {name} {:#x}", operand.0)),
                // What is done with a range that no operand can say.
                None => line(format_args!("0 tlbi vmalle1is")),
            }
        }
    }
}
