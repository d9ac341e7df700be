//! Flattened device trees (Devicetree Specification v0.4, chapter 5).
//!
//! [`parse_dtb`] checks a blob before anything reads it. [`DeviceTree::tokens`] walks it piece by piece with the same
//! check, for callers that copy a tree with changes.

#![no_std]
#![forbid(unsafe_code)]

mod dtb;
mod node;
mod tokens;

pub use dtb::{DeviceTree, DtbError, parse_dtb};
pub use node::{address, is_enabled};
pub use tokens::{Piece, Token, Tokens};
