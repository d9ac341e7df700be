//! Which QEMU is started: the recorder knows the plugin interface of two versions.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use crate::failure::Failure;

/// The variable that tells the plugin which version of the interface to speak.
pub const INTERFACE: &str = "LINMAP_RECORD_INTERFACE";

/// The version of the plugin interface that the QEMU at `program` has.
///
/// # Errors
/// It can't be run, is not QEMU, is another version of it, or was built without plugins.
pub fn interface(program: &OsStr) -> Result<u32, Failure> {
    let name = Path::new(program).display();
    // The help begins with the version, and names the options that this QEMU was built with.
    let help = Command::new(program).arg("--help").output();
    let help = help.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::new(format_args!("{name}: not found")).hint(MISSING),
        _ => Failure::from(error).of(&name),
    })?;
    of_help(&String::from_utf8_lossy(&help.stdout)).map_err(|failure| failure.of(name))
}

const MISSING: &str = "install QEMU 10 or 11 (Debian: qemu-system-arm), or give its path behind --";

fn of_help(help: &str) -> Result<u32, Failure> {
    const NEEDED: &str = "the recorder needs QEMU 10 or 11, built with plugins";
    let version = help.strip_prefix("QEMU emulator version ").and_then(|rest| rest.split_whitespace().next());
    let Some(version) = version else {
        return Err(Failure::new("it does not say that it is QEMU").hint(NEEDED));
    };
    let interface = match version.split('.').next() {
        Some("10") => 4,
        Some("11") => 7,
        _ => return Err(Failure::new(format_args!("it is QEMU {version}")).hint(NEEDED)),
    };
    if !help.lines().any(|line| line.starts_with("-plugin ")) {
        return Err(Failure::new(format_args!("QEMU {version} was built without plugins")).hint(NEEDED));
    }
    Ok(interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_versions_of_qemu_with_plugins_are_taken() {
        let help = |version: &str, rest: &str| {
            let text = format!("QEMU emulator version {version}\nCopyright\nusage: qemu [options]\n{rest}\n");
            of_help(&text).map_err(|failure| failure.to_string())
        };
        let plugin = "-plugin [file=]<file>[,<argname>=<argvalue>]";
        assert_eq!(help("10.0.2 (Debian 1:10.0.2)", plugin), Ok(4));
        assert_eq!(help("10.2.0", plugin), Ok(4));
        assert_eq!(help("11.1.3", plugin), Ok(7));
        for (version, rest, why) in [
            ("7.2.22", plugin, "it is QEMU 7.2.22; the recorder needs QEMU 10 or 11"),
            ("12.0.0", plugin, "it is QEMU 12.0.0"),
            ("10.0.2", "-machine", "QEMU 10.0.2 was built without plugins"),
        ] {
            let said = help(version, rest).unwrap_err();
            assert!(said.starts_with(why), "{said}");
        }
        assert!(of_help("usage: ls").unwrap_err().to_string().starts_with("it does not say"));
    }
}
