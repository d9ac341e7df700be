//! The user space of the Linux payload: BusyBox and an /init that says when it was reached.

use sha2::{Digest, Sha256};

use crate::archive::{Archive, ArchiveError};
use crate::checksum::sha256;

/// The word on Linux's command line that makes /init power off as soon as it was reached.
pub const POWER_OFF_WORD: &str = "linmap_poweroff";

/// The console line that says Linux's user space runs.
pub const USERSPACE_LINE: &str = "linmap-userspace: ok";

/// The start of the console line with the verdict on the initramfs. `ok`, or `corrupt` and a file,
/// follows.
pub const INITRD_LINE: &str = "linmap-userspace: initrd=";

/// /init up to the check. The kernel's own messages are off the console while /init prints, so that
/// they do not end up inside its lines.
pub const ARRIVE: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/ TERM="${TERM:-vt100}"
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
dmesg -n 1
echo "linmap-userspace: cmdline=$(cat /proc/cmdline)"
echo "linmap-userspace: cpus=$(grep -c '^processor' /proc/cpuinfo)"
cd /
"#;

/// Compares all files with their sums, and their number with `$files`: the list itself may be cut
/// short.
const CHECK: &str = r#"
sums=$(sha256sum -c check/sums 2>/dev/null)
bad=$(echo "$sums" | grep -v ': OK$' | head -n 1)
intact=$(echo "$sums" | grep -c ': OK$')
if [ "$intact" = "$files" ] && [ -z "$bad" ]; then
    echo "linmap-userspace: initrd=ok"
elif [ -n "$bad" ]; then
    echo "linmap-userspace: initrd=corrupt ${bad%%:*}"
else
    echo "linmap-userspace: initrd=corrupt check/sums"
fi
"#;

