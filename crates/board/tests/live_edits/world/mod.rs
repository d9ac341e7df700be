//! A live tree on the machine model, beside a plain list of what it has to translate.

mod op;
mod parking;
mod plain;
mod pool;
mod regimes;
mod updates;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::rc::Rc;

use linmap_board::{Accesses, Board, BoardFrames, Walkers};
use linmap_live::{Global, Half, LiveTree, Maintenance, Parked, PlanError, Quiescent, Retried, Step, Target};
use linmap_model::event::{Access as Barrier, Domain, Use};
use linmap_model::{Config, Event};
use linmap_table::{DetachedTree, Leaves, Mapping, Mappings, ReachableFrames, TableWindow};
use linmap_vmsa::bbm::Reason;
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Attributes, Descriptor, Geometry, HardwareUpdates, Pa, Va, VaRange};

pub use op::{Op, Who};
use op::{changed, under_tables};
pub use parking::Parking;
use plain::join;
pub use plain::{Part, Plain};
use pool::{Pool, PoolHandle};
use regimes::attributes_of;

/// Where the frames for tables begin.
const POOL: u64 = 0x1_0000_0000;
/// The table that CPUs are on while the tree is parked: one granule of invalid entries.
const RESERVED: u64 = 0x8000_0000;
/// What the area's first byte translates to, unless a mapping says otherwise: a multiple of every
/// block.
pub const AREA_PA: u64 = 0x40_0000_0000;

/// The machine and the tree of one test.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub geometry: Geometry,
    pub bbm: BbmLevel,
    pub cpus: usize,
    pub half: Half,
    /// Where the area that is edited begins, from the beginning of the half.
    pub area_at: u64,
    /// Its length in bytes.
    pub area_len: u64,
    pub frames: u64,
    /// Whether tables are reached through a mapping in the same tree.
    pub own_window: bool,
    /// What that mapping is made of.
    pub window_leaves: Leaves,
    pub range_invalidation: bool,
    /// The one ASID that the tree is used in, without global leaves.
    pub asid: Option<u16>,
    /// What hardware updates in the leaves, while CPUs access the area at random.
    pub updates: HardwareUpdates,
    /// Where the random numbers of these accesses begin.
    pub seed: u64,
}

impl Setting {
    pub fn base(&self) -> u64 {
        match self.half {
            Half::Low => 0,
            Half::High => u64::MAX << self.geometry.va_bits(),
        }
    }

    pub fn va(&self, offset: u64) -> Va {
        Va((self.base() + self.area_at).wrapping_add(offset))
    }

    /// Where the window begins, as an offset that wraps.
    pub const fn window(&self) -> u64 {
        0u64.wrapping_sub(self.area_at)
    }

    /// What to add to a frame's address for that in the tree itself, if tables are reached there.
    fn window_offset(&self) -> Option<u64> {
        self.own_window.then_some(self.base().wrapping_sub(POOL))
    }
}

/// How an edit ended that broke no rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Done {
    Applied,
    Refused(PlanError),
}

pub struct World {
    pub setting: Setting,
    pub board: Board,
    pub tree: LiveTree,
    pub pool: PoolHandle,
    pub plain: Plain,
    pub steps: Vec<Step>,
    /// A deliberate mistake: nobody learns what was written.
    pub drops_reports: bool,
}

