//! A small kernel on the machine model: processes that CPUs run, with their pages in a plain list.

use std::collections::BTreeMap;

use linmap_asid::{CpuIds, IdAllocator, Maintenance, SpaceId};
use linmap_board::{Board, BoardCpu, BoardFrames, BoardWindow};
use linmap_live::{Change, Half, LiveTree, Plan, PlanError, Step, Target};
use linmap_model::event::Use;
use linmap_model::{Config, Event, Trace};
use linmap_table::cpu::{Cpu, Dsb, Tlbi};
use linmap_table::{FrameSource, Leaves, Mapping, Mappings};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::registers::ttbr;
use linmap_vmsa::{Access, Attributes, Geometry, Granule, Pa, Va, VaRange};

use crate::pages::{Pages, TABLE_COUNT, TABLES, Tables};

/// As many CPUs as there may be.
pub const CPUS: usize = 4;
/// The root that CPUs are on while they run no process, behind the frames for tables.
const EMPTY: u64 = TABLES + TABLE_COUNT * 0x1000;
/// How many pages a process may have.
pub const PAGES: u64 = 8;

/// The address of a page: four by four in two tables.
fn va(page: u64) -> Va {
    Va(0x40_0000 + page / 4 * 0x20_0000 + page % 4 * 0x1000)
}

