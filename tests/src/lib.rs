//! What the end-to-end tests share: boots by `cargo xtask boot`, boots of an archive made by hand,
//! and device trees.
//!
//! The tests use the same command as a person does, and read the lines for machines that it writes
//! with `--json`. They compare words for people only where these words are promised.

mod board;
mod boot;
mod device_trees;
pub mod ind_list;
mod judged;
mod layout_boot;
pub mod listing;
mod loader;
pub mod mutant;
mod pattern;
mod payload;
mod raw;
mod recorded;
mod running_guest;
mod session;
mod soak;
mod tiny;
mod tool;
mod translations;
mod tree;

pub use board::{BoardBoot, UartNode, console_of_image_at, console_with_tree_at};
pub use boot::{
    Boot, Outcome, Record, example, install, number, own_elf, own_image, own_image_of, own_image_path,
    workspace,
};
pub use device_trees::{DeviceTrees, device_trees};
pub use judged::{Judged, judge};
pub use layout_boot::{LayoutBoot, linux_image};
pub use pattern::pattern;
pub use payload::payload;
pub use raw::{Conduit, PlacedBoot, RawBoot, SpinTableBoot, archive};
pub use recorded::recorded_events;
pub use running_guest::RunningGuest;
pub use session::{check_sections, check_session, check_session_with};
pub use soak::{is_soak, soak_or_first};
pub use tiny::{PsciEnd, tiny_payload};
pub use tool::tool;
pub use translations::{Translations, address, agree_with_qemu};
pub use tree::{Dynamic, RAM, Tree, file, virt_tree};
