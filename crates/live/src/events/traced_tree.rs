//! A live tree whose changes are traced.

use linmap_table::TableWindow;
use linmap_trace::{Access, Domain, Event, Head, Line, PAGE, Ram, Register, Tlbi, TlbiScope};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::registers::{RegisterError, ttbr};
use linmap_vmsa::{Geometry, Pa, PaRange, Va};

use super::fills::EDITOR;
use super::tables::Tables;
use crate::step::Step;

/// The root tables that TTBR1 ever holds. [`TracedTree`] has an example.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Roots {
    /// The live tree.
    pub live: Pa,
    /// The tree that translates nothing.
    pub nothing: Pa,
    /// The tree that the editor runs on while all other CPUs are parked.
    pub surgery: Pa,
}

/// A live tree in TTBR1 whose changes are traced. CPU 0 is the CPU that edits it.
///
/// ```
/// use linmap_live::CheckedPlan;
/// use linmap_live::events::{Roots, TracedTree};
/// use linmap_table::TableWindow;
/// use linmap_vmsa::registers::RegisterError;
/// use linmap_vmsa::{Geometry, Pa};
///
/// /// Prints what a plan is about to do, for `linmap check`.
/// fn print(tree: &TracedTree, plan: &CheckedPlan<'_>, window: &mut impl TableWindow) {
///     tree.plan(&mut |line| println!("{line}"), plan.steps(), window);
/// }
///
/// /// A kernel that parks CPUs on an empty root, in the frame behind that of the live root.
/// fn traced(geometry: Geometry, live: Pa, surgery: Pa) -> Result<TracedTree, RegisterError> {
///     let nothing = Pa(live.0 + geometry.granule().bytes());
///     // SAFETY: these are the kernel's roots, and its window reaches all tables.
///     unsafe { TracedTree::new(geometry, Roots { live, nothing, surgery }) }
/// }
/// # assert!(traced(Geometry::K4_48, Pa(0x4000_0000), Pa(0x4000_2000)).is_ok());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TracedTree {
    geometry: Geometry,
    roots: Roots,
    /// The TTBR1 values of the roots.
    live: u64,
    nothing: u64,
    surgery: u64,
}

impl TracedTree {
    /// Returns the tree with these roots, in TTBR1's half of this geometry.
    ///
    /// # Errors
    /// [`RegisterError`] if a root is not in a frame.
    ///
    /// # Safety
    /// The roots are root tables of this geometry. Every window that is passed to a method of this
    /// value reaches all of their tables, and all new tables of the plan whose steps are passed
    /// with it.
    pub unsafe fn new(geometry: Geometry, roots: Roots) -> Result<Self, RegisterError> {
        let value = |root| ttbr(geometry, root, 0);
        let (live, nothing, surgery) = (value(roots.live)?, value(roots.nothing)?, value(roots.surgery)?);
        Ok(Self { geometry, roots, live, nothing, surgery })
    }

    /// Emits the beginning of a trace: the machine with `cpus` CPUs, at most
    /// [`MAX_CPUS`](linmap_trace::MAX_CPUS), with `bbm` as their lowest BBM level; the whole
    /// pages of `memory`; the tables of all roots as they are; and TTBR1 of the CPUs in `running`.
    ///
    /// `memory` is all memory that tables may ever lie in, including memory that is added later. A
    /// CPU that starts later is emitted by [`starts`](Self::starts).
    pub fn opening<W: TableWindow>(
        &self,
        emit: &mut impl FnMut(Line),
        cpus: usize,
        bbm: BbmLevel,
        memory: impl IntoIterator<Item = PaRange>,
        running: impl IntoIterator<Item = usize>,
        window: &mut W,
    ) {
        let Self { geometry, roots, .. } = *self;
        emit(Line::Machine(Head {
            cpus,
            bbm: bbm.number(),
            granule: geometry.granule().bytes(),
            va_bits: geometry.va_bits(),
            pa_bits: geometry.pa_bits(),
        }));
        for range in memory {
            let whole = range.align_inward(PAGE);
            if !whole.is_empty() {
                emit(Line::Ram(Ram { start: whole.start.0, len: whole.len() }));
            }
        }
        let mut tables = Tables { geometry, window, before: &[] };
        for root in [roots.live, roots.nothing, roots.surgery] {
            tables.content(emit, geometry.start_level(), root);
        }
        emit(Event::Dsb { cpu: EDITOR, domain: Domain::Ish, access: Access::All }.into());
        for cpu in running {
            self.starts(emit, cpu);
        }
    }