fn range(page: u64) -> VaRange {
    VaRange::new(va(page), 0x1000)
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
    root: Pa,
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

/// What went wrong: a violation, or a plan that was refused.
type Result<T = ()> = std::result::Result<T, String>;

impl<'a> Kernel<'a> {
    /// A kernel on `cpus` CPUs with room for `processes`.
    pub fn new(ids: &'a IdAllocator<CPUS>, cpus: usize, processes: usize) -> Self {
        let geometry = Geometry::new(Granule::K4, 30, 40).unwrap();
        let config = Config {
            cpus,
            bbm: 0,
            granule: 0x1000,
            va_bits: geometry.va_bits(),
            pa_bits: geometry.pa_bits(),
            ram: vec![(TABLES, (TABLE_COUNT + 1) * 0x1000)],
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

    /// Makes a process without pages, if there is none yet.
    fn spawn(&mut self, slot: usize, cpu: usize) -> Result {
        if self.processes[slot].is_none() {
            let root = self.tables.alloc().map_err(|error| error.to_string())?;
            self.clear(cpu, root);
            self.processes[slot] = Some(Process { id: SpaceId::new(), root, pages: BTreeMap::new() });
        }
        Ok(())
    }

    /// Zeroes a table.
    fn clear(&self, cpu: usize, table: Pa) {
        self.board.event(Event::Fill { cpu, pa: table.0, count: 512, first: 0, step: 0 });
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
        self.spawn(slot, cpu)?;
        let process = self.processes[slot].as_ref().unwrap();
        let mut processor = self.board.cpu(cpu);
        let before = process.id.id();
        let asid = self.ids[cpu].switch_to(&process.id, |maintenance| {
            if maintenance == Maintenance::Invalidation {
                processor.tlbi(Tlbi::AllLocal);
            }
            processor.dsb(Dsb::Ish);
            processor.isb();
        });
        // CPUs that have not switched since the rollover may hold entries by the earlier ASID. They
        // can't use them before they invalidate everything, but the model counts them.
        if let Some(before) = before.filter(|before| *before != asid) {
            invalidate(&mut self.board.cpu(cpu), before);
        }
        let root = process.root;
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
        self.map_at(cpu, process, page, new)
    }

    fn map_at(&mut self, cpu: usize, slot: usize, page: u64, new: Page) -> Result {
        let attributes = if new.writable { Attributes::USER_DATA } else { Attributes::USER_RODATA };
        let mapping = Mapping { va: va(page), pa: new.frame, len: 0x1000, attributes, leaves: Leaves::Pages };
        let list = [mapping];
        let mappings = Mappings::new(self.geometry, &list).unwrap();
        self.edit(cpu, slot, |tree, steps, window, tables| tree.plan_map(&mappings, steps, window, tables))?;
        self.processes[slot].as_mut().unwrap().pages.insert(page, new);
        Ok(())
    }

    /// The process unmaps a page, whose frame may be used again at once.
    pub fn unmap(&mut self, cpu: usize, page: u64) -> Result {
        let Some(slot) = self.running[cpu] else { return Ok(()) };
        self.edit(cpu, slot, |tree, steps, window, tables| {
            tree.plan_unmap(Target::InUse(range(page)), steps, window, tables)
        })?;
        if let Some(old) = self.processes[slot].as_mut().unwrap().pages.remove(&page) {
            *self.frames.holders(old.frame) -= 1;
        }
        Ok(())
    }

    /// A CPU that does not run the process unmaps a page of it. `meanwhile` happens after the plan
    /// is made. With `reads_again` the CPU reads the ASID again at the end, and invalidates by it.
    pub fn unmap_from_afar(
        &mut self,
        cpu: usize,
        slot: usize,
        page: u64,
        meanwhile: impl FnOnce(&mut Self) -> Result,
        reads_again: bool,
    ) -> Result {
        let Process { id, root, .. } = self.processes[slot].as_ref().unwrap();
        let asid = id.id().unwrap_or(0);
        // SAFETY: as in `edit`.
        let mut tree = unsafe { LiveTree::new(self.geometry, *root, Half::Low, BbmLevel::L0).in_asid(asid) };
        let mut steps = [Step::Isb; 64];
        let mut window = self.board.window(cpu, None);
        let plan =
            tree.plan_unmap(Target::InUse(range(page)), &mut steps, &mut window, &mut self.tables).unwrap();
        meanwhile(self)?;
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
        if self.processes[into].is_some() {
            return Ok(());
        }
        let pages: Vec<u64> = self.processes[slot].as_ref().unwrap().pages.keys().copied().collect();
        self.spawn(into, cpu)?;
        for page in pages {
            self.protect(cpu, slot, page, false)?;
            let shared = self.processes[slot].as_ref().unwrap().pages[&page];
            *self.frames.holders(shared.frame) += 1;
            self.map_at(cpu, into, page, shared)?;
        }
        Ok(())
    }

    fn protect(&mut self, cpu: usize, slot: usize, page: u64, writable: bool) -> Result {
        let access = if writable { Access::UserReadWrite } else { Access::UserReadOnly };
        let change = Change { access: Some(access), ..Change::default() };
        self.edit(cpu, slot, |tree, steps, window, tables| {
            tree.plan_protect(Target::InUse(range(page)), change, steps, window, tables)
        })?;
        self.processes[slot].as_mut().unwrap().pages.get_mut(&page).unwrap().writable = writable;
        Ok(())
    }

    /// The process writes to a page: what it shares becomes its own first.
    pub fn write(&mut self, cpu: usize, page: u64) -> Result {
        let Some(slot) = self.running[cpu] else { return Ok(()) };
        let Some(&old) = self.processes[slot].as_ref().unwrap().pages.get(&page) else {
            self.board.event(Event::Faults { cpu, va: va(page).0, kind: Use::Write });
            return self.verdict("a write where nothing is");
        };
        if !old.writable {
            self.board.event(Event::Faults { cpu, va: va(page).0, kind: Use::Write });
            if *self.frames.holders(old.frame) == 1 {
                self.protect(cpu, slot, page, true)?;
            } else {
                let own = Page { frame: self.frames.take(), writable: true };
                self.edit(cpu, slot, |tree, steps, window, tables| {
                    tree.plan_unmap(Target::InUse(range(page)), steps, window, tables)
                })?;
                self.map_at(cpu, slot, page, own)?;
                *self.frames.holders(old.frame) -= 1;
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
        let all = VaRange::new(Va(0), 1 << self.geometry.va_bits());
        self.edit(cpu, slot, |tree, steps, window, tables| {
            tree.plan_unmap(Target::InUse(all), steps, window, tables)
        })?;
        let Some(process) = self.processes[slot].take() else { return Ok(()) };
        if let Some(asid) = process.id.id() {
            invalidate(&mut self.board.cpu(cpu), asid);
        }
        // SAFETY: no CPU is on it, and no TLB holds anything of it.
        unsafe { self.tables.free(process.root) };
        for page in process.pages.values() {
            *self.frames.holders(page.frame) -= 1;
        }
        self.verdict("exit")
    }

    /// Plan, check, apply, free.
    fn edit<P>(&mut self, cpu: usize, slot: usize, plan: P) -> Result
    where
        P: for<'b> FnOnce(
            &'b mut LiveTree,
            &'b mut [Step],
            &mut BoardWindow,
            &mut BoardFrames<Tables>,
        ) -> std::result::Result<Plan<'b>, PlanError>,
    {
        let Process { id, root, .. } = self.processes[slot].as_ref().unwrap();
        // A process that no CPU has run has no entries by any ASID.
        let asid = id.id().unwrap_or(0);
        // SAFETY: on the model, where this function alone changes trees. No level is less than 0.
        // No leaf is global. By an earlier ASID no CPU holds anything.
        let mut tree = unsafe { LiveTree::new(self.geometry, *root, Half::Low, BbmLevel::L0).in_asid(asid) };
        let mut steps = [Step::Isb; 64];
        let mut window = self.board.window(cpu, None);
        let plan =
            plan(&mut tree, &mut steps, &mut window, &mut self.tables).map_err(|error| error.to_string())?;
        let plan = plan.check(&mut window).map_err(|(_, refused)| refused.to_string())?;
        let mut processor = self.board.cpu(cpu);
        // SAFETY: on the model; what is mapped is never accessed.
        let applied = unsafe { plan.apply(&mut window, &mut processor) };
        applied.free(&mut window, &mut self.tables);
        drop(window);
        self.board.event(Event::Settled);
        self.verdict("an edit")
    }

    /// The CPU reaches all pages of the process that it runs, and nothing else.
    pub fn look(&self, cpu: usize) -> Result {
        let Some(slot) = self.running[cpu] else { return Ok(()) };
        let pages = &self.processes[slot].as_ref().unwrap().pages;
        let access = |page: u64, kind, frame: Option<Pa>| {
            let va = va(page).0;
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

    fn verdict(&self, what: &str) -> Result {
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
