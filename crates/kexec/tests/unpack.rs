//! Kernels packed in every way come out as they went in, and damaged ones do not come out.

mod unpack_files;

use linmap_kexec::{FileFormat, ImageError, KernelFile, KernelFileError, Packing, UnpackError};
use proptest::prelude::*;
use unpack_files::{ZstdFrame, gzip, image, unpack, zboot};

const KIB: usize = 1024;

fn recognise(file: &[u8]) -> KernelFile<'_> {
    KernelFile::recognise(file).unwrap()
}

fn fails(file: &[u8]) -> UnpackError {
    unpack(&recognise(file), 4096).unwrap_err()
}

/// Every packing of `image`, by name.
fn packings(image: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let (gz, zst) = (gzip(image, 6), ZstdFrame::USUAL.pack(image));
    let (first, second) = image.split_at(image.len() / 3);
    vec![
        ("raw", image.to_vec()),
        ("gzip in zboot", zboot(&gz, "gzip")),
        ("zstd in zboot", zboot(&zst, "zstd")),
        ("zstd22 in zboot", zboot(&zst, "zstd22")),
        ("gzip", gz),
        ("zstd", zst),
        ("gzip members", [gzip(first, 9), gzip(&[], 6), gzip(second, 1)].concat()),
        (
            "zstd frames",
            [
                &[0x5e, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..],
                &ZstdFrame::USUAL.pack(first),
                &ZstdFrame::USUAL.pack(&[]),
                &[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0],
                &ZstdFrame { checksum: false, content_len: false, ..ZstdFrame::USUAL }.pack(second),
            ]
            .concat(),
        ),
    ]
}

#[test]
fn every_packing_gives_the_image_back() {
    let image = image(300 * KIB + 7, 512 * KIB as u64);
    for (name, file) in packings(&image) {
        // The magic number of a skippable frame is not that of zstd, so it is cut off here.
        let file = if name == "zstd frames" { file[11..].to_vec() } else { file };
        let file = recognise(&file);
        assert!(unpack(&file, 4096).is_ok_and(|unpacked| unpacked == image), "{name}");
        assert!(unpack(&file, 1 << 20).is_ok_and(|unpacked| unpacked == image), "{name}");
    }
}

#[test]
fn the_header_is_seen_before_anything_is_unpacked_to_its_place() {
    let image = image(100 * KIB, 128 * KIB as u64);
    let file = zboot(&gzip(&image, 6), "gzip");
    let file = recognise(&file);
    assert_eq!((file.packing(), file.is_zboot(), file.memory_needed()), (Packing::Gzip, true, Ok(0)));
    let unpacker = file.unpack().unwrap();
    assert_eq!((unpacker.image().image_size, unpacker.read_so_far()), (128 * KIB as u64, 0));
}

#[test]
fn all_fields_of_a_gzip_header_are_skipped_and_its_crc_is_checked() {
    let image = image(4 * KIB, 8 * KIB as u64);
    let plain = gzip(&image, 6);
    let mut file = plain[..10].to_vec();
    file[3] = 0b1_1110;
    file.extend_from_slice(b"\x05\0extra");
    file.extend_from_slice(b"Image\0a comment\0");
    let mut crc = flate2::Crc::new();
    crc.update(&file);
    let at = file.len();
    file.extend_from_slice(&(crc.sum() as u16).to_le_bytes());
    file.extend_from_slice(&plain[10..]);
    assert_eq!(unpack(&recognise(&file), 4096).as_deref(), Ok(&image[..]));
    file[15] ^= 1;
    assert!(matches!(fails(&file), UnpackError::Checksum { at: there, .. } if there == at as u64));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let image = image(700, 4096);
    for (name, file) in packings(&image) {
        if name == "raw" {
            // Nothing in a raw image says how long its file is.
            continue;
        }
        let file = if name == "zstd frames" { &file[11..] } else { &file[..] };
        // Whole members or frames fewer are a shorter file, not a damaged one.
        let whole = |cut: &[u8]| name.ends_with('s') && image.starts_with(cut);
        let end = file.len() - if name.contains("zboot") { 0x123 } else { 0 };
        for len in 0..end {
            let Ok(cut) = KernelFile::recognise(&file[..len]) else { continue };
            if let Ok(unpacked) = unpack(&cut, 4096) {
                assert!(whole(&unpacked), "{name} cut to {len} of {end} bytes");
            }
        }
    }
}

