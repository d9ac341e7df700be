//! Stage 2: where the guest's addresses lead, and which pages it writes to. One lock for the editor
//! and for the guest CPUs that fault.

use core::arch::asm;

use linmap_cpu::Stage2 as Cpu;
use linmap_live::{AddressSpace, Change, EditCounts, SpaceError, Step, Tools};
use linmap_table::{BumpFrames, FirstMap, OffsetWindow};
use linmap_vmsa::id::{Isar0, Midr, Mmfr0, Mmfr1, Mmfr2};
use linmap_vmsa::{
    Access, Attributes, Geometry, Granule, HardwareUpdates, Level, Pa, PaRange, PaReach, Stage2Registers, Va,
    VaRange, VmidSize,
};

use crate::cpu::{self, mrs, msr};
use crate::frames::Pool;
use crate::lock::Lock;
use crate::machine::{DEVICES, GUEST_RAM, end, linked};
use crate::pages::{self, PAGE, PageSet};

/// Bits of the guest's addresses: PCIe's memory ends at 1 TiB.
const ADDRESS_BITS: u8 = 40;
/// The guest's VMID.
const VMID: u16 = 1;

/// The guest's stage 2.
pub static STAGE2: Lock<Stage2> = Lock::new(Stage2 {
    map: None,
    steps: [Step::Isb; 512],
    dirty: PageSet::EMPTY,
    counts: Counts { logged: 0, marked: 0, retried: 0, edits: 0 },
});

/// A stage 2 that logs writes to RAM.
pub struct Stage2 {
    map: Option<Map>,
    steps: [Step; 512],
    /// The pages whose writes faulted since they were write-protected.
    dirty: PageSet,
    counts: Counts,
}

struct Map {
    registers: Stage2Registers,
    space: AddressSpace,
    frames: Pool,
    /// What the CPUs update in leaves. If they mark dirty pages, no write faults.
    updates: HardwareUpdates,
}

/// What happened so far.
#[derive(Clone, Copy)]
pub struct Counts {
    /// Writes that found their page write-protected.
    pub logged: u64,
    /// Pages that hardware had marked dirty when they were collected.
    pub marked: u64,
    /// Accesses that met an entry in its break.
    pub retried: u64,
    /// Edits of the tree.
    pub edits: u64,
}

