//! The options of `judge`.

use std::path::PathBuf;

use super::guest::Guest;
use crate::setup::guests::Firmware;
use crate::size::MemorySize;

/// For `judge --help`.
pub const HELP: &str = "\
Each Linux boots to BusyBox, does the work of tests/workload, and powers off. Its phases are exec,
modules, pages, huge, folios, reserved, shared, sharers, processes, secret, filter, compact and
hotplug.

Exit code:
  0  the guest did all its work, and every edit of its tables is legal
  1  an edit is illegal, or the guest did not do its work
  2  an option is wrong, or the guest can't be recorded";

/// The options of `judge`.
#[derive(Debug, clap::Args)]
pub struct JudgeArgs {
    /// What to boot
    #[arg(value_enum)]
    pub guest: Guest,
    /// How many CPUs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub cpus: u32,
    /// QEMU's CPU type
    #[arg(long, value_name = "TYPE", default_value = "cortex-a72")]
    pub cpu: String,
    /// The machine has EL2, and starts there
    #[arg(long)]
    pub el2: bool,
    /// RAM: a number and M, G or T [default: 1G; 128M for examples]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<MemorySize>,
    /// Linux: the phases of the workload, in this order [default: all]
    #[arg(long, value_name = "PHASE,PHASE", value_delimiter = ',')]
    pub work: Vec<String>,
    /// Linux: how often to do the work
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub times: u32,
    /// Fill RAM before with what walks take for descriptors, as if another system had used it
    #[arg(long)]
    pub used_ram: bool,
    /// More words for the guest's command line
    #[arg(
        long,
        value_name = "STR",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub append: String,
    /// Linux: this Image instead of Debian's
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Linux: Debian's firmware starts it, not QEMU
    #[arg(long, value_name = "NAME")]
    pub firmware: Option<Firmware>,
    /// Keep the trace in this file
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The linmap to judge with [default: built from the workspace as it is released]
    #[arg(long, value_name = "FILE")]
    pub linmap: Option<PathBuf>,
    /// Give up after this many seconds
    #[arg(long, value_name = "SECS", default_value_t = 1800)]
    pub timeout: u64,
}
