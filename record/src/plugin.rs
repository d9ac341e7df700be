//! What QEMU calls.
//!
//! All CPUs run in one thread of QEMU's, which `thread=single` promises, so the lock around the
//! recorder is free but for the thread that sends, and the end of the guest.

use std::collections::HashMap;
use std::env;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use crate::current::{self, in_generated_code};
use crate::followed::FILTER;
use crate::instruction::{Accesses, Instruction};
use crate::order::{AT_EL0, bit};
use crate::qemu::{self, Array, Block, Info, Interface, PluginId};
use crate::readable::Readable;
use crate::recorder::{CurrentCpu, IS_STARTED, Recorder};
use crate::sites::{Site, Sites};
use crate::slice::{self, Spent};
use crate::stream::Stream;

/// The interface's version, which QEMU reads before it installs a plugin.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: AtomicI32 = AtomicI32::new(Interface::Four.number());

/// Has the version set when the plugin is loaded, before QEMU reads it.
#[used]
#[unsafe(link_section = ".init_array")]
static ON_LOAD: extern "C" fn() = set_version;

/// The tool says which QEMU it starts: nothing else tells before the version is read.
const INTERFACE: &str = "LINMAP_RECORD_INTERFACE";

extern "C" fn set_version() {
    if env::var_os(INTERFACE).is_some_and(|number| number == "7") {
        qemu_plugin_version.store(Interface::Seven.number(), Ordering::Relaxed);
    }
}

/// The interface that QEMU took.
fn interface() -> Interface {
    let is_seven = qemu_plugin_version.load(Ordering::Relaxed) == Interface::Seven.number();
    if is_seven { Interface::Seven } else { Interface::Four }
}

static RECORDER: OnceLock<Mutex<Recorder>> = OnceLock::new();
static SCHEDULER: OnceLock<qemu::Scheduler> = OnceLock::new();
static REGISTERS: OnceLock<RegisterFile> = OnceLock::new();

fn recorder() -> Option<MutexGuard<'static, Recorder>> {
    Some(RECORDER.get()?.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Installs the plugin: QEMU calls it once, before there are CPUs.
///
/// # Safety
/// `info` and the `count` strings at `arguments` are QEMU's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: PluginId,
    info: *const Info,
    count: c_int,
    arguments: *const *const c_char,
) -> c_int {
    // SAFETY: QEMU gives a valid description of itself.
    let info = unsafe { &*info };
    let arguments = (0..count.max(0) as usize).map(|nth| {
        // SAFETY: QEMU gives as many strings as it says.
        unsafe { CStr::from_ptr(*arguments.add(nth)) }.to_string_lossy().into_owned()
    });
    match install(info, arguments) {
        Ok(recorder) => {
            let _ = RECORDER.set(Mutex::new(recorder));
            // SAFETY: It is being installed.
            let _ = SCHEDULER.set(unsafe { qemu::Scheduler::request() });
            // SAFETY: `id` is ours.
            unsafe { qemu::register::<Machine>(interface(), id) };
            0
        }
        Err(why) => {
            eprintln!("linmap-record: {why}");
            -1
        }
    }
}

fn install(info: &Info, arguments: impl Iterator<Item = String>) -> Result<Recorder, String> {
    // SAFETY: QEMU gives a string.
    let target = unsafe { CStr::from_ptr(info.target_name) };
    if !info.is_system || target.to_bytes() != b"aarch64" {
        return Err(format!("records whole systems of aarch64, not {}", target.to_string_lossy()));
    }
    let (mut to, mut memory, mut layout) = (None, None, None);
    for argument in arguments {
        let (name, value) = argument.split_once('=').ok_or("an argument is not NAME=PATH")?;
        match name {
            "to" => to = Some(PathBuf::from(value)),
            "memory" => memory = Some(PathBuf::from(value)),
            "layout" => layout = Some(PathBuf::from(value)),
            _ => return Err(format!("unknown argument {name}")),
        }
    }
    let [Some(to), Some(memory), Some(layout)] = [to, memory, layout] else {
        return Err("needs to=SOCKET, memory=FILE and layout=FILE: start it by `linmap record`".into());
    };
    let stream = UnixStream::connect(&to).map_err(|error| format!("{}: {error}", to.display()))?;
    let cpus = usize::try_from(info.most_cpus).unwrap_or(1).max(1);
    CPUS.store(cpus, Ordering::Relaxed);
    Ok(Recorder::new(Stream::new(stream), [memory, layout], read_rom, cpus))
}

