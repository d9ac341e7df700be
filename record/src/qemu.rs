//! QEMU's plugin interface, as far as the recorder uses it.
//!
//! These are declarations of our own, made from the interface's documentation: nothing here is
//! taken from QEMU's header.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;

/// A version of the interface that the recorder is written for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interface {
    /// QEMU 10.
    Four,
    /// QEMU 11: callbacks have data of the plugin's, and no name of the plugin.
    Seven,
}

impl Interface {
    /// The number that QEMU compares with its own.
    pub const fn number(self) -> c_int {
        match self {
            Self::Four => 4,
            Self::Seven => 7,
        }
    }
}

/// What QEMU knows this plugin by.
pub type PluginId = u64;

/// What the plugin is told when it is installed.
#[repr(C)]
pub struct Info {
    pub target_name: *const c_char,
    pub least_version: c_int,
    pub version: c_int,
    /// Whether a whole system is emulated.
    pub is_system: bool,
    pub cpus: c_int,
    pub most_cpus: c_int,
}

/// Whether a callback reads registers.
pub const NO_REGISTERS: c_int = 0;
pub const READS_REGISTERS: c_int = 1;
/// Accesses that read, or that write.
pub const READS: c_int = 1;
pub const WRITES: c_int = 2;

/// A translation block.
#[repr(C)]
pub struct Block {
    _opaque: [u8; 0],
}

/// An instruction of a block.
#[repr(C)]
pub struct Instruction {
    _opaque: [u8; 0],
}

/// A physical address.
#[repr(C)]
pub struct Physical {
    _opaque: [u8; 0],
}

/// GLib's array, of which QEMU gives the registers as.
#[repr(C)]
pub struct Array {
    pub data: *mut u8,
    pub len: c_uint,
}

/// A register, as version 4 describes it.
#[repr(C)]
struct Descriptor {
    handle: *mut c_void,
    name: *const c_char,
    feature: *const c_char,
}

/// A register, as version 7 describes it.
#[repr(C)]
struct LongDescriptor {
    register: Descriptor,
    is_readonly: bool,
}

/// The registers of the CPU that this thread is about to run, by their names.
///
/// # Safety
/// A CPU is new, and `interface` is what QEMU took.
pub unsafe fn registers(interface: Interface) -> Vec<(String, *mut c_void)> {
    // SAFETY: QEMU allows the call, and returns an array of its descriptors, whose names are
    // strings.
    unsafe {
        let Some(array) = qemu_plugin_get_registers().as_ref() else { return Vec::new() };
        let stride = match interface {
            Interface::Four => size_of::<Descriptor>(),
            Interface::Seven => size_of::<LongDescriptor>(),
        };
        let all = (0..array.len as usize).map(|nth| &*array.data.add(nth * stride).cast::<Descriptor>());
        all.map(|at| (CStr::from_ptr(at.name).to_string_lossy().into_owned(), at.handle)).collect()
    }
}

pub type OnInstruction = extern "C" fn(c_uint, *mut c_void);
pub type OnAccess = extern "C" fn(c_uint, u32, u64, *mut c_void);
pub type OnExit = extern "C" fn(*mut c_void);

/// What is called once for the whole machine.
pub trait Machine {
    /// A CPU is new, and is the one that this thread is about to run.
    fn on_cpu();
    /// A block is translated.
    fn on_block(block: *mut Block);
    /// The guest has ended.
    fn on_exit();
}

/// Registers the callbacks of `M`.
///
/// # Safety
/// `id` is what QEMU gave, and `interface` is what it took.
pub unsafe fn register<M: Machine>(interface: Interface, id: PluginId) {
    // SAFETY: The callbacks have the types that this version of the interface calls.
    unsafe {
        match interface {
            Interface::Four => {
                four::qemu_plugin_register_vcpu_init_cb(id, four::on_cpu::<M>);
                four::qemu_plugin_register_vcpu_tb_trans_cb(id, four::on_block::<M>);
                four::qemu_plugin_register_atexit_cb(id, four::on_exit::<M>, ptr::null_mut());
            }
            Interface::Seven => {
                let none = ptr::null_mut();
                seven::qemu_plugin_register_vcpu_init_cb(id, seven::on_cpu::<M>, none);
                seven::qemu_plugin_register_vcpu_tb_trans_cb(id, seven::on_block::<M>, none);
                seven::qemu_plugin_register_atexit_cb(id, seven::on_exit::<M>, none);
            }
        }
    }
}

/// Reads memory at a physical address. Version 4 reads by virtual addresses alone: the caller knows
/// that it is the same.
///
/// # Safety
/// This is a callback of an instruction, and `interface` is what QEMU took.
pub unsafe fn read_memory(interface: Interface, pa: u64, len: usize) -> Option<Vec<u8>> {
    // SAFETY: QEMU allows the calls, and the array is ours.
    unsafe {
        let array = g_byte_array_new();
        let is_read = match interface {
            Interface::Four => qemu_plugin_read_memory_vaddr(pa, array, len),
            Interface::Seven => match symbol(c"qemu_plugin_read_memory_hwaddr") {
                Some(read) => read(pa, array, len) == 0,
                None => false,
            },
        };
        let bytes =
            is_read.then(|| std::slice::from_raw_parts((*array).data, (*array).len as usize).to_vec());
        g_byte_array_unref(array);
        bytes
    }
}

/// A function of version 7, which version 4 does not have.
fn symbol(name: &CStr) -> Option<ReadPhysical> {
    // SAFETY: The name is a string; no handle means all that is loaded.
    let found = unsafe { dlsym(ptr::null_mut(), name.as_ptr()) };
    // SAFETY: A function by that name has this type.
    (!found.is_null()).then(|| unsafe { std::mem::transmute::<*mut c_void, ReadPhysical>(found) })
}

