//! Random kernel files: they are refused or unpacked, and no more memory is used than
//! was asked for.
//!
//! `LINMAP_FUZZ_CASES` is the number of files; the default is 2000, or 20 000 with
//! `LINMAP_SOAK`.

mod unpack_files;

use std::sync::LazyLock;

use linmap_kexec::KernelFile;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use unpack_files::arena::{Arena, lend};
use unpack_files::{ZstdFrame, gzip, image, unpack, zboot};

#[global_allocator]
static ARENA: Arena = Arena;

static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let image = image(6000, 0x1_0000);
    let text = b"the same words again and again, with other words between; ".repeat(40);
    let letters: Vec<u8> =
        text.iter().enumerate().map(|(nth, &byte)| byte ^ (((nth * nth) >> 9) as u8 % 8)).collect();
    let content = [&image[..], &letters].concat();
    let frame =
        |level, checksum, window_log| ZstdFrame { level, checksum, content_len: level < 9, window_log };
    vec![
        image.clone(),
        gzip(&content, 1),
        gzip(&content, 9),
        zboot(&gzip(&content, 6), "gzip"),
        [gzip(&image, 6), gzip(&letters, 6)].concat(),
        frame(1, false, None).pack(&content),
        frame(5, false, Some(10)).pack(&content),
        frame(19, false, None).pack(&content),
        frame(19, true, Some(12)).pack(&[&image[..64], &letters[..]].concat()),
        zboot(&frame(22, false, None).pack(&content), "zstd"),
        [frame(3, false, None).pack(&image), frame(12, false, Some(11)).pack(&letters)].concat(),
    ]
});

/// Bytes that mean much where lengths, kinds and table modes are.
const BYTES: [u8; 12] = [0, 1, 2, 3, 0x7f, 0x80, 0xa8, 0xfc, 0xfd, 0xfe, 0xff, 0x54];

fn cases() -> ProptestConfig {
    let cases = std::env::var("LINMAP_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok());
    let is_soak = std::env::var_os("LINMAP_SOAK").is_some_and(|value| !value.is_empty() && value != "0");
    let unset = if is_soak { 20_000 } else { 2_000 };
    ProptestConfig::with_cases(cases.unwrap_or(unset))
}

/// One thing done to a file.
#[derive(Clone, Debug)]
enum Harm {
    Flip(Index, u8),
    Set(Index, u8),
    /// Near the start, where the headers are.
    SetEarly(usize, u8),
    Cut(Index),
    Drop(Index, Index),
    Repeat(Index, Index),
    Fill(Index, usize, u8),
}

fn harm() -> impl Strategy<Value = Harm> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), 0_u8..8).prop_map(|(at, bit)| Harm::Flip(at, 1 << bit)),
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Harm::Set(at, byte)),
        4 => (0_usize..160, select(BYTES.to_vec())).prop_map(|(at, byte)| Harm::SetEarly(at, byte)),
        1 => at().prop_map(Harm::Cut),
        1 => (at(), at()).prop_map(|(from, to)| Harm::Drop(from, to)),
        1 => (at(), at()).prop_map(|(from, to)| Harm::Repeat(from, to)),
        2 => (at(), 1_usize..200, select(BYTES.to_vec()))
            .prop_map(|(at, len, byte)| Harm::Fill(at, len, byte)),
    ]
}

fn harmed(seed: &[u8], harms: &[Harm]) -> Vec<u8> {
    let mut file = seed.to_vec();
    for harm in harms {
        if file.is_empty() {
            break;
        }
        let len = file.len();
        let range = |a: &Index, b: &Index| a.index(len).min(b.index(len))..a.index(len).max(b.index(len));
        match harm {
            Harm::Flip(at, mask) => file[at.index(len)] ^= mask,
            Harm::Set(at, byte) => file[at.index(len)] = *byte,
            Harm::SetEarly(at, byte) => file[at % len] = *byte,
            Harm::Cut(at) => file.truncate(at.index(len)),
            Harm::Drop(from, to) => drop(file.drain(range(from, to))),
            Harm::Repeat(from, to) => file.extend_from_within(range(from, to)),
            Harm::Fill(at, count, byte) => {
                file.iter_mut().skip(at.index(len)).take(*count).for_each(|to| *to = *byte);
            }
        }
    }
    file
}

/// Unpacks `file` in the heap that it asks for.
fn survives(file: &[u8]) {
    let Ok(file) = KernelFile::recognise(file) else { return };
    let Ok(needed) = file.memory_needed() else {
        assert!(file.unpack().is_err());
        return;
    };
    let mut unpacked = vec![0; 0x8000];
    lend(needed, || {
        let Ok(mut unpacker) = file.unpack() else { return };
        let image_size = unpacker.image().image_size;
        while let Ok(1..) = unpacker.read(&mut unpacked) {
            assert!(unpacker.read_so_far() <= image_size);
        }
    });
}

#[test]
fn the_seeds_unpack() {
    for seed in SEEDS.iter() {
        assert!(unpack(&KernelFile::recognise(seed).unwrap(), 4096).is_ok());
        survives(seed);
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn no_harmed_file_panics_or_takes_more_memory_than_it_said(
        seed in any::<Index>(),
        harms in prop::collection::vec(harm(), 1..8),
    ) {
        survives(&harmed(&SEEDS[seed.index(SEEDS.len())], &harms));
    }

    #[test]
    fn no_frame_of_chance_bytes_panics_or_takes_more_memory_than_it_said(
        descriptor in any::<u8>(),
        blocks in prop::collection::vec((0_u8..3, prop::collection::vec(any::<u8>(), 0..300)), 1..6),
    ) {
        let mut file = vec![0x28, 0xb5, 0x2f, 0xfd, descriptor & 0b1110_0100];
        // Enough for a window and a length of any width, which allow what follows.
        file.extend_from_slice(&[0x50, 0xff, 0xff, 0, 0, 0, 0, 0, 0][..header_rest(descriptor)]);
        let count = blocks.len();
        for (nth, (kind, content)) in blocks.into_iter().enumerate() {
            let last = u32::from(nth + 1 == count);
            let header = (content.len() as u32) << 3 | u32::from(kind) << 1 | last;
            file.extend_from_slice(&header.to_le_bytes()[..3]);
            file.extend_from_slice(if kind == 1 { &[7] } else { &content });
        }
        file.extend_from_slice(&[0; 4][..usize::from(descriptor & 4)]);
        survives(&file);
    }
}

/// Length of a frame's header after its descriptor.
fn header_rest(descriptor: u8) -> usize {
    let single_segment = descriptor >> 5 & 1;
    let content_len = match (descriptor >> 6, single_segment) {
        (0, segment) => usize::from(segment),
        (log, _) => 1 << log,
    };
    usize::from(1 - single_segment) + content_len
}
