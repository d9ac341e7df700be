//! PSCI: the guest's calls, and our own, which go to the firmware.

use smccc::{Call, Smc, psci};

use crate::cpu::{self, Start};
use crate::lock::Lock;
use crate::machine::{EDITOR, end};
use crate::{dirty, guest};

/// What an unknown call returns.
pub const NOT_SUPPORTED: u64 = u64::MAX;
const INVALID_PARAMETERS: u64 = -2i64 as u64;
const ALREADY_ON: u64 = -4i64 as u64;
const ON_PENDING: u64 = -5i64 as u64;
/// Held while a guest CPU starts another.
static STARTING: Lock<()> = Lock::new(());

/// How each CPU starts.
pub static STARTS: [Start; EDITOR + 1] = [const { Start::none() }; EDITOR + 1];

/// Starts CPU `number` at EL2, where it calls `main`.
pub fn start(number: usize, main: extern "C" fn() -> !) -> u64 {
    let start = STARTS[number].set_for(number, &STARTS[0], main);
    firmware(psci::PSCI_CPU_ON_64, number as u64, cpu::entry().0, start.0)
}

/// The calls that firmware may answer by itself. Those that lose the registers of EL2, such as
/// CPU_SUSPEND, are not among them.
const PASSED_ON: [u32; 5] = [
    psci::PSCI_VERSION,
    psci::PSCI_CPU_OFF,
    psci::PSCI_AFFINITY_INFO_32,
    psci::PSCI_AFFINITY_INFO_64,
    psci::PSCI_MIGRATE_INFO_TYPE,
];

/// The calls that are answered here.
const ANSWERED: [u32; 5] = [
    psci::PSCI_FEATURES,
    psci::PSCI_CPU_ON_32,
    psci::PSCI_CPU_ON_64,
    psci::PSCI_SYSTEM_OFF,
    psci::PSCI_SYSTEM_RESET,
];

/// What the guest gets for its call.
pub fn call(registers: &[u64; 31]) -> u64 {
    let [function, mut target, mut entry, mut context, ..] = *registers;
    let function = function as u32;
    // Bit 30: the arguments have 64 bits (SMC Calling Convention).
    if function & 1 << 30 == 0 {
        [target, entry, context] = [target, entry, context].map(|argument| argument & 0xffff_ffff);
    }
    match function {
        psci::PSCI_CPU_ON_32 | psci::PSCI_CPU_ON_64 => {
            // The firmware would start it at EL2, outside of stage 2: it starts at our entry.
            let number = target as usize;
            if number >= EDITOR {
                return INVALID_PARAMETERS;
            }
            // One call at a time: the entry of a CPU that is on, or about to be, stays.
            let _turn = STARTING.lock();
            match firmware(psci::PSCI_AFFINITY_INFO_64, target, 0, 0) {
                0 => ALREADY_ON,
                1 => {
                    guest::set_entry(number, entry, context);
                    start(number, guest::run)
                }
                2 => ON_PENDING,
                error => error,
            }
        }
        psci::PSCI_SYSTEM_OFF => dirty::guest_is_done(),
        psci::PSCI_SYSTEM_RESET => end(Some(format_args!("the guest resets its machine"))),
        psci::PSCI_FEATURES if ANSWERED.contains(&(target as u32)) => 0,
        psci::PSCI_FEATURES if PASSED_ON.contains(&(target as u32)) => firmware(function, target, 0, 0),
        function if PASSED_ON.contains(&function) => firmware(function, target, entry, context),
        _ => NOT_SUPPORTED,
    }
}

fn firmware(function: u32, first: u64, second: u64, third: u64) -> u64 {
    let mut arguments = [0; 17];
    arguments[..3].copy_from_slice(&[first, second, third]);
    Smc::call64(function, arguments)[0]
}
