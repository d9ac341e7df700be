//! The linear map in use, and how this kernel edits it.

use core::sync::atomic::{AtomicBool, Ordering};

use linmap::features::System;
use linmap::{
    ChangeError, Changed, Editor, FramePool, LeafPolicy, LinearMap, MemblockFrames, MemblockRecord,
    ParkError, Pause, Repaint,
};
use linmap_live::Step;
use linmap_live::events::{Roots, TracedTree};
use linmap_memblock::Memblock;
use linmap_table::{FrameSource, PhysicalMemory};
use linmap_trace::{Line, MAX_CPUS};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::{Pa, PaRange};

use crate::arch::cpu::{self, ThisCpu};
use crate::arch::geometry::geometry;
use crate::arch::image::Image;
use crate::arch::per_cpu;
use crate::arch::platform::Platform;
use crate::memory::linear_map::Choices;
use crate::memory::long_lists::REGIONS;
use crate::memory::parking;
use crate::memory::physical::Memory;
use crate::memory::surgery::{self, Surgery};
use crate::memory::table_window::LiveTables;
use crate::report;

/// The greatest number of steps of a plan: enough to repaint a tebibyte of 1 GiB blocks at once.
pub const STEPS: usize = 1024;

static mut PLAN: [Step; STEPS] = [Step::Isb; STEPS];

/// The linear map, and what it takes to edit it.
pub struct LiveMap {
    /// The map.
    pub map: LinearMap,
    /// A pool of frames for tables.
    pub pool: FramePool,
    image: Image,
    surgery: Surgery,
    roots: Roots,
    /// The tree in the form of traces, if a trace is printed.
    traced: Option<TracedTree>,
    steps: &'static mut [Step],
}

impl LiveMap {
    /// The map as it was built, while only the boot CPU runs. Called once, when the console has its
    /// final place.
    pub fn new(image: Image, map: LinearMap) -> Self {
        static MADE: AtomicBool = AtomicBool::new(false);
        assert!(!MADE.swap(true, Ordering::Relaxed), "there is one linear map");
        let plan = &raw mut PLAN;
        // SAFETY: this function returns once, so that these are the only references.
        let (surgery, steps) = unsafe { (surgery::surgery_root(image), &mut *plan) };
        Self {
            map,
            pool: FramePool::new(),
            image,
            roots: Roots { live: image.swapper(), nothing: image.reserved_table(), surgery: surgery.root },
            surgery,
            traced: None,
            steps,
        }
    }

    /// The root of the tables that the boot CPU runs on while all others are parked.
    pub fn surgery_root(&self) -> Pa {
        self.roots.surgery
    }

    /// The map, its editor, and room for a plan: what every edit takes.
    pub fn parts<'l>(
        &'l mut self,
        memblock: &'l mut Memblock<REGIONS>,
    ) -> (&'l mut LinearMap, KernelEditor<'l>, &'l mut [Step]) {
        // SAFETY: the layout is the map's, and the image is where it says.
        let tables = unsafe { LiveTables::new(self.map.layout(), self.image) };
        let editor = KernelEditor {
            memblock,
            pool: &mut self.pool,
            surgery: &mut self.surgery,
            cpu: ThisCpu,
            tables,
            traced: self.traced.as_ref(),
        };
        (&mut self.map, editor, self.steps)
    }
}

/// The boot CPU as the editor of the map.
pub struct KernelEditor<'l> {
    memblock: &'l mut Memblock<REGIONS>,
    pool: &'l mut FramePool,
    surgery: &'l mut Surgery,
    cpu: ThisCpu,
    tables: LiveTables,
    /// The tree in the form of traces, if a trace is printed.
    traced: Option<&'l TracedTree>,
}