/// Says 0 if it has read.
type ReadPhysical = unsafe extern "C" fn(u64, *mut Array, usize) -> c_int;

/// Ends QEMU as SIGTERM does: its main loop ends the guest.
pub fn end() {
    const SIGTERM: c_int = 15;
    // SAFETY: QEMU handles the signal, in its main thread: those of CPUs block it.
    unsafe { kill(getpid(), SIGTERM) };
}

/// By which QEMU ends a CPU's slice.
pub struct Scheduler(*const c_void);

// SAFETY: It is a number to QEMU, used by the thread of CPUs alone.
unsafe impl Send for Scheduler {}
// SAFETY: As above.
unsafe impl Sync for Scheduler {}

impl Scheduler {
    /// Asks QEMU for it. It gives it to one plugin.
    ///
    /// # Safety
    /// The plugin is being installed.
    pub unsafe fn request() -> Self {
        // SAFETY: QEMU allows the call then.
        Self(unsafe { qemu_plugin_request_time_control() })
    }

    /// The CPU that executes leaves the rest of its slice to the next, behind this block of code.
    ///
    /// QEMU sets its time between two CPUs, so it ends the slice. A time of 0, where it started,
    /// changes nothing: it is never set back.
    ///
    /// # Safety
    /// This is a callback of an instruction or of an access.
    pub unsafe fn end_slice(&self) {
        if !self.0.is_null() {
            // SAFETY: The handle is QEMU's.
            unsafe { qemu_plugin_update_ns(self.0, 0) };
        }
    }
}

/// What version 4 has otherwise.
mod four {
    use super::*;

    pub extern "C" fn on_cpu<M: Machine>(_: PluginId, _: c_uint) {
        M::on_cpu();
    }

    pub extern "C" fn on_block<M: Machine>(_: PluginId, block: *mut Block) {
        M::on_block(block);
    }

    pub extern "C" fn on_exit<M: Machine>(_: PluginId, _: *mut c_void) {
        M::on_exit();
    }

    unsafe extern "C" {
        pub fn qemu_plugin_register_vcpu_init_cb(id: PluginId, callback: extern "C" fn(PluginId, c_uint));
        pub fn qemu_plugin_register_vcpu_tb_trans_cb(
            id: PluginId,
            callback: extern "C" fn(PluginId, *mut Block),
        );
        pub fn qemu_plugin_register_atexit_cb(
            id: PluginId,
            callback: extern "C" fn(PluginId, *mut c_void),
            data: *mut c_void,
        );
    }
}

/// What version 7 has otherwise.
#[expect(clashing_extern_declarations, reason = "one of the two is called, by QEMU's version")]
mod seven {
    use super::*;

    pub extern "C" fn on_cpu<M: Machine>(_: c_uint, _: *mut c_void) {
        M::on_cpu();
    }

    pub extern "C" fn on_block<M: Machine>(block: *mut Block, _: *mut c_void) {
        M::on_block(block);
    }

    pub extern "C" fn on_exit<M: Machine>(_: *mut c_void) {
        M::on_exit();
    }

    unsafe extern "C" {
        pub fn qemu_plugin_register_vcpu_init_cb(
            id: PluginId,
            callback: extern "C" fn(c_uint, *mut c_void),
            data: *mut c_void,
        );
        pub fn qemu_plugin_register_vcpu_tb_trans_cb(
            id: PluginId,
            callback: extern "C" fn(*mut Block, *mut c_void),
            data: *mut c_void,
        );
        pub fn qemu_plugin_register_atexit_cb(id: PluginId, callback: OnExit, data: *mut c_void);
    }
}

unsafe extern "C" {
    pub fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    pub fn qemu_plugin_tb_get_insn(block: *const Block, nth: usize) -> *mut Instruction;
    pub fn qemu_plugin_insn_data(instruction: *const Instruction, to: *mut c_void, len: usize) -> usize;
    pub fn qemu_plugin_insn_vaddr(instruction: *const Instruction) -> u64;
    pub fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: *mut Instruction,
        callback: OnInstruction,
        registers: c_int,
        data: *mut c_void,
    );
    pub fn qemu_plugin_register_vcpu_mem_cb(
        instruction: *mut Instruction,
        callback: OnAccess,
        registers: c_int,
        accesses: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_request_time_control() -> *const c_void;
    fn qemu_plugin_update_ns(handle: *const c_void, time: i64);
    pub fn qemu_plugin_mem_size_shift(access: u32) -> c_uint;
    pub fn qemu_plugin_get_hwaddr(access: u32, va: u64) -> *mut Physical;
    pub fn qemu_plugin_hwaddr_is_io(address: *const Physical) -> bool;
    pub fn qemu_plugin_hwaddr_phys_addr(address: *const Physical) -> u64;
    fn qemu_plugin_get_registers() -> *mut Array;
    /// What it returns differs by version, and is not read: the array shows it.
    pub fn qemu_plugin_read_register(handle: *mut c_void, to: *mut Array);
    fn qemu_plugin_read_memory_vaddr(va: u64, to: *mut Array, len: usize) -> bool;
    fn getpid() -> c_int;
    fn kill(process: c_int, signal: c_int) -> c_int;
    fn dlsym(of: *mut c_void, name: *const c_char) -> *mut c_void;
    fn g_byte_array_unref(array: *mut Array);
    pub fn g_byte_array_new() -> *mut Array;
    pub fn g_byte_array_set_size(array: *mut Array, len: c_uint) -> *mut Array;
    pub fn mmap(
        at: *mut c_void,
        len: usize,
        protection: c_int,
        flags: c_int,
        file: c_int,
        offset: i64,
    ) -> *mut c_void;
}
