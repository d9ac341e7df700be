//! Processes: their memory, their faults, and the CPUs that run them.

use core::array;

use linmap_asid::{CpuIds, IdAllocator, Maintenance, SpaceId};
use linmap_cpu::El1And0;
use linmap_live::PlanError;
use linmap_table::cpu::{Cpu as _, Dsb, Tlbi};
use linmap_vmsa::registers::ttbr;
use linmap_vmsa::{Access as Allowed, Attributes, Pa, Va, VaRange};

use crate::frames::Frames;
use crate::lock::Lock;
use crate::machine::{GEOMETRY, OFFSET};
use crate::space::Space;
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
#[allow(dead_code, reason = "hardware reads it")]
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
    space: Lock<Space>,
}

impl Process {
    /// A process with code, and with data that is all zero.
    pub fn new() -> Result<Self, PlanError> {
        let process = Self::without_data()?;
        for va in data() {
            process.map(va)?;
        }
        Ok(process)
    }

    fn without_data() -> Result<Self, PlanError> {
        let mut space = Space::new()?;
        space.map(user::CODE, Pa(user::code() - OFFSET), Attributes::USER_TEXT)?;
        Ok(Self { root: space.root(), asid: SpaceId::new(), space: Lock::new(space) })
    }

    /// Maps a frame of zeros at `va`.
    pub fn map(&self, va: Va) -> Result<(), PlanError> {
        let frame = Frames::take()?;
        self.space.with(|space| space.map(va, frame, Attributes::USER_DATA))
    }

    /// Unmaps the page at `va`. When this returns no CPU reaches its frame by it. Returns the
    /// frame, which may have another owner by then.
    pub fn unmap(&self, va: Va, cpu: &mut Cpu) -> Result<Option<Pa>, PlanError> {
        self.edit(cpu, |space| {
            let Some((frame, _)) = space.translate(va) else { return Ok(None) };
            space.unmap(VaRange::new(va, PAGE))?;
            Frames::release(frame);
            Ok(Some(frame))
        })
    }

    /// Returns a process with the same data. Neither writes a page before it has its own.
    pub fn fork(&self, cpu: &mut Cpu) -> Result<Self, PlanError> {
        let child = Self::without_data()?;
        self.edit(cpu, |space| {
            space.protect(VaRange::new(DATA, DATA_LEN), Allowed::UserReadOnly)?;
            for va in data() {
                let Some((frame, attributes)) = space.translate(va) else { continue };
                Frames::share(frame);
                child.space.with(|child| child.map(va, frame, attributes))?;
            }
            Ok(child)
        })
    }

    /// Ends the process, which no other CPU runs.
    pub fn end(self, cpu: &mut Cpu) -> Result<(), PlanError> {
        cpu.rest();
        let mut space = self.space.into_inner();
        if let Some(asid) = self.asid.id() {
            space.set_asid(asid);
        }
        let frames: [Option<Pa>; PAGES] = array::from_fn(|nth| {
            let (frame, _) = space.translate(Va(DATA.0 + PAGE * nth as u64))?;
            Some(frame)
        });
        space.unmap(VaRange::new(Va(0), 1 << GEOMETRY.va_bits()))?;
        frames.into_iter().flatten().for_each(Frames::release);
        Frames::release(self.root);
        Ok(())
    }

    /// The frame at `va`.
    pub fn frame(&self, va: Va) -> Option<Pa> {
        self.space.with(|space| space.translate(va)).map(|(frame, _)| frame)
    }

    /// Edits the tables on a CPU that runs the process: its ASID stays what it is then.
    fn edit<R>(
        &self,
        cpu: &mut Cpu,
        edit: impl FnOnce(&mut Space) -> Result<R, PlanError>,
    ) -> Result<R, PlanError> {
        let asid = cpu.switch_to(self);
        self.space.with(|space| {
            space.set_asid(asid);
            edit(space)
        })
    }

    /// Makes right what a fault was about. `false`: the process may not do that.
    fn resolve(&self, fault: Fault, cpu: &mut Cpu) -> Result<bool, PlanError> {
        self.edit(cpu, |space| {
            let Some((frame, attributes)) = space.translate(fault.at) else { return Ok(false) };
            let allowed = match fault.access {
                Access::Read => attributes.access != Allowed::KernelReadOnly,
                Access::Write => attributes.access.writable(),
                Access::Execute => attributes.execute == linmap_vmsa::Execute::User,
            };
            if allowed {
                // Another CPU has changed the page since, or was about to.
                return Ok(true);
            }
            let va = Va(fault.at.0 & !(PAGE - 1));
            if fault.access != Access::Write || !data().any(|page| page == va) {
                return Ok(false);
            }
            let frame = Pa(frame.0 & !(PAGE - 1));
            if Frames::holders(frame) == 1 {
                space.protect(VaRange::new(va, PAGE), Allowed::UserReadWrite)?;
            } else {
                let own = Frames::copy(frame)?;
                space.remap(va, own, Attributes::USER_DATA)?;
                Frames::release(frame);
            }
            Ok(true)
        })
    }
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
        write_ttbr0(Pa(&raw const EMPTY as u64 - OFFSET), 0);
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
