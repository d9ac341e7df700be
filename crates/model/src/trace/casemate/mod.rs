//! casemate's traces, so that its checker and this one can judge the same runs.
//!
//! casemate (REMS, Cambridge) checks what a hypervisor does to the tables of EL2 and of stage 2, at
//! 4 KiB granules and 48 bits. Its traces are s-expressions, a record an event; fields are named,
//! `(address 40000000)`, or bare in the same order. What is read here follows its manual and its
//! checker; where they differ:
//!
//! - `id` and `tid` (or `thread`) are decimal. Every other number is hexadecimal, with or without
//!   `0x`: casemate's checker reads them so, and what casemate writes today has no prefix.
//! - `src` may be anywhere or missing; `msr` is another name of `sysreg-write`; `;` begins a
//!   comment.
//! - `! message` after the last record is casemate's verdict.
//!
//! | casemate | here |
//! |---|---|
//! | `mem-init` | a [`Fill`](linmap_trace::Event::Fill) with zeros, then a DSB ISHST: memory that is zero for every walker, instead of stores on their way |
//! | `mem-set` | a `Fill` with the byte in every byte of the words |
//! | `mem-write` | a [`Store`](linmap_trace::Event::Store); `release` orders nothing for a walker, so it is like `plain` |
//! | `barrier`, `tlbi` | the same |
//! | `sysreg-write` of `ttbr0_el2`, `vttbr_el2` | a [`Write`](linmap_trace::Event::Write), if translation is enabled, or once it is enabled |
//! | of `sctlr_el2`, `hcr_el2` | bit 0 enables translation, which is enabled before the first write. Disabling it with a root in place is refused |
//! | of `tcr_el2`, `vtcr_el2` | refused unless it selects 48 bits and 4 KiB |
//! | of `mair_el2` | out of scope |
//! | `hint release_table` | [`Free`](linmap_trace::Event::Free) of the table's frame alone: tables that it points to stay in use by their owners |
//! | `mem-free` | `Free` |
//! | `hint set_owner_root` and the other hints | out of scope. The frame's content stays: an owner of none means that it may be linked elsewhere, and that store is judged |
//! | `lock`, `trylock`, `unlock`, `mem-read` | out of scope |
//!
//! The machine's memory is every page that a record initialises, writes or frees. The largest `tid`
//! sets the number of CPUs. FEAT_BBM is level 0, the only one that casemate has.

mod read;
mod record;
mod write;

pub use read::{CasemateTrace, Skipped, read};
pub use write::{Told, WriteError, write};
