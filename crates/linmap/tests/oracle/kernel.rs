//! A kernel whose tables are host memory: its CPU stores, its other CPUs park or do not.

use std::ptr::NonNull;

use linmap::{Editor, MemblockRecord, ParkError, Pause};
use linmap_memblock::Memblock;
use linmap_table::cpu::{Cpu, Dsb, Tlbi, exchange_entry};
use linmap_table::{FrameSource, OffsetWindow, PhysicalMemory};
use linmap_vmsa::{Descriptor, Va};

use crate::arena::Arena;

/// Ranges that memblock has room for.
pub const REGIONS: usize = 64;

/// A CPU without walkers: it stores, and nothing else has an effect.
pub struct HostCpu;

// SAFETY: a store is one to memory. Nothing walks the tables, so the rest has no effect.
unsafe impl Cpu for HostCpu {
    type Frames = OffsetWindow;

    unsafe fn store(&mut self, entry: NonNull<u64>, descriptor: Descriptor) {
        // SAFETY: the caller's.
        unsafe { entry.write(descriptor.0) };
    }
    unsafe fn compare_exchange(
        &mut self,
        entry: NonNull<u64>,
        expected: Descriptor,
        new: Descriptor,
    ) -> Result<(), Descriptor> {
        // SAFETY: the caller's.
        unsafe { exchange_entry(entry, expected, new) }
    }
    unsafe fn reach(&mut self, _va: Va) -> NonNull<u64> {
        unreachable!("changes reach tables by their window");
    }
    unsafe fn frames_at(&mut self, _offset: u64) -> OffsetWindow {
        unreachable!("changes reach tables by their window");
    }
    fn dsb(&mut self, _dsb: Dsb) {}
    fn isb(&mut self) {}
    fn tlbi(&mut self, _tlbi: Tlbi) {}
    unsafe fn clean_and_invalidate(&mut self, _: Va, _: u64) {}
    unsafe fn write_ttbr0(&mut self, _value: u64) {}
    unsafe fn write_ttbr1(&mut self, _value: u64) {}
    unsafe fn write_tcr(&mut self, _value: u64) {}
}

pub struct Kernel {
    pub arena: Arena,
    pub memblock: Box<Memblock<REGIONS>>,
    pub cpu: HostCpu,
    /// Whether a CPU refuses to park.
    pub stubborn: bool,
}

// SAFETY: the window reaches all frames of the arena, where all tables are, and nothing walks them.
unsafe impl Editor for Kernel {
    type Window = OffsetWindow;
    type ParkedWindow = OffsetWindow;
    type Cpu = HostCpu;

    fn window(&mut self) -> OffsetWindow {
        self.arena.window()
    }

    fn cpu(&mut self) -> &mut HostCpu {
        &mut self.cpu
    }

    fn frames(&mut self) -> impl FrameSource {
        &mut self.arena
    }

    fn memory(&mut self) -> impl PhysicalMemory {
        MemblockRecord(&mut self.memblock)
    }

    fn park<R>(
        &mut self,
        edit: impl FnOnce(&mut OffsetWindow, &mut HostCpu) -> R,
    ) -> Result<(R, Pause), ParkError> {
        if self.stubborn {
            return Err(ParkError { cpu: 1, ticks: 1 });
        }
        let result = edit(&mut self.arena.window(), &mut self.cpu);
        Ok((result, Pause { ticks: 0 }))
    }
}
