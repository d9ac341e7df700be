//! A small kernel on the machine model: processes that CPUs run, with their pages in a plain list.

use std::collections::BTreeMap;

use linmap_asid::{CpuIds, IdAllocator, Maintenance, SpaceId};
use linmap_board::{Board, BoardCpu, BoardFrames, BoardWindow};
use linmap_live::{
    AddressSpace, Change, EditCounts, Half, LiveTree, PlanError, SpaceError, Step, Target, Tools,
};
use linmap_model::event::Use;
use linmap_model::{Config, Event, Trace};
use linmap_table::cpu::{Cpu, Dsb, Tlbi};
use linmap_table::{FrameSource, Leaves, Mapping, Mappings};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::registers::ttbr;
use linmap_vmsa::{Access, Attributes, Geometry, Level, Pa, Va, VaRange};

use super::pages::{FRAME, Pages, TABLE_COUNT, TABLES, Tables};

/// As many CPUs as there may be.
pub const CPUS: usize = 4;
/// The root that CPUs are on while they run no process, behind the frames for tables.
const EMPTY: u64 = TABLES + TABLE_COUNT * FRAME;
/// How many pages a process may have.
pub const PAGES: u64 = 8;

/// The address of a page: four by four in two tables.
fn va(geometry: Geometry, page: u64) -> Va {
    let table = geometry.entry_bytes(Level::L2);
    Va((2 + page / 4) * table + page % 4 * geometry.granule().bytes())
}

fn range(geometry: Geometry, page: u64) -> VaRange {
    VaRange::new(va(geometry, page), geometry.granule().bytes())
}

fn change(writable: bool) -> Change {
    let access = if writable { Access::UserReadWrite } else { Access::UserReadOnly };
    Change { access: Some(access), ..Change::default() }
}

/// A page of a process.
#[derive(Clone, Copy, Debug)]
struct Page {
    frame: Pa,
    writable: bool,
}

/// A process.
struct Process {
    id: SpaceId,
    space: AddressSpace,
    pages: BTreeMap<u64, Page>,
}

/// The kernel.
pub struct Kernel<'a> {
    board: Board,
    geometry: Geometry,
    tables: BoardFrames<Tables>,
    free_tables: Tables,
    frames: Pages,
    ids: Vec<CpuIds<'a, CPUS>>,
    processes: Vec<Option<Process>>,
    /// The process that each CPU runs.
    running: Vec<Option<usize>>,
}

/// What edits work with.
type With<'a> = Tools<'a, BoardWindow, BoardFrames<Tables>, BoardCpu>;

/// What went wrong: a violation, or a plan that was refused.
type Result<T = ()> = std::result::Result<T, String>;

impl<'a> Kernel<'a> {
    /// A kernel on `cpus` CPUs with room for `processes`.
    pub fn new(ids: &'a IdAllocator<CPUS>, geometry: Geometry, cpus: usize, processes: usize) -> Self {
        let config = Config {
            cpus,
            bbm: 0,
            granule: geometry.granule().bytes(),
            va_bits: geometry.va_bits(),
            pa_bits: geometry.pa_bits(),
            ram: vec![(TABLES, (TABLE_COUNT + 1) * FRAME)],
            leniency: linmap_model::Leniency::Strict,
        };
        let board = Board::new(&config, true).unwrap();
        let free_tables = Tables::new();
        let mut kernel = Self {
            tables: BoardFrames::new(&board, free_tables.clone()),
            board,
            geometry,
            free_tables,
            frames: Pages::default(),
            ids: (0..cpus).map(|cpu| CpuIds::new(ids, cpu).unwrap()).collect(),
            processes: (0..processes).map(|_| None).collect(),
            running: vec![None; cpus],
        };
        kernel.clear(0, Pa(EMPTY));
        (0..cpus).for_each(|cpu| kernel.rest(cpu));
        kernel
    }

    /// Makes a process without pages, if there is none yet. Returns whether there is one.
    fn spawn(&mut self, slot: usize, cpu: usize) -> Result<bool> {
        if self.processes[slot].is_none() {
            let Ok(root) = self.tables.alloc() else { return Ok(false) };
            self.clear(cpu, root);
            // SAFETY: an empty root. No level is less than 0. On the model nobody relies on it.
            let space = unsafe { AddressSpace::user(self.geometry, root, 0, BbmLevel::L0) };
            self.processes[slot] = Some(Process { id: SpaceId::new(), space, pages: BTreeMap::new() });
        }
        Ok(true)
    }

