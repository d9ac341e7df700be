//! Processes: their memory, their faults, and the CPUs that run them.

use linmap_asid::{CpuIds, IdAllocator, Maintenance, SpaceId};
use linmap_cpu::El1And0;
use linmap_live::{AddressSpace, Change, SpaceError, Step, Tools};
use linmap_table::cpu::{Cpu as _, Dsb, Tlbi};
use linmap_table::{Leaves, Mapping, Mappings, OffsetWindow};
use linmap_vmsa::id::BbmLevel;
use linmap_vmsa::registers::ttbr;
use linmap_vmsa::{Access as Allowed, Attributes, Execute, Pa, Va, VaRange};

use crate::frames::Frames;
use crate::lock::Lock;
use crate::machine::{GEOMETRY, OFFSET};
use crate::user::{self, Access, Do, Fault, Left, User};

/// As many CPUs as there are.
pub const CPUS: usize = 4;
/// Where a process has its data: pages that it may write, or could if they were not shared.
pub const DATA: Va = Va(0x40_0000);
/// How long that is.
pub const DATA_LEN: u64 = PAGES as u64 * PAGE;
/// How many pages that are.
pub const PAGES: usize = 8;
/// A page.
pub const PAGE: u64 = 4096;

/// The pages of data.
pub fn data() -> impl Iterator<Item = Va> {
    (DATA.0..DATA.0 + DATA_LEN).step_by(PAGE as usize).map(Va)
}

/// Three bits, of which 0 is that of the empty root: seven processes, then a rollover.
static ASIDS: IdAllocator<CPUS> = match IdAllocator::new(3, &[0]) {
    Ok(asids) => asids,
    Err(_) => panic!("enough for the CPUs"),
};

/// The root of no process.
#[repr(align(4096))]
struct Empty([u64; 512]);
static EMPTY: Empty = Empty([0; 512]);

/// How often all ASIDs were in use.
pub fn rollovers() -> u64 {
    ASIDS.generation() - 1
}

/// A process.
pub struct Process {
    root: Pa,
    asid: SpaceId,
    space: Lock<AddressSpace>,
}

/// What changes of tables work with.
pub type With<'a> = Tools<'a, OffsetWindow, Frames, El1And0>;

impl Process {
    /// A process with code, and with data that is all zero.
    pub fn new() -> Result<Self, SpaceError> {
        let process = Self::without_data()?;
        for va in data() {
            process.map(va)?;
        }
        Ok(process)
    }

    fn without_data() -> Result<Self, SpaceError> {
        let root = Frames::take()?;
        // SAFETY: an empty root. No BBM level is less than 0. The kernel is in the upper half, and
        // `resolve` retries what faults while another CPU changes a page.
        let space = unsafe { AddressSpace::user(GEOMETRY, root, 0, BbmLevel::L0) };
        let process = Self { root, asid: SpaceId::new(), space: Lock::new(space) };
        process.map_frame(user::CODE, Pa(user::code() - OFFSET), Attributes::USER_TEXT)?;
        Ok(process)
    }

    /// Maps a frame of zeros at `va`.
    pub fn map(&self, va: Va) -> Result<(), SpaceError> {
        self.map_frame(va, Frames::take()?, Attributes::USER_DATA)
    }

    fn map_frame(&self, va: Va, pa: Pa, attributes: Attributes) -> Result<(), SpaceError> {
        let list = [Mapping { va, pa, len: PAGE, attributes, leaves: Leaves::Pages }];
        let Ok(mappings) = Mappings::new(GEOMETRY, &list) else { panic!("{list:?} is no page") };
        // SAFETY: a frame of the process, or the code. Where nothing was mapped nothing is
        // invalidated, so it does not matter which ASID the process has.
        self.space.with(|space| with_tools(|tools| unsafe { space.map(&mappings, tools) }))?;
        Ok(())
    }

    /// Unmaps the page at `va`. When this returns no CPU reaches its frame by it. Returns the
    /// frame, which may have another owner by then.
    pub fn unmap(&self, va: Va, cpu: &mut Cpu) -> Result<Option<Pa>, SpaceError> {
        self.edit(cpu, |space, tools| {
            let Some(page) = space.translate(va, tools.window) else { return Ok(None) };
            space.unmap(VaRange::new(va, PAGE), tools)?;
            Frames::release(page.pa);
            Ok(Some(page.pa))
        })
    }

    /// Returns a process with the same data. Neither writes a page before it has its own.
    pub fn fork(&self, cpu: &mut Cpu) -> Result<Self, SpaceError> {
        let child = Self::without_data()?;
        self.edit(cpu, |space, tools| {
            // SAFETY: nothing is allowed that was not.
            unsafe { space.protect(VaRange::new(DATA, DATA_LEN), READ_ONLY, tools) }?;
            for va in data() {
                let Some(page) = space.translate(va, tools.window) else { continue };
                Frames::share(page.pa);
                child.map_frame(va, page.pa, page.attributes)?;
            }
            Ok(child)
        })
    }

