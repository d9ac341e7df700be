//! A run of `cargo xtask judge`.

use crate::boot::xtask;
use crate::tool::tool;

/// A guest that was judged.
#[derive(Debug)]
pub struct Judged {
    /// The exit code: 0 if every edit is legal and the guest did its work.
    pub code: Option<i32>,
    /// The verdict.
    pub verdict: String,
    /// The guest's console, and what else was said.
    pub console: String,
}

/// Judges `guest` with these options, separated by white space, by the tool that the tests use.
///
/// # Panics
/// When xtask does not run.
pub fn judge(guest: &str, options: &str) -> Judged {
    let mut command = xtask();
    command.args(["judge", guest, "--linmap"]).arg(tool().get_program());
    let output = command.args(options.split_whitespace()).output().expect("xtask runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\r', "");
    Judged { code: output.status.code(), verdict: text(&output.stdout), console: text(&output.stderr) }
}
