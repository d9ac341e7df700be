//! The six builders of the linear map, on the machine model: every store, barrier and invalidation
//! in its order.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::ptr::NonNull;

use linmap::{
    BuildError, Builder, BuilderSlots, ImageParts, Layout, LinearMapConfig, MappingLists, MemblockFrames,
    PageRanges,
};
use linmap_board::{Board, BoardFrames};
use linmap_memblock::Memblock;
use linmap_model::event::{Access, Domain, Register, Use};
use linmap_model::{Config, Event, Rule, Space};
use linmap_table::cpu::{Counted, Cpu, Dsb, InstructionCounts, Tlbi};
use linmap_table::{Built, Fixmap, Leaves, Reserved};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::registers::{tcr, ttbr};
use linmap_vmsa::{Attributes, Descriptor, Geometry, Level, MemoryType, Pa, PaRange, TablePermissions, Va};

const G: Geometry = Geometry::K4_48;
const IMAGE: Va = Va(0xffff_8000_8000_0000);
const FIXMAP: Va = Va(0xffff_8000_bfe0_0000);
const SLOTS: BuilderSlots = BuilderSlots { tables: [1, 2, 3, 4, 5], leaf_tables: 8..24 };
const IMAGE_LEN: u64 = 2 << 20;

/// Frames of the image, from its beginning.
mod frame {
    pub const SWAPPER: u64 = 0x10_0000;
    pub const RESERVED: u64 = 0x10_1000;
    pub const LEVEL_1: u64 = 0x10_2000;
    pub const LEVEL_2: u64 = 0x10_3000;
    pub const IMAGE_PAGES: u64 = 0x10_4000;
    pub const FIXMAP_PAGES: u64 = 0x10_5000;
}

/// A machine that has booted as far as the kernel has when it begins to build the linear map.
struct Booted {
    board: Board,
    image: PaRange,
    memblock: Box<Memblock<64>>,
}

impl Booted {
    fn new(ram: &[(u64, u64)], image: u64) -> Self {
        let config = Config {
            cpus: 1,
            bbm: 0,
            granule: 0x1000,
            va_bits: 48,
            pa_bits: 48,
            ram: ram.to_vec(),
            leniency: linmap_model::Leniency::Strict,
        };
        let board = Board::new(&config, false).expect("a machine that can be");
        let image = PaRange::new(Pa(image), Pa(image + IMAGE_LEN));
        let mut memblock = Box::new(Memblock::new());
        for &(start, len) in ram {
            memblock.add(PaRange::new(Pa(start), Pa(start + len))).expect("room for the range");
        }
        memblock.reserve(image).expect("room for the image");
        let booted = Self { board, image, memblock };
        booted.turn_on();
        booted
    }

    fn at(&self, frame: u64) -> Pa {
        Pa(self.image.start.0 + frame)
    }

    /// What `entry.S` does: image and fixmap tables, then the roots.
    fn turn_on(&self) {
        let zero = |frame| {
            let pa = self.at(frame).0;
            self.board.event(Event::Fill { cpu: 0, pa, count: 512, first: 0, step: 0 });
        };
        let link = |from: u64, va: Va, level, to: u64| {
            let pa = self.at(from).0 + 8 * G.index(va, level) as u64;
            let value = Descriptor::table(G, self.at(to)).0;
            self.board.event(Event::Store { cpu: 0, pa, value, via: None });
        };
        for table in [frame::SWAPPER, frame::RESERVED, frame::LEVEL_1, frame::LEVEL_2, frame::FIXMAP_PAGES] {
            zero(table);
        }
        link(frame::SWAPPER, IMAGE, Level::L0, frame::LEVEL_1);
        link(frame::LEVEL_1, IMAGE, Level::L1, frame::LEVEL_2);
        link(frame::LEVEL_2, IMAGE, Level::L2, frame::IMAGE_PAGES);
        link(frame::LEVEL_2, FIXMAP, Level::L2, frame::FIXMAP_PAGES);
        let half = IMAGE_LEN / 2;
        for (offset, attributes) in [(0, Attributes::KERNEL_TEXT), (half, Attributes::KERNEL_DATA)] {
            let first = Descriptor::page(G, self.at(offset), attributes).0;
            let pa = self.at(frame::IMAGE_PAGES).0 + 8 * (offset >> 12);
            self.board.event(Event::Fill { cpu: 0, pa, count: 256, first, step: 0x1000 });
        }
        self.board.event(Event::Dsb { cpu: 0, domain: Domain::Ish, access: Access::All });
        for (register, table) in [(Register::Ttbr0, frame::RESERVED), (Register::Ttbr1, frame::SWAPPER)] {
            self.board.event(Event::Write { cpu: 0, register, value: self.at(table).0 });
        }
        self.board.event(Event::Isb { cpu: 0 });
        // From here on code and vectors, data and stack are in use all the time.
        for (offset, kind) in [(0, Use::Execute), (half, Use::Write)] {
            self.board.event(Event::Uses { cpu: 0, va: IMAGE.0 + offset, len: half, kind });
        }
    }