    /// Zeroes a table.
    fn clear(&self, cpu: usize, table: Pa) {
        let count = self.geometry.granule().entries() as u64;
        self.board.event(Event::Fill { cpu, pa: table.0, count, first: 0, step: 0 });
        self.board.cpu(cpu).dsb(Dsb::Ish);
    }

    /// The CPU runs no process.
    pub fn rest(&mut self, cpu: usize) {
        self.write_ttbr0(cpu, Pa(EMPTY), 0);
        self.ids[cpu].leave();
        self.running[cpu] = None;
    }

    /// The CPU runs a process, which is new if there was none.
    pub fn switch(&mut self, cpu: usize, slot: usize) -> Result {
        if !self.spawn(slot, cpu)? {
            return Ok(());
        }
        let process = self.processes[slot].as_ref().unwrap();
        let mut processor = self.board.cpu(cpu);
        let asid = self.ids[cpu].switch_to(&process.id, |maintenance| {
            if maintenance == Maintenance::Invalidation {
                processor.tlbi(Tlbi::AllLocal);
            }
            processor.dsb(Dsb::Ish);
            processor.isb();
        });
        let root = process.space.root();
        self.write_ttbr0(cpu, root, asid);
        self.running[cpu] = Some(slot);
        Ok(())
    }

    fn write_ttbr0(&self, cpu: usize, root: Pa, asid: u16) {
        let mut processor = self.board.cpu(cpu);
        // SAFETY: on the model.
        unsafe { processor.write_ttbr0(ttbr(self.geometry, root, asid).unwrap()) };
        processor.isb();
    }

    /// The process maps a page of its own, if there is none.
    pub fn map(&mut self, cpu: usize, page: u64) -> Result {
        let Some(process) = self.running[cpu] else { return Ok(()) };
        if self.processes[process].as_ref().unwrap().pages.contains_key(&page) {
            return Ok(());
        }
        let new = Page { frame: self.frames.take(), writable: true };
        if !self.map_at(cpu, process, page, new)? {
            *self.frames.holders(new.frame) -= 1;
        }
        Ok(())
    }

    fn map_at(&mut self, cpu: usize, slot: usize, page: u64, new: Page) -> Result<bool> {
        let attributes = if new.writable { Attributes::USER_DATA } else { Attributes::USER_RODATA };
        let VaRange { start: va, len } = range(self.geometry, page);
        let list = [Mapping { va, pa: new.frame, len, attributes, leaves: Leaves::Pages }];
        let mappings = Mappings::new(self.geometry, &list).unwrap();
        // SAFETY: on the model; what is mapped is never accessed.
        let is_mapped = self.edit(cpu, slot, |space, tools| unsafe { space.map(&mappings, tools) })?;
        if is_mapped {
            self.processes[slot].as_mut().unwrap().pages.insert(page, new);
        }
        Ok(is_mapped)
    }

    /// The process unmaps a page, whose frame may be used again at once.
    pub fn unmap(&mut self, cpu: usize, page: u64) -> Result {
        let Some(slot) = self.running[cpu] else { return Ok(()) };
        let range = range(self.geometry, page);
        if self.edit(cpu, slot, |space, tools| space.unmap(range, tools))?
            && let Some(old) = self.processes[slot].as_mut().unwrap().pages.remove(&page)
        {
            *self.frames.holders(old.frame) -= 1;
        }
        Ok(())
    }

