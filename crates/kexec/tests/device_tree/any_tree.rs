//! Whatever the tree is, it is edited as it should be or refused.

use crate::next_tree::{ALL, CRASH, USABLE, check, pennable, rewritten};
use crate::tree::{Node, Property, full, memory, psci_cpu, reserved_memory, root, waiting_cpu};
use linmap_fdt::{DtbError, WriteError, parse_dtb};
use linmap_kexec::{NextTree, PreservedRange, Seeds, SpinTable, TreeError};
use linmap_vmsa::{Pa, PaRange};
use proptest::prelude::*;

/// Whatever the bytes are, nothing panics; what is written can be read, and is written again as it
/// is.
fn check_hostile(source: &[u8], output: &mut Vec<u8>) {
    output.clear();
    let parsed = parse_dtb(source).err();
    match ALL.measure(source) {
        Ok(len) => {
            output.resize(len, 0);
            assert_eq!(parsed, None);
            assert_eq!(ALL.rewrite(source, output), Ok(len));
            parse_dtb(output).unwrap();
            let mut again = vec![0; len];
            assert_eq!(ALL.rewrite(output, &mut again), Ok(len));
            assert_eq!(again, *output);
        }
        // Rules that have to do with what the tree says may be seen to be broken first.
        Err(TreeError::DeviceTree(error)) => assert_eq!(parsed, Some(error)),
        Err(error) => assert!(
            !matches!(error, TreeError::NoRoom { .. } | TreeError::Write(WriteError::TooLarge)),
            "{error}"
        ),
    }
}

#[test]
fn every_truncated_tree_is_refused() {
    let source = full().blob();
    for len in 0..source.len() {
        let error = ALL.measure(&source[..len]).unwrap_err();
        assert!(matches!(
            error,
            TreeError::DeviceTree(DtbError::NoHeader { .. } | DtbError::Truncated { .. })
        ));
    }
}

#[test]
fn no_flipped_byte_does_harm() {
    let mut source = rewritten(&ALL, &full().blob());
    let mut output = Vec::new();
    for at in 0..source.len() {
        for flip in [1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0xff] {
            source[at] ^= flip;
            check_hostile(&source, &mut output);
            source[at] ^= flip;
        }
    }
}

/// Properties of `/chosen`, those that are edited among them.
fn chosen_properties() -> impl Strategy<Value = Vec<Property>> {
    let names = [
        "bootargs",
        "linux,initrd-start",
        "linux,initrd-end",
        "kaslr-seed",
        "rng-seed",
        "linux,elfcorehdr",
        "linux,usable-memory-range",
        "stdout-path",
        "linux,bootargs",
        "label",
    ];
    let values = prop::collection::vec(any::<u8>(), 0..9);
    prop::sample::subsequence(names.to_vec(), 0..=names.len()).prop_shuffle().prop_flat_map(move |names| {
        prop::collection::vec(values.clone(), names.len()).prop_map(move |values| {
            names.iter().zip(values).map(|(name, value)| Property::new(name, value)).collect()
        })
    })
}

fn cpu(number: usize) -> impl Strategy<Value = Node> {
    let number = number as u64;
    // In the pen of `ALL` as well, which the tree may have from an edit before.
    let release = prop_oneof![any::<u32>(), Just(0x8900_0ff8)];
    prop_oneof![
        Just(psci_cpu(number)),
        (release, 1u32..=2).prop_map(move |(at, cells)| waiting_cpu(number, at.into(), cells)),
    ]
}

/// A tree with any of the nodes that are edited, in any order, perhaps one that was edited before.
fn any_tree() -> impl Strategy<Value = Node> {
    let foreign = "[a-z]{1,8}(@[0-9a-f]{1,8})?"
        .prop_filter("no second node", |name| !["chosen", "cpus"].contains(&name.split('@').next().unwrap()))
        .prop_map(|name| Node::new(&name, vec![Property::new("reg", [1, 2, 3])]).with([memory()]));
    let chosen = chosen_properties().prop_map(|properties| Node::new("chosen", properties));
    let cpus = (0..5usize).prop_flat_map(|count| (0..count).map(cpu).collect::<Vec<_>>());
    let cpus = cpus.prop_map(|cpus| Node::new("cpus", vec![]).with(cpus));
    let parts = (prop::option::of(chosen), prop::option::of(cpus), prop::collection::vec(foreign, 0..3));
    (parts, any::<bool>(), 1u32..=2, any::<bool>())
        .prop_map(|((chosen, cpus, foreign), is_reserved, cells, edited)| {
            let reserved = is_reserved.then(|| reserved_memory(cells));
            let nodes = [chosen, cpus, reserved].into_iter().flatten().chain(foreign).collect::<Vec<_>>();
            (nodes, cells, edited)
        })
        .prop_flat_map(|(nodes, cells, edited)| (Just(nodes).prop_shuffle(), Just(cells), Just(edited)))
        .prop_map(|(nodes, cells, edited)| {
            let tree = root(cells).with(nodes);
            if edited { Node::read(&rewritten(&ALL, &tree.blob())) } else { tree }
        })
}

proptest! {
    #[test]
    fn any_edit_of_any_tree_changes_what_it_names_and_nothing_else(
        source in any_tree(),
        bootargs in "[ -~]{0,80}",
        initrd in prop::option::of((0u64..1 << 20, 1u64..1 << 20)),
        seeds in prop_oneof![
            Just(Seeds::Removed),
            (any::<u64>(), any::<[u8; 32]>()).prop_map(|(kaslr, rng)| Seeds::New { kaslr, rng }),
        ],
        crash in prop::option::of(Just(CRASH)),
        pen in prop::option::of((0u64..0x1000, 0u64..512, any::<u8>())),
        // Gap before it, and its length, in pages.
        preserved in prop::collection::vec((1u64..0x1000, 1u64..0x1000, "\\PC{0,12}"), 0..6),
    ) {
        let initrd = initrd.map(|(start, len)| {
            let start = USABLE[0].start.0 + start;
            PaRange::new(Pa(start), Pa(start + len))
        });
        // Some of the CPUs that can be in a pen.
        let cpus = source.child("cpus").into_iter().flat_map(|cpus| &cpus.children);
        let waiting = cpus.filter_map(pennable);
        let chosen = |(nth, cpu): (u32, u64)| (pen?.2 >> nth & 1 == 1).then_some(cpu);
        let cpus: Vec<u64> = (0..).zip(waiting).filter_map(chosen).collect();
        let spin_table = pen.map(|(page, word, _)| {
            let start = page << 12;
            let pen = PaRange::new(Pa(start), Pa(start + 0x1000));
            SpinTable { pen, release: Pa(start + word * 8), cpus: &cpus }
        });
        let mut end = 0x1000u64 << 12;
        let preserved: Vec<PreservedRange<'_>> = preserved
            .iter()
            .map(|(gap, len, label)| {
                let start = end + (gap << 12);
                end = start + (len << 12);
                PreservedRange { label, range: PaRange::new(Pa(start), Pa(end)) }
            })
            .collect();
        let (vacated, preserved) = (&[], &preserved);
        let next =
            NextTree { bootargs: &bootargs, initrd, seeds, crash, spin_table, vacated, preserved };
        let result = check(&next, &source.blob());
        prop_assert_eq!(rewritten(&next, &result), result);
    }

    #[test]
    fn no_change_to_a_tree_panics_and_what_is_written_can_be_read(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut source = full().blob();
        for (at, value) in flips {
            *at.get_mut(&mut source) ^= value;
        }
        check_hostile(&source, &mut Vec::new());
    }
}
