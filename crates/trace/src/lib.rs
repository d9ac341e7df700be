#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

pub mod binary;
mod event;
mod head;
mod line;
mod malformed;
mod names;
mod number;
mod quote;
mod read;
mod recorded;
mod words;
mod write;

pub use event::{Access, Domain, Event, Register, Tlbi, TlbiScope, Use};
pub use head::{Head, MAX_CPUS, PAGE, Ram};
pub use line::Line;
pub use malformed::{Found, LineError, Malformed};
pub use names::{barrier_name, barrier_named};
pub use number::{NumberError, number};
pub use quote::Quote;
pub use recorded::Recorded;
pub use words::Word;