/// Reads memory that is not RAM.
fn read_rom(pa: u64, len: u64) -> Option<Vec<u8>> {
    // SAFETY: It is called within a callback of an instruction, and the array is new.
    unsafe { qemu::read_memory(interface(), pa, len as usize) }
}

/// The registers. All CPUs have the same.
struct RegisterFile {
    x: Vec<*mut c_void>,
    system: [Option<*mut c_void>; Readable::COUNT],
    /// Where QEMU puts values.
    value: *mut Array,
}

// SAFETY: The handles are numbers to QEMU, and the array is used under the recorder's lock.
unsafe impl Send for RegisterFile {}
// SAFETY: As above.
unsafe impl Sync for RegisterFile {}

impl RegisterFile {
    /// The registers of the CPU that this thread is about to run.
    fn read() -> Self {
        // SAFETY: It is called when a CPU is new.
        let registers = unsafe { qemu::registers(interface()) };
        let handles: HashMap<_, _> =
            registers.into_iter().map(|(name, handle)| (name.to_ascii_uppercase(), handle)).collect();
        let x = (0..31).filter_map(|nth| handles.get(&format!("X{nth}")).copied()).collect();
        let system = Readable::ALL.map(|of| of.names().iter().find_map(|name| handles.get(*name)).copied());
        // SAFETY: A new array of GLib's.
        Self { x, system, value: unsafe { qemu::g_byte_array_new() } }
    }

    fn get(&self, handle: *mut c_void) -> u64 {
        // SAFETY: The handle is one of QEMU's, in a callback that reads registers, and the array
        // is GLib's and used by one thread at a time.
        unsafe {
            qemu::g_byte_array_set_size(self.value, 0);
            qemu::qemu_plugin_read_register(handle, self.value);
            let array = &*self.value;
            if array.data.is_null() {
                return 0;
            }
            let bytes = std::slice::from_raw_parts(array.data, array.len as usize);
            bytes.iter().take(8).rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
        }
    }
}

impl CurrentCpu for RegisterFile {
    fn x(&self, number: u8) -> u64 {
        self.x.get(usize::from(number)).map_or(0, |handle| self.get(*handle))
    }

    fn system(&self, register: Readable) -> Option<u64> {
        self.system[register.number()].map(|handle| self.get(handle))
    }
}

/// What QEMU calls once for the whole machine.
struct Machine;

impl qemu::Machine for Machine {
    fn on_cpu() {
        on_cpu();
    }

    fn on_block(block: *mut Block) {
        on_block(block);
    }

    fn on_exit() {
        if let Some(mut recorder) = recorder() {
            recorder.end();
        }
    }
}

fn on_cpu() {
    let registers = REGISTERS.get_or_init(RegisterFile::read);
    if registers.x.len() < 31
        && let Some(mut recorder) = recorder()
    {
        recorder.note("QEMU shows no X registers: nothing is recorded");
    }
}

/// The sites so far.
static SITES: Mutex<Option<Sites>> = Mutex::new(None);

fn site(pc: u64, word: u32, instruction: Instruction) -> *mut c_void {
    let mut sites = SITES.lock().unwrap_or_else(PoisonError::into_inner);
    let site: *const Site = sites.get_or_insert_default().of(pc, word, instruction);
    site.cast_mut().cast()
}

