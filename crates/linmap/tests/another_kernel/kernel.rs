//! The other kernel on the board: how it starts, parks its CPUs and reaches its tables.

use std::ops::ControlFlow;

use linmap::{Builder, Editor, LinearMap, LinearMapConfig, MappingLists, ParkError, Pause};
use linmap_board::{Board, BoardCpu, BoardFrames, BoardWindow, EarlyTables};
use linmap_model::event::Use;
use linmap_model::{Config, Event, Space};
use linmap_table::cpu::{Cpu, Dsb, Tlbi};
use linmap_table::{
    DetachedTree, Fixmap, FrameSource, Leaves, Mapping, Mappings, PhysicalMemory, ReachableFrames, Reserved,
};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::registers::{tcr, ttbr};
use linmap_vmsa::{Attributes, Pa, PaRange, Va};

use crate::layout::{CPUS, FIXMAP, G, IMAGE, RAM, SLOTS, UART, UART_SLOT};
use crate::page_allocator::PageAllocator;
use crate::rendezvous::Rendezvous;

/// The kernel, once it runs on its linear map.
pub struct Kernel<'r> {
    board: Board,
    cpu: BoardCpu,
    pages: PageAllocator,
    rendezvous: &'r Rendezvous,
    /// VA − PA of the linear map.
    linear: u64,
    live: u64,
    nothing: u64,
    /// What CPUs run on while they are parked: TTBR0 with memory at VA = PA.
    identity: u64,
}

// SAFETY: tables lie in RAM outside of the image's data, which the linear map and the identity map
// have writable. `park` runs the edit when all CPUs have left the live root and invalidated what
// they held.
unsafe impl Editor for Kernel<'_> {
    type Window = BoardWindow;
    type ParkedWindow = BoardWindow;
    type Cpu = BoardCpu;

    fn window(&mut self) -> BoardWindow {
        self.board.window(0, Some(self.linear))
    }

    fn cpu(&mut self) -> &mut BoardCpu {
        &mut self.cpu
    }

    fn frames(&mut self) -> impl FrameSource {
        BoardFrames::new(&self.board, &mut self.pages)
    }

    fn memory(&mut self) -> impl PhysicalMemory {
        &mut self.pages
    }

    fn park<R>(
        &mut self,
        edit: impl FnOnce(&mut BoardWindow, &mut BoardCpu) -> R,
    ) -> Result<(R, Pause), ParkError> {
        if !self.rendezvous.park(CPUS - 1) {
            self.rendezvous.release();
            return Err(ParkError { cpu: 1, ticks: 0 });
        }
        (0..CPUS).for_each(|cpu| self.leave(cpu));
        let result = edit(&mut self.board.window(0, Some(0)), &mut self.cpu);
        (0..CPUS).for_each(|cpu| self.come_back(cpu));
        self.rendezvous.release();
        Ok((result, Pause { ticks: 1 }))
    }
}

impl<'r> Kernel<'r> {
    pub fn boot(builder: Builder, bbm: BbmLevel, rendezvous: &'r Rendezvous) -> (Self, LinearMap) {
        let ram = vec![(RAM.start.0, RAM.len())];
        let config = Config {
            cpus: CPUS,
            bbm: bbm.number(),
            granule: 0x1000,
            va_bits: 48,
            pa_bits: 48,
            ram,
            leniency: linmap_model::Leniency::Strict,
        };
        let board = Board::new(&config, false).expect("a machine that can be");
        let mut cpu = board.cpu(0);
        let mut pages = PageAllocator::new(RAM);
        pages.note(IMAGE.range(), true);

        let high = [
            mapping(IMAGE.va, IMAGE.read_only, Attributes::KERNEL_TEXT),
            mapping(Va(IMAGE.va.0 + IMAGE.read_only.len()), IMAGE.data, Attributes::KERNEL_DATA),
        ];
        let high = Mappings::new(G, &high).expect("whole pages");
        let early = EarlyTables::write(&board, &high, FIXMAP, &mut pages).expect("frames enough");
        let data = PaRange::new(IMAGE.data.start, RAM.end);
        let low = [
            mapping(Va(IMAGE.read_only.start.0), IMAGE.read_only, Attributes::KERNEL_TEXT),
            mapping(Va(data.start.0), data, Attributes::KERNEL_DATA),
        ];
        let low = Mappings::new(G, &low).expect("whole pages");
        let mut off = board.window(0, None);
        // SAFETY: a window of the board reaches all of its memory.
        let identity = DetachedTree::build(&low, &mut unsafe { ReachableFrames::new(&mut off, &mut pages) });
        cpu.dsb(Dsb::Ish);
        early.turn_on(&board, 0);
        // SAFETY: the fixmap's live table, which is empty.
        let mut fixmap = unsafe { Fixmap::new(G, board.pointer(early.fixmap), FIXMAP) };
        // SAFETY: the registers of a device, by a type for devices.
        let _ = unsafe { fixmap.map(&mut cpu, UART_SLOT, UART, Attributes::DEVICE) };

        let root = |table| ttbr(G, table, 0).expect("a frame");
        let nothing = root(early.empty);
        let reserved = Reserved { ttbr0: nothing, tcr: tcr(G, G, true).expect("one geometry") };
        let usual = LinearMapConfig::new(G, IMAGE, SLOTS, early.root, reserved);
        let config = LinearMapConfig { builder, bbm, ..usual };
        let mut lists = MappingLists::<8>::new();
        let prepared = config.prepare([RAM], &mut lists).expect("memory in reach");
        // SAFETY: CPU 0 alone runs, on these tables; all of RAM is memory.
        let built = unsafe { prepared.build(&mut fixmap, &mut cpu, &mut pages) };
        let map = built.expect("frames and slots enough").into_map();

        let kernel = Self {
            cpu,
            pages,
            rendezvous,
            linear: map.layout().offset(),
            live: root(early.root),
            nothing,
            identity: root(identity.expect("frames enough").root()),
            board,
        };
        (1..CPUS).for_each(|cpu| early.turn_on(&kernel.board, cpu));
        (0..CPUS).for_each(|cpu| kernel.use_image(cpu, IMAGE.va.0, true));
        (kernel, map)
    }