impl Stage2 {
    /// Builds the map of the machine's devices and of the guest's RAM, each where it is.
    pub fn build(&mut self) -> Result<(), &'static str> {
        let (mmfr0, mmfr1) = (Mmfr0(mrs!("id_aa64mmfr0_el1")), Mmfr1(mrs!("id_aa64mmfr1_el1")));
        let mmfr2 = Mmfr2(mrs!("id_aa64mmfr2_el1"));
        let geometry =
            Geometry::stage_2_of_cpu(Granule::K4, ADDRESS_BITS, PaReach::Bits48, mmfr0, mmfr1, mmfr2)
                .map_err(|_| "the CPU has too few bits of address")?;
        let mut map = FirstMap::<4>::new(geometry);
        let ranges = DEVICES.map(|range| (range, Attributes::GUEST_DEVICE));
        for (range, attributes) in ranges.into_iter().chain([(GUEST_RAM, Attributes::GUEST_RAM)]) {
            map.identity(range, attributes).map_err(|_| "the guest's map is too long")?;
        }
        // SAFETY: the linker script sets the memory aside, which is mapped where it is.
        let (tree, frames) = unsafe {
            let mut frames = Pool::new(BumpFrames::new(linked::guest_tables(), geometry));
            (map.build(0, &mut frames).map_err(|_| "no memory for stage 2")?, frames)
        };
        let registers = tree.stage_2_registers(VMID, VmidSize::of_cpu(mmfr1));
        let registers = registers.map_err(|_| "stage 2 is out of reach")?;
        let midr = Midr(mrs!("midr_el1"));
        let bbm = midr.bbm(mmfr2.bbm());
        let updates = HardwareUpdates::of_cpu(mmfr1, midr);
        // SAFETY: all CPUs of the machine are alike. Only this value changes the tree from now on,
        // through an identity map of EL2, write-back and inner shareable, and with these frames.
        // VTCR_EL2 has HA and HD as `updates` says. Every CPU holds the VMID before it changes
        // something. A guest CPU that faults waits for the lock of this value and tries again.
        let space = unsafe {
            let space = AddressSpace::guest(geometry, tree.root(), bbm).with_hardware_updates(updates);
            let has_ranges = Isar0(mrs!("id_aa64isar0_el1")).tlbi_range();
            if has_ranges { space.with_range_invalidation() } else { space }
        };
        let vtcr = registers.vtcr | updates.tcr(geometry.regime());
        let registers = Stage2Registers { vtcr, ..registers };
        self.map = Some(Map { registers, space, frames, updates });
        Ok(())
    }

    /// Has this CPU use it for EL1 and EL0, and for its invalidations.
    ///
    /// # Safety
    /// EL1 and EL0 may use what it maps.
    pub unsafe fn enable(&self) {
        let Some(Map { registers, .. }) = &self.map else { end(Some(format_args!("no stage 2"))) };
        // SAFETY: the caller's. EL2 itself is not concerned.
        unsafe {
            msr!("vtcr_el2", registers.vtcr);
            cpu::synchronize();
            msr!("vttbr_el2", registers.vttbr);
            msr!("hcr_el2", mrs!("hcr_el2") | registers.hcr);
            asm!("isb", "tlbi vmalls12e1", "dsb nsh", "isb", options(nostack, preserves_flags));
        }
    }

    /// Whether hardware marks dirty pages.
    fn is_marked(&self) -> bool {
        self.map.as_ref().is_some_and(|map| map.updates == HardwareUpdates::AccessedAndDirty)
    }

    /// Has the next write to each page of RAM logged: RAM becomes clean, or read-only for the
    /// guest.
    pub fn write_protect(&mut self, range: PaRange) {
        let access = if self.is_marked() { Access::GuestReadWriteClean } else { Access::GuestReadOnly };
        self.protect(range, access);
    }

    /// Splits RAM to pages.
    pub fn split(&mut self, range: PaRange) {
        self.edit(|space, tools| space.split(addresses(range), Level::L3, tools));
    }

    /// Adds the dirty pages of a range to `dirty`, and has their next writes logged again.
    pub fn collect(&mut self, range: PaRange, dirty: &mut PageSet) {
        if self.is_marked() {
            self.collect_marked(range, dirty);
        } else {
            self.collect_logged(range, dirty);
        }
    }

    /// Moves the pages whose writes faulted to `dirty`, and write-protects them again first: no
    /// write is lost in between.
    fn collect_logged(&mut self, range: PaRange, dirty: &mut PageSet) {
        if self.dirty.count(range) > 0 {
            self.write_protect(range);
            dirty.take(range, &mut self.dirty);
        }
    }

    /// Makes pages clean, and adds those to `dirty` that hardware has marked since.
    fn collect_marked(&mut self, range: PaRange, dirty: &mut PageSet) {
        let change = Change { access: Some(Access::GuestReadWriteClean), ..Change::default() };
        let mut marked = 0;
        let written = |written: VaRange| {
            for page in (written.start.0..written.start.0 + written.len).step_by(PAGE as usize) {
                dirty.insert(pages::number(Pa(page)));
                marked += 1;
            }
        };
        // SAFETY: the guest may use its RAM.
        self.edit(|space, tools| unsafe {
            space.protect_reporting(addresses(range), change, tools, written)
        });
        self.counts.marked += marked;
    }

    /// Makes RAM writable and its leaves as large as they were. What was dirty is forgotten.
    pub fn restore(&mut self, range: PaRange) {
        self.protect(range, Access::GuestReadWrite);
        self.edit(|space, tools| space.fold(addresses(range), tools));
        self.dirty.clear(range);
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many tables there are.
    pub fn tables(&self) -> usize {
        self.map.as_ref().map_or(0, |map| map.frames.in_use())
    }

    fn protect(&mut self, range: PaRange, access: Access) {
        let change = Change { access: Some(access), ..Change::default() };
        // SAFETY: the guest may use its RAM.
        self.edit(|space, tools| unsafe { space.protect(addresses(range), change, tools) });
    }

    /// Makes one change.
    fn edit(
        &mut self,
        change: impl FnOnce(
            &mut AddressSpace,
            &mut Tools<'_, OffsetWindow, Pool, Cpu>,
        ) -> Result<EditCounts, SpaceError>,
    ) {
        let Some(Map { space, frames, .. }) = &mut self.map else { return };
        // SAFETY: tables are mapped where they are.
        let mut window = unsafe { OffsetWindow::new(0) };
        let mut tools = Tools { window: &mut window, frames, cpu: &mut Cpu, steps: &mut self.steps };
        if let Err(error) = change(space, &mut tools) {
            end(Some(format_args!("{error}")));
        }
        self.counts.edits += 1;
    }

    /// A guest access to `address` has faulted. When this returns, the guest tries again.
    fn access(&mut self, address: u64, fault: Fault) {
        let Some(Map { space, .. }) = &self.map else { return };
        // SAFETY: tables are mapped where they are.
        let leaf = space.translate(Va(address), &mut unsafe { OffsetWindow::new(0) });
        let Some(leaf) = leaf.filter(|_| address >> ADDRESS_BITS == 0) else {
            stop("reaches outside its memory", address)
        };
        match fault {
            Fault::Write if !leaf.attributes.access.writable() => {
                let page = pages::number(Pa(address));
                self.protect(pages::page(page), Access::GuestReadWrite);
                self.dirty.insert(page);
                self.counts.logged += 1;
            }
            Fault::Write => {}
            Fault::Translation => self.counts.retried += 1,
            Fault::Other => stop("is refused", address),
        }
    }
}