    /// A CPU that does not run the process unmaps a page of it. `between` runs after the plan
    /// is made. With `reads_again` the CPU reads the ASID again at the end, and invalidates by it.
    pub fn unmap_from_afar(
        &mut self,
        cpu: usize,
        slot: usize,
        page: u64,
        between: impl FnOnce(&mut Self) -> Result,
        reads_again: bool,
    ) -> Result {
        let Process { id, space, .. } = self.processes[slot].as_ref().unwrap();
        let (asid, root) = (id.id().unwrap_or(0), space.root());
        // SAFETY: as in `edit`, and nothing changes the tables between plan and apply.
        let mut tree = unsafe { LiveTree::new(self.geometry, root, Half::Low, BbmLevel::L0).in_asid(asid) };
        let mut steps = [Step::Isb; 64];
        let mut window = self.board.window(cpu, None);
        let (target, tables) = (Target::InUse(range(self.geometry, page)), &mut self.tables);
        let plan = tree.plan_unmap(target, &mut steps, &mut window, tables).unwrap();
        between(self)?;
        let mut processor = self.board.cpu(cpu);
        // SAFETY: as in `edit`.
        let applied = unsafe { plan.check(&mut window).unwrap().apply(&mut window, &mut processor) };
        let process = self.processes[slot].as_mut().unwrap();
        if let Some(now) = process.id.id().filter(|now| reads_again && *now != asid) {
            invalidate(&mut processor, now);
        }
        applied.free(&mut window, &mut self.tables);
        if let Some(old) = process.pages.remove(&page) {
            *self.frames.holders(old.frame) -= 1;
        }
        Ok(())
    }

    /// The process forks, into a slot without a process.
    pub fn fork(&mut self, cpu: usize, into: usize) -> Result {
        let Some(slot) = self.running[cpu] else { return Ok(()) };
        if self.processes[into].is_some() || !self.spawn(into, cpu)? {
            return Ok(());
        }
        let pages: Vec<u64> = self.processes[slot].as_ref().unwrap().pages.keys().copied().collect();
        for page in pages {
            let is_shared = self.protect(cpu, slot, page, false)? && {
                let shared = self.processes[slot].as_ref().unwrap().pages[&page];
                self.map_at(cpu, into, page, shared)?
            };
            if !is_shared {
                return self.exit(cpu, into);
            }
            let shared = self.processes[slot].as_ref().unwrap().pages[&page];
            *self.frames.holders(shared.frame) += 1;
        }
        Ok(())
    }

    fn protect(&mut self, cpu: usize, slot: usize, page: u64, writable: bool) -> Result<bool> {
        let (range, change) = (range(self.geometry, page), change(writable));
        // SAFETY: on the model; what is mapped is never accessed.
        let edit =
            |space: &mut AddressSpace, tools: &mut With<'_>| unsafe { space.protect(range, change, tools) };
        let is_changed = self.edit(cpu, slot, edit)?;
        if is_changed {
            self.processes[slot].as_mut().unwrap().pages.get_mut(&page).unwrap().writable = writable;
        }
        Ok(is_changed)
    }

