//! RAM that another system has used before the guest.
//!
//! QEMU's RAM is zero, so a table that is linked before its zeros are ordered holds nothing that a
//! walk could find. On real machines it holds what firmware, the kernel before, or a boot loader
//! left there.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{SeekFrom, seek};

/// A descriptor with the largest output address of 48 bits that every granule takes: of a table
/// at levels 0 to 2, and of a page that EL1 writes and executes at level 3. Most CPUs have fewer
/// bits, and no machine of QEMU's has memory there.
const USED: u64 = 0xffff_ffff_0703;

/// Fills what nothing was loaded to in the memory at `path`: the file's holes.
///
/// # Errors
/// The file system keeps no holes, or has no space for all of the memory.
pub fn fill(path: &Path) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let len = file.metadata()?.len();
    let words = USED.to_le_bytes().repeat(0x2000);
    let mut at = 0;
    let mut is_filled = false;
    while at < len {
        let hole = seek(&file, SeekFrom::Hole(at))?.min(len);
        // NXIO: nothing was loaded behind the hole.
        let end = match seek(&file, SeekFrom::Data(hole)) {
            Ok(end) => end,
            Err(rustix::io::Errno::NXIO) => len,
            Err(error) => return Err(error.into()),
        };
        at = hole;
        while at < end {
            let count = (end - at).min(words.len() as u64);
            file.write_all_at(&words[..count as usize], at)?;
            at += count;
            is_filled = true;
        }
    }
    if is_filled { Ok(()) } else { Err(io::Error::other("its file system does not tell what was loaded")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_loaded_stays_and_all_else_is_filled() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = folder.path().join("memory");
        let file = File::create(&path).unwrap();
        file.set_len(0x40_0000).unwrap();
        // A page of zeros may be part of a kernel.
        file.write_all_at(&[0; 0x1000], 0x20_0000).unwrap();
        fill(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for (nth, word) in bytes.chunks(8).enumerate() {
            let is_loaded = (0x20_0000..0x20_1000).contains(&(8 * nth));
            let expected = if is_loaded { 0 } else { USED };
            assert_eq!(u64::from_le_bytes(word.try_into().unwrap()), expected, "{:#x}", 8 * nth);
        }
    }
}
