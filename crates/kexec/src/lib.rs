//! Handing a machine over to its next kernel.
//!
//! A hand-over is prepared in this order, and everything that can fail fails before anything is moved:
//!
//! 1. [`Archive`] finds the payload's files, [`Image`] checks its kernel;
//! 2. [`CommandLine`] says which words are for the payload; [`Chosen`] measures its device tree;
//! 3. [`Placed::lowest`] chooses where image, initrd and device tree go, by the arm64 boot protocol;
//! 4. [`Chosen::rewrite`] writes the device tree that says so;
//! 5. [`Segments`] checks the destinations, and a [`MovePlan`] lists what has to move where.
//!
//! All input is hostile: images, archives, device trees and command lines come from outside.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod archive;
mod chosen;
mod command_line;
mod image;
mod move_list;
mod move_plan;
mod placement;
mod segment;
mod transition;

pub use archive::{Archive, ArchiveError, Member, Members};
pub use chosen::{Chosen, ChosenError};
pub use command_line::{COMMAND_LINE_MAX, CommandLine, CommandLineError, Word, Words};
pub use image::{Content, Image, ImageError, Placement};
pub use move_list::{
    Extent, Extents, LENGTH_OF_END, LENGTH_OF_LINK, LIST_FRAME_LEN, LIST_FRAME_WORDS, MoveList, RECORD_WORDS,
    RECORDS_PER_FRAME, WireError,
};
pub use move_plan::{ListFrame, MoveError, MovePlan};
pub use placement::{Initrd, Part, Placed, PlacementError, initrd_window};
pub use segment::{SEGMENT_ALIGN, SegmentError, Segments};
pub use transition::{Transition, TransitionError};