    /// The process writes to a page: what it shares becomes its own first.
    pub fn write(&mut self, cpu: usize, page: u64) -> Result {
        let Some(slot) = self.running[cpu] else { return Ok(()) };
        let Some(&old) = self.processes[slot].as_ref().unwrap().pages.get(&page) else {
            self.board.event(Event::Faults { cpu, va: va(self.geometry, page).0, kind: Use::Write });
            return self.verdict("a write where nothing is");
        };
        if !old.writable {
            self.board.event(Event::Faults { cpu, va: va(self.geometry, page).0, kind: Use::Write });
            if *self.frames.holders(old.frame) == 1 {
                self.protect(cpu, slot, page, true)?;
            } else {
                let own = Page { frame: self.frames.take(), writable: true };
                let range = range(self.geometry, page);
                // SAFETY: on the model; what is mapped is never accessed.
                let edit = |space: &mut AddressSpace, tools: &mut With<'_>| unsafe {
                    space.remap(range, own.frame, change(true), tools)
                };
                let is_own = self.edit(cpu, slot, edit)?;
                if is_own {
                    self.processes[slot].as_mut().unwrap().pages.insert(page, own);
                }
                *self.frames.holders(if is_own { old.frame } else { own.frame }) -= 1;
            }
        }
        self.look(cpu)
    }

    /// The process ends: every CPU that runs it leaves.
    pub fn exit(&mut self, cpu: usize, slot: usize) -> Result {
        if self.processes[slot].is_none() {
            return Ok(());
        }
        for other in 0..self.running.len() {
            if self.running[other] == Some(slot) {
                self.rest(other);
            }
        }
        let mut leaves = Vec::new();
        self.edit(cpu, slot, |space, tools| space.clear(tools, |leaf| leaves.push((leaf.va, leaf.pa))))?;
        let Some(process) = self.processes[slot].take() else { return Ok(()) };
        let pages: Vec<_> =
            process.pages.iter().map(|(page, held)| (va(self.geometry, *page), held.frame)).collect();
        if pages != leaves {
            return Err(format!("the leaves of a process: {leaves:?}, not {pages:?}"));
        }
        // SAFETY: no CPU is on it, and no TLB holds anything of it.
        unsafe { self.tables.free(process.space.root()) };
        for page in process.pages.values() {
            *self.frames.holders(page.frame) -= 1;
        }
        self.memory("exit")
    }

    /// Edits the tables of a process by the ASID that it has. Returns whether that was done: there
    /// may be no frame for a table, and nothing has changed then.
    fn edit(
        &mut self,
        cpu: usize,
        slot: usize,
        edit: impl FnOnce(&mut AddressSpace, &mut With<'_>) -> std::result::Result<EditCounts, SpaceError>,
    ) -> Result<bool> {
        let Process { id, space, .. } = self.processes[slot].as_mut().unwrap();
        // SAFETY: no leaf is global. By an earlier ASID no CPU uses anything. A process that no
        // CPU has run has no entries by any.
        unsafe { space.set_asid(id.id().unwrap_or(0)) };
        let mut window = self.board.window(cpu, None);
        let (frames, cpu, steps) = (&mut self.tables, &mut self.board.cpu(cpu), &mut [Step::Isb; 64]);
        let free = self.free_tables.free_count();
        let done = edit(space, &mut Tools { window: &mut window, frames, cpu, steps });
        drop(window);
        self.board.event(Event::Settled);
        self.verdict("an edit")?;
        match done {
            Ok(_) => Ok(true),
            Err(SpaceError::Plan(PlanError::OutOfFrames(_))) if self.free_tables.free_count() == free => {
                Ok(false)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// From now on this many tables can be allocated.
    pub fn limit_tables(&self, left: Option<u64>) {
        self.free_tables.limit(left);
    }

    /// The CPU reaches all pages of the process that it runs, and nothing else.
    pub fn look(&self, cpu: usize) -> Result {
        let Some(slot) = self.running[cpu] else { return Ok(()) };
        let pages = &self.processes[slot].as_ref().unwrap().pages;
        let access = |page: u64, kind, frame: Option<Pa>| {
            let va = va(self.geometry, page).0;
            self.board.event(match frame {
                Some(Pa(pa)) => Event::Access { cpu, va, kind, pa },
                None => Event::Faults { cpu, va, kind },
            });
        };
        // What another CPU took away is gone at once.
        for page in 0..PAGES {
            match pages.get(&page) {
                Some(page) if page.writable => {}
                Some(_) => access(page, Use::Write, None),
                None => access(page, Use::Read, None),
            }
        }
        // What it added is there from the next return to EL0 on: until then an access may fault,
        // and is done again.
        self.board.event(Event::Isb { cpu });
        for (&page, &Page { frame, writable }) in pages {
            let kind = if writable { Use::Write } else { Use::Read };
            access(page, kind, Some(frame));
        }
        self.verdict("a look")
    }

    /// Nothing has broken a rule.
    fn verdict(&self, what: &str) -> Result {
        self.board.violation().map_or(Ok(()), |violation| Err(format!("{what}: {violation}")))
    }

    /// Nothing has broken a rule, and all tables hold what was stored through a window.
    pub fn memory(&self, what: &str) -> Result {
        self.board.verdict().map_err(|violation| format!("{what}: {violation}"))
    }

    /// All that happened.
    pub fn trace(&self) -> Trace {
        self.board.trace().unwrap()
    }

    /// Whether all frames are free when all processes have ended.
    pub fn end(&mut self) -> Result<bool> {
        for slot in 0..self.processes.len() {
            self.exit(0, slot)?;
        }
        Ok(self.frames.held() == 0 && self.free_tables.free_count() == TABLE_COUNT as usize)
    }
}

/// Invalidates all that CPUs hold by an ASID.
fn invalidate(processor: &mut BoardCpu, asid: u16) {
    processor.tlbi(Tlbi::Asid(asid));
    processor.dsb(Dsb::Ish);
    processor.isb();
}
