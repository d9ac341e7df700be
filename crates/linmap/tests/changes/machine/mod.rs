//! A machine on the board whose CPUs run on the linear map, built by the crate itself, and a plain
//! record of what the map has to say.

pub mod cpus;
pub mod editor;
pub mod op;
pub mod random;
pub mod setting;
pub mod shadow;

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::rc::Rc;

use linmap::{
    Builder, BuilderSlots, Editor, FramePool, ImageParts, Layout, LinearMap, LinearMapConfig, MappingLists,
    MemblockFrames, PageRanges,
};
use linmap_board::{Board, BoardFrames};
use linmap_live::Step;
use linmap_live::events::Roots;
use linmap_memblock::Memblock;
use linmap_model::event::{Access, Domain, Register, Use};
use linmap_model::{Config, Event, Space};
use linmap_table::{Fixmap, Reserved};
use linmap_trace::Line;
use linmap_vmsa::registers::{tcr, ttbr};
use linmap_vmsa::{Attributes, Descriptor, Level, MemoryType, Pa, PaRange, TablePermissions, Va};

use cpus::{Bystanders, Cpus, EditingCpu, InUse, Ways};
use editor::BoardEditor;
use random::Random;
use setting::Setting;
use shadow::Shadow;

/// Ranges that memblock has room for.
pub const REGIONS: usize = 64;

/// Frames at the end of the image, by number from its end down.
#[derive(Clone, Copy)]
pub enum Frame {
    /// The live root and the tables below it down to level 2, by level.
    Swapper(Level),
    ImagePages,
    FixmapPages,
    Reserved,
    Identity(Level),
    Surgery(Level),
    SurgeryImage,
    SurgeryFixmap,
}

/// How many of them the live tree has.
fn fixed_tables(setting: &Setting) -> u64 {
    2 + levels(setting).count() as u64
}

/// The levels above the pages.
fn levels(setting: &Setting) -> impl Iterator<Item = Level> + use<> {
    let start = setting.geometry.start_level();
    (0..3).filter_map(Level::new).filter(move |level| *level >= start)
}

fn roots(setting: &Setting) -> Roots {
    let start = setting.geometry.start_level();
    let at = |table| frame(setting, table);
    Roots {
        live: at(Frame::Swapper(start)),
        nothing: at(Frame::Reserved),
        surgery: at(Frame::Surgery(start)),
    }
}

pub fn frame(setting: &Setting, frame: Frame) -> Pa {
    let number = match frame {
        Frame::Swapper(level) => level.number() as u64,
        Frame::ImagePages => 3,
        Frame::FixmapPages => 4,
        Frame::Reserved => 5,
        Frame::Identity(level) => 6 + level.number() as u64,
        Frame::Surgery(level) => 10 + level.number() as u64,
        Frame::SurgeryImage => 13,
        Frame::SurgeryFixmap => 14,
    };
    Pa(setting.image.end.0 - (1 + number) * setting.page())
}

/// A kernel that runs.
pub struct Running {
    pub setting: Setting,
    pub board: Board,
    pub layout: Layout,
    pub map: LinearMap,
    pub editor: BoardEditor,
    pub steps: Vec<Step>,
    pub shadow: Shadow,
}

