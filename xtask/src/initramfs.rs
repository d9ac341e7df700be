//! The user space of the Linux payload: BusyBox and an /init that says when it was reached.

use crate::archive::{Archive, ArchiveError};

/// The word on Linux's command line that makes /init power off as soon as it was reached.
pub const POWER_OFF_WORD: &str = "linmap_poweroff";

/// The console line that says Linux's user space runs.
pub const USERSPACE_LINE: &str = "linmap-userspace: ok";

const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/ TERM="${TERM:-vt100}"
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
echo "linmap-userspace: ok"
case " $(cat /proc/cmdline) " in
*" linmap_poweroff "*) ;;
*) setsid cttyhack sh ;;
esac
poweroff -f
"#;

/// A newc archive with BusyBox (a static arm64 executable) and /init.
pub fn build(busybox: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys"] {
        archive.directory(folder)?;
    }
    // Where devtmpfs is not mounted yet, /init's own output goes through this node.
    archive.character_device("dev/console", 5, 1)?;
    archive.program("bin/busybox", busybox)?;
    archive.program("init", INIT.as_bytes())?;
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_uses_the_words_that_boot_looks_for() {
        assert!(INIT.contains(&format!("echo \"{USERSPACE_LINE}\"\n")));
        assert!(INIT.contains(&format!("*\" {POWER_OFF_WORD} \"*")));
    }
}
