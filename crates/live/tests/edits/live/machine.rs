//! A tree in host memory with a CPU that stores, and edits of it in one call.

use linmap_live::{Change, EditCounts, Half, LiveTree, Parked, PlanError, Quiescent, Refused, Step, Target};
use linmap_table::cpu::Cpu;
use linmap_table::{Leaves, Mapping, Mappings, OffsetWindow};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Attributes, Geometry, Level, Pa, Va, VaRange};

use super::{Arena, Found, HostCpu, live, tables};

/// A tree of the 4K granule with 48 bits.
pub struct Machine {
    pub arena: Arena,
    pub window: OffsetWindow,
    pub tree: LiveTree,
    pub cpu: HostCpu,
}

pub const G: Geometry = Geometry::K4_48;
pub const BASE: u64 = 0xffff_8000_0000_0000;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;
pub const PAGE: u64 = 0x1000;

/// An edit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edit {
    Map(Leaves),
    Unmap,
    Protect(Change),
    Split(Level),
    Fold,
}

pub fn range(at: u64, len: u64) -> VaRange {
    VaRange::new(Va(BASE + at), len)
}

pub fn in_use(at: u64, len: u64) -> Target {
    Target::InUse(range(at, len))
}

pub fn quiescent(at: u64, len: u64) -> Target {
    // SAFETY: no CPU walks the tree.
    Target::Quiescent(unsafe { Quiescent::new(range(at, len)) })
}

pub fn parked(at: u64, len: u64) -> Target {
    // SAFETY: no CPU walks the tree.
    Target::Parked(unsafe { Parked::new(range(at, len)) })
}

impl Machine {
    /// An empty tree.
    pub fn new(bbm: BbmLevel) -> Self {
        let mut arena = Arena::new(G, 1200);
        let root = arena.empty_root(G);
        let window = arena.window();
        Self { arena, window, tree: live(G, root, Half::High, bbm), cpu: HostCpu::default() }
    }

    /// Plans `edit`, checks it as anybody's, applies it, and returns its steps.
    pub fn edit(&mut self, target: Target, edit: Edit) -> Result<Vec<Step>, PlanError> {
        self.edit_counted(target, edit).map(|(steps, _)| steps)
    }

    pub fn edit_counted(&mut self, target: Target, edit: Edit) -> Result<(Vec<Step>, EditCounts), PlanError> {
        let steps = self.plan(target, edit)?;
        self.check(target, &steps).unwrap_or_else(|refused| panic!("{edit:?}: {refused}\n{steps:#?}"));
        let mut room = vec![Step::Isb; 4096];
        let Self { arena, window, tree, cpu } = self;
        let list = mapping(target, Leaves::Pages);
        let plan = plan(tree, target, edit, &list, &mut room, window, arena)?;
        let checked = plan.check(window).unwrap_or_else(|(_, refused)| panic!("{refused}"));
        // SAFETY: no CPU walks the tree.
        let counts = unsafe { checked.apply(window, cpu) }.free(window, arena);
        Ok((steps, counts))
    }

    /// Plans `edit`, checks it and applies it on `cpu`.
    pub fn edit_on<C: Cpu>(&mut self, cpu: &mut C, steps: &mut [Step], target: Target, edit: Edit) {
        let Self { arena, window, tree, .. } = self;
        let list = mapping(target, Leaves::Pages);
        let plan = plan(tree, target, edit, &list, steps, window, arena).expect("a plan");
        let checked = plan.check(window).unwrap_or_else(|(_, refused)| panic!("{refused}"));
        // SAFETY: no CPU walks the tree.
        unsafe { checked.apply(window, cpu) }.free(window, arena);
    }

    /// The steps of `edit`, which is abandoned.
    pub fn plan(&mut self, target: Target, edit: Edit) -> Result<Vec<Step>, PlanError> {
        let mut room = vec![Step::Isb; 4096];
        let Self { arena, window, tree, .. } = self;
        let list = mapping(target, Leaves::Pages);
        let plan = plan(tree, target, edit, &list, &mut room, window, arena)?;
        let steps = plan.steps().to_vec();
        // The new tables stay as they were written until their frames are handed out again.
        plan.abandon(window, arena);
        Ok(steps)
    }

    pub fn check(&mut self, target: Target, steps: &[Step]) -> Result<(), Refused> {
        // SAFETY: the steps link tables of the arena.
        unsafe { self.tree.check(target, steps, &mut self.window) }
    }

    pub fn leaves(&self) -> Vec<Found> {
        tables(&self.arena, G, self.tree.root(), self.tree.base().0).leaves
    }

    /// Changes the leaf for `at`, `1 << G.shift(level)` bytes, as hardware would.
    pub fn poke(&mut self, at: u64, level: Level, change: impl FnOnce(u64) -> u64) {
        let mut table = self.tree.root();
        let mut above = G.start_level();
        while above < level {
            let index = G.index(Va(BASE + at), above);
            // SAFETY: the index is one of the table's.
            let found = unsafe { linmap_table::read(&mut self.window, above, table, index) };
            table = found.next_table(G).expect("a table");
            above = above.next().expect("a level");
        }
        self.arena.poke(table, G.index(Va(BASE + at), level), change);
    }
}

fn mapping(target: Target, leaves: Leaves) -> [Mapping; 1] {
    let VaRange { start, len } = target.range();
    let pa = Pa(4 * GIB + (start.0 - BASE));
    [Mapping { va: start, pa, len, attributes: Attributes::KERNEL_DATA, leaves }]
}

fn plan<'b>(
    tree: &'b mut LiveTree,
    target: Target,
    edit: Edit,
    list: &[Mapping; 1],
    steps: &'b mut [Step],
    window: &mut OffsetWindow,
    arena: &mut Arena,
) -> Result<linmap_live::Plan<'b>, PlanError> {
    match edit {
        Edit::Map(leaves) => {
            let list = [Mapping { leaves, ..list[0] }];
            let mappings = Mappings::new(G, &list).expect("a mapping that can be");
            tree.plan_map(&mappings, steps, window, arena)
        }
        Edit::Unmap => tree.plan_unmap(target, steps, window, arena),
        Edit::Protect(change) => tree.plan_protect(target, change, steps, window, arena),
        Edit::Split(to) => tree.plan_split(target, to, steps, window, arena),
        Edit::Fold => tree.plan_fold(target, steps, window, arena),
    }
}
