//! Locks: ours, so that runs of ours wait for each other, and apt's own, which apt itself does not
//! wait for when it fetches package lists.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::io::Errno;

use crate::progress;

const POLL: Duration = Duration::from_millis(200);

/// Takes the lock of our runs, which ends with the file. `what` another run does is shown when it
/// takes a while.
pub fn of_our_runs(file: &Path, what: &str) -> Result<File> {
    let lock = File::create(file).with_context(|| format!("creating {}", file.display()))?;
    let wait = || flock(&lock, FlockOperation::LockExclusive);
    progress::during(&format!("waiting for another run, which is {what}"), wait)
        .with_context(|| format!("locking {}", file.display()))?;
    Ok(lock)
}

/// Waits until no other process holds these locks of apt or dpkg. Whoever holds one is shown.
pub fn wait_for_apt(locks: &[&Path]) -> Result<()> {
    for path in locks {
        let lock = match OpenOptions::new().write(true).open(path) {
            Ok(lock) => lock,
            // There is none yet, or it is not ours to take: then apt says so itself.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) =>
            {
                continue;
            }
            Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
        };
        if is_free(&lock)? {
            continue;
        }
        let holder = holder(&lock).map_or("another program".to_owned(), |process| process_name(&process));
        progress::during(
            &format!("waiting for {holder}, which holds {}", path.display()),
            || -> Result<()> {
                while !is_free(&lock)? {
                    std::thread::sleep(POLL);
                }
                Ok(())
            },
        )?;
    }
    Ok(())
}

/// Whether no other process holds the lock: takes it and gives it back.
fn is_free(lock: &File) -> Result<bool> {
    match fcntl_lock(lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            fcntl_lock(lock, FlockOperation::NonBlockingUnlock).context("giving a lock back")?;
            Ok(true)
        }
        Err(Errno::ACCESS | Errno::AGAIN) => Ok(false),
        Err(error) => Err(error).context("asking for a lock"),
    }
}

/// The process that holds a lock on the file, by proc_locks(5).
fn holder(lock: &File) -> Option<String> {
    let inode = lock.metadata().ok()?.ino().to_string();
    holder_in(&std::fs::read_to_string("/proc/locks").ok()?, &inode)
}

fn holder_in(locks: &str, inode: &str) -> Option<String> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(4);
        let (process, file) = (words.next()?, words.next()?);
        (file.rsplit(':').next() == Some(inode)).then(|| process.to_owned())
    })
}

fn process_name(process: &str) -> String {
    let name = std::fs::read_to_string(Path::new("/proc").join(process).join("comm")).unwrap_or_default();
    format!("process {process} ({})", name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn the_holder_is_found_by_the_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 4711 08:01:123 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 08:01:1234 0 EOF\n";
        assert_eq!(holder_in(locks, "1234").as_deref(), Some("12"));
        assert_eq!(holder_in(locks, "123").as_deref(), Some("4711"));
        assert_eq!(holder_in(locks, "23"), None);
    }

    #[test]
    fn no_lock_and_a_free_lock_are_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let free = folder.path().join("lock");
        File::create(&free).unwrap();
        let started = Instant::now();
        wait_for_apt(&[&free, &folder.path().join("none")]).unwrap();
        assert!(started.elapsed() < POLL);
    }
}
