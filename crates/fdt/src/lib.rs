#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

mod cells;
mod dtb;
mod dtb_error;
mod fdt;
mod header;
mod measured_buffer;
mod node;
mod peek;
mod properties;
mod sections;
mod status;
mod structure;
mod tokens;
mod values;
mod writer;

pub use cells::{
    ADDRESS_CELLS, CellCounts, CellWidth, Cells, RegEntries, RegEntry, RegFormat, RegLength, SIZE_CELLS,
};
pub use dtb::{DeviceTree, parse_dtb};
pub use dtb_error::{DtbError, TreeRule};
pub use fdt::Fdt;
pub use measured_buffer::MeasuredBuffer;
pub use node::{Descendants, FdtNode, Values};
pub use properties::{properties, property};
pub use status::Status;
pub use tokens::{Piece, Token, Tokens};
pub use values::{first_string, is_compatible, number, string, strings};
pub use writer::{TreeWriter, WriteError};
