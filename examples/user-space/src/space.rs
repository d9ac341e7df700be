//! The tables of one process, which change while CPUs walk them.

use linmap_cpu::El1And0;
use linmap_live::{Change, Half, LiveTree, Plan, PlanError, Step, Target};
use linmap_table::{Leaves, Mapping, Mappings, OffsetWindow, Walk, walk};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Access, Attributes, Pa, Va, VaRange};

use crate::frames::Frames;
use crate::machine::{GEOMETRY, OFFSET};

/// A tree in TTBR0.
pub struct Space {
    tree: LiveTree,
}

fn window() -> OffsetWindow {
    // SAFETY: the kernel maps all memory there.
    unsafe { OffsetWindow::new(OFFSET) }
}

fn tree(root: Pa, asid: u16) -> LiveTree {
    // SAFETY: the root of one space, which has one value. No level is less than 0. All leaves of
    // processes are non-global. By another ASID no CPU uses anything before it invalidates all.
    unsafe { LiveTree::new(GEOMETRY, root, Half::Low, BbmLevel::L0).in_asid(asid) }
}

impl Space {
    /// Nothing is mapped.
    pub fn new() -> Result<Self, PlanError> {
        Ok(Self { tree: tree(Frames::take()?, 0) })
    }

    /// What follows invalidates by `asid`, which the space has now.
    pub fn set_asid(&mut self, asid: u16) {
        self.tree = tree(self.root(), asid);
    }

    /// The frame of the root table.
    pub fn root(&self) -> Pa {
        self.tree.root()
    }

    /// Maps a page where nothing is.
    pub fn map(&mut self, va: Va, pa: Pa, attributes: Attributes) -> Result<(), PlanError> {
        let list = [Mapping { va, pa, len: 4096, attributes, leaves: Leaves::Pages }];
        let Ok(mappings) = Mappings::new(GEOMETRY, &list) else { panic!("{list:?} is no page") };
        self.edit(|tree, steps| tree.plan_map(&mappings, steps, &mut window(), &mut Frames))
    }

    /// Unmaps pages.
    pub fn unmap(&mut self, range: VaRange) -> Result<(), PlanError> {
        self.edit(|tree, steps| tree.plan_unmap(Target::InUse(range), steps, &mut window(), &mut Frames))
    }

    /// Changes who may read and write pages.
    pub fn protect(&mut self, range: VaRange, access: Access) -> Result<(), PlanError> {
        let (target, change) = (Target::InUse(range), Change { access: Some(access), ..Change::default() });
        self.edit(|tree, steps| tree.plan_protect(target, change, steps, &mut window(), &mut Frames))
    }

    /// Maps another frame at a page. Who accesses it in between faults.
    pub fn remap(&mut self, va: Va, pa: Pa, attributes: Attributes) -> Result<(), PlanError> {
        self.unmap(VaRange::new(va, 4096))?;
        self.map(va, pa, attributes)
    }

    /// Returns what `va` translates to.
    pub fn translate(&self, va: Va) -> Option<(Pa, Attributes)> {
        // SAFETY: a tree of this geometry, whose tables the window reaches.
        match unsafe { walk(GEOMETRY, self.root(), va, &mut window()) } {
            Walk::Leaf { pa, level, descriptor, .. } => Some((pa, descriptor.attributes(GEOMETRY, level)?)),
            Walk::Fault { .. } => None,
        }
    }

    /// Plan, check, apply, free.
    fn edit<P>(&mut self, plan: P) -> Result<(), PlanError>
    where
        P: for<'b> FnOnce(&'b mut LiveTree, &'b mut [Step]) -> Result<Plan<'b>, PlanError>,
    {
        let mut steps = [Step::Isb; 64];
        match plan(&mut self.tree, &mut steps)?.check(&mut window()) {
            Ok(plan) => {
                // SAFETY: processes only reach what is mapped at EL0, where they may fault.
                let applied = unsafe { plan.apply(&mut window(), &mut El1And0) };
                applied.free(&mut window(), &mut Frames);
                Ok(())
            }
            Err((_, refused)) => panic!("{refused}"),
        }
    }
}