impl World {
    /// The tree with `initial` mapped in the area, live on all CPUs.
    pub fn new(setting: Setting, initial: &[Op], record: bool) -> Self {
        let granule = setting.geometry.granule().bytes();
        let config = Config {
            cpus: setting.cpus,
            bbm: setting.bbm.number(),
            granule,
            va_bits: setting.geometry.va_bits(),
            pa_bits: setting.geometry.pa_bits(),
            ram: vec![(RESERVED, granule), (POOL, setting.frames * granule)],
            leniency: linmap_model::Leniency::Strict,
        };
        let board = Board::new(&config, record).unwrap();
        let free = (0..setting.frames).rev().map(|nth| POOL + nth * granule).collect();
        let pool = PoolHandle(Rc::new(RefCell::new(Pool { free, granule, ..Pool::default() })));
        let mut plain = Plain::default();
        let mut list = Vec::new();
        // The window to the tables, at the beginning of the half.
        let window = Mapping {
            va: Va(setting.base()),
            pa: Pa(POOL),
            len: setting.frames * granule,
            attributes: setting.fitting(Attributes::KERNEL_DATA),
            leaves: setting.window_leaves,
        };
        list.push(window);
        for op in initial {
            let op = under_tables(setting.fitted(*op), setting.geometry);
            let Op::Map { at, len, shift, attributes, leaves } = op else { panic!("{op:?} maps nothing") };
            let pa = AREA_PA + at + shift;
            list.push(Mapping { va: setting.va(at), pa: Pa(pa), len, attributes, leaves });
            let attributes = setting.as_updated(attributes);
            plain.0.insert(at, Part { len, pa, attributes, valid: true });
        }
        list.sort_by_key(|mapping| mapping.va);
        let mappings = Mappings::new(setting.geometry, &list).unwrap();
        let mut frames = BoardFrames::new(&board, pool.clone());
        let level = setting.geometry.start_level();
        let mut window = board.window(0, None);
        // SAFETY: a window of the board reaches all of its memory.
        let tree =
            DetachedTree::build(&mappings, &mut unsafe { ReachableFrames::new(&mut window, &mut frames) });
        let root = tree.unwrap().root();
        // SAFETY: the window reaches the frame, and an open table is valid for writes of a whole
        // granule.
        unsafe { window.open(level, Pa(RESERVED)).write_bytes(0, granule as usize / 8) };
        window.close(level);
        // What the frame holds after a short root does not belong to the table.
        board.event(Event::Dsb { cpu: 0, domain: Domain::Ish, access: Barrier::All });
        for cpu in 0..setting.cpus {
            setting.enter(&board, cpu, root);
        }
        // SAFETY: on the model; this value alone changes the tree.
        let mut tree = unsafe { LiveTree::new(setting.geometry, root, setting.half, setting.bbm) };
        if let Some(asid) = setting.asid {
            // SAFETY: no leaf is global, and the CPUs use the tree in this ASID alone.
            tree = unsafe { tree.in_asid(asid) };
        }
        if setting.range_invalidation {
            // SAFETY: the model's CPUs have them.
            tree = unsafe { tree.with_range_invalidation() };
        }
        if setting.updates.is_on() {
            // SAFETY: TCR and VTCR say so. The board's `compare_exchange` is atomic.
            tree = unsafe { tree.with_hardware_updates(setting.updates) };
            board.set_walkers(Walkers::new(setting.walk(root), setting.cpus, setting.seed));
        }
        Self { setting, board, tree, pool, plain, steps: vec![Step::Isb; 4096], drops_reports: false }
    }

    pub fn frames(&self) -> BoardFrames<PoolHandle> {
        BoardFrames::new(&self.board, self.pool.clone())
    }

    /// The window to the tables for `cpu`.
    pub fn window(&self, cpu: usize) -> impl TableWindow + use<> {
        self.board.window(cpu, self.setting.window_offset())
    }

    pub fn target(&self, op: Op, who: Who) -> Target {
        let (at, len) = op.range();
        let range = VaRange::new(self.setting.va(at), len);
        match who {
            Who::Anybody => Target::InUse(range),
            // SAFETY: on the model no CPU accesses the range, except where a test states it.
            Who::Retrying => Target::Retried(unsafe { Retried::new(range) }),
            // SAFETY: likewise.
            Who::Nobody => Target::Quiescent(unsafe { Quiescent::new(range) }),
            // SAFETY: all CPUs leave before a plan for it is applied.
            Who::Parked => Target::Parked(unsafe { Parked::new(range) }),
        }
    }