impl Running {
    /// Boots: image, identity map, linear map, then the other CPUs.
    pub fn new(setting: &Setting, seed: u64, record: bool) -> Self {
        let granule = setting.page();
        // The CPUs reach more than there is at first: memory may come.
        let ram = vec![(0, setting.tables.end.0.next_multiple_of(1 << 30) + (2 << 30))];
        let config = Config {
            cpus: setting.cpus,
            bbm: setting.bbm.number(),
            granule,
            va_bits: setting.geometry.va_bits(),
            pa_bits: setting.geometry.pa_bits(),
            ram,
            leniency: linmap_model::Leniency::Strict,
        };
        let board = Board::new(&config, record).expect("a machine that can be");
        let mut memblock = Box::new(Memblock::<REGIONS>::new());
        setting.ram.iter().for_each(|range| memblock.add(*range).expect("room"));
        setting.no_map.iter().for_each(|range| memblock.mark_no_map(*range).expect("room"));
        memblock.reserve(setting.image).expect("room");

        turn_on(setting, &board);
        let mut map = build(setting, &board, &mut memblock);
        let layout = map.layout();
        let ways = identity_map(setting, &board);
        let mut cpus = Cpus { ways, uses: vec![Vec::new(); setting.cpus] };
        let text = InUse { va: setting.image_va().0, len: setting.text_len, kind: Use::Execute };
        // Stacks and what else is written after the scratch part.
        let data = setting.scratch().end.0;
        let data = InUse {
            va: setting.image_va().0 + (data - setting.image.start.0),
            len: setting.image.end.0 - data,
            kind: Use::Write,
        };
        for cpu in 0..setting.cpus {
            if cpu > 0 {
                board.event(Event::Write { cpu, register: Register::Ttbr0, value: ways.nothing });
                board.event(Event::Write { cpu, register: Register::Ttbr1, value: ways.live });
                board.event(Event::Isb { cpu });
            }
            cpus.starts_to_use(&board, cpu, text);
            cpus.starts_to_use(&board, cpu, data);
        }
        let (surgery, fixmap) = surgery_root(setting, &board);
        let surgery_window = BoardEditor::surgery_window(fixmap, board.cpu(0));

        let bystanders = Bystanders { accesses: Vec::new(), random: Random::new(seed) };
        let cpu = EditingCpu {
            board: board.clone(),
            cpu: board.cpu(0),
            bystanders: Rc::new(RefCell::new(bystanders)),
        };
        if setting.range_invalidation {
            // SAFETY: on the model, whose CPUs all have it.
            unsafe { map.rely_on(setting.bbm, true) };
        }
        let shadow = Shadow::new(setting, layout, &memblock);
        let editor = BoardEditor {
            board: board.clone(),
            geometry: setting.geometry,
            linear: layout.offset(),
            own: setting.image_va().0.wrapping_sub(setting.image.start.0),
            image: setting.image,
            memblock,
            pool: FramePool::new(),
            left: None,
            cpus,
            cpu,
            surgery,
            surgery_window,
            stubborn: None,
            plans: Vec::new(),
            roots: roots(setting),
            trace: None,
        };
        let steps = vec![Step::Isb; 1024];
        let running = Self { setting: setting.clone(), board, layout, map, editor, steps, shadow };
        if let Err(reason) = running.agree() {
            panic!("after the build: {reason}");
        }
        running
    }

    /// From here on all changes are traced.
    pub fn start_trace(&mut self) {
        let mut text = String::new();
        let setting = &self.setting;
        let memory = [PaRange::new(Pa(0), Pa(1 << setting.geometry.pa_bits()))];
        let mut window = self.editor.window();
        let mut line = |line: Line| text.push_str(&format!("{line}\n"));
        let tree = self.editor.traced_tree();
        tree.opening(&mut line, setting.cpus, setting.bbm, memory, 0..setting.cpus, &mut window);
        self.editor.trace = Some(text);
    }

    /// Every leaf of the kernel's half: first address, log2 of its bytes, whether it is one of a
    /// run.
    pub fn leaf_shapes(&self) -> Vec<(u64, u32, bool)> {
        let mut shapes = Vec::new();
        self.board.with_machine(|machine| {
            let _: ControlFlow<()> = machine.leaves(0, Space::High, |va, _, shift, value, _| {
                shapes.push((va, shift, value >> 52 & 1 == 1));
                ControlFlow::Continue(())
            });
        });
        shapes
    }

    /// How many frames for tables are out: reserved, and not the image.
    pub fn frames_out(&self) -> u64 {
        let reserved: u64 = self.editor.memblock.reserved().iter().map(|range| range.len()).sum();
        let out = (reserved - self.setting.image.len()) / self.setting.page();
        out - self.editor.pool.len() as u64
    }

