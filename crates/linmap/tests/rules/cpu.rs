//! A CPU that stores, and reads what is in TTBR0.

use std::ptr::NonNull;

use linmap_table::OffsetWindow;
use linmap_table::cpu::{Cpu, Dsb, Tlbi, exchange_entry};
use linmap_vmsa::{Decoded, Descriptor, Geometry, Level, Pa, Va};

use super::expected::Leaf;
use super::frames::Frames;
use super::read::read;

/// A CPU that stores, and reaches the slots of its fixmap. It reads the map in TTBR0 when the
/// builder begins to use it.
pub struct HostCpu {
    geometry: Geometry,
    frames: Frames,
    fixmap: NonNull<u64>,
    base: Va,
    ttbr0: u64,
    tcr: u64,
    /// The map that was in TTBR0.
    pub one_to_one: Option<Result<OneToOne, String>>,
}

/// A map in TTBR0.
pub struct OneToOne {
    pub geometry: Geometry,
    pub leaves: Vec<Leaf>,
}

impl HostCpu {
    /// A CPU whose fixmap is the table `fixmap`, mapped at `base`. `geometry` is the kernel's half.
    pub fn new(geometry: Geometry, frames: Frames, fixmap: Pa, base: Va) -> Self {
        let fixmap = frames.pointer(fixmap);
        Self { geometry, frames, fixmap, base, ttbr0: 0, tcr: 0, one_to_one: None }
    }

    /// Reads the map in TTBR0 as TTBR0 and T0SZ say (Arm ARM D24.2.178 and D24.2.187).
    fn read_ttbr0(&self) -> Result<OneToOne, String> {
        let va_bits = 64 - (self.tcr & 0x3f) as u8;
        let pa_bits = if self.geometry.lpa2() { 52 } else { self.geometry.pa_bits() };
        let geometry = Geometry::new(self.geometry.granule(), va_bits, pa_bits)
            .map_err(|error| format!("T0SZ: {error}"))?;
        let low = self.ttbr0 & ((1 << 48) - 1);
        // BADDR[5:2] are PA[51:48] where addresses have 52 bits.
        let root = if pa_bits == 52 { low & !0x3f | (low >> 2 & 0xf) << 48 } else { low & !1 };
        let root = Pa(root);
        Ok(OneToOne { geometry, leaves: read(self.frames, geometry, root, 0)? })
    }
}

// SAFETY: a store is one, a slot leads to the frame that its entry names, and nothing walks.
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

    unsafe fn reach(&mut self, va: Va) -> NonNull<u64> {
        let slot = (va.0 - self.base.0) >> self.geometry.shift(Level::L3);
        // SAFETY: the address is that of a slot.
        let pte = Descriptor(unsafe { self.fixmap.add(slot as usize).read() });
        match pte.decode(self.geometry, Level::L3) {
            Decoded::Leaf(frame) => self.frames.pointer(frame),
            other => panic!("slot {slot} has {other:?}"),
        }
    }

    unsafe fn frames_at(&mut self, offset: u64) -> OffsetWindow {
        if offset == 0 {
            self.one_to_one = Some(self.read_ttbr0());
        }
        self.frames.window()
    }

    fn dsb(&mut self, _dsb: Dsb) {}
    fn isb(&mut self) {}
    fn tlbi(&mut self, _tlbi: Tlbi) {}
    unsafe fn clean_and_invalidate(&mut self, _: Va, _: u64) {}
    unsafe fn write_ttbr0(&mut self, value: u64) {
        self.ttbr0 = value;
    }

    unsafe fn write_ttbr1(&mut self, _value: u64) {}

    unsafe fn write_tcr(&mut self, value: u64) {
        self.tcr = value;
    }
}