    /// Plans, checks and applies on `cpu`. On an error of the plan the tree must be as before.
    pub fn apply(&mut self, op: Op, who: Who, cpu: usize) -> Result<Done, String> {
        let op = under_tables(self.setting.fitted(op), self.setting.geometry);
        let expected = self.expected_error(op);
        let before = self.pool.0.borrow().taken;
        let root = self.tree.root();
        let target = self.target(op, who);
        if self.setting.updates.is_on() {
            // Nobody accesses the range of a quiescent target, or memory whose type changes, but
            // CPUs may walk for it.
            let is_quiet = who == Who::Nobody || matches!(op, Op::MemoryType { .. });
            let accesses = if is_quiet { Accesses::Speculative } else { Accesses::All };
            self.board.with_walkers(|walkers| walkers.set_accesses(accesses));
        }
        let mut window = self.window(cpu);
        let mut frames = self.frames();
        let steps = &mut self.steps;
        let plan = match op {
            Op::Map { at, len, shift, attributes, leaves } => {
                let pa = Pa(AREA_PA + at + shift);
                let list = [Mapping { va: self.setting.va(at), pa, len, attributes, leaves }];
                let mappings =
                    Mappings::new(self.setting.geometry, &list).map_err(|error| error.to_string())?;
                self.tree.plan_map(&mappings, steps, &mut window, &mut frames)
            }
            Op::Clear { .. } => self.tree.plan_clear(steps, &mut window, &mut frames),
            Op::Unmap { .. } => self.tree.plan_unmap(target, steps, &mut window, &mut frames),
            Op::Protect { change, .. } => {
                self.tree.plan_protect(target, change, steps, &mut window, &mut frames)
            }
            Op::Split { to, .. } => self.tree.plan_split(target, to, steps, &mut window, &mut frames),
            Op::Fold { .. } => self.tree.plan_fold(target, steps, &mut window, &mut frames),
            Op::Remap { at, shift, change, .. } => {
                let to = Pa(AREA_PA + at + shift);
                self.tree.plan_remap(target, to, change, steps, &mut window, &mut frames)
            }
            Op::MemoryType { memory, .. } => {
                let by = Maintenance::ByMapping;
                // SAFETY: on the model; what is mapped is never accessed but to clean it.
                unsafe { self.tree.plan_memory_type(target, memory, by, steps, &mut window, &mut frames) }
            }
            Op::Global { global, .. } => {
                let Target::Parked(parked) = target else { panic!("{op:?} of a tree that is walked") };
                self.tree.plan_global(parked, global, steps, &mut window, &mut frames)
            }
        };
        self.board.accesses();
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => {
                drop(window);
                if self.pool.0.borrow().taken != before {
                    return Err(format!("{op:?} refused ({error}), and frames are lost"));
                }
                let asked = PlanError::TooLong { capacity: self.steps.len() };
                let unasked = error != asked
                    && !matches!(
                        error,
                        PlanError::OutOfFrames(_)
                            | PlanError::NeedsLevel3 { .. }
                            | PlanError::RunInUse { .. }
                            | PlanError::NeedsBreak { .. }
                            | PlanError::PartOfLeaf { .. }
                            | PlanError::MappedOver { reason: Reason::Contiguous, .. }
                    );
                if expected.is_none() && unasked {
                    return Err(format!("{op:?} refused for no reason: {error}"));
                }
                return Ok(Done::Refused(error));
            }
        };
        if let Some(expected) = expected {
            return Err(format!("{op:?} should have been refused: {expected}"));
        }
        let printed: Vec<String> = plan.steps().iter().map(ToString::to_string).collect();
        let checked = match plan.check(&mut window) {
            Ok(checked) => checked,
            Err((plan, refused)) => {
                plan.abandon(&mut window, &mut frames);
                return Err(format!("{op:?}: our own plan is refused: {refused}\n{}", printed.join("\n")));
            }
        };
        self.board.accesses();
        let mut processor = self.board.cpu_of(cpu, self.setting.board_regime());
        let mut reported = Vec::new();
        if who == Who::Parked {
            drop(window);
            let parking = Parking { board: &self.board, setting: self.setting, root };
            (0..self.setting.cpus).for_each(|cpu| parking.leave(cpu));
            // Not through the map itself, which no CPU walks now.
            let mut window = self.board.window(cpu, None);
            // SAFETY: on the model, where all CPUs have left.
            let applied =
                unsafe { checked.apply_reporting(&mut window, &mut processor, |range| reported.push(range)) };
            drop(window);
            (0..self.setting.cpus).for_each(|cpu| parking.come_back(cpu));
            let mut window = self.board.window(cpu, self.setting.window_offset());
            applied.free(&mut window, &mut frames);
        } else {
            // SAFETY: on the model; what is mapped is never accessed.
            let applied =
                unsafe { checked.apply_reporting(&mut window, &mut processor, |range| reported.push(range)) };
            applied.free(&mut window, &mut frames);
            drop(window);
        }
        self.board.event(Event::Settled);
        self.board.verdict().map_err(|violation| format!("{op:?}: {violation}\n{}", printed.join("\n")))?;
        self.note(op);
        if self.drops_reports {
            reported.clear();
        }
        self.loses_no_update(&reported).map_err(|lost| format!("{op:?}: {lost}\n{}", printed.join("\n")))?;
        Ok(Done::Applied)
    }

    /// Why the edit has to be refused, if it has to.
    fn expected_error(&mut self, op: Op) -> Option<&'static str> {
        match op {
            Op::Map { at, len, shift, attributes, .. } => {
                let in_the_way = |(at, part): &(u64, Part)| {
                    let Attributes { access, execute, accessed, .. } = attributes;
                    // Global may become non-global.
                    let global = attributes.global && part.attributes.global;
                    let allowed = Attributes { access, execute, accessed, global, ..part.attributes };
                    let attributes = Attributes { contiguous: part.attributes.contiguous, ..attributes };
                    !part.valid || part.pa != AREA_PA + at + shift || allowed != attributes
                };
                self.plain.parts(at, len).iter().any(in_the_way).then_some("something is mapped there")
            }
            Op::Protect { at, len, change } | Op::Remap { at, len, change, .. } => {
                let tables = self.setting.geometry.table_permissions();
                if change.execute.is_some_and(|execute| !tables.allows_execute(execute)) {
                    return Some("the tables take it away");
                }
                let stage_1 = !self.setting.geometry.regime().is_stage_2();
                let both =
                    |part: &Part| stage_1 && changed(part.attributes, change).writable_and_executable();
                if self.plain.has_hole(at, len) {
                    return Some("there is a hole");
                }
                let parts = self.plain.parts(at, len);
                parts.iter().any(|(_, part)| both(part)).then_some("writable and executable")
            }
            Op::MemoryType { at, len, .. } => {
                let parts = self.plain.parts(at, len);
                let has_hole = self.plain.has_hole(at, len) || parts.iter().any(|(_, part)| !part.valid);
                has_hole.then_some("there is a hole")
            }
            Op::Clear { .. } => None,
            Op::Unmap { .. } | Op::Split { .. } | Op::Fold { .. } | Op::Global { .. } => None,
        }
    }

    fn note(&mut self, op: Op) {
        match op {
            Op::Map { at, len, shift, attributes, .. } => {
                for (at, _) in self.plain.parts(at, len) {
                    self.plain.0.remove(&at);
                }
                let attributes = self.setting.as_updated(attributes);
                let part = Part { len, pa: AREA_PA + at + shift, attributes, valid: true };
                self.plain.0.insert(at, part);
            }
            Op::Unmap { .. } | Op::Clear { .. } => {
                let (at, len) = op.range();
                for (at, _) in self.plain.parts(at, len) {
                    self.plain.0.remove(&at);
                }
            }
            Op::Protect { at, len, change } => {
                for (at, part) in self.plain.parts(at, len) {
                    let attributes = self.setting.as_updated(changed(part.attributes, change));
                    let valid = change.valid.unwrap_or(part.valid);
                    self.plain.0.insert(at, Part { attributes, valid, ..part });
                }
            }
            Op::Global { at, len, global } => {
                for (at, part) in self.plain.parts(at, len) {
                    let attributes = Attributes { global: global == Global::Global, ..part.attributes };
                    self.plain.0.insert(at, Part { attributes, ..part });
                }
            }
            Op::MemoryType { at, len, memory } => {
                for (at, part) in self.plain.parts(at, len) {
                    let attributes = Attributes { memory, ..part.attributes };
                    self.plain.0.insert(at, Part { attributes, ..part });
                }
            }
            Op::Remap { at: start, len, shift, change } => {
                for (at, part) in self.plain.parts(start, len) {
                    let attributes = self.setting.as_updated(changed(part.attributes, change));
                    let (valid, pa) = (change.valid.unwrap_or(part.valid), AREA_PA + at + shift);
                    self.plain.0.insert(at, Part { attributes, valid, pa, ..part });
                }
            }
            Op::Split { .. } | Op::Fold { .. } => {}
        }
    }

    /// The area as the machine's walker reads it.
    pub fn walked(&self) -> Vec<(u64, Part)> {
        let setting = self.setting;
        let (start, last) = (setting.va(0).0, setting.va(setting.area_len - 1).0);
        let mut found = Vec::new();
        self.board.with_machine(|machine| {
            let _: ControlFlow<()> = machine.leaves(0, setting.space(), |va, pa, shift, value, _| {
                if start <= va && va <= last {
                    // What hardware may make of it.
                    let value = setting.updates.of_leaf(setting.geometry.regime(), Descriptor(value)).0;
                    let attributes = attributes_of(value, setting.geometry);
                    join(&mut found, va - start, Part { len: 1 << shift, pa, attributes, valid: true });
                }
                ControlFlow::Continue(())
            });
        });
        found
    }

    /// Tables that can be reached from the root, the root included.
    pub fn tables(&self) -> u64 {
        self.board.with_machine(|machine| machine.tables(0, self.setting.space()))
    }

    /// Every word of every table that can be reached, by address.
    pub fn words(&self) -> BTreeMap<u64, u64> {
        let granule = self.setting.geometry.granule().bytes();
        let free = self.pool.0.borrow().free.clone();
        let mut words = BTreeMap::new();
        for nth in 0..self.setting.frames {
            let frame = POOL + nth * granule;
            if free.contains(&frame) {
                continue;
            }
            self.board.with_machine(|machine| {
                for pa in (frame..frame + granule).step_by(8) {
                    if let Some(value) = machine.word(pa) {
                        words.insert(pa, value);
                    }
                }
            });
        }
        words
    }

    /// The tree translates as the plain list says, and every allocated frame is a table of it.
    pub fn agree(&self) -> Result<(), String> {
        let (walked, expected) = (self.walked(), self.plain.valid());
        if walked != expected {
            let first = walked.iter().zip(&expected).position(|(one, other)| one != other);
            let at = first.unwrap_or(walked.len().min(expected.len()));
            return Err(format!(
                "part {at}: the tree has {:?}, should have {:?}",
                walked.get(at),
                expected.get(at)
            ));
        }
        // The model counts a root as one table.
        let more_roots = self.setting.geometry.root_tables() as u64 - 1;
        let (tables, taken) = (self.tables() + more_roots, self.pool.0.borrow().taken);
        if tables != taken {
            return Err(format!("{tables} tables in the tree, {taken} frames taken"));
        }
        Ok(())
    }

    /// Lets `cpu` read at `offset`: it must reach what the plain list says, or fault.
    pub fn probe(&self, cpu: usize, offset: u64) -> Result<(), String> {
        self.read(cpu, offset);
        let va = self.setting.va(offset).0;
        self.board.verdict().map_err(|violation| format!("probe of {va:#x} on {cpu}: {violation}"))
    }

    /// Lets `cpu` read at `offset`, for a later verdict.
    pub fn read(&self, cpu: usize, offset: u64) {
        if !self.setting.is_el1() {
            return;
        }
        let va = self.setting.va(offset).0;
        let part = self.plain.0.range(..=offset).next_back();
        let part = part.filter(|(at, part)| part.valid && offset - *at < part.len);
        self.board.event(Event::Isb { cpu });
        match part {
            Some((at, part)) => {
                let pa = part.pa + (offset - at);
                self.board.event(Event::Access { cpu, va, kind: Use::Read, pa });
                if !part.attributes.access.writable() {
                    self.board.event(Event::Faults { cpu, va, kind: Use::Write });
                }
            }
            None => self.board.event(Event::Faults { cpu, va, kind: Use::Read }),
        }
    }
}