    /// The machine objects to nothing, the tables agree with the shadow, memblock has what is
    /// mapped, and all frames that are allocated are tables of the tree.
    pub fn agree(&self) -> Result<(), String> {
        self.board.event(Event::Settled);
        self.board.verdict().map_err(|violation| violation.to_string())?;
        self.shadow.agrees(&self.board)?;
        let mapped: Vec<PaRange> = self.editor.memblock.mappable(self.setting.page()).collect();
        if mapped != self.shadow.mapped() {
            return Err(format!("memblock has {mapped:x?}, mapped is {:x?}", self.shadow.mapped()));
        }
        let tables = self.board.with_machine(|machine| machine.tables(0, Space::High));
        let (expected, out) = (tables - fixed_tables(&self.setting), self.frames_out());
        if expected != out {
            return Err(format!("{expected} tables have frames of their own, {out} frames are out"));
        }
        Ok(())
    }
}

fn zero(setting: &Setting, board: &Board, table: Frame) {
    let pa = frame(setting, table).0;
    board.event(Event::Fill { cpu: 0, pa, count: setting.page() / 8, first: 0, step: 0 });
}

fn link(setting: &Setting, board: &Board, from: Frame, va: Va, level: Level, to: Frame) {
    let geometry = setting.geometry;
    let pa = frame(setting, from).0 + 8 * geometry.index(va, level) as u64;
    let value = Descriptor::table(geometry, frame(setting, to)).0;
    board.event(Event::Store { cpu: 0, pa, value, via: None });
}

/// A chain of tables, from the root to the level above the pages, for the image's table of pages
/// and the fixmap's.
fn chain(setting: &Setting, board: &Board, at: fn(Level) -> Frame, image: Frame, fixmap: Frame) {
    for level in levels(setting) {
        zero(setting, board, at(level));
    }
    zero(setting, board, image);
    zero(setting, board, fixmap);
    for level in levels(setting) {
        match level.next() {
            Some(Level::L3) | None => {
                link(setting, board, at(level), setting.image_va(), level, image);
                link(setting, board, at(level), setting.fixmap_va(), level, fixmap);
            }
            Some(next) => link(setting, board, at(level), setting.image_va(), level, at(next)),
        }
    }
    let pages = [
        (setting.text(), Attributes::KERNEL_TEXT),
        (PaRange::new(setting.text().end, setting.image.end), Attributes::KERNEL_DATA),
    ];
    for (part, attributes) in pages {
        let index = (part.start.0 - setting.image.start.0) / setting.page();
        let first = Descriptor::page(setting.geometry, part.start, attributes).0;
        board.event(Event::Fill {
            cpu: 0,
            pa: frame(setting, image).0 + 8 * index,
            count: part.len() / setting.page(),
            first,
            step: setting.page(),
        });
    }
}

/// The TTBR value for a root table of the image.
fn root_value(setting: &Setting, root: Frame) -> u64 {
    ttbr(setting.geometry, frame(setting, root), 0).expect("a frame")
}

/// What `entry.S` does: the image's tables, then the roots of the boot CPU.
fn turn_on(setting: &Setting, board: &Board) {
    chain(setting, board, Frame::Swapper, Frame::ImagePages, Frame::FixmapPages);
    zero(setting, board, Frame::Reserved);
    board.event(Event::Dsb { cpu: 0, domain: Domain::Sy, access: Access::All });
    let root = Frame::Swapper(setting.geometry.start_level());
    for (register, table) in [(Register::Ttbr0, Frame::Reserved), (Register::Ttbr1, root)] {
        let value = root_value(setting, table);
        board.event(Event::Write { cpu: 0, register, value });
    }
    board.event(Event::Isb { cpu: 0 });
}

