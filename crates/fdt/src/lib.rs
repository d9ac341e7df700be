#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

mod cells;
mod dtb;
mod dtb_error;
mod header;
mod measured_buffer;
mod node;
mod properties;
mod tokens;
mod writer;

pub use cells::{ADDRESS_CELLS, CellCounts, CellWidth, RegFormat, SIZE_CELLS};
pub use dtb::{DeviceTree, parse_dtb};
pub use dtb_error::{DtbError, TreeRule};
pub use measured_buffer::MeasuredBuffer;
pub use node::{address, is_enabled};
pub use properties::{is_compatible, number, properties, property};
pub use tokens::{Piece, Token, Tokens};
pub use writer::{TreeWriter, WriteError};
