//! Finds what the other commands need, and installs what is missing.
//!
//! On a terminal the user is asked before anything changes the machine. Without one, root on Debian
//! gets the packages installed, with a message. All other users get the commands to run. What stays
//! in target/ (the payloads) is fetched without asking.

mod announce;
mod apt;
mod deb;
mod device_trees;
pub mod guests;
mod host;
pub mod lints;
pub mod lock;
mod modules;
pub mod payload;
mod qemu;
mod sources;
mod space;
pub mod toolchain;

use std::process::ExitCode;

use anyhow::Result;

use crate::workspace::Workspace;

pub use announce::{Wanted, announce};
pub use qemu::{FOR_BOOT, FOR_TEST, ensure as ensure_qemu};

/// `cargo xtask setup`: everything that `test` needs.
pub fn run(workspace: &Workspace) -> Result<ExitCode> {
    announce(workspace, &Wanted { qemu: FOR_TEST, lines: &payload::Line::ALL, tools: payload::Tools::All })?;
    if let Some(unlike) = toolchain::unlike_the_pin(workspace)? {
        println!("compiler: {unlike}");
    }
    println!("QEMU {}", qemu::ensure(workspace, FOR_TEST)?);
    println!("bare-metal target: {}", toolchain::ensure(workspace)?);
    for line in payload::Line::ALL {
        println!("payload: {}", payload::linux(workspace, line)?);
    }
    for firmware in guests::Firmware::ALL {
        println!("firmware: {}", guests::firmware(workspace, firmware)?);
    }
    for line in payload::Line::LINUX {
        println!("modules: {}", guests::modules(workspace, line)?);
    }
    println!("device trees: {}", payload::device_trees(workspace)?);
    println!("payload: {}", payload::busybox(workspace)?);
    println!("payload: kexec in {}", payload::kexec_tools(workspace)?.display());
    Ok(ExitCode::SUCCESS)
}