/// The guest's addresses of its RAM.
fn addresses(range: PaRange) -> VaRange {
    VaRange::new(Va(range.start.0), range.len())
}

fn stop(what: &str, address: u64) -> ! {
    let (cpu, from, syndrome) = (cpu::number(), mrs!("elr_el2"), mrs!("esr_el2"));
    end(Some(format_args!(
        "guest CPU {cpu} {what}: address {address:#x}, from {from:#x}, syndrome {syndrome:#x}"
    )));
}

/// Why an access faulted.
#[derive(Clone, Copy)]
enum Fault {
    /// The entry is invalid, or was.
    Translation,
    /// It writes to what is read-only, or was.
    Write,
    /// Something else.
    Other,
}

/// A guest's access faulted at stage 2, with this syndrome (Arm ARM D24.2, ESR_EL2, ISS of aborts).
pub fn fault(syndrome: u64) {
    let (is_data, is_write) = (syndrome >> 26 & 0x3f == 0x24, syndrome & 1 << 6 != 0);
    // The access is the walk of the guest's own tables (S1PTW).
    let is_walk = syndrome & 1 << 7 != 0;
    let is_permission = syndrome & 0x3c == 0xc;
    let fault = match syndrome & 0x3c {
        0x4 => Fault::Translation,
        // RAM can be read: a walk that has no permission was to set a flag in a table.
        0xc if is_walk || is_data && is_write => Fault::Write,
        _ => Fault::Other,
    };
    let far = mrs!("far_el2");
    let address = if is_permission && !is_walk {
        intermediate(far)
    } else {
        Some((mrs!("hpfar_el2") & 0xfff_ffff_fff0) << 8 | far & (PAGE - 1))
    };
    // Without an address the guest's own tables have changed: it faults for itself, or not at all.
    if let Some(address) = address {
        STAGE2.lock().access(address, fault);
    }
}

/// Translates an address by the guest's own tables: HPFAR_EL2 is unknown after a permission fault
/// (Arm ARM D24.2, HPFAR_EL2).
fn intermediate(address: u64) -> Option<u64> {
    let (guests, par): (u64, u64);
    // SAFETY: AT only writes PAR_EL1, which is the guest's and gets its value back.
    unsafe {
        asm!("mrs {guests}, par_el1", "at s1e1r, {address}", "isb", "mrs {par}, par_el1",
            "msr par_el1, {guests}", guests = out(reg) guests, par = out(reg) par,
            address = in(reg) address, options(nostack, preserves_flags));
    }
    let _ = guests;
    (par & 1 == 0).then_some(par & 0xf_ffff_ffff_f000 | address & (PAGE - 1))
}
