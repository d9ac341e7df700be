//! Entering the payload: the code of `relocate.S`, its orders, and the jump into it.

use core::arch::{asm, global_asm};
use core::mem::offset_of;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use core::{ptr, slice};

use linmap_kexec::{KIND_CLEAR, KIND_COPY_DOWNWARDS, KIND_LINK, MAX_SHARES};
use linmap_table::Reserved;
use linmap_table::cpu::{Cpu, Dsb};
use linmap_vmsa::Pa;

use crate::arch::cpu::{self, ThisCpu};
use crate::arch::el2_stub::HVC_SET_VECTORS;
use crate::arch::psci::{CONDUIT_HVC, CONDUIT_SMC};
use crate::arch::sctlr::SCTLR_OFF;
use crate::arch::sha256::Digest;
use crate::smp::leave;

/// How many segments can be checked at their destinations.
pub const MAX_CHECKS: usize = 8;

/// What the relocation code is told, in a frame of its own. It is read with the MMU on or off.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Orders {
    /// TTBR1 value of the transitional linear map, 0 when the MMU is off.
    pub ttbr1: u64,
    /// TTBR1 value that translates nothing.
    pub nothing: u64,
    /// Where the payload starts.
    pub entry: Pa,
    /// Its device tree.
    pub dtb: Pa,
    /// 0, or the HVC number of the EL2 stub's restart.
    pub restart: u64,
    /// SCTLR_EL1 with MMU and caches off.
    pub sctlr_off: u64,
    /// How PSCI is called: a `CONDUIT_`.
    pub conduit: u64,
    /// 0, or where EL2's stub is from now on.
    pub vectors: Pa,
    /// How many of `check` are to be made.
    pub checks: u64,
    /// A PL011's first register, 0 for none: for what the checks say.
    pub uart: Pa,
    /// How many other CPUs work off lists. Each CPU takes one, and the next by how many CPUs there are.
    pub others: u64,
    /// How many lists there are.
    pub list_count: u64,
    /// The first frame of each CPU's list.
    pub lists: [Pa; MAX_SHARES],
    /// Where CPUs from a spin table go when they are done: the pen's entry.
    pub pen: Pa,
    /// Where they go if the hand-over is called off: [`secondary::entry`](crate::smp::secondary::entry).
    pub back: Pa,
    _to_256: [u64; 2],
    /// What other CPUs wait for: a `GO_`. In no line with what others store to.
    pub go: AtomicU64,
    _to_512: [u64; 31],
    /// How far each other CPU is, by its list: 0 or a `STATE_`.
    pub states: [AtomicU64; MAX_SHARES],
    _to_1024: [u64; 48],
    /// What has to lie where once everything is moved.
    pub check: [Check; MAX_CHECKS],
    _to_1536: [u64; 16],
    /// Room for SHA-256.
    scratch: [u64; 32],
    _to_2048: [u64; 32],
    /// The affinity of each other CPU, by its list.
    pub affinities: [u64; MAX_SHARES],
    /// Where each other CPU says that it is in the pen, by its list: 0 for those that PSCI switches off.
    pub marks: [Pa; MAX_SHARES],
    _to_4096: [u64; 224],
}

/// A segment at its destination.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Check {
    /// Where it is.
    start: Pa,
    /// How many blocks of 64 bytes it has.
    blocks: u64,
    /// Its digest.
    digest: [u32; 8],
}

impl Check {
    /// `len` bytes at `start`, in whole pages, that have to have this digest.
    pub fn new(start: Pa, len: u64, digest: Digest) -> Self {
        Self { start, blocks: len / crate::arch::sha256::BLOCK, digest: digest.words() }
    }
}

const _: () = {
    assert!(size_of::<Orders>() == 4096 && size_of::<Check>() == 48);
    // A cache line, and what is written back with it, has at most 2 KiB; on CPUs that there are, 256 bytes.
    assert!(offset_of!(Orders, go) == 256 && offset_of!(Orders, states) == 512);
    assert!(offset_of!(Orders, check) == 1024 && offset_of!(Orders, scratch) == 1536);
};

/// Where the orders have zeros, which are a list that ends at once.
pub const ZEROS: usize = offset_of!(Orders, _to_4096);

/// Other CPUs may start with their lists.
const GO_MOVE: u64 = 1;
/// The hand-over is called off: they go off, or back to where CPUs from a spin table wait.
const GO_LEAVE: u64 = 2;
/// A CPU has left the live tables.
const STATE_HERE: u64 = 1;
/// It has worked off its list.
const STATE_DONE: u64 = 2;

