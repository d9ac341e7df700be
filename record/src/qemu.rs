//! QEMU's plugin interface, as far as the recorder uses it.
//!
//! These are declarations of our own, made from the interface's documentation: nothing here is
//! taken from QEMU's header.

use std::ffi::{c_char, c_int, c_uint, c_void};

/// The version of the interface that the recorder is written for: QEMU 10.
pub const INTERFACE: c_int = 4;

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
/// Accesses that write.
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

/// A register.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Descriptor {
    pub handle: *mut c_void,
    pub name: *const c_char,
    pub feature: *const c_char,
}

pub type OnCpu = extern "C" fn(PluginId, c_uint);
pub type OnBlock = extern "C" fn(PluginId, *mut Block);
pub type OnInstruction = extern "C" fn(c_uint, *mut c_void);
pub type OnAccess = extern "C" fn(c_uint, u32, u64, *mut c_void);
pub type OnExit = extern "C" fn(PluginId, *mut c_void);

unsafe extern "C" {
    pub fn qemu_plugin_register_vcpu_init_cb(id: PluginId, callback: OnCpu);
    pub fn qemu_plugin_register_vcpu_tb_trans_cb(id: PluginId, callback: OnBlock);
    pub fn qemu_plugin_register_atexit_cb(id: PluginId, callback: OnExit, data: *mut c_void);
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
    pub fn qemu_plugin_mem_size_shift(access: u32) -> c_uint;
    pub fn qemu_plugin_get_hwaddr(access: u32, va: u64) -> *mut Physical;
    pub fn qemu_plugin_hwaddr_is_io(address: *const Physical) -> bool;
    pub fn qemu_plugin_hwaddr_phys_addr(address: *const Physical) -> u64;
    pub fn qemu_plugin_get_registers() -> *mut Array;
    pub fn qemu_plugin_read_register(handle: *mut c_void, to: *mut Array) -> c_int;
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
