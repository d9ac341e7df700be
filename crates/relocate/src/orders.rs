//! The orders of the relocation code: its parameters, in a frame of their own.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

use linmap_vmsa::Pa;

use crate::digest::{BLOCK, Digest};

/// The most lists, and so the most CPUs that work at the same time.
pub const MAX_LISTS: usize = 16;
/// The most segments that are checked at their destinations.
pub const MAX_CHECKS: usize = 8;

/// Value of [`Orders::restart`] for a kernel that runs at EL2 with VHE: the payload is entered with
/// HCR_EL2.E2H and TGE clear, if the CPU can do that. No HVC number.
pub const LEAVE_VHE: u64 = 1;

/// How PSCI is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u64)]
pub enum PsciConduit {
    /// The machine has no PSCI.
    #[default]
    None,
    /// By HVC.
    Hvc,
    /// By SMC.
    Smc,
}

/// The parameters of the relocation code, which reads them with the MMU on or off.
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
    /// How the payload is entered at the level at which this kernel was: 0 at EL1, [`LEAVE_VHE`] at
    /// EL2 with VHE, or the HVC number by which the stub at EL2 restarts the payload at EL2: x1 is
    /// the entry, x2 the device tree.
    pub restart: u64,
    /// SCTLR_EL1 with MMU and caches off.
    pub sctlr_off: u64,
    /// How PSCI is called.
    pub conduit: PsciConduit,
    /// 0, or where the stub at EL2 has its vectors from now on: a frame that nothing is moved to.
    pub vectors: Pa,
    /// How many entries of `check` are used.
    pub checks: u64,
    /// The first register of a PL011 to which the result of the checks goes, 0 for none.
    pub uart: Pa,
    /// How many other CPUs work through lists. Each CPU begins with the list of its number, and
    /// then takes every (`others` + 1)th list after it.
    pub others: u64,
    /// How many lists there are.
    pub list_count: u64,
    /// The first frame of each list, in the order of the CPUs that begin with them.
    pub lists: [Pa; MAX_LISTS],
    /// Where CPUs that have a mark in `marks` go when they are done, with the mark in x0 and the
    /// MMU off.
    pub pen: Pa,
    /// Where they go, in the same way, if the hand-over is cancelled.
    pub back: Pa,
    /// The HVC number by which the stub at EL2 takes `vectors`, in x1.
    pub set_vectors: u64,
    _to_256: [u64; 1],
    /// What other CPUs wait for: a `GO_`. It shares no cache line with a field that they store to.
    pub(crate) go: AtomicU64,
    _to_512: [u64; 31],
    /// How far each other CPU is, by its list: 0 or a `STATE_`.
    pub(crate) states: [AtomicU64; MAX_LISTS],
    _to_1024: [u64; 48],
    /// What the destinations must hold once everything is moved.
    pub check: [Check; MAX_CHECKS],
    _to_1536: [u64; 16],
    /// Room for SHA-256.
    pub(crate) scratch: [u64; 32],
    _to_2048: [u64; 32],
    /// The affinity of each other CPU, by its list.
    pub affinities: [u64; MAX_LISTS],
    /// A word for each other CPU, by its list, in which the CPU reports that it is in the pen. 0
    /// for those that PSCI switches off.
    pub marks: [Pa; MAX_LISTS],
    _to_4096: [u64; 224],
}

/// A segment at its destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
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
    /// Returns the check that `len` bytes at `start`, whole pages, have this digest.
    pub fn new(start: Pa, len: u64, digest: Digest) -> Self {
        Self { start, blocks: len / BLOCK, digest: digest.words() }
    }
}

/// Where [`Orders`] have zeros, in bytes from their start: a list that ends at once.
pub const EMPTY_LIST: usize = offset_of!(Orders, _to_4096);

const _: () = {
    assert!(size_of::<Orders>() == 4096 && size_of::<Check>() == 48);
    // A cache line, and what is written back with it (CTR_EL0.CWG), has at most 2 KiB; on the CPUs
    // that exist, 256 bytes.
    assert!(offset_of!(Orders, go) == 256 && offset_of!(Orders, states) == 512);
    assert!(offset_of!(Orders, check) == 1024 && offset_of!(Orders, scratch) == 1536);
};

/// Other CPUs may start with their lists.
#[cfg(any(target_arch = "aarch64", test))]
pub(crate) const GO_MOVE: u64 = 1;
/// The hand-over is cancelled: the other CPUs go offline or return to the pen.
pub(crate) const GO_LEAVE: u64 = 2;
/// A CPU has left the live tables.
pub(crate) const STATE_HERE: u64 = 1;
/// It has finished its lists.
#[cfg(any(target_arch = "aarch64", test))]
pub(crate) const STATE_DONE: u64 = 2;

