//! casemate's traces, so that its checker and this one can judge the same runs.
//!
//! casemate (REMS, Cambridge) checks what a hypervisor does to the tables of EL2 and of stage 2, at 4 KiB granules and
//! 48 bits. Its traces are s-expressions, a record an event; fields are named, `(address 40000000)`, or bare in the same
//! order. What is read here follows its manual and its checker; where they differ:
//!
//! - `id` and `tid` (or `thread`) are decimal. Every other number is hexadecimal, with or without `0x`: casemate's
//!   checker reads them so, and what it writes today has no prefix.
//! - `src` may stand anywhere and may be missing; `msr` is another name of `sysreg-write`; `;` begins a comment.
//! - `! message` after the last record is the verdict that casemate came to.
//!
//! | casemate | here |
//! |---|---|
//! | `mem-init` | a [`Fill`](linmap_trace::Event::Fill) with zeros, then a DSB ISHST: memory that *is* zero, for every walker, not stores on their way |
//! | `mem-set` | a `Fill` with the byte in every byte of the words |
//! | `mem-write` | a [`Store`](linmap_trace::Event::Store); `release` orders nothing for a walker, so it is like `plain` |
//! | `barrier`, `tlbi` | the same |
//! | `sysreg-write` of `ttbr0_el2`, `vttbr_el2` | a [`Write`](linmap_trace::Event::Write), when translation is on; else once it goes on |
//! | of `sctlr_el2`, `hcr_el2` | bit 0 says whether translation is on. It is until one of them is written. Turned off with a root in place: refused |
//! | of `tcr_el2`, `vtcr_el2` | must say 48 bits and 4 KiB, else refused |
//! | of `mair_el2` | out of scope |
//! | `hint release_table` | [`Free`](linmap_trace::Event::Free) of the table's frame, and of that alone: what it points to stays in use by who holds it |
//! | `mem-free` | `Free` |
//! | `hint set_owner_root` and the other hints | out of scope. The frame keeps what it holds: an owner of none means that it may be linked elsewhere, and that store is judged |
//! | `lock`, `trylock`, `unlock`, `mem-read` | out of scope |
//!
//! Memory of the machine is every page that a record initialises, writes or frees; CPUs are as many as the largest
//! `tid` asks for. FEAT_BBM is level 0: casemate knows no other.

mod read;
mod record;
mod write;

pub use read::{CasemateTrace, Skipped, read};
pub use write::{Told, WriteError, write};
