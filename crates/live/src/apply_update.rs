//! Applying atomic updates, and reports of what was written.

use core::ptr::NonNull;

use linmap_table::TableWindow;
use linmap_table::cpu::{Cpu, Dsb};
use linmap_vmsa::{Descriptor, Level, Pa, Va, VaRange};

use crate::apply::Updates;
use crate::report::Report;
use crate::step::{Edit, Step, Store};
use crate::tree_context::TreeContext;
use crate::update::{Update, carried, is_written, kept};

/// Makes the atomic updates of plans for one tree, and reports what was written.
pub(crate) struct Atomically<'t, R> {
    pub context: &'t TreeContext,
    pub report: R,
}

impl<W: TableWindow, C: Cpu, R: Report> Updates<W, C> for Atomically<'_, R> {
    unsafe fn apply(
        &mut self,
        store: &Store,
        update: Update,
        entries: NonNull<u64>,
        window: &mut W,
        cpu: &mut C,
    ) {
        let Self { context, report } = self;
        // SAFETY: the caller's.
        unsafe { apply_update(context, store, update, entries, window, cpu, report) }
    }
}

/// Makes one update of a live tree.
///
/// # Safety
/// As for [`Updates::apply`].
unsafe fn apply_update<W: TableWindow, C: Cpu, R: Report>(
    context: &TreeContext,
    store: &Store,
    update: Update,
    entries: NonNull<u64>,
    window: &mut W,
    cpu: &mut C,
    report: &mut R,
) {
    let regime = context.geometry.regime();
    let count = usize::from(store.count);
    match update {
        Update::Bits { .. } => {
            for nth in 0..count {
                // SAFETY: the caller's; an open table is valid for reads and writes and aligned.
                let (old, new) = unsafe { exchange(cpu, entries.add(nth), |old| update.of(old, nth)) };
                note(context, store, nth, (old, new), report);
            }
        }
        Update::Leaf { .. } => {
            for nth in 0..count {
                let leaf =
                    |old: Descriptor| Descriptor(kept(context.updates, regime, update.of(old, nth).0, old.0));
                // SAFETY: as above.
                let (old, new) = unsafe { exchange(cpu, entries.add(nth), leaf) };
                note(context, store, nth, (old, new), report);
            }
        }
        // SAFETY: as above; the plan's new table is one of the frame source, which the window
        // reaches, and nothing leads to it yet.
        Update::Link { table, over } => unsafe { link(context, store, (table, over), entries, window, cpu) },
        Update::Gather => {
            // SAFETY: as above.
            let run = (0..count).map(|nth| unsafe { entries.add(nth).read_volatile() });
            let all = run.fold(0, |all, entry| carried(regime, if all == 0 { entry } else { all }, entry));
            for nth in 0..count {
                // SAFETY: as above; what the entry maps stays.
                unsafe { exchange(cpu, entries.add(nth), |old| Descriptor(carried(regime, old.0, all))) };
            }
        }
        Update::Collect { from } => {
            // SAFETY: as above.
            let block = unsafe { entries.read_volatile() };
            let Some(next) = store.level.next() else { return };
            // SAFETY: the check found that the plan removed the table. It is not freed yet.
            let all = unsafe { collect(context, next, from, block, window) };
            // SAFETY: as above; what the entry maps stays.
            unsafe { exchange(cpu, entries, |old| Descriptor(carried(regime, old.0, all))) };
        }
    }
}

/// Replaces an entry by what `value` makes of it. Returns the old value and the new one. Hardware
/// alone changes the entry at the same time, and each of its updates only once.
///
/// # Safety
/// As for [`Cpu::compare_exchange`], with every value that `value` returns.
unsafe fn exchange<C: Cpu>(
    cpu: &mut C,
    entry: NonNull<u64>,
    value: impl Fn(Descriptor) -> Descriptor,
) -> (Descriptor, Descriptor) {
    // SAFETY: the caller's: the entry is valid for reads. Hardware may change it, so the read is
    // volatile.
    let mut old = Descriptor(unsafe { entry.read_volatile() });
    loop {
        let new = value(old);
        if new == old {
            return (old, new);
        }
        // SAFETY: the caller's.
        match unsafe { cpu.compare_exchange(entry, old, new) } {
            Ok(()) => return (old, new),
            Err(found) => old = found,
        }
    }
}

/// Links a new table over a block, valid or invalidated, which hardware may update until then.
///
/// # Safety
/// As for [`exchange`]. `window` reaches the new table and all below it, to which nothing leads.
unsafe fn link<W: TableWindow, C: Cpu>(
    context: &TreeContext,
    store: &Store,
    (table, over): (Descriptor, Descriptor),
    entry: NonNull<u64>,
    window: &mut W,
    cpu: &mut C,
) {
    let regime = context.geometry.regime();
    // SAFETY: the caller's.
    let mut found = Descriptor(unsafe { entry.read_volatile() });
    let mut whole = over.0;
    loop {
        // What the leaves of the table lack. It becomes more at most twice.
        let updated = carried(regime, whole, found.0);
        if updated != whole {
            if let (Some(next), Some(new)) = (store.level.next(), context.next_table(table)) {
                // SAFETY: the caller's.
                unsafe { carry_below(context, next, new, updated, window) };
            }
            whole = updated;
            cpu.dsb(Dsb::Ishst);
        }
        // SAFETY: the caller's.
        match unsafe { cpu.compare_exchange(entry, found, table) } {
            Ok(()) => return,
            Err(now) => found = now,
        }
    }
}

