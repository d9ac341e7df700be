//! EL0: what a process does by the code in `entry.S`, and how that ends.

use core::arch::asm;

use linmap_vmsa::Va;

/// Where every process has the page of code.
pub const CODE: Va = Va(0x1_0000);

/// What a process does.
#[derive(Clone, Copy)]
pub enum Do {
    /// Stores a value in each word of some bytes.
    Fill(u64, u64),
    /// Compares each word of some bytes with a value.
    Check(u64, u64),
    /// Jumps there.
    Jump,
}

/// Why EL0 was left.
pub enum Left {
    /// A system call, with its argument.
    Call(u64),
    /// A fault.
    Fault(Fault),
}

/// A fault of EL0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The address.
    pub at: Va,
    /// What was not allowed.
    pub access: Access,
    /// Whether something is mapped there: a permission fault, no translation fault.
    pub mapped: bool,
}

/// An access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    Read,
    Write,
    Execute,
}

/// The registers of a process, as `entry.S` saves them.
#[repr(C)]
pub struct User {
    x: [u64; 31],
    pc: u64,
    pstate: u64,
}

unsafe extern "C" {
    static user_code: u8;
    static user_check: u8;
    static user_jump: u8;
    fn enter_user(user: &mut User);
}

/// The page of code, by its address in the kernel.
pub fn code() -> u64 {
    &raw const user_code as u64
}

impl User {
    /// A process about to do `what` at `at`.
    pub fn new(what: Do, at: Va) -> Self {
        let (routine, value, len) = match what {
            Do::Fill(value, len) => (&raw const user_code, value, len),
            Do::Check(value, len) => (&raw const user_check, value, len),
            Do::Jump => (&raw const user_jump, 0, 0),
        };
        let mut x = [0; 31];
        x[..3].copy_from_slice(&[value, at.0, at.0 + len]);
        // EL0, with interrupts masked.
        Self { x, pc: CODE.0 + (routine as u64 - code()), pstate: 0x3c0 }
    }

    /// Goes on at EL0 until it is left.
    pub fn run(&mut self) -> Left {
        let (esr, far): (u64, u64);
        // SAFETY: the code runs at EL0, by the tables of its process, and comes back.
        unsafe {
            enter_user(self);
            asm!("mrs {}, esr_el1", "mrs {}, far_el1", out(reg) esr, out(reg) far);
        }
        // The class of the exception, and of aborts whether a store and which fault (Arm ARM D24.2,
        // ESR_EL1).
        let access = match esr >> 26 {
            0x15 => return Left::Call(self.x[0]),
            0x20 => Access::Execute,
            0x24 if esr & 1 << 6 != 0 => Access::Write,
            0x24 => Access::Read,
            _ => panic!("an exception of EL0 that nobody expected: {esr:#x}"),
        };
        let mapped = match esr & 0x3c {
            0x4 => false,
            0xc => true,
            _ => panic!("a fault of EL0 that nobody expected: {esr:#x}"),
        };
        Left::Fault(Fault { at: Va(far), access, mapped })
    }
}