    /// Ends the process, which no other CPU runs.
    pub fn end(self, cpu: &mut Cpu) -> Result<(), SpaceError> {
        cpu.rest();
        let mut space = self.space.into_inner();
        // SAFETY: the ASID that the process had last, or any if no CPU has run it.
        unsafe { space.set_asid(self.asid.id().unwrap_or(0)) };
        with_tools(|tools| {
            // After one invalidation, that of the ASID.
            space.clear(tools, |leaf| {
                if leaf.va != user::CODE {
                    Frames::release(leaf.pa);
                }
            })
        })?;
        Frames::release(self.root);
        Ok(())
    }

    /// The frame at `va`.
    pub fn frame(&self, va: Va) -> Option<Pa> {
        let page = self.space.with(|space| with_tools(|tools| space.translate(va, tools.window)))?;
        Some(page.pa)
    }

    /// Edits the tables on a CPU that runs the process: its ASID stays what it is then.
    pub fn edit<R>(
        &self,
        cpu: &mut Cpu,
        edit: impl FnOnce(&mut AddressSpace, &mut With<'_>) -> Result<R, SpaceError>,
    ) -> Result<R, SpaceError> {
        let asid = cpu.switch_to(self);
        self.space.with(|space| {
            // SAFETY: no leaf is global. By an earlier ASID no CPU uses anything before it
            // invalidates everything.
            unsafe { space.set_asid(asid) };
            with_tools(|tools| edit(space, tools))
        })
    }

    /// Makes right what a fault was about. `false`: the process may not do that.
    fn resolve(&self, fault: Fault, cpu: &mut Cpu) -> Result<bool, SpaceError> {
        let va = Va(fault.at.0 & !(PAGE - 1));
        self.edit(cpu, |space, tools| {
            let Some(page) = space.translate(va, tools.window) else { return Ok(false) };
            let is_allowed = match fault.access {
                Access::Read => true,
                Access::Write => page.attributes.access.writable(),
                Access::Execute => page.attributes.execute == Execute::User,
            };
            if is_allowed {
                // Another CPU has changed the page since, or was about to.
                return Ok(true);
            }
            if fault.access != Access::Write || !data().any(|page| page == va) {
                return Ok(false);
            }
            let range = VaRange::new(va, PAGE);
            if Frames::holders(page.pa) == 1 {
                // SAFETY: the process holds the frame alone.
                unsafe { space.protect(range, READ_WRITE, tools) }?;
            } else {
                let own = Frames::copy(page.pa)?;
                // SAFETY: the same.
                unsafe { space.remap(range, own, READ_WRITE, tools) }?;
                Frames::release(page.pa);
            }
            Ok(true)
        })
    }
}

/// What a fork does to pages of data.
pub const READ_ONLY: Change = Change { access: Some(Allowed::UserReadOnly), execute: None, valid: None };
/// What a write does to a page of its own.
pub const READ_WRITE: Change = Change { access: Some(Allowed::UserReadWrite), execute: None, valid: None };

fn with_tools<R>(work: impl FnOnce(&mut With<'_>) -> R) -> R {
    // SAFETY: the kernel maps all memory there.
    let mut window = unsafe { OffsetWindow::new(OFFSET) };
    let mut steps = [Step::Isb; 64];
    work(&mut Tools { window: &mut window, frames: &mut Frames, cpu: &mut El1And0, steps: &mut steps })
}

/// A CPU that runs processes.
pub struct Cpu {
    /// Its number.
    pub number: usize,
    ids: CpuIds<'static, CPUS>,
}

impl Cpu {
    /// This CPU, which runs no process.
    pub fn new(number: usize) -> Self {
        let Ok(ids) = CpuIds::new(&ASIDS, number) else { panic!("CPU {number} twice") };
        let mut cpu = Self { number, ids };
        cpu.rest();
        maintain(Maintenance::Invalidation);
        cpu
    }

    /// Leaves the process.
    pub fn rest(&mut self) {
        write_ttbr0(Pa(EMPTY.0.as_ptr() as u64 - OFFSET), 0);
        self.ids.leave();
    }

    /// Goes to `process`.
    fn switch_to(&mut self, process: &Process) -> u16 {
        let asid = self.ids.switch_to(&process.asid, maintain);
        write_ttbr0(process.root, asid);
        asid
    }

    /// Lets `process` do something. Returns what it calls with, or the fault that ends it.
    pub fn run(&mut self, process: &Process, what: Do, at: Va) -> Result<u64, Fault> {
        self.switch_to(process);
        let mut user = User::new(what, at);
        loop {
            match user.run() {
                Left::Call(argument) => return Ok(argument),
                Left::Fault(fault) => match process.resolve(fault, self) {
                    Ok(true) => {}
                    Ok(false) => return Err(fault),
                    Err(error) => panic!("{error}"),
                },
            }
        }
    }
}

fn maintain(maintenance: Maintenance) {
    match maintenance {
        Maintenance::Barrier => El1And0.dsb(Dsb::Ish),
        Maintenance::Invalidation => {
            El1And0.tlbi(Tlbi::AllLocal);
            El1And0.dsb(Dsb::Ish);
            El1And0.isb();
        }
    }
}

fn write_ttbr0(root: Pa, asid: u16) {
    let Ok(value) = ttbr(GEOMETRY, root, asid) else { panic!("{root} is no frame") };
    // SAFETY: a root of a process, or the empty one. The kernel uses the upper half alone.
    unsafe { El1And0.write_ttbr0(value) };
    El1And0.isb();
}