/// The linear map, by the default builder.
fn build(setting: &Setting, board: &Board, memblock: &mut Memblock<REGIONS>) -> LinearMap {
    let geometry = setting.geometry;
    let config = LinearMapConfig {
        geometry,
        image: ImageParts {
            read_only: setting.text(),
            data: PaRange::new(setting.text().end, setting.image.end),
            va: setting.image_va(),
        },
        leaves: setting.leaves,
        pages: PageRanges::new(),
        tables: TablePermissions::UNRESTRICTED,
        memory: MemoryType::Normal,
        builder: Builder::Identity,
        slots: BuilderSlots { tables: [1, 2, 3, 4, 5], leaf_tables: 0..0 },
        root: frame(setting, Frame::Swapper(geometry.start_level())),
        reserved: Reserved {
            ttbr0: root_value(setting, Frame::Reserved),
            tcr: tcr(geometry, geometry, true).expect("one geometry"),
        },
        bbm: setting.bbm,
        layout: None,
    };
    let mut lists = MappingLists::<REGIONS>::new();
    let prepared = config.prepare(memblock.mappable(setting.page()), &mut lists).expect("memory in reach");
    let pages = board.pointer(frame(setting, Frame::FixmapPages));
    // SAFETY: the live table of the fixmap, empty since it was made.
    let mut fixmap = unsafe { Fixmap::new(geometry, pages, setting.fixmap_va()) };
    // SAFETY: memblock has all that is in use on the board.
    let mut frames = BoardFrames::new(board, unsafe { MemblockFrames::new(memblock, geometry) });
    // SAFETY: as `turn_on` left the machine.
    let built = unsafe { prepared.build(&mut fixmap, &mut board.cpu(0), &mut frames) };
    built.expect("frames enough").into_map()
}

/// The map at VA = PA of the one page of code that CPUs park in, and of the page of words that they
/// wait for.
fn identity_map(setting: &Setting, board: &Board) -> Ways {
    let geometry = setting.geometry;
    let page = setting.page();
    let code = setting.image.start.0 + page;
    let words = setting.scratch().end.0;
    let all: Vec<Level> = levels(setting).chain([Level::L3]).collect();
    for level in &all {
        zero(setting, board, Frame::Identity(*level));
    }
    for pair in all.windows(2) {
        let (from, to) = (Frame::Identity(pair[0]), Frame::Identity(pair[1]));
        link(setting, board, from, Va(code), pair[0], to);
    }
    for (pa, attributes) in [(code, Attributes::KERNEL_TEXT), (words, Attributes::KERNEL_DATA)] {
        let value = Descriptor::page(geometry, Pa(pa), attributes).0;
        let index = geometry.index(Va(pa), Level::L3) as u64;
        let pa = frame(setting, Frame::Identity(Level::L3)).0 + 8 * index;
        board.event(Event::Store { cpu: 0, pa, value, via: None });
    }
    board.event(Event::Dsb { cpu: 0, domain: Domain::Ish, access: Access::Stores });
    let at = |table| root_value(setting, table);
    Ways {
        live: at(Frame::Swapper(geometry.start_level())),
        nothing: at(Frame::Reserved),
        identity: at(Frame::Identity(geometry.start_level())),
        code: InUse { va: code, len: page, kind: Use::Execute },
        words: InUse { va: words, len: page, kind: Use::Write },
    }
}

/// The root that the editor runs on while all others are parked, and its fixmap.
fn surgery_root(setting: &Setting, board: &Board) -> (u64, Fixmap) {
    chain(setting, board, Frame::Surgery, Frame::SurgeryImage, Frame::SurgeryFixmap);
    board.event(Event::Dsb { cpu: 0, domain: Domain::Ish, access: Access::Stores });
    let geometry = setting.geometry;
    let pages = board.pointer(frame(setting, Frame::SurgeryFixmap));
    // SAFETY: the table was made just now, and no other code has it.
    let fixmap = unsafe { Fixmap::new(geometry, pages, setting.fixmap_va()) };
    (root_value(setting, Frame::Surgery(geometry.start_level())), fixmap)
}
