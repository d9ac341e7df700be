//! Well-formed and malformed device tree blobs, written word by word.

use linmap_fdt::Token::{self, BeginNode, End, EndNode, Nop, Property};
use linmap_fdt::{DeviceTree, DtbError, TreeRule, parse_dtb};
use proptest::prelude::*;

const RESERVATIONS_AT: u32 = 40;
const STRUCTURE_AT: u32 = 56;

const BEGIN: u32 = Token::BEGIN_NODE;
const CLOSE: u32 = Token::END_NODE;
const PROP: u32 = Token::PROPERTY;
const NOP: u32 = 4;
const END: u32 = 9;
/// The words of a root node without anything in it.
const EMPTY_ROOT: [u32; 4] = [BEGIN, 0, CLOSE, END];
/// A node name of one word.
const ABC: u32 = u32::from_be_bytes(*b"abc\0");

/// A blob of the words given as its structure block. Its strings are `a`, one that is not UTF-8,
/// and `b` without end.
fn blob(structure: &[u32]) -> Vec<u8> {
    let structure_len = 4 * structure.len() as u32;
    let strings = *b"a\0\xff\0b";
    let strings_at = STRUCTURE_AT + structure_len;
    let total = strings_at + strings.len() as u32;
    let header = [
        DeviceTree::MAGIC,
        total,
        STRUCTURE_AT,
        strings_at,
        RESERVATIONS_AT,
        DeviceTree::VERSION,
        16,
        7,
        strings.len() as u32,
        structure_len,
    ];
    let words = header.iter().chain(&[0; 4]).chain(structure);
    words.flat_map(|word| word.to_be_bytes()).chain(strings).collect()
}

/// A good blob with one word of its header changed.
fn changed(word: usize, value: u32) -> Vec<u8> {
    let mut bytes = blob(&EMPTY_ROOT);
    bytes[4 * word..4 * word + 4].copy_from_slice(&value.to_be_bytes());
    bytes
}

fn error(bytes: &[u8]) -> DtbError {
    parse_dtb(bytes).unwrap_err()
}

#[test]
fn tokens_come_with_the_depth_of_their_node() {
    let structure =
        [BEGIN, 0, PROP, 2, 0, 0xffff_0000, BEGIN, ABC, CLOSE, NOP, BEGIN, ABC, NOP, CLOSE, CLOSE, NOP, END];
    let bytes = blob(&structure);
    let tree = DeviceTree::parse(&bytes).unwrap();
    assert_eq!((tree.boot_cpu, tree.last_compatible), (7, 16));
    assert_eq!(tree.reservations, [0; 16]);
    let pieces: Vec<_> = tree.tokens().map(Result::unwrap).collect();
    let seen: Vec<_> = pieces.iter().map(|piece| (piece.token, piece.depth, piece.bytes.len())).collect();
    assert_eq!(
        seen,
        [
            (BeginNode { name: "" }, 1, 8),
            (Property { name: "a", value: &[0xff, 0xff] }, 1, 16),
            (BeginNode { name: "abc" }, 2, 8),
            (EndNode, 2, 4),
            (Nop, 1, 4),
            (BeginNode { name: "abc" }, 2, 8),
            (Nop, 2, 4),
            (EndNode, 2, 4),
            (EndNode, 1, 4),
            (Nop, 0, 4),
            (End, 0, 4),
        ]
    );
    assert_eq!(parse_dtb(&bytes).unwrap().root().children().count(), 2);
}

#[test]
fn a_blob_that_is_cut_off_is_an_error() {
    let bytes = blob(&EMPTY_ROOT);
    let total = bytes.len();
    assert!(parse_dtb(&bytes).is_ok());
    for len in 0..40 {
        assert_eq!(error(&bytes[..len]), DtbError::NoHeader { len });
    }
    for len in 40..total {
        assert_eq!(error(&bytes[..len]), DtbError::Truncated { len, total });
    }
}

#[test]
fn another_kind_of_file_or_version_is_an_error() {
    assert_eq!(error(&changed(0, 0xedfe_0dd0)), DtbError::Magic { found: 0xedfe_0dd0 });
    assert_eq!(error(&changed(5, 16)), DtbError::Version { version: 16, last_compatible: 16 });
    assert_eq!(error(&changed(6, 18)), DtbError::Version { version: 17, last_compatible: 18 });
    assert_eq!(error(&[0; 39]), DtbError::NoHeader { len: 39 });
}

#[test]
fn a_block_outside_the_blob_or_misaligned_is_an_error_that_names_it() {
    let total = blob(&EMPTY_ROOT).len();
    for (word, align, name) in [(2, 4, "structure"), (3, 1, "strings"), (4, 8, "memory reservation")] {
        let misaligned = (align > 1).then_some(STRUCTURE_AT + align / 2);
        for bad in [0, 39, total as u32, u32::MAX - 7, u32::MAX].into_iter().chain(misaligned) {
            let error = error(&changed(word, bad));
            assert!(
                matches!(
                    error,
                    DtbError::Block { block, offset, .. } if block == name && offset == bad as usize
                ),
                "{error}"
            );
        }
    }
    let size = u32::MAX as usize;
    let offset = total - 5;
    assert_eq!(error(&changed(8, u32::MAX)), DtbError::Block { block: "strings", offset, size, total });
    let offset = STRUCTURE_AT as usize;
    assert_eq!(error(&changed(9, u32::MAX)), DtbError::Block { block: "structure", offset, size, total });
    assert!(matches!(error(&changed(1, 39)), DtbError::Block { total: 39, .. }));
}

