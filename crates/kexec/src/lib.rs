//! Handing a machine over to its next kernel.
//!
//! A hand-over is prepared in this order, and everything that can fail fails before anything is moved:
//!
//! 1. [`Archive`] finds the payload's files; [`KernelFile`] tells how its kernel is packed, [`Image`] checks it, an
//!    [`Unpacker`] unpacks it;
//! 2. [`payload_line`] writes its command line; [`NextTree`] measures its device tree;
//! 3. [`Placed::lowest`] chooses where image, initrd and device tree go, by the arm64 boot protocol;
//! 4. [`NextTree::rewrite`] writes the device tree that says so;
//! 5. [`Segments`] checks the destinations, and a [`MovePlan`] lists what has to move where.
//!
//! All input is hostile: images, archives, device trees and command lines come from outside.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "zstd")]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod archive;
mod cells;
mod chosen;
mod command_line;
mod core_notes;
mod elf_core;
mod gzip;
mod image;
mod ind_list;
mod kept;
mod kernel_file;
mod list_writer;
mod move_list;
mod move_plan;
mod next_tree;
mod order;
mod output;
mod placement;
mod placement_search;
mod reserved_memory;
mod segment;
mod spin_table;
mod transition;
mod tree_output;
mod unpack;
mod usable;
mod zboot;
#[cfg(feature = "zstd")]
mod zstd;
#[cfg(feature = "zstd")]
mod zstd_block;
#[cfg(feature = "zstd")]
mod zstd_survey;

pub use linmap_relocate::{KIND_CLEAR, KIND_COPY, KIND_COPY_DOWNWARDS, KIND_GO, KIND_LINK, KIND_MASK};

pub use archive::{Archive, ArchiveError, Member, Members};
pub use chosen::{CrashMemory, Seeds};
pub use command_line::{crash_line, payload_line};
pub use core_notes::{CoreNotes, CpuRegisters, NotesError, VmcoreInfo};
pub use elf_core::{ElfCore, ElfCoreError};
pub use image::{Content, Image, ImageError, Placement};
pub use ind_list::{IndEntry, IndError, IndList};
pub use kept::{KeptError, KeptRange, MAX_KEPT};
pub use kernel_file::{KernelFile, KernelFileError, Packing};
pub use list_writer::ListFrame;
pub use move_list::{
    Direction, LIST_FRAME_LEN, LIST_FRAME_WORDS, MoveList, RECORD_WORDS, RECORDS_PER_FRAME, Record, Records,
    WireError,
};
pub use move_plan::{BOUNCE_MAX, Extent, MAX_SHARES, MoveError, MovePlan, Moves, Source};
pub use next_tree::{NextTree, TreeError};
pub use order::Pending;
pub use placement::{Initrd, Part, Placed, PlacementError, initrd_window};
pub use segment::{MAX_SEGMENTS, SEGMENT_ALIGN, SegmentError, Segments};
pub use spin_table::{MAX_PENNED, SpinTable};
pub use transition::{Transition, TransitionError};
pub use unpack::{UnpackError, Unpacker};
pub use usable::usable;
#[cfg(feature = "zstd")]
pub use zstd_survey::ZSTD_WINDOW_MAX;
