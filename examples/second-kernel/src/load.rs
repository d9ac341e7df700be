//! What the other CPUs do all the time: read and write through the linear map, and check.
//!
//! Each page of the [`ARENA`] has a word for each CPU, which counts its rounds. Three pages in 64
//! are *held*: their words never change. On request all CPUs write to one, to see whether that is
//! refused.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use linmap::Layout;
use linmap_vmsa::{Pa, PaRange};

use crate::failure::Failure;
use crate::layout::CPUS;
use crate::machine::{listen, this_cpu, wait};

/// The memory under load: four 2M blocks.
pub const ARENA: PaRange = PaRange { start: Pa(0x4200_0000), end: Pa(0x4280_0000) };
const PAGE: u64 = 0x1000;
/// What the words of held pages hold.
const HELD: u64 = 0x0123_4567_89ab_cdef;

/// VA − PA of the linear map.
static LINEAR: AtomicU64 = AtomicU64::new(0);
/// How many rounds each CPU has made.
pub static ROUNDS: [AtomicU64; CPUS] = [const { AtomicU64::new(0) }; CPUS];
/// A CPU that masks its interrupts for as long as this names it.
static DEAF: AtomicUsize = AtomicUsize::new(0);
/// Whether that CPU does.
static IS_DEAF: AtomicBool = AtomicBool::new(false);

/// The page to which all CPUs are to write, plus twice the number of the request. Each answers with
/// the same value, plus 1 if the store was refused.
static ASKED: AtomicU64 = AtomicU64::new(0);
static ANSWERS: [AtomicU64; CPUS] = [const { AtomicU64::new(0) }; CPUS];
/// Where the store of each CPU may be refused.
static REFUSABLE: [AtomicU64; CPUS] = [const { AtomicU64::new(0) }; CPUS];

/// The held pages of the 64 pages from `start` on.
pub const fn held(start: Pa) -> PaRange {
    PaRange { start: Pa(start.0 + 61 * PAGE), end: Pa(start.0 + 64 * PAGE) }
}

/// All words of the CPU `cpu`, and whether each is held.
fn words(cpu: usize) -> impl Iterator<Item = (*mut u64, bool)> {
    let linear = LINEAR.load(Ordering::Relaxed);
    (ARENA.start.0..ARENA.end.0).step_by(PAGE as usize).map(move |pa| {
        let word = pa.wrapping_add(linear) + cpu as u64 * 64;
        (word as *mut u64, pa / PAGE % 64 >= 61)
    })
}

/// Writes the first words through the linear map.
pub fn prepare(layout: Layout) {
    LINEAR.store(layout.offset(), Ordering::Relaxed);
    for (word, is_held) in (0..CPUS).flat_map(words) {
        // SAFETY: memory of the arena, which no other CPU uses yet.
        unsafe { word.write_volatile(if is_held { HELD } else { 0 }) };
    }
}

/// What the CPU `cpu` does.
pub fn run(cpu: usize) -> ! {
    for round in 0.. {
        for (word, is_held) in words(cpu) {
            // SAFETY: memory of the arena. The word is this CPU's.
            let found = unsafe { word.read_volatile() };
            assert_eq!(found, if is_held { HELD } else { round }, "in {word:?}");
            if !is_held {
                // SAFETY: as above.
                unsafe { word.write_volatile(round + 1) };
            }
            answer(cpu);
        }
        ROUNDS[cpu].store(round + 1, Ordering::Relaxed);
        if DEAF.load(Ordering::Acquire) == cpu {
            listen(false);
            IS_DEAF.store(true, Ordering::Release);
            while DEAF.load(Ordering::Acquire) == cpu {}
            IS_DEAF.store(false, Ordering::Release);
            listen(true);
        }
    }
    unreachable!("rounds without end")
}

/// Has the CPU `cpu` mask its interrupts, and waits until it does; 0 ends that.
pub fn deafen(cpu: usize) -> Result<(), Failure> {
    DEAF.store(cpu, Ordering::Release);
    let done = wait(|| IS_DEAF.load(Ordering::Acquire) == (cpu != 0));
    done.then_some(()).ok_or(Failure::Absent(cpu))
}

/// Has all CPUs write to the held page at `pa`. Returns how many stores were refused.
pub fn refused(pa: Pa) -> Result<usize, Failure> {
    let number = (ASKED.load(Ordering::Relaxed) + 2) % PAGE;
    let asked = pa.0.wrapping_add(LINEAR.load(Ordering::Relaxed)) + number;
    ASKED.store(asked, Ordering::Release);
    answer(this_cpu());
    let absent = || ANSWERS.iter().position(|answer| answer.load(Ordering::Acquire) & !1 != asked);
    wait(|| absent().is_none());
    match absent() {
        Some(cpu) => Err(Failure::Absent(cpu)),
        None => Ok(ANSWERS.iter().filter(|answer| answer.load(Ordering::Relaxed) != asked).count()),
    }
}

/// Writes where all CPUs are to write, once.
fn answer(cpu: usize) {
    let asked = ASKED.load(Ordering::Acquire);
    if ANSWERS[cpu].load(Ordering::Relaxed) & !1 == asked {
        return;
    }
    let word = asked / PAGE * PAGE + cpu as u64 * 64;
    REFUSABLE[cpu].store(word, Ordering::Relaxed);
    // SAFETY: the word is held, and stays what it is. A fault is expected.
    unsafe { asm!("str {}, [{}]", in(reg) HELD, in(reg) word, options(nostack, preserves_flags)) };
    let is_refused = REFUSABLE[cpu].swap(0, Ordering::Relaxed) == 0;
    ANSWERS[cpu].store(asked + u64::from(is_refused), Ordering::Release);
}

/// Whether an exception with this syndrome is the refusal of a store that may be refused: a data
/// abort from the same level, by a write, for a permission (Arm ARM D24.2, ESR_EL1).
pub fn is_expected(syndrome: u64, address: u64) -> bool {
    let is_refused_write = syndrome >> 26 == 0x25 && syndrome & 1 << 6 != 0 && syndrome & 0x3c == 0xc;
    let refusable = &REFUSABLE[this_cpu()];
    is_refused_write && refusable.compare_exchange(address, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}