global_asm!(
    include_str!("relocate.S"),
    include_str!("sha256.S"),
    ".global relocate_end",
    "relocate_end:",
    ttbr1 = const offset_of!(Orders, ttbr1),
    nothing = const offset_of!(Orders, nothing),
    entry = const offset_of!(Orders, entry),
    dtb = const offset_of!(Orders, dtb),
    restart = const offset_of!(Orders, restart),
    sctlr_off = const offset_of!(Orders, sctlr_off),
    conduit = const offset_of!(Orders, conduit),
    vectors = const offset_of!(Orders, vectors),
    checks = const offset_of!(Orders, checks),
    uart = const offset_of!(Orders, uart),
    others = const offset_of!(Orders, others),
    list_count = const offset_of!(Orders, list_count),
    lists = const offset_of!(Orders, lists),
    go = const offset_of!(Orders, go),
    states = const offset_of!(Orders, states),
    check = const offset_of!(Orders, check),
    check_len = const size_of::<Check>(),
    scratch = const offset_of!(Orders, scratch),
    affinities = const offset_of!(Orders, affinities),
    pen = const offset_of!(Orders, pen),
    back = const offset_of!(Orders, back),
    marks = const offset_of!(Orders, marks),
    kind_down = const KIND_COPY_DOWNWARDS,
    kind_clear = const KIND_CLEAR,
    kind_link = const KIND_LINK,
    go_move = const GO_MOVE,
    go_leave = const GO_LEAVE,
    state_here = const STATE_HERE,
    state_done = const STATE_DONE,
    hvc_set_vectors = const HVC_SET_VECTORS,
    conduit_hvc = const CONDUIT_HVC,
    conduit_smc = const CONDUIT_SMC,
);

unsafe extern "C" {
    static relocate_start: u8;
    static relocate_end: u8;
    fn leave_mmu();
}

// Turns MMU and caches off and goes to x3, from the identity map. x4 is SCTLR_EL1.
global_asm!(
    ".section .idmap.text, \"ax\"",
    ".global leave_mmu",
    "leave_mmu:",
    "msr sctlr_el1, x4",
    "isb",
    "br x3"
);

/// The relocation code, position independent.
pub fn code() -> &'static [u8] {
    let [start, end] =
        [&raw const relocate_start, &raw const relocate_end].map(|symbol| symbol.expose_provenance());
    // SAFETY: both symbols bound one stretch of the image's text, which is readable.
    unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(start), end - start) }
}

impl Orders {
    /// Orders with nothing to move.
    pub fn new(entry: Pa, dtb: Pa) -> Self {
        Self {
            ttbr1: 0,
            nothing: 0,
            entry,
            dtb,
            restart: 0,
            sctlr_off: SCTLR_OFF,
            conduit: 0,
            vectors: Pa(0),
            checks: 0,
            uart: Pa(0),
            others: 0,
            list_count: 0,
            lists: [Pa(0); MAX_SHARES],
            pen: Pa(0),
            back: Pa(0),
            _to_256: [0; 2],
            go: AtomicU64::new(0),
            _to_512: [0; 31],
            states: [const { AtomicU64::new(0) }; MAX_SHARES],
            _to_1024: [0; 48],
            check: [Check::default(); MAX_CHECKS],
            _to_1536: [0; 16],
            scratch: [0; 32],
            _to_2048: [0; 32],
            affinities: [0; MAX_SHARES],
            marks: [Pa(0); MAX_SHARES],
            _to_4096: [0; 224],
        }
    }

    /// Whether the CPU with the list `list` has left the live tables.
    pub fn is_here(&self, list: usize) -> bool {
        self.states[list].load(Ordering::Acquire) == STATE_HERE
    }
}

/// The orders that other CPUs wait for, once they may.
static AWAITED: AtomicPtr<Orders> = AtomicPtr::new(ptr::null_mut());

/// Sends the CPUs that have left the live tables for the relocation code off again.
pub fn call_off() {
    // SAFETY: the orders' frame stays as long as a CPU may wait there.
    let Some(orders) = (unsafe { AWAITED.swap(ptr::null_mut(), Ordering::AcqRel).as_ref() }) else { return };
    orders.go.store(GO_LEAVE, Ordering::Release);
    ThisCpu.dsb(Dsb::Ish);
    cpu::send_event();
}

/// What other CPUs need to know to come along, by words: written before they are told to.
static TOGETHER: [AtomicU64; 7] = [const { AtomicU64::new(0) }; 7];