#[test]
fn memory_reservations_without_an_end_are_an_error() {
    let mut bytes = blob(&EMPTY_ROOT);
    bytes[47] = 1;
    let rule = TreeRule::ReservationsEnd;
    assert_eq!(error(&bytes), DtbError::Corrupt { offset: RESERVATIONS_AT as usize, rule });
}

#[test]
fn a_structure_that_breaks_a_rule_is_an_error_that_says_which_and_where() {
    let unnamed = TreeRule::RootName;
    let node_name = TreeRule::NodeName;
    let property_name = TreeRule::PropertyName;
    let beyond = TreeRule::WithinBlock;
    let misplaced = TreeRule::PropertyPlace;
    let unended = TreeRule::Complete;
    let in_property = TreeRule::PropertyHead;
    let too_early = TreeRule::RootEnds;
    let no_begin = TreeRule::BalancedNodes;
    let no_token = TreeRule::KnownToken;
    let not_utf8 = u32::from_be_bytes(*b"\xff\0\0\0");
    let long = |len| {
        let mut name = vec![b'a'; len];
        name.resize((len + 1).next_multiple_of(4), 0);
        let (name, _) = name.as_chunks();
        let name = name.iter().copied().map(u32::from_be_bytes);
        [BEGIN, 0, BEGIN].into_iter().chain(name).chain([CLOSE, CLOSE, END]).collect::<Vec<_>>()
    };
    assert!(parse_dtb(&blob(&long(255))).is_ok());
    for (structure, at, rule) in [
        (&[][..], 0, unended),
        (&[END], 0, too_early),
        (&[CLOSE], 0, no_begin),
        (&[5], 0, no_token),
        (&[PROP, 0, 0], 0, misplaced),
        (&[BEGIN], 4, node_name),
        (&[BEGIN, 0x6161_6161], 4, node_name),
        (&[BEGIN, not_utf8, CLOSE, END], 4, node_name),
        (&long(256), 12, node_name),
        (&[BEGIN, ABC, CLOSE, END], 4, unnamed),
        (&[BEGIN, 0, BEGIN, 0, CLOSE, CLOSE, END], 12, unnamed),
        (&[BEGIN, 0], 8, unended),
        (&[BEGIN, 0, 0], 8, no_token),
        (&[BEGIN, 0, END], 8, too_early),
        (&[BEGIN, 0, CLOSE], 12, unended),
        (&[BEGIN, 0, CLOSE, CLOSE, END], 12, no_begin),
        (&[BEGIN, 0, CLOSE, BEGIN, 0, CLOSE, END], 12, TreeRule::OneRoot),
        (&[BEGIN, 0, PROP, 0], 12, in_property),
        (&[BEGIN, 0, PROP, 8, 0, 1], 12, beyond),
        (&[BEGIN, 0, PROP, u32::MAX, 0, 1], 12, beyond),
        (&[BEGIN, 0, PROP, 0, 2, CLOSE, END], 16, property_name),
        (&[BEGIN, 0, PROP, 0, 4, CLOSE, END], 16, property_name),
        (&[BEGIN, 0, PROP, 0, 5, CLOSE, END], 16, property_name),
        (&[BEGIN, 0, PROP, 0, u32::MAX, CLOSE, END], 16, property_name),
        (&[BEGIN, 0, BEGIN, ABC, CLOSE, PROP, 0, 0, CLOSE, END], 20, misplaced),
        (&[BEGIN, 0, CLOSE, PROP, 0, 0, END], 12, misplaced),
    ] {
        let offset = (STRUCTURE_AT + at) as usize;
        assert_eq!(error(&blob(structure)), DtbError::Corrupt { offset, rule }, "{structure:x?}");
    }
}

#[test]
fn nothing_stands_before_the_root_where_reading_begins() {
    let rule = TreeRule::RootFirst;
    let offset = STRUCTURE_AT as usize;
    assert_eq!(error(&blob(&[NOP, BEGIN, 0, CLOSE, END])), DtbError::Corrupt { offset, rule });
}

#[test]
fn nothing_follows_an_error_or_the_end() {
    for structure in [&[BEGIN, 0, 5, CLOSE, END][..], &[BEGIN, 0, CLOSE, END, 5]] {
        let bytes = blob(structure);
        let mut tokens = DeviceTree::parse(&bytes).unwrap().tokens();
        let last = tokens.by_ref().last().unwrap();
        assert_eq!(last.is_ok(), structure.ends_with(&[END, 5]));
        assert_eq!(tokens.next(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn whatever_is_a_tree_can_be_read_and_has_its_pieces_without_gaps(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                &[BEGIN, ABC][..],
                &[CLOSE],
                &[CLOSE],
                &[PROP, 0, 0],
                &[PROP, 3, 0, 0],
                &[NOP],
                &[END],
                &[ABC],
            ]),
            0..8,
        ),
    ) {
        let structure = [&[BEGIN, 0], &parts.concat()[..], &[CLOSE, END]].concat();
        let bytes = blob(&structure);
        let tree = DeviceTree::parse(&bytes).unwrap();
        let mut next = STRUCTURE_AT as usize;
        let mut begun = 0;
        for piece in tree.tokens().map_while(Result::ok) {
            prop_assert_eq!(piece.offset, next);
            prop_assert_eq!(piece.bytes, &bytes[next..next + piece.bytes.len()]);
            next += piece.bytes.len();
            begun += usize::from(matches!(piece.token, BeginNode { .. }));
        }
        if let Ok(fdt) = parse_dtb(&bytes) {
            prop_assert_eq!(1 + fdt.root().descendants().count(), begun);
        }
    }
}
