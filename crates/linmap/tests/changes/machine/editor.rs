//! The editor: reaches tables in use and parked, takes frames from memblock, and parks all CPUs.

use std::ptr::NonNull;

use linmap::{Editor, FramePool, MemblockFrames, MemblockRecord, ParkError, Pause};
use linmap_board::{Board, BoardCpu, BoardFrames, BoardWindow};
use linmap_live::Step;
use linmap_live::events::{Roots, TracedTree};
use linmap_memblock::Memblock;
use linmap_table::{Fixmap, FrameSource, OutOfFrames, PhysicalMemory, TableWindow};
use linmap_trace::Line;
use linmap_vmsa::{Attributes, Geometry, Level, Pa, PaRange};

use super::REGIONS;
use super::cpus::{Cpus, EditingCpu};

/// The first of the fixmap slots for tables, one a level.
const TABLE_SLOTS: usize = 1;

/// Levels −1 to 3.
const LEVELS: usize = 5;

/// Tables as the kernel reaches them on the live root: those in the image by the image's own
/// mapping, the only one that its data has, all others by the linear map.
pub struct LiveWindow {
    pub image: PaRange,
    pub own: BoardWindow,
    pub linear: BoardWindow,
}

// SAFETY: both are windows to the same frames.
unsafe impl TableWindow for LiveWindow {
    unsafe fn open(&mut self, level: Level, table: Pa) -> NonNull<u64> {
        self.close(level);
        // SAFETY: the caller's; both reach every frame on the board.
        unsafe {
            if self.image.contains(table) {
                self.own.open(level, table)
            } else {
                self.linear.open(level, table)
            }
        }
    }

    fn close(&mut self, level: Level) {
        self.own.close(level);
        self.linear.close(level);
    }
}

/// Tables as they are reached on the surgery root: one slot of its fixmap a level.
#[derive(Debug)]
pub struct SurgeryWindow {
    pub fixmap: Fixmap,
    pub cpu: BoardCpuOf,
    pub open: [Option<(Pa, NonNull<u64>)>; LEVELS],
}

/// The CPU whose slots they are.
pub struct BoardCpuOf(pub BoardCpu);

impl std::fmt::Debug for BoardCpuOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CPU")
    }
}

impl SurgeryWindow {
    /// Clears all slots: the frames that they map may have another owner after the edit.
    pub fn clear(&mut self) {
        for above in 0..LEVELS {
            if self.open[above].take().is_some() {
                self.fixmap.clear(&mut self.cpu.0, TABLE_SLOTS + above);
            }
        }
    }
}

// SAFETY: a slot maps the frame until another one is opened at its level.
unsafe impl TableWindow for SurgeryWindow {
    unsafe fn open(&mut self, level: Level, table: Pa) -> NonNull<u64> {
        let above = level.above_pages() as usize;
        let slot = TABLE_SLOTS + above;
        match self.open[above] {
            Some((open, pointer)) if open == table => return pointer,
            Some(_) => self.fixmap.clear(&mut self.cpu.0, slot),
            None => {}
        }
        // SAFETY: the caller's: a frame of the board's memory.
        let pointer = unsafe { self.fixmap.map(&mut self.cpu.0, slot, table, Attributes::KERNEL_DATA) };
        self.open[above] = Some((table, pointer));
        pointer
    }

    fn close(&mut self, _level: Level) {}
}

/// A frame source that fails once `left` allocations are made; `None` sets no limit.
pub struct Limited<'e, F> {
    source: F,
    left: &'e mut Option<u64>,
}

// SAFETY: hands on what `source` does.
unsafe impl<F: FrameSource> FrameSource for Limited<'_, F> {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        match self.left {
            Some(0) => return Err(OutOfFrames { wanted: 0, largest_free: 0 }),
            Some(left) => *left -= 1,
            None => {}
        }
        self.source.alloc()
    }

    unsafe fn free(&mut self, frame: Pa) {
        // SAFETY: the caller's.
        unsafe { self.source.free(frame) };
    }
}

