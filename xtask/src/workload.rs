//! Work for a Linux whose edits of its tables are judged: an initramfs with BusyBox, modules of the
//! kernel's own package, and the program of `tests/workload`.
//!
//! Words on Linux's command line choose what is done: `linmap_work=PHASE,PHASE` which phases, in
//! that order, and `linmap_times=N` how often. /init says `linmap-workload: begin PHASE` and
//! `linmap-workload: ok PHASE` or `failed PHASE` on the console, at the end
//! `linmap-userspace: ok`, and powers off.

use std::fs;

use anyhow::{Context, Result};

use crate::archive::Archive;
use crate::setup::guests;
use crate::setup::payload::{self, Line};
use crate::setup::toolchain::TARGET;
use crate::workspace::Workspace;
use crate::{build, initramfs, process, setup};

/// What the console says where a phase failed.
pub const FAILED: &str = "linmap-workload: failed ";

/// /init behind the mounts. The folios come before all that is to use them.
const WORK: &str = r#"
mount -t tmpfs tmp /tmp
word() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p" | tail -n 1; }
times=$(word linmap_times)
times=${times:-1}
phases=$(word linmap_work | tr , ' ')
phases=${phases:-exec modules pages huge folios reserved shared sharers processes secret filter
    compact hotplug exec}

# The size of a contiguous run: 2M but for pages of 4K, of which 512 are 2M.
run=2048
[ "$(cat /sys/kernel/mm/transparent_hugepage/hpage_pmd_size)" = 2097152 ] && run=64

# What the kernel may not have is no failure.
may_have() { [ ! -e "$2" ] || echo "$1" >"$2"; }

exec_storm() {
    for nth in $(seq 10); do
        [ "$(echo $nth | sh -c 'cat | cat' | md5sum | wc -c)" = 36 ] || return 1
        /bin/true && (/bin/true) || return 1
    done
}

load_modules() {
    for packed in /modules/*; do
        module=${packed##*/}
        module=${module%%.*}
        case $packed in
        *.xz) unxz -c "$packed" >"/tmp/$module.ko" ;;
        *) cp "$packed" "/tmp/$module.ko" ;;
        esac
        insmod "/tmp/$module.ko" || return 1
        grep -q "^$module " /proc/modules || return 1
        rmmod "$module" || return 1
        rm "/tmp/$module.ko"
    done
}

cpus_go_and_come() {
    for cpu in /sys/devices/system/cpu/cpu[1-9]*; do
        [ -e "$cpu/online" ] || continue
        echo 0 >"$cpu/online" && exec_storm && echo 1 >"$cpu/online" && exec_storm || return 1
    done
}

phase() {
    case $1 in
    exec) exec_storm ;;
    modules) load_modules ;;
    hotplug) cpus_go_and_come ;;
    compact)
        may_have 3 /proc/sys/vm/drop_caches
        may_have 1 /proc/sys/vm/compact_memory
        ;;
    folios)
        may_have always "/sys/kernel/mm/transparent_hugepage/hugepages-${run}kB/enabled"
        workload folios
        ;;
    reserved)
        may_have 8 "/sys/kernel/mm/hugepages/hugepages-${run}kB/nr_hugepages"
        workload reserved
        ;;
    *) workload "$1" ;;
    esac
}

for round in $(seq "$times"); do
    for name in $phases; do
        echo "linmap-workload: begin $name"
        if phase "$name"; then
            echo "linmap-workload: ok $name"
        else
            echo "linmap-workload: failed $name"
        fi
    done
done
echo "linmap-userspace: ok"
poweroff -f
"#;

/// The archive for a kernel of `line`: its user space, to be given to QEMU as the initrd.
pub fn initrd(workspace: &Workspace, line: Line) -> Result<Vec<u8>> {
    let busybox = payload::busybox(workspace)?.path;
    let busybox = fs::read(&busybox).with_context(|| format!("reading {}", busybox.display()))?;
    let modules = guests::modules(workspace, line)?.path;
    let modules = fs::read(&modules).with_context(|| format!("reading {}", modules.display()))?;
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys", "tmp"] {
        archive.directory(folder)?;
    }
    archive.character_device("dev/console", 5, 1)?;
    archive.program("bin/busybox", &busybox)?;
    archive.program("bin/workload", &program(workspace)?)?;
    archive.program("init", format!("{}{WORK}", initramfs::ARRIVE).as_bytes())?;
    // Linux unpacks archives one behind another.
    Ok([archive.finish()?, modules].concat())
}

/// Builds the program of `tests/workload`: an executable for Linux, which needs no library.
fn program(workspace: &Workspace) -> Result<Vec<u8>> {
    const PACKAGE: &str = "workload";
    let toolchain = setup::toolchain::ensure(workspace)?;
    let mut cargo = build::cargo(workspace, &toolchain, "build");
    cargo.args(["--quiet", "--package", PACKAGE, "--bin", PACKAGE, "--profile", "kernel"]);
    anyhow::ensure!(
        process::status(&mut cargo)?.success(),
        "building {PACKAGE} failed: {}",
        process::line(&cargo)
    );
    let folder = workspace.target.join(format!("kernel-{}", toolchain.name())).join(TARGET);
    let built = folder.join("kernel").join(PACKAGE);
    fs::read(&built).with_context(|| format!("reading {}", built.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phases_that_init_does_not_do_are_the_programs() {
        let program = include_str!("../../tests/workload/src/phases.rs");
        let (_, list) = WORK.split_once("phases:-").unwrap();
        let (list, _) = list.split_once('}').unwrap();
        for phase in list.split_whitespace() {
            let is_inits =
                WORK.contains(&format!("    {phase}) ")) || WORK.contains(&format!("    {phase})\n"));
            assert!(is_inits || program.contains(&format!("(\"{phase}\", ")), "{phase}");
        }
    }
}