/// How the relocation code is reached.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// With the MMU on, mapped 1:1 by a map of its own.
    Mapped {
        /// TTBR0 value of the 1:1 map.
        ttbr0: u64,
        /// TCR value with that map's VA size.
        tcr: u64,
        /// VA − PA of the linear map.
        offset: u64,
    },
    /// With the MMU off, by way of the image's own identity map.
    Unmapped {
        /// TTBR0 value of that map.
        identity: u64,
        /// VA − PA of the image.
        image_offset: u64,
    },
}

/// Where code and orders are, and how to get there.
#[derive(Clone, Copy, Debug)]
pub struct Departure {
    /// The copy of [`code`] that runs.
    pub code: Pa,
    /// The [`Orders`].
    pub orders: Pa,
    /// How to reach them.
    pub way: Way,
    /// What TTBR0 and TCR hold until then.
    pub reserved: Reserved,
}

impl Departure {
    /// Lets other CPUs come along by [`follow`]. By [`Way::Unmapped`] none can.
    pub fn publish(self, orders: &'static Orders) {
        let Way::Mapped { ttbr0, tcr, offset } = self.way else { return };
        AWAITED.store(ptr::from_ref(orders).cast_mut(), Ordering::Release);
        let words = [self.code.0, self.orders.0, ttbr0, tcr, offset, self.reserved.ttbr0, self.reserved.tcr];
        for (word, value) in TOGETHER.iter().zip(words) {
            word.store(value, Ordering::Release);
        }
    }

    /// What was published last.
    fn published() -> Self {
        let [code, orders, ttbr0, tcr, offset, nothing, tcr_before] =
            TOGETHER.each_ref().map(|word| word.load(Ordering::Acquire));
        Self {
            code: Pa(code),
            orders: Pa(orders),
            way: Way::Mapped { ttbr0, tcr, offset },
            reserved: Reserved { ttbr0: nothing, tcr: tcr_before },
        }
    }

    /// Leaves this kernel to work off the list `list`; the boot CPU, whose list is 0, enters the payload.
    ///
    /// # Safety
    /// The code is [`code`], cleaned to the point of coherency, and no instruction of it is cached otherwise. By
    /// [`Way::Mapped`], the 1:1 map has the code, executable, and the tree of the orders' `ttbr1` has the orders, the move
    /// list and everything that it names at `offset`, writable; both are ordered before this. By [`Way::Unmapped`], `ttbr1`
    /// is 0, all of these but what the list names are cleaned to the point of coherency, and no other CPU runs.
    /// Destinations may hold nothing that is still needed. TTBR0 and TCR hold what `reserved` says, and no TLB of this CPU
    /// holds a translation of TTBR0. Interrupts are masked.
    pub unsafe fn go(self, list: usize) -> ! {
        let mut cpu = ThisCpu;
        cpu.dsb(Dsb::Ishst);
        match self.way {
            Way::Mapped { ttbr0, tcr, offset } => {
                // As `Reserved::install` has it: the size while nothing is translated, then the root.
                cpu.write_tcr(tcr);
                cpu.isb();
                cpu.write_ttbr0(ttbr0);
                cpu.isb();
                // SAFETY: the caller's contract is what the routine's head asks for.
                unsafe {
                    asm!("mrs x9, cntvct_el0", "msr tpidr_el0, x9", "br {code}",
                        in("x9") 0u64,
                        code = in(reg) self.code.0,
                        in("x0") self.orders.0,
                        in("x1") offset,
                        in("x2") list,
                        options(noreturn));
                }
            }
            Way::Unmapped { identity, image_offset } => {
                cpu.write_ttbr0(identity);
                cpu.isb();
                let there = (leave_mmu as *const () as u64).wrapping_sub(image_offset);
                // SAFETY: the identity map has the few instructions at their physical address; the rest is the caller's.
                unsafe {
                    asm!("mrs x9, cntvct_el0", "msr tpidr_el0, x9", "br {there}",
                        in("x9") 0u64,
                        there = in(reg) there,
                        in("x0") self.orders.0,
                        in("x1") 0,
                        in("x2") list,
                        in("x3") self.code.0,
                        in("x4") SCTLR_OFF,
                        options(noreturn));
                }
            }
        }
    }
}

/// Work for another CPU: to leave with the boot CPU and work off the list `list`, and go off or to the pen.
pub fn follow(list: usize) {
    cpu::mask_interrupts();
    leave::leave_others();
    // SAFETY: whoever gives this work answers for what was published, as `go` asks; a CPU that works has its TTBR0 on the
    // reserved table.
    unsafe { Departure::published().go(list) }
}
