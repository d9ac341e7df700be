//! The crash kernel: memory that is kept for it from the boot on, and the way into it when this kernel meets its end.
//!
//! Whoever meets the end has no machine at hand and trusts little: what it needs is found by one pointer, in the crash
//! kernel's own memory, and is checked against its digest before it is entered.

use core::ptr;
use core::slice;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use arrayvec::ArrayVec;
use linmap_kexec::{CoreNotes, CpuRegisters, VmcoreInfo};
use linmap_memblock::Memblock;
use linmap_platform::{CommandLine, CrashReservation, CrashReservationError};
use linmap_relocate::{Departure, Digest, Sha256};
use linmap_table::Reserved;
use linmap_vmsa::registers::tcr_with_t0sz;
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use crate::arch::console::Quoted;
use crate::arch::cpu::{self, ThisCpu};
use crate::arch::exceptions::Frame;
use crate::arch::percpu::{self, State, wait_until};
use crate::end::fatal;
use crate::end::fatal::LAST_PATIENCE;
use crate::kexec::command::Loaded;
use crate::memory::layout::GEOMETRY;
use crate::memory::machine::REGIONS;
use crate::smp::cross_call::PATIENCE;
use crate::smp::secondary;
use crate::{report, say};

pub use crate::boot::command_line::CRASH_KERNEL as WORD;

/// Why no memory is reserved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{WORD}: {0}")]
pub struct ReserveError(#[from] CrashReservationError);

/// Memory for a crash kernel, and what waits there.
#[derive(Debug, Default)]
pub struct CrashKernel {
    /// Its memory; empty when none is reserved. Nobody else uses it.
    pub range: PaRange,
    /// What of it is free.
    pub memory: Memblock<REGIONS>,
    /// The kernel that waits.
    pub loaded: Option<Loaded>,
}

impl CrashKernel {
    /// Takes all that is in the memory for nothing.
    pub fn clear(&mut self) {
        self.memory.clear();
        // An empty memblock has room for one range, which it had before.
        let _ = self.memory.add(self.range);
    }
}

/// Reserves what the command line asks for.
///
/// # Errors
/// [`ReserveError`]; nothing is reserved.
pub fn reserve(line: CommandLine<'_>, memblock: &mut Memblock<REGIONS>) -> Result<CrashKernel, ReserveError> {
    let Some(value) = line.get(WORD) else { return Ok(CrashKernel::default()) };
    let range = value.parse::<CrashReservation>()?.reserve(memblock)?;
    let mut crash = CrashKernel { range, ..CrashKernel::default() };
    crash.clear();
    report!("crash-kernel=reserved start={} bytes={}", range.start, range.len());
    Ok(crash)
}

/// Whole pages that have to be as they were.
#[derive(Clone, Copy, Debug)]
pub struct Checked {
    /// What they are.
    pub what: &'static str,
    /// Where they are.
    pub range: PaRange,
    /// Their digest.
    pub digest: Digest,
}

/// Parts of a crash kernel, and the code and orders that enter it.
pub const MAX_CHECKED: usize = 5;

/// What there is to know when it comes to the end.
#[derive(Debug)]
pub struct Waiting {
    /// The way there.
    pub departure: Departure,
    /// What has to be as it was loaded.
    pub checked: ArrayVec<Checked, MAX_CHECKED>,
    /// Where the notes of the core file go.
    pub notes: PaRange,
    /// What they say of this kernel.
    pub info: VmcoreInfo<'static>,
    /// VA − PA of the linear map.
    pub offset: u64,
    /// Where the crash kernel is entered.
    pub entry: Pa,
    /// Its device tree.
    pub dtb: Pa,
    /// The exception level that it is entered at.
    pub el: u8,
}

/// A page with what there is to know, in the crash kernel's own memory.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Page {
    /// What there is to know.
    pub waiting: Waiting,
}

const _: () = assert!(size_of::<Page>() == 4096);

static WAITING: AtomicPtr<Page> = AtomicPtr::new(ptr::null_mut());

/// The digest of that page, which decides what else is checked.
static PAGE_DIGEST: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

/// From here on the kernel that `page` names is entered when this one meets its end. What it names stays as it is until
/// [`withdraw`].
pub fn publish(page: &'static Page) {
    for (word, value) in PAGE_DIGEST.iter().zip(page.digest()) {
        word.store(value, Ordering::Relaxed);
    }
    WAITING.store(ptr::from_ref(page).cast_mut(), Ordering::Release);
}

/// No crash kernel is entered from here on.
pub fn withdraw() {
    WAITING.store(ptr::null_mut(), Ordering::Release);
}