#[test]
fn a_flipped_bit_is_found_or_changes_nothing() {
    let image = image(500, 4096);
    for (name, mut file) in packings(&image) {
        if name == "raw" {
            continue;
        }
        // The last frame has no checksum.
        let end = if name == "zstd frames" { file.len() / 3 } else { file.len() };
        for at in 0..end {
            for bit in 0..8 {
                file[at] ^= 1 << bit;
                if let Ok(Ok(unpacked)) = KernelFile::recognise(&file).map(|file| unpack(&file, 4096)) {
                    assert!(unpacked == image, "{name}: bit {bit} of byte {at}");
                }
                file[at] ^= 1 << bit;
            }
        }
    }
}

#[test]
fn damage_is_named_with_its_place() {
    let image = image(10 * KIB, 16 * KIB as u64);
    let whole = gzip(&image, 6);
    let len = whole.len();

    let mut crc = whole.clone();
    crc[len - 8] ^= 1;
    let error = fails(&crc);
    assert!(
        matches!(error, UnpackError::Checksum { packing: Packing::Gzip, at, .. } if at == len as u64 - 8)
    );
    assert!(error.to_string().contains(&format!("{:#x}", len - 8)), "{error}");

    let mut short = whole.clone();
    short[len - 4] ^= 1;
    let (found, expected) = (10 * KIB as u64, (10 * KIB as u64) ^ 1);
    assert_eq!(
        fails(&short),
        UnpackError::Length { packing: Packing::Gzip, at: len as u64 - 4, expected, found }
    );

    for (packing, whole) in [(Packing::Gzip, whole), (Packing::Zstd, ZstdFrame::USUAL.pack(&image))] {
        let at = whole.len() as u64;
        let trailing = [&whole[..], b"\0\0\0"].concat();
        assert_eq!(fails(&trailing), UnpackError::TrailingData { packing, at, len: 3 });
        // A zboot image has its payload somewhere inside.
        let at = at + 0x400;
        assert_eq!(
            fails(&zboot(&trailing, &packing.to_string())),
            UnpackError::TrailingData { packing, at, len: 3 }
        );
        let cut = &whole[..whole.len() - 1];
        assert!(matches!(fails(cut), UnpackError::Truncated { at, .. } if at == cut.len() as u64));
    }

    let mut sum = ZstdFrame::USUAL.pack(&image);
    let at = sum.len() - 4;
    sum[at] ^= 0x80;
    assert!(matches!(
        fails(&sum),
        UnpackError::Checksum { packing: Packing::Zstd, at: there, .. } if there == at as u64
    ));
}

#[test]
fn a_frame_that_holds_more_or_less_than_it_says_is_refused() {
    let image = image(10 * KIB, 64 * KIB as u64);
    let mut file = ZstdFrame { checksum: false, ..ZstdFrame::USUAL }.pack(&image);
    // Single segment, two bytes of length less 256.
    assert_eq!(file[4] >> 5, 0b011);
    let stored = u16::from_le_bytes([file[5], file[6]]);
    assert_eq!(usize::from(stored) + 256, image.len());
    for wrong in [stored - 1, stored + 1] {
        file[5..7].copy_from_slice(&wrong.to_le_bytes());
        let error = fails(&file);
        let expected = u64::from(wrong) + 256;
        assert!(
            matches!(error, UnpackError::Length { at: 5, expected: there, .. } if there == expected)
                || matches!(error, UnpackError::Corrupt { .. }),
            "{error}"
        );
    }
}