/// /init of a crash kernel: how large the crashed one's memory is. With
/// `linmap_vmcore=START,LENGTH` on its command line, the first 8 KiB of its core file, which are
/// headers and notes, and the SHA-256 of that memory, in whole pages.
const VMCORE: &str = r#"
long() { od -A n -t u8 -j "$1" -N 8 /proc/vmcore | tr -d ' '; }
if [ -r /proc/vmcore ]; then
    echo "linmap-userspace: vmcore=$(stat -c %s /proc/vmcore)"
    wanted=$(tr ' ' '\n' </proc/cmdline | sed -n 's/^linmap_vmcore=//p')
    if [ -n "$wanted" ]; then
        echo "linmap-userspace: vmcore-head=$(od -v -A n -t x1 -N 8192 /proc/vmcore | tr -d ' \n')"
        start=$((${wanted%,*}))
        length=$((${wanted#*,}))
        segments=$(od -A n -t u2 -j 56 -N 2 /proc/vmcore | tr -d ' ')
        segment=0
        while [ "$segment" -lt "$segments" ]; do
            header=$((64 + 56 * segment))
            segment=$((segment + 1))
            kind=$(od -A n -t u4 -j "$header" -N 4 /proc/vmcore | tr -d ' ')
            from=$(long $((header + 24)))
            bytes=$(long $((header + 32)))
            if [ "$kind" = 1 ] && [ "$start" -ge "$from" ] &&
                [ $((start + length)) -le $((from + bytes)) ]; then
                page=$((($(long $((header + 8))) + start - from) / 4096))
                pages=$((length / 4096))
                sum=$(dd if=/proc/vmcore bs=4096 skip="$page" count="$pages" 2>/dev/null | sha256sum)
                echo "linmap-userspace: vmcore-sha256=${sum%% *}"
                break
            fi
        done
    fi
fi
"#;

/// /init under the hypervisor of `examples/hypervisor`. With `linmap_passes=N` on the command line,
/// one job on each of two CPUs fills and sums 8 MiB of memory N times; the sum depends on nothing
/// else. With `linmap_reach=ADDRESS` a word at that physical address is read.
const MEMORY_WORK: &str = r#"
mkdir /tmp
mount -t tmpfs tmp /tmp
word() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p"; }
fill_and_sum() {
    sum="$1"
    for pass in $(seq "$(word linmap_passes)"); do
        { echo "$sum"; for part in 1 2 3 4 5 6 7 8; do cat /check/pattern; done; } >"/tmp/$1"
        sum=$(md5sum <"/tmp/$1")
    done
    echo "linmap-userspace: sum-$1=${sum%% *}"
}
if [ -n "$(word linmap_passes)" ]; then
    for job in 1 2; do
        fill_and_sum $job >"/tmp/out-$job" &
        taskset -p $job $! >/dev/null
    done
    wait
    cat /tmp/out-1 /tmp/out-2
fi
if [ -n "$(word linmap_reach)" ]; then
    devmem "$(word linmap_reach)" 64
fi
"#;

/// /init after the check.
const GO_ON: &str = r#"
echo "linmap-userspace: ok"
dmesg -n 7
case " $(cat /proc/cmdline) " in
*" linmap_poweroff "*) ;;
*) setsid cttyhack sh ;;
esac
poweroff -f
"#;

/// How many files /check/sums lists: BusyBox, /init and the pattern.
const FILES: usize = 3;

/// The size of the file that is there only to be checked, bytes: more than one extent of any move.
const PATTERN_BYTES: usize = 1 << 20;

/// A newc archive with BusyBox (a static arm64 executable), /init, and in /check the files by which
/// /init checks that Linux received the archive unchanged: a file of random-looking bytes, and the
/// SHA-256 of each file.
pub fn build(busybox: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    build_with(busybox, &init(VMCORE))
}

/// The same archive for a guest of `examples/hypervisor`, whose /init works on memory.
pub fn build_for_guest(busybox: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    build_with(busybox, &init(MEMORY_WORK))
}

fn build_with(busybox: &[u8], init: &str) -> Result<Vec<u8>, ArchiveError> {
    let mut archive = Archive::default();
    for folder in ["bin", "check", "dev", "proc", "sys"] {
        archive.directory(folder)?;
    }
    // Where devtmpfs is not mounted yet, /init's own output goes through this node.
    archive.character_device("dev/console", 5, 1)?;
    let pattern = pattern();
    let sums: [_; FILES] = [("bin/busybox", busybox), ("init", init.as_bytes()), ("check/pattern", &pattern)]
        .map(|(name, data)| format!("{}  {name}\n", sha256(data)));
    archive.program("bin/busybox", busybox)?;
    archive.program("init", init.as_bytes())?;
    archive.file("check/pattern", &pattern)?;
    archive.file("check/sums", sums.concat().as_bytes())?;
    archive.finish()
}

fn init(between: &str) -> String {
    format!("{ARRIVE}files={FILES}{CHECK}{between}{GO_ON}")
}

/// The same bytes every time, without a repetition: the hashes of 0, 1, 2, ….
fn pattern() -> Vec<u8> {
    let hashes = (0u32..).map(|number| Sha256::digest(number.to_le_bytes()));
    hashes.flatten().take(PATTERN_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use linmap_kexec::Archive as Reader;
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    #[test]
    fn init_uses_the_words_that_boot_looks_for() {
        let init = init(VMCORE);
        assert!(init.contains(&format!("echo \"{USERSPACE_LINE}\"\n")));
        assert!(init.contains(&format!("*\" {POWER_OFF_WORD} \"*")));
        for verdict in ["ok", "corrupt "] {
            assert!(init.contains(&format!("echo \"{INITRD_LINE}{verdict}")));
        }
    }

    #[test]
    fn the_sums_are_of_every_file_but_themselves_as_it_lies_in_the_archive() {
        let archive = build(b"\x7fELF busybox").unwrap();
        let archive = Reader::parse(&archive).unwrap();
        let sums = std::str::from_utf8(archive.find("check/sums").unwrap().data).unwrap();
        let files: Vec<_> = archive
            .members()
            .filter(|member| !member.data.is_empty() && member.name != "check/sums")
            .map(|member| format!("{}  {}", sha256(member.data), member.name))
            .collect();
        assert_eq!(sums.lines().collect::<Vec<_>>(), files);
        assert_eq!(files.len(), FILES);
        assert_eq!(archive.find("check/pattern").unwrap().data.len(), PATTERN_BYTES);
    }

    /// What /init says about the files in `root`, by this machine's own shell.
    fn verdict(root: &Path) -> String {
        let mut shell = Command::new("sh");
        shell.current_dir(root).arg("-c").arg(format!("files={FILES}{CHECK}"));
        String::from_utf8(shell.output().unwrap().stdout).unwrap()
    }

    #[test]
    fn init_names_a_file_of_which_one_bit_was_lost_and_misses_one_that_is_not_there() {
        let root = tempfile::tempdir().unwrap();
        let archive = build(b"\x7fELF busybox").unwrap();
        let files: Vec<_> = Reader::parse(&archive)
            .unwrap()
            .members()
            .filter(|member| !member.data.is_empty())
            .map(|member| (member.name, root.path().join(member.name), member.data))
            .collect();
        assert_eq!(files.len(), FILES + 1);
        for (_, path, data) in &files {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, data).unwrap();
        }
        assert_eq!(verdict(root.path()), format!("{INITRD_LINE}ok\n"));
        for (name, path, data) in &files {
            let mut changed = data.to_vec();
            *changed.last_mut().unwrap() ^= 1;
            // A wrong list is reported as the file whose entry is wrong.
            let named = if *name == "check/sums" { "" } else { *name };
            let expected = format!("{INITRD_LINE}corrupt {named}");
            fs::write(path, changed).unwrap();
            assert!(verdict(root.path()).starts_with(&expected), "{name}: {}", verdict(root.path()));
            fs::remove_file(path).unwrap();
            assert!(verdict(root.path()).starts_with(&expected), "{name}: {}", verdict(root.path()));
            fs::write(path, data).unwrap();
        }
        let sums = &files.iter().find(|(name, ..)| *name == "check/sums").unwrap();
        let all_but_one = sums.2.iter().rposition(|&byte| byte == b' ').unwrap() - 65;
        fs::write(&sums.1, &sums.2[..all_but_one]).unwrap();
        assert_eq!(verdict(root.path()), format!("{INITRD_LINE}corrupt check/sums\n"));
    }
}
