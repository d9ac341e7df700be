#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "zstd")]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod crash;
mod moves;
mod payload;
mod place;
mod tree;

pub use crash::{CoreNotes, CpuRegisters, ElfCore, ElfCoreError, NotesError, VmcoreInfo};
pub use moves::{
    BOUNCE_MAX, Direction, Extent, ExtentSource, IndEntry, IndError, IndList, KIND_CLEAR, KIND_COPY,
    KIND_COPY_DOWNWARDS, KIND_GO, KIND_LINK, KIND_MASK, LIST_FRAME_LEN, LIST_FRAME_WORDS, ListFrame,
    MAX_SHARES, MoveError, MoveList, MovePlan, Moves, Pending, RECORD_WORDS, RECORDS_PER_FRAME, Record,
    Records, SegmentSources, Transition, TransitionError, WireError,
};
#[cfg(feature = "zstd")]
pub use payload::ZSTD_WINDOW_MAX;
pub use payload::{
    Archive, ArchiveError, FileFormat, Image, ImageError, KernelFile, KernelFileError, Member, Members,
    Packing, PlacementFlag, UnpackError, Unpacker,
};
pub use place::{
    Initrd, MAX_SEGMENTS, Part, PayloadPlacement, PlacementError, SEGMENT_ALIGN, SegmentError, Segments,
    fill_with_usable, initrd_window,
};
pub use tree::{
    CrashMemory, MAX_PENNED, MAX_PRESERVED, NextTree, PreservedError, PreservedRange, Seeds, SpinTable,
    TreeError, crash_line, payload_line,
};