#[test]
fn bombs_end_where_the_image_does() {
    const GIB: usize = 1 << 30;
    let image = image(64 * KIB, 256 * KIB as u64);
    let zeros = gzip(&vec![0; 16 << 20], 9);
    let mut members = gzip(&image, 6);
    (0..GIB >> 24).for_each(|_| members.extend_from_slice(&zeros));
    // A window of 1 MiB and no length: the header in a raw block, then as many repeated bytes as
    // there may be.
    let mut blocks = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 10 << 3];
    let header = |len: usize, kind: usize, last: usize| (len << 3 | kind << 1 | last).to_le_bytes();
    blocks.extend_from_slice(&header(64, 0, 0)[..3]);
    blocks.extend_from_slice(&image[..64]);
    for nth in 1..=GIB >> 17 {
        blocks.extend_from_slice(&header(1 << 17, 1, usize::from(nth == GIB >> 17))[..3]);
        blocks.push(0);
    }
    for bomb in [members, blocks] {
        assert!(bomb.len() < GIB / 500);
        let file = recognise(&bomb);
        let longer = |announced| UnpackError::LongerThanAnnounced { packing: file.packing(), announced };
        // `unpack` sees to it that no byte too many comes out.
        assert_eq!(unpack(&file, 100_000), Err(longer(256 * KIB as u64)));
        // Nor are more bytes counted than there is memory.
        assert_eq!(file.counted(16 << 20).err(), Some(longer(16 << 20)));
    }
}

#[test]
fn a_file_longer_than_its_header_says_is_unpacked_whole() {
    // A device tree behind the image, as U-Boot's have.
    let image = [&image(64 * KIB, 32 * KIB as u64)[..], &[0xd0; 3 * KIB]].concat();
    let len = image.len() as u64;
    for (name, file) in packings(&image) {
        let file = if name == "zstd frames" { &file[11..] } else { &file[..] };
        let file = recognise(file);
        let file = match unpack(&file, 4096) {
            Err(UnpackError::LongerThanAnnounced { .. }) => file.counted(1 << 20).unwrap(),
            _ => file,
        };
        assert_eq!(file.unpack().unwrap().image().image_size, len, "{name}");
        assert!(unpack(&file, 4096).is_ok_and(|unpacked| unpacked == image), "{name}");
    }
}

#[test]
fn an_image_that_fills_its_memory_to_the_last_byte_is_none_too_large() {
    let image = image(64 * KIB, 64 * KIB as u64);
    for (name, file) in packings(&image) {
        let file = if name == "zstd frames" { &file[11..] } else { &file[..] };
        assert!(unpack(&recognise(file), 4096).is_ok_and(|unpacked| unpacked == image), "{name}");
    }
}

#[test]
fn only_one_level_is_unpacked() {
    let image = image(4 * KIB, 8 * KIB as u64);
    let twice = gzip(&gzip(&image, 6), 6);
    let error = recognise(&twice).unpack().err();
    assert!(
        matches!(error, Some(UnpackError::Image(ImageError::WrongMagic { format: FileFormat::Gzip, .. }))),
        "{error:?}"
    );
    let short = gzip(b"ARM", 6);
    assert!(matches!(
        recognise(&short).unpack().err(),
        Some(UnpackError::Image(ImageError::TooShort { len: 3, .. }))
    ));
}

#[test]
fn files_of_other_kinds_are_refused_by_name() {
    for (file, format) in [
        (&b"\x7fELF\x02\x01\x01"[..], FileFormat::Elf),
        (b"\xfd7zXZ\0rest", FileFormat::Xz),
        (b"\x04\x22\x4d\x18", FileFormat::Lz4),
        (b"\x02\x21\x4c\x18", FileFormat::Lz4),
        (b"\x27\x05\x19\x56", FileFormat::UImage),
        (b"MZ\0\0PE", FileFormat::Pe),
        (b"\xd0\x0d\xfe\xed", FileFormat::DeviceTree),
        (b"", FileFormat::Unknown),
    ] {
        assert_eq!(KernelFile::recognise(file).unwrap_err(), KernelFileError::NoKernel { format });
    }
}