fn on_block(block: *mut Block) {
    // SAFETY: QEMU gives a block, whose instructions are as many as it says, and callbacks may be
    // registered while it is translated.
    unsafe {
        let count = qemu::qemu_plugin_tb_n_insns(block);
        for nth in 0..count {
            let instruction = qemu::qemu_plugin_tb_get_insn(block, nth);
            let mut word = [0; 4];
            if qemu::qemu_plugin_insn_data(instruction, word.as_mut_ptr().cast(), 4) != 4 {
                continue;
            }
            let word = u32::from_le_bytes(word);
            let pc = qemu::qemu_plugin_insn_vaddr(instruction);
            if nth == 0 && pc & 0x7f == 0 && recorder().is_some_and(|recorder| recorder.is_vector(pc)) {
                qemu::qemu_plugin_register_vcpu_insn_exec_cb(
                    instruction,
                    on_vector,
                    qemu::READS_REGISTERS,
                    ptr::without_provenance_mut(pc as usize),
                );
            }
            // One CPU's order is its own.
            let is_shared = CPUS.load(Ordering::Relaxed) > 1;
            if let Some(known) = Instruction::of(word).filter(|known| is_shared || !known.is_of_loads()) {
                let site = site(pc, word, known);
                qemu::qemu_plugin_register_vcpu_insn_exec_cb(
                    instruction,
                    on_instruction,
                    qemu::READS_REGISTERS,
                    site,
                );
            } else if word & 0x0a00_0000 == 0x0800_0000 {
                // A load or store (Arm ARM C4.1). Instructions are at multiples of 4, so two bits
                // of the address tell more.
                let accesses = Accesses::of(word);
                let at = |bits: u64| ptr::without_provenance_mut((pc & !3 | bits) as usize);
                let register = |[callback, last]: [qemu::OnAccess; 2], accesses, data| {
                    let (callback, registers) = match nth + 1 == count {
                        true => (last, qemu::READS_REGISTERS),
                        false => (callback, qemu::NO_REGISTERS),
                    };
                    qemu::qemu_plugin_register_vcpu_mem_cb(instruction, callback, registers, accesses, data);
                };
                let releases = u64::from(accesses.releases && is_shared);
                let data = at(u64::from(accesses.is_atomic) | releases << 1);
                register([on_store, on_last_store], qemu::WRITES, data);
                if (accesses.acquires || accesses.is_atomic) && is_shared {
                    let data = at(u64::from(accesses.acquires));
                    register([on_acquire, on_last_acquire], qemu::READS, data);
                }
            }
        }
    }
}

/// How many CPUs there are.
static CPUS: AtomicUsize = AtomicUsize::new(1);

in_generated_code!(on_instruction, (c_uint, *mut c_void), "rdx", "x2", execute);
in_generated_code!(on_vector, (c_uint, *mut c_void), "rdx", "x2", at_vector);
in_generated_code!(on_store, (c_uint, u32, u64, *mut c_void), "r8", "x4", store);
in_generated_code!(on_acquire, (c_uint, u32, u64, *mut c_void), "r8", "x4", acquire);
in_generated_code!(on_last_store, (c_uint, u32, u64, *mut c_void), "r8", "x4", last_store);
in_generated_code!(on_last_acquire, (c_uint, u32, u64, *mut c_void), "r8", "x4", last_acquire);

/// An instruction that is recorded.
extern "C" fn execute(cpu: c_uint, site: *mut c_void, state: usize) {
    // SAFETY: The data is a site, which lives for ever.
    let site = unsafe { &*site.cast::<Site>() };
    let (Some(mut recorder), Some(registers)) = (recorder(), REGISTERS.get()) else { return };
    let cpu = current::number(state, CPUS.load(Ordering::Relaxed), true).unwrap_or(cpu as usize);
    let events = recorder.events;
    recorder.execute(cpu, site.pc, site.instruction, registers);
    let is_idle = site.instruction == Instruction::Isb && recorder.events == events;
    drop(recorder);
    spend(if is_idle { Spent::IdleIsb } else { Spent::Other });
    if IS_STARTED.load(Ordering::Relaxed) {
        SENDER.call_once(start_to_send);
    }
}

/// Ends the slice of the CPU that executes if it is over, in a callback.
fn spend(spent: Spent) {
    if CPUS.load(Ordering::Relaxed) > 1
        && slice::is_over(spent)
        && let Some(scheduler) = SCHEDULER.get()
    {
        // SAFETY: It is a callback of an instruction or of an access.
        unsafe { scheduler.end_slice() };
    }
}

/// The instruction at the address `pc`, which may be the first of a vector.
extern "C" fn at_vector(cpu: c_uint, pc: *mut c_void, state: usize) {
    let (Some(mut recorder), Some(registers)) = (recorder(), REGISTERS.get()) else { return };
    let cpu = current::number(state, CPUS.load(Ordering::Relaxed), true).unwrap_or(cpu as usize);
    recorder.at_vector(cpu, pc.addr() as u64, registers);
}

/// Sends what waits while the guest does nothing that is recorded.
static SENDER: Once = Once::new();

/// How long what was recorded waits: what was sent survives QEMU.
const WAIT: Duration = Duration::from_millis(50);