    /// Says that `cpu` runs in the image at `va`, with its stack there, or does so no longer.
    fn use_image(&self, cpu: usize, va: u64, uses: bool) {
        let text = IMAGE.read_only.len();
        for (va, len, kind) in [(va, text, Use::Execute), (va + text, IMAGE.data.len(), Use::Write)] {
            self.board.event(match uses {
                true => Event::Uses { cpu, va, len, kind },
                false => Event::Unuses { cpu, va, len, kind },
            });
        }
    }

    /// From the live root to the identity map.
    fn leave(&self, number: usize) {
        let mut cpu = self.board.cpu(number);
        // SAFETY: the CPU is the model's, as below.
        unsafe { cpu.write_ttbr0(self.identity) };
        cpu.isb();
        self.use_image(number, IMAGE.read_only.start.0, true);
        self.use_image(number, IMAGE.va.0, false);
        // SAFETY: as above.
        unsafe { cpu.write_ttbr1(self.nothing) };
        cpu.isb();
        forget(&mut cpu);
    }

    /// From the identity map to the live root.
    fn come_back(&self, number: usize) {
        let mut cpu = self.board.cpu(number);
        // SAFETY: the CPU is the model's, as below.
        unsafe { cpu.write_ttbr1(self.live) };
        cpu.isb();
        self.use_image(number, IMAGE.va.0, true);
        self.use_image(number, IMAGE.read_only.start.0, false);
        // SAFETY: as above.
        unsafe { cpu.write_ttbr0(self.nothing) };
        cpu.isb();
        forget(&mut cpu);
    }

    /// Every CPU has to read `range` in the linear map, and to write to it or to fault.
    pub fn expect(&self, range: PaRange, is_writable: bool) {
        for (cpu, pa) in (0..CPUS).flat_map(|cpu| [range.start.0, range.end.0 - 8].map(|pa| (cpu, pa))) {
            let va = pa.wrapping_add(self.linear);
            self.board.event(Event::Access { cpu, va, kind: Use::Read, pa });
            self.board.event(match is_writable {
                true => Event::Access { cpu, va, kind: Use::Write, pa },
                false => Event::Faults { cpu, va, kind: Use::Write },
            });
        }
        self.board.verdict().expect("a legal edit, and the translations that were asked for");
    }

    /// Every access of a CPU to `range` in the linear map has to fault.
    pub fn expect_nothing(&self, range: PaRange) {
        for (cpu, pa) in (0..CPUS).flat_map(|cpu| [range.start.0, range.end.0 - 8].map(|pa| (cpu, pa))) {
            let va = pa.wrapping_add(self.linear);
            for kind in [Use::Read, Use::Write] {
                self.board.event(Event::Faults { cpu, va, kind });
            }
        }
        self.board.verdict().expect("no translation");
    }

    /// log2 of the bytes of each leaf of the linear map in `range`.
    pub fn leaf_sizes(&self, range: PaRange) -> Vec<u32> {
        let mut sizes = Vec::new();
        self.board.with_machine(|machine| {
            let _: ControlFlow<()> = machine.leaves(0, Space::High, |va, pa, size, _, _| {
                if va == pa.wrapping_add(self.linear) && range.contains(Pa(pa)) {
                    sizes.push(size);
                }
                ControlFlow::Continue(())
            });
        });
        sizes
    }
}

impl Drop for Kernel<'_> {
    fn drop(&mut self) {
        self.rendezvous.turn_off();
    }
}

fn mapping(va: Va, range: PaRange, attributes: Attributes) -> Mapping {
    Mapping { va, pa: range.start, len: range.len(), attributes, leaves: Leaves::Blocks }
}

/// TLBI VMALLE1, DSB NSH, ISB.
fn forget(cpu: &mut BoardCpu) {
    cpu.tlbi(Tlbi::AllLocal);
    cpu.dsb(Dsb::Nsh);
    cpu.isb();
}