    /// Emits that `cpu`, which had no root, enters the live root.
    pub fn starts(&self, emit: &mut impl FnMut(Line), cpu: usize) {
        self.enter(emit, cpu, self.live);
    }

    /// Emits that `cpu` leaves the live root for good.
    pub fn stops(&self, emit: &mut impl FnMut(Line), cpu: usize) {
        self.leave(emit, cpu);
    }

    /// Emits the checked plan in `steps`, which is about to be applied while the tree is in use:
    /// new tables, then all that the plan does, with the values that entries get. `window` reaches
    /// the tables as they are before.
    pub fn plan<W: TableWindow>(&self, emit: &mut impl FnMut(Line), steps: &[Step], window: &mut W) {
        let geometry = self.geometry;
        Tables { geometry, window, before: &[] }.new_tables(emit, steps);
        for (nth, step) in steps.iter().enumerate() {
            let before = steps.get(..nth).unwrap_or_default();
            Tables { geometry, window, before }.step(emit, self.live_root(), step);
        }
        Tables { geometry, window, before: steps }.frees(emit, steps);
        emit(Event::Settled.into());
    }

    /// Emits the plan in `steps`, which was applied while the CPUs in `running`, CPU 0 among them,
    /// were parked: how they left, new tables, all that the plan did, how they returned. `window`
    /// reaches the tables as they are after it, before any frame is freed. No CPU walked them, so
    /// values that an entry had in between do not matter.
    pub fn parked_plan<W: TableWindow>(
        &self,
        emit: &mut impl FnMut(Line),
        running: impl IntoIterator<Item = usize> + Clone,
        steps: &[Step],
        window: &mut W,
    ) {
        let geometry = self.geometry;
        let waiters = || running.clone().into_iter().filter(|cpu| *cpu != EDITOR);
        for cpu in waiters() {
            self.leave(emit, cpu);
        }
        self.leave(emit, EDITOR);
        self.enter(emit, EDITOR, self.surgery);
        let mut tables = Tables { geometry, window, before: &[] };
        tables.new_tables(emit, steps);
        for step in steps {
            tables.step(emit, self.live_root(), step);
        }
        self.leave(emit, EDITOR);
        self.enter(emit, EDITOR, self.live);
        for cpu in waiters() {
            self.enter(emit, cpu, self.live);
        }
        Tables { geometry, window, before: steps }.frees(emit, steps);
        emit(Event::Settled.into());
    }

    /// The live root, and the first address that it translates.
    fn live_root(&self) -> (Pa, Va) {
        (self.roots.live, Va(u64::MAX << self.geometry.va_bits()))
    }

    /// Emits that `cpu` leaves its root and caches nothing of it.
    fn leave(&self, emit: &mut impl FnMut(Line), cpu: usize) {
        self.enter(emit, cpu, self.nothing);
        let tlbi = Tlbi { scope: TlbiScope::AllEl1, broadcast: false };
        emit(Event::Tlbi { cpu, tlbi, operand: 0 }.into());
        emit(Event::Dsb { cpu, domain: Domain::Nsh, access: Access::All }.into());
        emit(Event::Isb { cpu }.into());
    }

    /// Emits that `cpu` enters the root with this TTBR1 value.
    fn enter(&self, emit: &mut impl FnMut(Line), cpu: usize, value: u64) {
        emit(Event::Write { cpu, register: Register::Ttbr1, value }.into());
        emit(Event::Isb { cpu }.into());
    }
}