/// Starts the thread that sends. It is started by a thread of CPUs, in which QEMU blocks all
/// signals, so it takes none from QEMU.
fn start_to_send() {
    let send = || {
        loop {
            thread::sleep(WAIT);
            if let Some(mut recorder) = recorder() {
                recorder.send_what_waits();
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("linmap-record".into()).spawn(send)
        && let Some(mut recorder) = recorder()
    {
        recorder.note(&format!("the trace comes in large parts: no thread sends what waits: {error}"));
    }
}

/// The physical address of an access; `None` if it is to a device.
///
/// # Safety
/// It is called within a callback of an access.
unsafe fn physical(access: u32, va: u64) -> Option<u64> {
    // SAFETY: QEMU allows the calls. The address lives until the callback returns.
    unsafe {
        let address = qemu::qemu_plugin_get_hwaddr(access, va);
        if address.is_null() || qemu::qemu_plugin_hwaddr_is_io(address) {
            return None;
        }
        Some(qemu::qemu_plugin_hwaddr_phys_addr(address))
    }
}

/// Whether an access by the last instruction of a block is to a device, by the guest's own tables.
///
/// QEMU 10 must not be asked then. A device may change the map of memory when it is accessed, as a
/// BAR of PCI or flash does. QEMU looks for what the TLB has in the new map before it invalidates
/// the TLB, and aborts. It has every access to a device made by the last instruction of a block.
fn is_to_device(cpu: c_uint, va: u64, state: usize) -> bool {
    if !IS_STARTED.load(Ordering::Relaxed) {
        return true;
    }
    let cpu = current::number(state, CPUS.load(Ordering::Relaxed), false).unwrap_or(cpu as usize);
    let (Some(recorder), Some(registers)) = (recorder(), REGISTERS.get()) else { return true };
    recorder.leaves_ram(cpu, va, registers)
}

/// A store by the last instruction of a block.
extern "C" fn last_store(cpu: c_uint, access: u32, va: u64, data: *mut c_void, state: usize) {
    if !is_to_device(cpu, va, state) {
        store(cpu, access, va, data, state);
    }
}

/// A load-acquire by the last instruction of a block.
extern "C" fn last_acquire(cpu: c_uint, access: u32, va: u64, data: *mut c_void, state: usize) {
    if !is_to_device(cpu, va, state) {
        acquire(cpu, access, va, data, state);
    }
}

/// A store, which was made.
extern "C" fn store(cpu: c_uint, access: u32, va: u64, data: *mut c_void, state: usize) {
    spend(Spent::Other);
    if !IS_STARTED.load(Ordering::Relaxed) {
        return;
    }
    // SAFETY: It is a callback of an access.
    let Some(pa) = (unsafe { physical(access, va) }) else { return };
    let cpu = current::number(state, CPUS.load(Ordering::Relaxed), false).unwrap_or(cpu as usize);
    let (pc, kind) = (data.addr() as u64 & !3, data.addr() & 3);
    let is_followed = FILTER.may_hold(pa);
    let releases = kind & 2 != 0;
    // A page that user space stores to is cleared before it is a table. The kernel of a user space
    // runs in the upper half, whatever the last exception was.
    let is_user = AT_EL0.load(Ordering::Relaxed) & bit(cpu) != 0 && pc >> 55 & 1 == 0;
    if is_user && !is_followed && !releases {
        return;
    }
    let Some(mut recorder) = recorder() else { return };
    // SAFETY: It is a callback of an access.
    let len = 1 << unsafe { qemu::qemu_plugin_mem_size_shift(access) };
    if releases {
        recorder.release(cpu, pa, len);
    }
    if is_followed {
        recorder.store(cpu, pc, pa, len, kind & 1 != 0);
    } else if !is_user {
        recorder.keep(cpu, pc, pa, len);
    }
}

/// A load-acquire, or the load of an exclusive or atomic, which was made.
extern "C" fn acquire(cpu: c_uint, access: u32, va: u64, data: *mut c_void, state: usize) {
    spend(Spent::Acquire);
    if !IS_STARTED.load(Ordering::Relaxed) {
        return;
    }
    // SAFETY: It is a callback of an access.
    let Some(pa) = (unsafe { physical(access, va) }) else { return };
    let cpu = current::number(state, CPUS.load(Ordering::Relaxed), false).unwrap_or(cpu as usize);
    // SAFETY: It is a callback of an access.
    let len = 1 << unsafe { qemu::qemu_plugin_mem_size_shift(access) };
    let Some(mut recorder) = recorder() else { return };
    let (pc, acquires) = (data.addr() as u64 & !3, data.addr() & 1 == 1);
    if acquires {
        recorder.acquire(cpu, pc, pa, len);
    } else {
        recorder.load(cpu, pa, len);
    }
}
