#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(target_arch = "aarch64")]
mod el1_and_0;
#[cfg(target_arch = "aarch64")]
mod el2;
#[cfg(target_arch = "aarch64")]
mod el3;
#[cfg(target_arch = "aarch64")]
mod memory;
#[cfg(target_arch = "aarch64")]
mod stage2;

#[cfg(target_arch = "aarch64")]
pub use el1_and_0::El1And0;
#[cfg(target_arch = "aarch64")]
pub use el2::El2;
#[cfg(target_arch = "aarch64")]
pub use el3::El3;
#[cfg(target_arch = "aarch64")]
pub use memory::clean_and_invalidate;
#[cfg(target_arch = "aarch64")]
pub use stage2::Stage2;
