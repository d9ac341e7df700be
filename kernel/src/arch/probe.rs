//! Probes: accesses that return the syndrome if they fault.

use core::arch::global_asm;

use linmap_platform::RegisterWidth;
use linmap_vmsa::Va;

global_asm!(include_str!("probe.S"));

#[repr(C)]
struct ProbeResult {
    value: u64,
    faulted: u64,
}

unsafe extern "C" {
    fn probe_load(va: u64) -> ProbeResult;
    fn probe_load_byte(va: u64) -> ProbeResult;
    fn probe_load_half(va: u64) -> ProbeResult;
    fn probe_load_word(va: u64) -> ProbeResult;
    fn probe_store(va: u64, value: u64) -> ProbeResult;
    fn probe_execute(va: u64) -> ProbeResult;
    fn probe_executed();
    fn probe_execute_fault();
    fn probe_fault();
}

/// The fault of a probe, from ESR_ELx.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The syndrome.
    pub esr: u64,
}

/// Exception class of an instruction abort at the current EL (Arm ARM D24.2, ESR_EL1.EC).
const INSTRUCTION_ABORT: u64 = 0x21;
/// Exception class of a data abort at the current EL.
const DATA_ABORT: u64 = 0x25;

impl Fault {
    fn class(self) -> u64 {
        self.esr >> 26 & 0x3f
    }

    fn is_abort(self) -> bool {
        matches!(self.class(), INSTRUCTION_ABORT | DATA_ABORT)
    }

    /// Whether the fault is an abort from a translation fault, at any level: FSC 0b0001xx, or level
    /// −1's 0b101011 (Arm ARM D24.2, ESR_EL1).
    pub fn is_translation(self) -> bool {
        let status = self.esr & 0x3f;
        self.is_abort() && (status & 0x3c == 0b00_0100 || status == 0b10_1011)
    }

    /// Whether the fault is an abort from a permission fault, at any level: FSC 0b0011xx.
    pub fn is_permission(self) -> bool {
        self.is_abort() && self.esr & 0x3c == 0b00_1100
    }
}

fn outcome(result: ProbeResult) -> Result<u64, Fault> {
    if result.faulted == 0 { Ok(result.value) } else { Err(Fault { esr: result.value }) }
}

/// Loads the byte at `va`, through the MMU and the vectors.
pub fn load_byte(va: Va) -> Result<u8, Fault> {
    // SAFETY: the routine only loads, and a fault of its one load is recovered. The callers probe
    // memory, holes and guards, never devices, where a load could have an effect.
    outcome(unsafe { probe_load_byte(va.0) }).map(|value| value as u8)
}

/// Loads the word at `va`.
pub fn load(va: Va) -> Result<u64, Fault> {
    // SAFETY: as for `load_byte`.
    outcome(unsafe { probe_load(va.0) })
}

/// Loads the device register at `va`. Where no device answers, most CPUs take a synchronous
/// external abort at the load, which is a data abort like any other (Arm ARM D24.2, ESR_EL1, DFSC
/// 0b010000). Others report an SError, which stays masked: the value is then the interconnect's.
///
/// # Safety
/// If a device answers, the load has no effect that matters.
pub unsafe fn load_register(va: Va, width: RegisterWidth) -> Result<u32, Fault> {
    // SAFETY: a fault of the one load is recovered; the rest is the caller's promise.
    let result = unsafe {
        match width {
            RegisterWidth::Byte => probe_load_byte(va.0),
            RegisterWidth::HalfWord => probe_load_half(va.0),
            RegisterWidth::Word => probe_load_word(va.0),
        }
    };
    outcome(result).map(|value| value as u32)
}

/// Stores `value` in the word at `va`.
///
/// # Safety
/// If `va` is writable, no Rust reference leads to it, and no code relies on its value.
pub unsafe fn store(va: Va, value: u64) -> Result<(), Fault> {
    // SAFETY: a fault of the one store is recovered; the rest is the caller's promise.
    outcome(unsafe { probe_store(va.0, value) }).map(|_| ())
}

/// Executes the instruction at `va`.
///
/// # Safety
/// It must be RET.
pub unsafe fn execute(va: Va) -> Result<(), Fault> {
    // SAFETY: the caller's promise; a fault of the fetch is recovered.
    outcome(unsafe { probe_execute(va.0) }).map(|_| ())
}

/// The address at which the code continues after a synchronous exception at `elr`, if that is a
/// probe's. x0 has to hold the syndrome there.
pub fn recovered(esr: u64, elr: u64, link: u64) -> Option<u64> {
    let fault = Fault { esr };
    let accesses = [
        probe_load_byte as *const () as u64,
        probe_load_half as *const () as u64,
        probe_load_word as *const () as u64,
        probe_load as *const () as u64,
        probe_store as *const () as u64,
    ];
    if fault.class() == DATA_ABORT && accesses.contains(&elr) {
        return Some(probe_fault as *const () as u64);
    }
    if fault.class() == INSTRUCTION_ABORT && link == probe_executed as *const () as u64 {
        return Some(probe_execute_fault as *const () as u64);
    }
    None
}