    fn build(
        &mut self,
        builder: Builder,
        leaves: Leaves,
        forgets: Option<Forgets>,
    ) -> Result<(Layout, Built, InstructionCounts), BuildError> {
        let half = Pa(self.image.start.0 + IMAGE_LEN / 2);
        let config = LinearMapConfig {
            geometry: G,
            image: ImageParts {
                read_only: PaRange::new(self.image.start, half),
                data: PaRange::new(half, self.image.end),
                va: IMAGE,
            },
            leaves,
            pages: PageRanges::new(),
            tables: TablePermissions::UNRESTRICTED,
            memory: MemoryType::Normal,
            builder,
            slots: SLOTS,
            root: self.at(frame::SWAPPER),
            reserved: Reserved {
                ttbr0: ttbr(G, self.at(frame::RESERVED), 0).expect("a frame"),
                tcr: tcr(G, G, true).expect("one geometry"),
            },
            bbm: BbmLevel::L0,
            layout: None,
        };
        let mut lists = MappingLists::<64>::new();
        let prepared = config.prepare(self.memblock.mappable(0x1000), &mut lists).expect("memory in reach");
        // SAFETY: the live table of the fixmap, empty since it was made.
        let mut fixmap = unsafe { Fixmap::new(G, self.board.pointer(self.at(frame::FIXMAP_PAGES)), FIXMAP) };
        let cpu = Forgetful { cpu: self.board.cpu(0), forgets };
        let mut cpu = Counted { cpu, counts: InstructionCounts::default() };
        // SAFETY: memblock has all that is in use on the board.
        let mut frames = BoardFrames::new(&self.board, unsafe { MemblockFrames::new(&mut self.memblock, G) });
        // SAFETY: as `turn_on` left the machine; TTBR0 is on the reserved table.
        let map = unsafe { prepared.build(&mut fixmap, &mut cpu, &mut frames) }?;
        let (layout, built) = (map.layout(), map.built());
        self.board.event(Event::Settled);
        Ok((layout, built, cpu.counts))
    }

    /// The linear half as the machine walks it: for every page its address and whether it can be
    /// written.
    fn pages(&self) -> BTreeMap<u64, (u64, bool)> {
        let mut pages = BTreeMap::new();
        self.board.with_machine(|machine| {
            let _: ControlFlow<()> = machine.leaves(0, Space::High, |va, pa, shift, value, _| {
                if va < IMAGE.0 {
                    for offset in (0..1u64 << shift).step_by(0x1000) {
                        pages.insert(va + offset, (pa + offset, value >> 7 & 1 == 0));
                    }
                }
                ControlFlow::Continue(())
            });
        });
        pages
    }

    fn expected(&self, layout: &Layout) -> BTreeMap<u64, (u64, bool)> {
        let mut pages = BTreeMap::new();
        let data = PaRange::new(Pa(self.image.start.0 + IMAGE_LEN / 2), self.image.end);
        for range in self.memblock.mappable(0x1000) {
            for pa in (range.start.0..range.end.0).step_by(0x1000).filter(|pa| !data.contains(Pa(*pa))) {
                pages.insert(layout.linear(Pa(pa)).0, (pa, !self.image.contains(Pa(pa))));
            }
        }
        pages
    }
}

/// Memory with holes, a no-map region, odd ends, and the image in the middle.
const RAM: [(u64, u64); 3] = [(0x4000_0000, 0x400_0000), (0x4500_3000, 0x21_d000), (0x8000_0000, 0x300_0000)];

fn legal(builder: Builder, leaves: Leaves) -> InstructionCounts {
    let mut booted = Booted::new(&RAM, 0x4040_0000);
    let hole = PaRange::new(Pa(0x4123_4000), Pa(0x4123_9000));
    booted.memblock.mark_no_map(hole).expect("room for the range");
    let (layout, built, counts) = booted.build(builder, leaves, None).expect("frames enough");
    assert_eq!(booted.board.verdict(), Ok(()), "{} {leaves:?}", builder.name());
    assert!(built.bytes > 0x700_0000);
    let (pages, expected) = (booted.pages(), booted.expected(&layout));
    assert!(pages == expected, "{} {leaves:?}: another map", builder.name());
    counts
}

#[test]
fn all_six_builders_are_legal_with_every_kind_of_leaf() {
    for builder in Builder::ALL {
        for leaves in [Leaves::Pages, Leaves::Blocks, Leaves::ContiguousBlocks] {
            legal(builder, leaves);
        }
    }
}

