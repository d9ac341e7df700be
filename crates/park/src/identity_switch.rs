//! Leaving the live root by way of the identity map: what calls `park.S` and `leave.S`.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};
use core::{hint, ptr};

use linmap_vmsa::Va;

use crate::rendezvous::Rendezvous;
use crate::root_switch::RootSwitch;

/// The bit by which `leave.S` tells a call of PSCI from an address: no physical address has it.
const PSCI_BIT: u32 = 63;
/// The bit by which `leave.S` calls PSCI by SMC.
const SMC_BIT: u32 = 32;

global_asm!(include_str!("park.S"));
global_asm!(include_str!("leave.S"), psci_bit = const PSCI_BIT, smc_bit = const SMC_BIT);

unsafe extern "C" {
    fn linmap_park(
        to: u64,
        nothing: u64,
        identity: u64,
        there: u64,
        vectors: u64,
        request: u64,
        own: u64,
        value: u64,
    );
    fn linmap_park_and_wait();
    fn linmap_park_and_go_on();
    fn linmap_park_for_good();
    static linmap_park_vectors: u8;
}

/// Returns the address of the vectors of CPUs that have left the live root: 2 KiB of code, to be
/// mapped executable at their physical address too.
pub fn vectors() -> Va {
    Va((&raw const linmap_park_vectors).expose_provenance() as u64)
}

/// The values of the registers and addresses that a CPU needs to leave the live root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SwitchValues {
    /// TTBR1 value of the live root.
    pub live: u64,
    /// TTBR value that translates nothing. TTBR0 holds it while the kernel runs.
    pub nothing: u64,
    /// TTBR0 value of the identity map, which fits the kernel's TCR.T0SZ.
    pub identity: u64,
    /// VA − PA of the image, which holds this crate's code and the rendezvous.
    pub image_offset: u64,
}

/// What a CPU does after it has left the live root for good.
///
/// ```
/// # #[cfg(target_arch = "aarch64")] {
/// use linmap_park::{IdentitySwitch, Rendezvous, WayOff};
///
/// static PARKING: Rendezvous<IdentitySwitch, 4> = Rendezvous::new(IdentitySwitch::new());
///
/// /// Turns the CPU `cpu` off, which runs this with interrupts masked.
/// ///
/// /// # Safety
/// /// As [`Rendezvous::leave_for_good`].
/// unsafe fn turn_off(cpu: usize) -> ! {
///     // SAFETY: the caller's.
///     unsafe { PARKING.leave_for_good(cpu, WayOff::PsciHvc { cpu_off: 0x8400_0002 }) }
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub enum WayOff {
    /// It calls PSCI CPU_OFF by HVC.
    PsciHvc {
        /// The number of the function: 0x8400_0002 since version 0.2 (Arm DEN 0022).
        cpu_off: u32,
    },
    /// It calls PSCI CPU_OFF by SMC.
    PsciSmc {
        /// The number of the function.
        cpu_off: u32,
    },
    /// It runs this code of the image at VA = PA, where the identity map has it, with the MMU on.
    Code(unsafe extern "C" fn() -> !),
    /// It stays in the identity map and waits for interrupts, which are masked.
    Stay,
}

/// The way from one root to another through the identity map, on this kernel's CPUs.
///
/// A kernel [sets](Self::set) the values once the identity map has all pages, and before any CPU is
/// asked to park.
#[derive(Debug)]
pub struct IdentitySwitch {
    live: AtomicU64,
    nothing: AtomicU64,
    identity: AtomicU64,
    image_offset: AtomicU64,
}

impl IdentitySwitch {
    /// Returns a switch without values: it must not be used before [`set`](Self::set).
    #[expect(clippy::new_without_default, reason = "a value for statics")]
    pub const fn new() -> Self {
        Self {
            live: AtomicU64::new(0),
            nothing: AtomicU64::new(0),
            identity: AtomicU64::new(0),
            image_offset: AtomicU64::new(0),
        }
    }

