//! The relocation code itself: `relocate.S`, `el2_exit.S` and `sha256.S`, in one piece.

use core::arch::global_asm;
use core::mem::offset_of;
use core::{ptr, slice};

use crate::orders::{Check, GO_LEAVE, GO_MOVE, LEAVE_VHE, Orders, PsciConduit, STATE_DONE, STATE_HERE};
use crate::record::{KIND_CLEAR, KIND_COPY_DOWNWARDS, KIND_LINK};

global_asm!(
    include_str!("relocate.S"),
    include_str!("el2_exit.S"),
    include_str!("sha256.S"),
    ".global linmap_relocate_end",
    "linmap_relocate_end:",
    ttbr1 = const offset_of!(Orders, ttbr1),
    nothing = const offset_of!(Orders, nothing),
    entry = const offset_of!(Orders, entry),
    dtb = const offset_of!(Orders, dtb),
    restart = const offset_of!(Orders, restart),
    leave_vhe = const LEAVE_VHE,
    sctlr_off = const offset_of!(Orders, sctlr_off),
    conduit = const offset_of!(Orders, conduit),
    vectors = const offset_of!(Orders, vectors),
    set_vectors = const offset_of!(Orders, set_vectors),
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
    conduit_hvc = const PsciConduit::Hvc as u64,
    conduit_smc = const PsciConduit::Smc as u64,
);

unsafe extern "C" {
    static linmap_relocate_start: u8;
    static linmap_relocate_end: u8;
}

/// Returns the relocation code: position independent, at most one page of 4096 bytes.
pub fn code() -> &'static [u8] {
    let [start, end] = [&raw const linmap_relocate_start, &raw const linmap_relocate_end]
        .map(|symbol| symbol.expose_provenance());
    // SAFETY: both symbols bound one stretch of the image's text, which is readable.
    unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(start), end - start) }
}
