//! `cargo xtask judge`: boots a guest under `linmap record`, and says whether its edits of its
//! tables are legal. Each run is a row of docs/judged.md.

mod boot;
mod guest;
mod options;
mod session;

use std::os::unix::net::UnixListener;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::handover::Files;
use crate::setup::{self, Wanted};
use crate::workspace::Workspace;
use crate::{process, tool};
use boot::Boot;
use session::Session;

pub use options::{HELP, JudgeArgs};

/// `cargo xtask judge`.
pub fn run(workspace: &Workspace, arguments: &JudgeArgs) -> Result<ExitCode> {
    let (lines, tools) = arguments.guest.payloads();
    setup::announce(workspace, &Wanted { qemu: setup::FOR_BOOT, lines, tools })?;
    setup::ensure_qemu(workspace, setup::FOR_BOOT)?;
    let linmap = match &arguments.linmap {
        Some(linmap) => linmap.clone(),
        None => tool::build_released(workspace)?,
    };
    let files = Files::new(workspace)?;
    let boot = Boot::of(workspace, &files, arguments)?;
    let mut record = Command::new(linmap);
    record.args(["record", "--check", "--all"]);
    if arguments.used_ram {
        record.arg("--used-ram");
    }
    if let Some(path) = &arguments.out {
        record.arg("--out").arg(path);
    }
    if let Some(path) = &boot.symbols {
        record.arg("--symbols").arg(path);
    }
    if let Some(base) = boot.symbols_base {
        record.args(["--symbols-base", &format!("{base:#x}")]);
    }
    record.args(["--", "qemu-system-aarch64"]).args(&boot.arguments);
    // What the guest prints is not to be mixed with the verdict.
    let path = files.path("console");
    let console = UnixListener::bind(&path).with_context(|| format!("{}", path.display()))?;
    record.arg("-serial").arg(format!("unix:{}", path.display()));
    eprintln!("{}", process::line(&record));
    record.stdin(Stdio::null());
    let patience = Duration::from_secs(arguments.timeout);
    let session = Session::run(process::start(&mut record)?, &console, &boot.script, patience)?;
    if let Some(phase) = &session.failed {
        eprintln!("error: the guest failed in {phase}");
    } else if !session.reached {
        eprintln!("error: the guest did not say `{}`", boot.script.goal);
    }
    match session.status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(0) if session.reached && session.failed.is_none() => Ok(ExitCode::SUCCESS),
        Some(0) => Ok(ExitCode::FAILURE),
        Some(code) => Ok(ExitCode::from(code)),
        None => bail!("linmap ended with {}", session.status),
    }
}