#[test]
fn the_1_to_1_map_costs_the_same_few_invalidations_on_the_model() {
    let counts = legal(Builder::Identity, Leaves::Pages);
    assert!(counts.tlbi < 16, "{counts:?}");
}

/// What a CPU leaves out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Forgets {
    /// Every DSB of stores.
    StoreBarriers,
    /// Every other DSB.
    FullBarriers,
    Isbs,
    BroadcastTlbis,
    LocalTlbis,
}

/// A CPU that leaves some instructions out.
struct Forgetful<C> {
    cpu: C,
    forgets: Option<Forgets>,
}

// SAFETY: what it forgets, the model finds; nothing else relies on it.
unsafe impl<C: Cpu> Cpu for Forgetful<C> {
    type Frames = C::Frames;

    unsafe fn store(&mut self, entry: NonNull<u64>, descriptor: Descriptor) {
        // SAFETY: the caller's.
        unsafe { self.cpu.store(entry, descriptor) };
    }

    unsafe fn store_run(&mut self, entries: NonNull<u64>, count: usize, first: Descriptor, step: u64) {
        // SAFETY: the caller's.
        unsafe { self.cpu.store_run(entries, count, first, step) };
    }

    unsafe fn compare_exchange(
        &mut self,
        entry: NonNull<u64>,
        expected: Descriptor,
        new: Descriptor,
    ) -> Result<(), Descriptor> {
        // SAFETY: the caller's.
        unsafe { self.cpu.compare_exchange(entry, expected, new) }
    }

    unsafe fn reach(&mut self, va: Va) -> NonNull<u64> {
        // SAFETY: the caller's.
        unsafe { self.cpu.reach(va) }
    }

    unsafe fn frames_at(&mut self, offset: u64) -> C::Frames {
        // SAFETY: the caller's.
        unsafe { self.cpu.frames_at(offset) }
    }

    fn dsb(&mut self, dsb: Dsb) {
        let kind = if dsb == Dsb::Ishst { Forgets::StoreBarriers } else { Forgets::FullBarriers };
        if self.forgets != Some(kind) {
            self.cpu.dsb(dsb);
        }
    }

    fn isb(&mut self) {
        if self.forgets != Some(Forgets::Isbs) {
            self.cpu.isb();
        }
    }

    fn tlbi(&mut self, tlbi: Tlbi) {
        let kind = if tlbi == Tlbi::AllLocal { Forgets::LocalTlbis } else { Forgets::BroadcastTlbis };
        if self.forgets != Some(kind) {
            self.cpu.tlbi(tlbi);
        }
    }

    unsafe fn clean_and_invalidate(&mut self, va: Va, len: u64) {
        // SAFETY: the caller's.
        unsafe { self.cpu.clean_and_invalidate(va, len) };
    }

    unsafe fn write_ttbr0(&mut self, value: u64) {
        // SAFETY: the caller's.
        unsafe { self.cpu.write_ttbr0(value) };
    }

    unsafe fn write_ttbr1(&mut self, value: u64) {
        // SAFETY: the caller's.
        unsafe { self.cpu.write_ttbr1(value) };
    }

    unsafe fn write_tcr(&mut self, value: u64) {
        // SAFETY: the caller's.
        unsafe { self.cpu.write_tcr(value) };
    }
}

#[test]
fn no_builder_can_do_without_any_of_its_barriers_and_invalidations() {
    for builder in Builder::ALL {
        for forgets in [
            Forgets::StoreBarriers,
            Forgets::FullBarriers,
            Forgets::Isbs,
            Forgets::BroadcastTlbis,
            Forgets::LocalTlbis,
        ] {
            if forgets == Forgets::LocalTlbis && builder != Builder::Identity {
                continue;
            }
            let mut booted = Booted::new(&RAM, 0x4040_0000);
            // Once the machine went astray the builder may find anything in its tables.
            let _ = booted.build(builder, Leaves::Pages, Some(forgets));
            let verdict = booted.board.verdict();
            assert!(verdict.is_err(), "{} without {forgets:?}", builder.name());
        }
    }
}

#[test]
fn a_slot_used_again_without_invalidation_is_a_new_output_address() {
    let mut booted = Booted::new(&RAM, 0x4040_0000);
    let _ = booted.build(Builder::ALL[0], Leaves::Pages, Some(Forgets::BroadcastTlbis));
    let violation = booted.board.verdict().expect_err("no TLBI at all");
    assert_eq!(violation.rule, Rule::OutputAddress, "{violation}");
    assert_eq!(violation.va.map(|va| va & !0xffff), Some(FIXMAP.0), "{violation}");
}