impl Orders {
    /// Returns orders with nothing to move, for a payload that starts at `entry` with the device
    /// tree `dtb` in x0. `sctlr_off` is SCTLR_EL1 with MMU and caches off.
    pub fn new(entry: Pa, dtb: Pa, sctlr_off: u64) -> Self {
        Self {
            ttbr1: 0,
            nothing: 0,
            entry,
            dtb,
            restart: 0,
            sctlr_off,
            conduit: PsciConduit::None,
            vectors: Pa(0),
            checks: 0,
            uart: Pa(0),
            others: 0,
            list_count: 0,
            lists: [Pa(0); MAX_LISTS],
            pen: Pa(0),
            back: Pa(0),
            set_vectors: 0,
            _to_256: [0; 1],
            go: AtomicU64::new(0),
            _to_512: [0; 31],
            states: [const { AtomicU64::new(0) }; MAX_LISTS],
            _to_1024: [0; 48],
            check: [Check::default(); MAX_CHECKS],
            _to_1536: [0; 16],
            scratch: [0; 32],
            _to_2048: [0; 32],
            affinities: [0; MAX_LISTS],
            marks: [Pa(0); MAX_LISTS],
            _to_4096: [0; 224],
        }
    }

    /// Returns whether the CPU with the list `list` has left the live tables.
    ///
    /// # Panics
    /// If `list` is not below [`MAX_LISTS`].
    pub fn has_arrived(&self, list: usize) -> bool {
        self.states[list].load(Ordering::Acquire) == STATE_HERE
    }

    /// Cancels the hand-over: the CPUs that have left the live tables go offline or return to the
    /// pen. On AArch64 this wakes them.
    pub fn call_off(&self) {
        self.go.store(GO_LEAVE, Ordering::Release);
        // SAFETY: the DSB only orders accesses, and the event only ends waits.
        #[cfg(target_arch = "aarch64")]
        unsafe {
            core::arch::asm!("dsb ish", "sev", options(nostack, preserves_flags));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDERS: Pa = Pa(0x4000_0000);

    #[test]
    fn every_field_is_where_the_assembly_can_address_it() {
        // An unsigned offset of LDR is 12 bits in units of 8 bytes; the fields whose addresses are
        // added have 12 bits.
        let offsets = [
            offset_of!(Orders, ttbr1),
            offset_of!(Orders, nothing),
            offset_of!(Orders, entry),
            offset_of!(Orders, dtb),
            offset_of!(Orders, restart),
            offset_of!(Orders, sctlr_off),
            offset_of!(Orders, conduit),
            offset_of!(Orders, vectors),
            offset_of!(Orders, checks),
            offset_of!(Orders, uart),
            offset_of!(Orders, others),
            offset_of!(Orders, list_count),
            offset_of!(Orders, lists),
            offset_of!(Orders, pen),
            offset_of!(Orders, back),
            offset_of!(Orders, set_vectors),
            offset_of!(Orders, go),
            offset_of!(Orders, states),
            offset_of!(Orders, check),
            offset_of!(Orders, scratch),
            offset_of!(Orders, affinities),
            offset_of!(Orders, marks),
        ];
        let expected = [
            0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 224, 232, 240, 256, 512, 1024, 1536, 2048, 2176,
        ];
        assert_eq!(offsets, expected);
        assert!(offset_of!(Orders, scratch).is_multiple_of(16), "SHA-256 stores pairs of vector registers");
    }

    #[test]
    fn a_check_has_its_digest_in_pairs_of_words() {
        assert_eq!(
            [offset_of!(Check, start), offset_of!(Check, blocks), offset_of!(Check, digest)],
            [0, 8, 16]
        );
        let mut digest = [0; 32];
        digest[3] = 1;
        let check = Check::new(ORDERS, 0x3000, Digest(digest));
        assert_eq!((check.start, check.blocks, check.digest[0]), (ORDERS, 192, 1));
    }

    #[test]
    fn what_other_cpus_poll_shares_no_line_with_what_they_store_to() {
        let line = |offset: usize| offset / 256;
        let go = line(offset_of!(Orders, go));
        for stored in [offset_of!(Orders, states), offset_of!(Orders, scratch)] {
            assert_ne!(line(stored), go);
        }
        // All fields that are read and never stored to come before it.
        assert!(line(offset_of!(Orders, set_vectors)) < go);
        let words = [GO_MOVE, GO_LEAVE, STATE_HERE, STATE_DONE];
        assert!(words.iter().all(|word| *word != 0), "0 is what they begin with");
    }

    #[test]
    fn the_empty_list_is_a_record_of_zeros() {
        let orders = Orders::new(Pa(0x4020_0000), Pa(0x4400_0000), 0);
        assert!(EMPTY_LIST + 24 <= size_of::<Orders>());
        assert_eq!(orders._to_4096[..3], [0; 3]);
        assert_eq!(crate::record::KIND_COPY, 0, "a copy of length 0 ends a list");
    }

    #[test]
    fn cpus_that_have_arrived_are_seen_and_sent_off() {
        let orders = Orders::new(Pa(0x4020_0000), Pa(0x4400_0000), 0);
        assert!(!orders.has_arrived(1));
        orders.states[1].store(STATE_HERE, Ordering::Release);
        assert!(orders.has_arrived(1) && !orders.has_arrived(2));
        orders.states[1].store(STATE_DONE, Ordering::Release);
        assert!(!orders.has_arrived(1));
        orders.call_off();
        assert_eq!(orders.go.load(Ordering::Acquire), GO_LEAVE);
    }
}
