//! linmap's kernel: boots on an arm64 machine, builds the linear map of its memory, verifies it,
//! changes it live, and hands over to the next kernel with the MMU on.
//!
//! The boot begins in `boot/entry.S` and continues in [`boot::kernel_main`]. Lines that begin with
//! `linmap: ` are for machines.
//!
//! A wing imports only wings that stand before it here.

#![no_std]
#![no_main]

mod arch;
mod boot;
mod end;
mod gic;
mod kexec;
mod memory;
mod shell;
mod smp;
mod stress;