impl Page {
    fn digest(&self) -> [u64; 4] {
        let mut digest = Sha256::new();
        // SAFETY: a page of memory that was zeroed before the value was written, so that all of its bytes have values.
        digest.update(unsafe { slice::from_raw_parts(ptr::from_ref(self).cast(), size_of::<Self>()) });
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(digest.finish().0.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        words
    }
}

/// Whether a crash kernel waits.
pub fn waits() -> bool {
    !WAITING.load(Ordering::Acquire).is_null()
}

impl Waiting {
    /// The bytes of `range`, by the linear map.
    ///
    /// # Safety
    /// The linear map has it, and nobody writes to it as long as the bytes are used.
    unsafe fn bytes(&self, range: PaRange) -> &[u8] {
        let start = range.start.0.wrapping_add(self.offset) as usize;
        // SAFETY: the caller's.
        unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(start), range.len() as usize) }
    }

    /// The first part that is not what was loaded.
    fn changed(&self) -> Option<&'static str> {
        let changed = self.checked.iter().find(|checked| {
            let mut digest = Sha256::new();
            // SAFETY: memory of the crash kernel, which the linear map has and nobody writes to.
            digest.update(unsafe { self.bytes(checked.range) });
            digest.finish() != checked.digest
        });
        changed.map(|checked| checked.what)
    }

    /// Writes down where every CPU that has stopped was.
    fn write_notes(&self) {
        let start = self.notes.start.0.wrapping_add(self.offset) as usize;
        // SAFETY: memory that was taken for the notes and nothing else, mapped there; all other CPUs have stopped, or never
        // refer to it.
        let buffer = unsafe {
            slice::from_raw_parts_mut(
                ptr::with_exposed_provenance_mut::<u8>(start),
                self.notes.len() as usize,
            )
        };
        let stopped = percpu::known().filter_map(|(number, cpu)| {
            let frame = cpu.stopped.load(Ordering::Acquire);
            // SAFETY: a CPU's registers, on its own stack, which it never leaves once it has stored the pointer.
            let frame = unsafe { frame.as_ref() }?;
            Some(CpuRegisters { cpu: number as u32, ..frame.registers() })
        });
        if let Err(error) = (CoreNotes { info: self.info }).write(stopped, buffer) {
            report!("warning=crash-notes what={}", Quoted(&error));
        }
    }
}

/// A crash kernel that is what was loaded.
struct Ready {
    waiting: &'static Waiting,
    /// Other CPUs that have stopped, and those that have not.
    stopped: usize,
    running: usize,
    /// How long the check took.
    ticks: u64,
}

/// What of a crash kernel is not what was loaded.
struct Changed(&'static str);

/// Whether the CPU `number`, which was online, has stopped, or was on its way off.
fn has_gone(number: usize) -> bool {
    fatal::has_stopped(number) || percpu::of(number).state() != State::Online
}

/// Waits for the other CPUs, writes the notes, and checks the crash kernel. `None` when there is none.
fn ready(frame: &Frame) -> Option<Result<Ready, Changed>> {
    if !waits() {
        return None;
    }
    let others = percpu::others();
    wait_until(LAST_PATIENCE, || others.iter().all(has_gone));
    // Nobody publishes or withdraws any more.
    let page = WAITING.load(Ordering::Acquire);
    // SAFETY: what was published stays as it is, and is mapped.
    let page = unsafe { page.as_ref() }?;
    if page.digest().iter().zip(&PAGE_DIGEST).any(|(found, meant)| *found != meant.load(Ordering::Relaxed)) {
        return Some(Err(Changed("description")));
    }
    let waiting = &page.waiting;
    percpu::of(percpu::this_cpu()).stopped.store(ptr::from_ref(frame).cast_mut(), Ordering::Release);
    waiting.write_notes();
    let started = cpu::counter();
    if let Some(what) = waiting.changed() {
        return Some(Err(Changed(what)));
    }
    let ticks = cpu::ticks_since(started);
    let stopped = others.iter().filter(|&number| has_gone(number)).count();
    Some(Ok(Ready { waiting, stopped, running: others.len() - stopped, ticks }))
}

/// Enters the crash kernel, from the CPU whose last words were said, where `frame` was. Returns when none waits, or when it
/// is not what was loaded.
pub fn enter(frame: &Frame) {
    match ready(frame) {
        None => {}
        Some(Err(Changed(what))) => {
            say!("the crash kernel's {what} is not what was loaded: it is not entered");
            report!("error=verify when=before what={}", Quoted(what));
        }
        Some(Ok(ready)) => {
            let Waiting { entry, dtb, el, .. } = *ready.waiting;
            report!("phase=kexec-verify when=before ticks={}", ready.ticks);
            report!(
                "state=crash-kexec cpu={} stopped={} running={} entry={entry} dtb={dtb} el={el}",
                percpu::this_cpu(),
                ready.stopped,
                ready.running,
            );
            ready.go();
        }
    }
}

/// The same without a word.
pub fn enter_silently(frame: &Frame) {
    if let Some(Ok(ready)) = ready(frame) {
        ready.go();
    }
}

impl Ready {
    fn go(self) -> ! {
        let departure = &self.waiting.departure;
        // The next kernel may start them at once, and they have stopped a moment before they are off.
        let me = percpu::this_cpu();
        let numbers = percpu::known().map(|(number, _)| number);
        let others = numbers.filter(|&number| number != me && fatal::has_stopped(number));
        wait_until(PATIENCE, || others.clone().all(secondary::is_off));
        fatal::leave_interrupts();
        // Whatever this CPU was in the middle of: TTBR0 goes to the reserved table, and nothing of it stays cached.
        let nothing = departure.reserved.ttbr0;
        let reserved = Reserved { ttbr0: nothing, tcr: tcr_with_t0sz(cpu::tcr(), GEOMETRY) };
        reserved.restore(&mut ThisCpu);
        // SAFETY: the load has written and cleaned code and orders, and they are as they were; their list is empty, so that
        // nothing is moved, whatever the other CPUs do; the MMU is left by the image's identity map. Interrupts are masked.
        unsafe { departure.go(&mut ThisCpu, 0) }
    }
}
