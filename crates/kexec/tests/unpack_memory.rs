//! Unpacking zstd takes no more heap than it says: the heap has that and no byte more.

mod unpack_files;

use linmap_kexec::{KernelFile, UnpackError};
use unpack_files::arena::{Arena, in_use, lend};
use unpack_files::{ZstdFrame, image};

#[global_allocator]
static ARENA: Arena = Arena;

const MIB: usize = 1 << 20;

/// Unpacks `file` with as much heap as it asks for, and gives that and what was in use at the end.
fn heap_of(file: &[u8], content: &[u8]) -> (usize, usize) {
    let file = KernelFile::recognise(file).unwrap();
    let needed = file.memory_needed().unwrap();
    let mut unpacked = vec![0; content.len() + 1];
    let end = lend(needed, || {
        let mut unpacker = file.unpack()?;
        let mut len = 0;
        loop {
            match unpacker.read(&mut unpacked[len..])? {
                0 => return Ok::<_, UnpackError>((len, in_use())),
                more => len += more,
            }
        }
    });
    let (len, used) = end.unwrap();
    assert!(unpacked[..len] == *content);
    (needed, used)
}

#[test]
fn the_heap_that_a_file_asks_for_is_enough_at_any_window_and_level() {
    let content = image(MIB, 2 * MIB as u64);
    for window_log in [10, 17, 18, 19, 20, 27] {
        for (level, content_len) in [(1, true), (6, false), (19, true)] {
            let frame = ZstdFrame { level, checksum: true, content_len, window_log: Some(window_log) };
            let (needed, used) = heap_of(&frame.pack(&content), &content);
            // Most is the ring buffer: a power of two that holds window and blocks.
            let window = content.len().min(1 << window_log);
            assert!(used > window && needed < 2 * window + 8 * MIB, "{frame:?}: {needed} for {used}");
        }
    }
}

#[test]
fn frames_of_many_windows_share_one_buffer() {
    let content = image(3 * MIB, 4 * MIB as u64);
    let mut file = Vec::new();
    for (part, window_log) in content.chunks(MIB / 2).zip([10, 19, 12, 17, 18, 14]) {
        file.extend(
            ZstdFrame { window_log: Some(window_log), content_len: false, ..ZstdFrame::USUAL }.pack(part),
        );
    }
    heap_of(&file, &content);
}

#[test]
fn a_heap_that_is_too_small_is_an_error_before_anything_is_unpacked() {
    let content = image(MIB, MIB as u64);
    let file = ZstdFrame::USUAL.pack(&content);
    let file = KernelFile::recognise(&file).unwrap();
    let needed = file.memory_needed().unwrap();
    for len in [0, needed / 2, needed - 4096] {
        let result = lend(len, || file.unpack().map(|_| ()));
        assert_eq!(result, Err(UnpackError::NoMemory { needed: needed as u64 }));
    }
}
