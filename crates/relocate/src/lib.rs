#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(target_arch = "aarch64")]
mod code;
#[cfg(target_arch = "aarch64")]
mod departure;
mod digest;
mod orders;
mod record;
#[cfg(target_arch = "aarch64")]
mod sha256;

#[cfg(target_arch = "aarch64")]
pub use code::code;
#[cfg(target_arch = "aarch64")]
pub use departure::{Departure, Way};
pub use digest::{BLOCK, Digest};
pub use orders::{Check, EMPTY_LIST, LEAVE_VHE, MAX_CHECKS, MAX_LISTS, Orders, PsciConduit};
pub use record::{KIND_CLEAR, KIND_COPY, KIND_COPY_DOWNWARDS, KIND_GO, KIND_LINK, KIND_MASK};
#[cfg(target_arch = "aarch64")]
pub use sha256::Sha256;
