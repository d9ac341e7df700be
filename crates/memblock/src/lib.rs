//! Which physical memory a machine has, and which of it is taken.
//!
//! [`Memblock`] is what a kernel knows about memory before it has a page allocator: what is RAM, what the
//! firmware forbids to map (*no-map*), and what is in use (*reserved*). It owns no memory itself, needs no heap,
//! and can be a `static`: its three lists have a capacity fixed at build time.
//!
//! [`Memblock::fill_from_fdt`] fills it from a flattened device tree: the memory nodes, the reservation block,
//! `/reserved-memory` and the initrd. It treats the tree as hostile: an error says what is wrong, where and why.
//!
//! Frames are then taken with [`Memblock::alloc`], from the top of a given range downwards. The usual request,
//! one table frame after another, is answered from a cursor in a few instructions; the lists are exact after
//! every call all the same, so a memblock compares equal before and after everything taken was given back.
//!
//! Addresses and lengths are in bytes throughout.
//!
//! ```
//! use linmap_memblock::{Memblock, PA_LIMIT};
//! use linmap_vmsa::{Pa, PaRange};
//!
//! let mut memory = Memblock::<16>::new();
//! memory.add(PaRange::new(Pa(0x4000_0000), Pa(0x8000_0000)))?;
//! memory.mark_no_map(PaRange::new(Pa(0x7000_0000), Pa(0x7010_0000)))?;
//! memory.reserve(PaRange::new(Pa(0x7fff_f000), Pa(0x8000_0000)))?;
//!
//! let table = memory.alloc(0x1000, 0x1000, PaRange::new(Pa(0), PA_LIMIT))?;
//! assert_eq!(table, Pa(0x7fff_e000));
//! let mapped: Vec<_> = memory.mapped(0x1000).map(|range| range.to_string()).collect();
//! assert_eq!(mapped, ["0x40000000..0x70000000", "0x70100000..0x80000000"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![no_std]
#![forbid(unsafe_code)]

mod alloc;
mod fdt;
mod memblock;
mod range_set;

pub use alloc::AllocError;
pub use fdt::FdtError;
pub use memblock::{Memblock, MemoryRegion, PA_LIMIT, RegionError};