// SAFETY: `LiveTables` reaches all tables and all frames of memblock. `parking::all` runs the edit
// on the surgery root once all other CPUs have parked and this CPU has invalidated its TLB.
unsafe impl Editor for KernelEditor<'_> {
    type Window = LiveTables;
    type ParkedWindow = surgery::Window;
    type Cpu = ThisCpu;

    #[inline]
    fn window(&mut self) -> LiveTables {
        self.tables
    }

    #[inline]
    fn cpu(&mut self) -> &mut ThisCpu {
        &mut self.cpu
    }

    #[inline]
    fn frames(&mut self) -> impl FrameSource {
        // SAFETY: the pool is over the kernel's one memblock, which knows all memory that is in
        // use.
        unsafe { self.pool.over(MemblockFrames::new(self.memblock, geometry())) }
    }

    fn memory(&mut self) -> impl PhysicalMemory {
        MemblockRecord(self.memblock)
    }

    #[inline]
    fn planned(&mut self, steps: &[Step]) {
        if let Some(tree) = self.traced {
            print_plan(tree, steps, &mut self.tables);
        }
    }

    #[inline]
    fn applied_parked(&mut self, steps: &[Step]) {
        if let Some(tree) = self.traced {
            let running = per_cpu::online().iter();
            tree.parked_plan(&mut print, running, steps, &mut self.tables);
        }
    }

    fn park<R>(
        &mut self,
        edit: impl FnOnce(&mut surgery::Window, &mut ThisCpu) -> R,
    ) -> Result<(R, Pause), ParkError> {
        let Surgery { ttbr1, window, .. } = self.surgery;
        let cpu = &mut self.cpu;
        // SAFETY: only the boot CPU has a `LiveMap`. Its stack is in the image, and its interrupts
        // are masked. The edit only accesses the image, and what it reaches through the window.
        unsafe {
            parking::all(*ttbr1, || {
                let result = edit(window, cpu);
                window.close_all();
                result
            })
        }
    }
}

/// Prints a plan that is about to be applied. A function of its own, so that edits without a trace
/// don't pay for it.
#[cold]
#[inline(never)]
fn print_plan(tree: &TracedTree, steps: &[Step], tables: &mut LiveTables) {
    tree.plan(&mut print, steps, tables);
}

/// Prints a line of a trace.
fn print(line: Line) {
    report!("event=\"{line}\"");
}

impl LiveMap {
    /// Starts the trace: from here on all accesses to tables are printed in the form that the
    /// machine model reads.
    fn trace(&mut self, bbm: BbmLevel) {
        // SAFETY: these are the kernel's roots, and `LiveTables` reaches all tables.
        let tree = unsafe { TracedTree::new(geometry(), self.roots) };
        let tree = self.traced.insert(tree.expect("the image's tables are pages"));
        let memory = [PaRange::new(Pa(0), Pa(1 << geometry().pa_bits()))];
        // SAFETY: the layout is the map's, and the image is where it says.
        let mut tables = unsafe { LiveTables::new(self.map.layout(), self.image) };
        let running = per_cpu::online().iter();
        tree.opening(&mut print, MAX_CPUS, bbm, memory, running, &mut tables);
    }

    /// Traces that a CPU came online.
    pub fn cpu_started(&self, number: usize) {
        if let Some(tree) = &self.traced {
            tree.starts(&mut print, number);
        }
    }

    /// Traces that a CPU went offline.
    pub fn cpu_stopped(&self, number: usize) {
        if let Some(tree) = &self.traced {
            tree.stops(&mut print, number);
        }
    }
}

/// Makes the map rely on the features that all CPUs have, `system`. Where the boot CPU has BBM
/// level 3 and another CPU has less, the map is repainted, unless the command line says otherwise.
///
/// # Errors
/// [`ChangeError`]: the map can't be repainted.
pub fn rely_on(
    map: &mut LiveMap,
    memory: &mut Memory,
    platform: &Platform,
    system: System,
    choices: Choices,
) -> Result<(), ChangeError> {
    let blocks = choices.policy == LeafPolicy::Auto;
    let lacks = platform.features.bbm == BbmLevel::L3 && system.bbm < BbmLevel::L3;
    // SAFETY: every CPU that is online has what `system` says, and one that starts later is refused
    // if it has less.
    unsafe { map.map.rely_on(system.bbm, system.tlbi_range) };
    if platform.command_line.get("linmap.trace") == Some("1") {
        map.trace(system.bbm);
    }
    if !blocks || !lacks || choices.repaint == Repaint::KeepBlocks {
        return Ok(());
    }
    let (map, mut editor, steps) = map.parts(&mut memory.memblock);
    let before = parking::waited();
    let (changed, ticks) = timed(|| map.repaint(&mut editor, steps));
    report!("phase=repaint ticks={ticks} {} rendezvous={}", Fields(changed?), parking::waited() - before);
    Ok(())
}

/// Runs `change`. Returns its result and how many ticks it took.
pub fn timed<T>(change: impl FnOnce() -> T) -> (T, u64) {
    let started = cpu::counter();
    let result = change();
    (result, cpu::ticks_since(started))
}

/// The fields of a change in a line for machines.
pub struct Fields(pub Changed);

impl core::fmt::Display for Fields {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Changed { entries, invalidations, freed, parked, paused } = self.0;
        write!(f, "entries={entries} tlbi={invalidations} freed={freed} parked={parked} paused={paused}")
    }
}