/// The CPU that edits, number 0, and all that it needs.
pub struct BoardEditor {
    pub board: Board,
    pub geometry: Geometry,
    /// VA − PA of the linear map, and of the image's own mapping.
    pub linear: u64,
    pub own: u64,
    pub image: PaRange,
    pub memblock: Box<Memblock<REGIONS>>,
    pub pool: FramePool,
    /// How many more frames can be allocated, if a test limits them.
    pub left: Option<u64>,
    pub cpus: Cpus,
    pub cpu: EditingCpu,
    pub surgery: u64,
    pub surgery_window: SurgeryWindow,
    /// A CPU that does not park when it is asked to.
    pub stubborn: Option<usize>,
    /// The plans that were applied, printed.
    pub plans: Vec<String>,
    pub roots: Roots,
    /// All that is traced, if it is.
    pub trace: Option<String>,
}

// SAFETY: the windows reach every frame on the board; `park` runs the edit when all CPUs have left
// the live root.
unsafe impl Editor for BoardEditor {
    type Window = LiveWindow;
    type ParkedWindow = SurgeryWindow;
    type Cpu = EditingCpu;

    fn window(&mut self) -> LiveWindow {
        let own = self.board.window(0, Some(self.own));
        LiveWindow { image: self.image, own, linear: self.board.window(0, Some(self.linear)) }
    }

    fn cpu(&mut self) -> &mut EditingCpu {
        &mut self.cpu
    }

    fn frames(&mut self) -> impl FrameSource {
        // SAFETY: the pool is over this memblock alone, which has all that is in use on the board.
        let source = unsafe { self.pool.over(MemblockFrames::new(&mut self.memblock, self.geometry)) };
        BoardFrames::new(&self.board, Limited { source, left: &mut self.left })
    }

    fn memory(&mut self) -> impl PhysicalMemory {
        MemblockRecord(&mut self.memblock)
    }

    fn planned(&mut self, steps: &[Step]) {
        self.plans.push(steps.iter().map(|step| format!("{step}\n")).collect());
        if let Some(mut text) = self.trace.take() {
            let mut window = self.window();
            let mut line = |line: Line| text.push_str(&format!("{line}\n"));
            self.traced_tree().plan(&mut line, steps, &mut window);
            self.trace = Some(text);
        }
    }

    fn applied_parked(&mut self, steps: &[Step]) {
        self.plans.push(steps.iter().map(|step| format!("{step}\n")).collect());
        if let Some(mut text) = self.trace.take() {
            let mut window = self.window();
            let mut line = |line: Line| text.push_str(&format!("{line}\n"));
            let running = 0..self.cpus.count();
            self.traced_tree().parked_plan(&mut line, running, steps, &mut window);
            self.trace = Some(text);
        }
    }

    fn park<R>(
        &mut self,
        edit: impl FnOnce(&mut SurgeryWindow, &mut EditingCpu) -> R,
    ) -> Result<(R, Pause), ParkError> {
        let (board, cpus) = (&self.board, &self.cpus);
        let live = cpus.ways.live;
        // No CPU accesses the linear map during the edit.
        let accesses = std::mem::take(&mut self.cpu.bystanders.borrow_mut().accesses);
        let waiters: Vec<usize> = (1..cpus.count()).filter(|cpu| Some(*cpu) != self.stubborn).collect();
        for cpu in &waiters {
            cpus.leave(board, *cpu, live);
        }
        let result = match self.stubborn {
            Some(cpu) => Err(ParkError { cpu, ticks: 1 }),
            None => {
                cpus.leave(board, 0, live);
                cpus.arrive(board, 0, self.surgery);
                let result = edit(&mut self.surgery_window, &mut self.cpu);
                self.surgery_window.clear();
                cpus.leave(board, 0, self.surgery);
                cpus.arrive(board, 0, live);
                Ok((result, Pause { ticks: 1 }))
            }
        };
        for cpu in &waiters {
            cpus.arrive(board, *cpu, live);
        }
        self.cpu.bystanders.borrow_mut().accesses = accesses;
        result
    }
}

impl BoardEditor {
    /// The tree as it is traced.
    pub fn traced_tree(&self) -> TracedTree {
        // SAFETY: the roots are those of the board's tables, and its windows reach all frames.
        unsafe { TracedTree::new(self.geometry, self.roots) }.expect("roots in frames")
    }

    /// Shows that `fixmap` is a live table with free slots.
    pub fn surgery_window(fixmap: Fixmap, cpu: BoardCpu) -> SurgeryWindow {
        SurgeryWindow { fixmap, cpu: BoardCpuOf(cpu), open: [None; LEVELS] }
    }
}