/// Carries what hardware has updated in `from` to all leaves of a new table and below.
///
/// # Safety
/// `window` reaches the tables, and nothing leads to them yet.
unsafe fn carry_below<W: TableWindow>(
    context: &TreeContext,
    level: Level,
    table: Pa,
    from: u64,
    window: &mut W,
) {
    // SAFETY: the caller's.
    let entries = unsafe { window.open(level, table) };
    for index in 0..context.entries(level) {
        // SAFETY: an open table is valid for reads and writes of a whole granule.
        let (slot, found) = unsafe { (entries.add(index), Descriptor(entries.add(index).read())) };
        match level.next().and_then(|next| Some((next, context.next_table(found)?))) {
            // SAFETY: the caller's; the table stays open while deeper levels are.
            Some((next, below)) => unsafe { carry_below(context, next, below, from, window) },
            // SAFETY: as above.
            None => unsafe { slot.write(carried(context.geometry.regime(), found.0, from)) },
        }
    }
    window.close(level);
}

/// Returns `block` with what hardware has updated in any leaf of the removed table `table` and
/// below.
///
/// # Safety
/// `window` reaches the tables.
unsafe fn collect<W: TableWindow>(
    context: &TreeContext,
    level: Level,
    table: Pa,
    block: u64,
    window: &mut W,
) -> u64 {
    let mut all = block;
    // SAFETY: the caller's.
    unsafe {
        each_leaf(context, level, table, Va(0), window, &mut |_, leaf| {
            all = carried(context.geometry.regime(), all, leaf);
        });
    }
    all
}

/// Runs `each` on all leaves of a table and below, valid or invalidated.
///
/// # Safety
/// `window` reaches the tables.
unsafe fn each_leaf<W: TableWindow>(
    context: &TreeContext,
    level: Level,
    table: Pa,
    base: Va,
    window: &mut W,
    each: &mut impl FnMut(VaRange, u64),
) {
    let shift = context.shift(level);
    // SAFETY: the caller's.
    let entries = unsafe { window.open(level, table) };
    for index in 0..context.entries(level) {
        // SAFETY: an open table is valid for reads of a whole granule; it stays open while deeper
        // levels are. Hardware may have updated it lately, so the read is volatile.
        let found = Descriptor(unsafe { entries.add(index).read_volatile() });
        let va = Va(base.0.wrapping_add((index as u64) << shift));
        match level.next().and_then(|next| Some((next, context.next_table(found)?))) {
            // SAFETY: the caller's.
            Some((next, below)) => unsafe { each_leaf(context, next, below, va, window, each) },
            None if found.0 != 0 => each(whole(context, level, va, found), found.0),
            None => {}
        }
    }
    window.close(level);
}

/// Reports a leaf that may have been written and is replaced by one that says nothing of it.
fn note<R: Report>(
    context: &TreeContext,
    store: &Store,
    nth: usize,
    (old, new): (Descriptor, Descriptor),
    report: &mut R,
) {
    let regime = context.geometry.regime();
    let is_table = store.level != Level::L3 && context.next_table(old).is_some();
    let stays = new.0 != 0 && is_written(regime, new.0);
    if old.0 == 0 || is_table || stays || !is_written(regime, old.0) {
        return;
    }
    let va = Va(store.va.0.wrapping_add((nth as u64) << context.shift(store.level)));
    report.written(whole(context, store.level, va, old));
}

/// The addresses of the leaf for `va`, or of its run: hardware may update it for any other entry of
/// the run.
fn whole(context: &TreeContext, level: Level, va: Va, leaf: Descriptor) -> VaRange {
    let run = context.run(level).filter(|_| leaf.is_contiguous()).unwrap_or(1) as u64;
    let bytes = run << context.shift(level);
    VaRange::new(Va(va.0 & !(bytes - 1)), bytes)
}

/// Reports all leaves of removed tables that may have been written, unless a block in the place of
/// the table says so.
///
/// # Safety
/// The plan was applied, and the tables that it removed are not freed. `window` reaches them.
pub(crate) unsafe fn report_removed<W: TableWindow, R: Report>(
    context: &TreeContext,
    steps: &[Step],
    window: &mut W,
    report: &mut R,
) {
    let regime = context.geometry.regime();
    for step in steps {
        let Step::Free { va, table, level } = *step else { continue };
        if is_collected(steps, table) {
            continue;
        }
        // SAFETY: the caller's.
        unsafe {
            each_leaf(context, level, table, va, window, &mut |range, leaf| {
                if is_written(regime, leaf) {
                    report.written(range);
                }
            });
        }
    }
}

/// Returns whether a block has what hardware updated in the leaves of `table`.
pub(crate) fn is_collected(steps: &[Step], table: Pa) -> bool {
    let collect = Edit::Update(Update::Collect { from: table });
    steps.iter().any(|step| matches!(step, Step::Store(Store { edit, .. }) if *edit == collect))
}