    /// Sets the values.
    ///
    /// # Safety
    /// - The values are what [`SwitchValues`] says, for all CPUs and from now on.
    /// - The identity map maps the section `.idmap.text` and the [`vectors`], executable, and the
    ///   [`Rendezvous`], writable.
    pub unsafe fn set(&self, values: SwitchValues) {
        self.live.store(values.live, Ordering::Relaxed);
        self.nothing.store(values.nothing, Ordering::Relaxed);
        self.identity.store(values.identity, Ordering::Relaxed);
        self.image_offset.store(values.image_offset, Ordering::Release);
    }

    /// Returns the physical address of what the image has at `va`.
    fn physical(&self, va: usize) -> u64 {
        (va as u64).wrapping_sub(self.image_offset.load(Ordering::Acquire))
    }

    /// Leaves the live root, runs the routine `there`, and returns with `to` in TTBR1.
    ///
    /// # Safety
    /// The values were set. Interrupts are masked; TTBR0 translates nothing; `to` maps this code,
    /// its stack and the vectors as they are.
    unsafe fn leave(
        &self,
        to: u64,
        there: unsafe extern "C" fn(),
        word: *const AtomicU64,
        own: *const AtomicU64,
        value: u64,
    ) {
        // Read once: it is part of the pause.
        let offset = self.image_offset.load(Ordering::Acquire);
        let physical = |va: usize| (va as u64).wrapping_sub(offset);
        // SAFETY: the identity map has the routine, the vectors and the words at their physical
        // addresses, as `set` asks; the rest is the caller's.
        unsafe {
            linmap_park(
                to,
                self.nothing.load(Ordering::Relaxed),
                self.identity.load(Ordering::Relaxed),
                physical(there as usize),
                physical((&raw const linmap_park_vectors).expose_provenance()),
                physical(word.expose_provenance()),
                physical(own.expose_provenance()),
                value,
            );
        }
    }
}

// SAFETY: `park.S` waits, and changes roots, with a root that translates nothing and after a TLBI
// VMALLE1 that is complete.
unsafe impl RootSwitch for IdentitySwitch {
    unsafe fn wait(&self, word: &AtomicU64, own: &AtomicU64, value: u64) {
        // SAFETY: the caller's.
        unsafe { self.leave(self.live.load(Ordering::Relaxed), linmap_park_and_wait, word, own, value) };
    }

    unsafe fn go_to(&self, ttbr1: u64) {
        // SAFETY: the caller's; the routine uses neither word.
        unsafe { self.leave(ttbr1, linmap_park_and_go_on, ptr::null(), ptr::null(), 0) };
    }

    unsafe fn go_to_live(&self) {
        // SAFETY: the caller's.
        unsafe { self.go_to(self.live.load(Ordering::Relaxed)) };
    }

    fn wake(&self) {
        // SAFETY: the DSB only orders accesses, and the event only ends waits.
        unsafe { asm!("dsb ish", "sev", options(nostack, preserves_flags)) };
    }
}

impl<const CPUS: usize> Rendezvous<IdentitySwitch, CPUS> {
    /// Takes the CPU `cpu`, the one this runs on, off the live root for good. `way` says what it
    /// does then.
    ///
    /// # Safety
    /// Interrupts are masked, TTBR0 translates nothing, and no other CPU has the number `cpu`. The
    /// values of the [`IdentitySwitch`] were set. If `way` names code, the identity map maps it.
    ///
    /// # Panics
    /// If `cpu` is not below `CPUS`.
    pub unsafe fn leave_for_good(&self, cpu: usize, way: WayOff) -> ! {
        let (own, left) = self.leaving(cpu);
        let way = match way {
            WayOff::PsciHvc { cpu_off } => 1 << PSCI_BIT | u64::from(cpu_off),
            WayOff::PsciSmc { cpu_off } => 1 << PSCI_BIT | 1 << SMC_BIT | u64::from(cpu_off),
            WayOff::Code(code) => self.switch().physical(code as usize),
            WayOff::Stay => 0,
        };
        // SAFETY: the caller's. The routine takes the way off in place of a root to return with,
        // because it does not return.
        unsafe { self.switch().leave(way, linmap_park_for_good, own, own, left) };
        loop {
            hint::spin_loop();
        }
    }
}