#[test]
fn a_zboot_image_must_be_whole_and_say_the_truth() {
    let image = image(4 * KIB, 8 * KIB as u64);
    let (gz, zst) = (gzip(&image, 6), ZstdFrame::USUAL.pack(&image));
    let refused = |file: &[u8]| KernelFile::recognise(file).unwrap_err();
    assert_eq!(refused(&zboot(&gz, "xzkern")), KernelFileError::ZbootCompression { name: *b"xzkern\0\0" });
    assert_eq!(
        refused(&zboot(&zst, "gzip")),
        KernelFileError::ZbootMismatch { named: Packing::Gzip, found: FileFormat::Zstd, at: 0x400 }
    );
    assert!(matches!(refused(&zboot(&image, "gzip")), KernelFileError::ZbootMismatch { .. }));
    let whole = zboot(&gz, "gzip");
    for (at, bytes) in [(8, 0x3b_u32), (8, u32::MAX), (12, 0), (12, u32::MAX)] {
        let mut file = whole.clone();
        file[at..at + 4].copy_from_slice(&bytes.to_le_bytes());
        assert!(matches!(refused(&file), KernelFileError::ZbootPayload { .. }), "{bytes:#x} at {at}");
    }
    assert!(matches!(refused(&whole[..whole.len() - 0x124]), KernelFileError::ZbootPayload { .. }));
    for len in 8..0x3c {
        assert!(matches!(refused(&whole[..len]), KernelFileError::ZbootHeader { .. }));
    }
    let mut file = whole.clone();
    file[0x38] ^= 1;
    assert!(matches!(refused(&file), KernelFileError::ZbootHeader { at: 0x38, .. }));
}

#[test]
fn frames_that_cannot_be_unpacked_here_are_refused() {
    let magic = [0x28, 0xb5, 0x2f, 0xfd];
    // A dictionary; a reserved bit; a reserved kind of block; a block longer than a window of 1
    // KiB.
    for (rest, words) in [
        (&[1_u8, 0, 7, 1, 0, 0][..], "dictionary"),
        (&[1 << 3, 0, 1, 0, 0], "reserved bit"),
        (&[0, 0, 7, 0, 0], "reserved kind"),
        (&[0, 0, 0b11, 0b11_0000, 0, 0], "longer"),
    ] {
        let error = fails(&[&magic[..], rest].concat());
        assert!(matches!(error, UnpackError::Corrupt { packing: Packing::Zstd, .. }));
        assert!(error.to_string().contains(words), "{error}");
    }
    // 256 MiB of window that the frame can fill.
    let mut file = [&magic[..], &[0, 18 << 3]].concat();
    for nth in 1..=1 << 11 {
        let header = (1_u32 << 20 | 1 << 1 | u32::from(nth == 1 << 11)).to_le_bytes();
        file.extend_from_slice(&header[..3]);
        file.push(0);
    }
    let window = 1 << 28;
    assert_eq!(
        recognise(&file).memory_needed(),
        Err(UnpackError::Window { at: 0, window, max: linmap_kexec::ZSTD_WINDOW_MAX })
    );
}

fn contents() -> impl Strategy<Value = Vec<u8>> {
    let run = (any::<u8>(), 0_usize..40_000).prop_map(|(byte, len)| vec![byte; len]);
    let noise = prop::collection::vec(any::<u8>(), 0..3000);
    let text = prop::collection::vec(prop::sample::select(b"add x0, x1\n".to_vec()), 0..3000);
    let pieces = prop::collection::vec(prop_oneof![run, noise, text], 0..12);
    (pieces, 1_usize..5).prop_map(|(pieces, times)| {
        let content = pieces.concat().repeat(times);
        [image(64, content.len() as u64 + 64), content].concat()
    })
}

/// `LINMAP_FUZZ_CASES` files of each kind, or a few without it.
fn cases() -> ProptestConfig {
    let cases = std::env::var("LINMAP_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok());
    let is_soak = std::env::var_os("LINMAP_SOAK").is_some_and(|value| !value.is_empty() && value != "0");
    let unset = if is_soak { 500 } else { 32 };
    ProptestConfig::with_cases(cases.unwrap_or(unset))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_image_comes_back_from_gzip(content in contents(), level in 0_u32..10, step in 1_usize..70_000) {
        let file = gzip(&content, level);
        prop_assert!(unpack(&recognise(&file), step).is_ok_and(|unpacked| unpacked == content));
    }

    #[test]
    fn any_image_comes_back_from_zstd(
        content in contents(),
        level in 1_i32..23,
        (checksum, content_len) in any::<(bool, bool)>(),
        window_log in prop::option::of(10_u32..20),
        step in 1_usize..70_000,
    ) {
        let file = ZstdFrame { level, checksum, content_len, window_log }.pack(&content);
        prop_assert!(unpack(&recognise(&file), step).is_ok_and(|unpacked| unpacked == content));
    }
}
