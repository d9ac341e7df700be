//! What the next kernel receives: its device tree and its command line.

mod chosen;
mod command_line;
mod limits;
mod names;
mod next_tree;
mod preserved;
mod reserved_memory;
mod root_format;
mod section;
mod spin_table;
mod strings;
mod tree_error;

pub use chosen::{CrashMemory, Seeds};
pub use command_line::{crash_line, payload_line};
pub use limits::{MAX_PENNED, MAX_PRESERVED};
pub use next_tree::NextTree;
pub use preserved::{PreservedError, PreservedRange};
pub use spin_table::SpinTable;
pub use tree_error::TreeError;
