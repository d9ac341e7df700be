//! What changed between two trees.

use linmap_vmsa::{Attributes, Descriptor, Geometry, Granule, Pa};
use proptest::prelude::*;

use super::machine::{Machine, RAM, root};
use crate::dump::diff;
use crate::dump::guest::Root;
use crate::dump::segments::{Segments, What};

fn small() -> Geometry {
    Geometry::new(Granule::K4, 30, 48).unwrap()
}

fn machine() -> (Machine, Root) {
    let mut machine = Machine::new(1 << 20);
    machine.set(RAM, Descriptor::table(small(), Pa(RAM + 0x1000)).0);
    for index in 0..64 {
        let page = Descriptor::page(small(), Pa(RAM + (index << 12)), Attributes::KERNEL_DATA);
        machine.set(RAM + 0x1000 + 8 * index, page.0);
    }
    (machine, root(small(), Pa(RAM)))
}

fn segments(machine: &mut Machine, root: &Root) -> Segments {
    Segments::of(root, &machine.read_tree(root))
}

fn changes(before: &Segments, after: &Segments) -> Vec<String> {
    let mut found = Vec::new();
    diff::diff(before, after, |change| {
        let fields: Vec<_> = change
            .fields(before, after)
            .into_iter()
            .map(|field| format!("{} {} -> {}", field.field, field.before, field.after))
            .collect();
        let kind = match (change.before, change.after) {
            (None, _) => "+",
            (_, None) => "-",
            _ => "~",
        };
        found.push(format!("{kind} {:#x}-{:#x} {}", change.first, change.last, fields.join(", ")));
        Ok::<(), ()>(())
    })
    .unwrap();
    found
}

#[test]
fn what_was_added_removed_and_changed_is_named() {
    let (mut machine, root) = machine();
    let before = segments(&mut machine, &root);
    assert_eq!(changes(&before, &before), [""; 0]);
    for index in 4..8 {
        let page = Descriptor::page(small(), Pa(RAM + (index << 12)), Attributes::KERNEL_TEXT);
        machine.set(RAM + 0x1000 + 8 * index, page.0);
    }
    machine.set(RAM + 0x1000 + 8 * 63, 0);
    machine.set(RAM + 0x1000 + 8 * 70, Descriptor::page(small(), Pa(RAM), Attributes::DEVICE).0);
    machine.set(RAM + 0x1000, Descriptor::page(small(), Pa(RAM + 0x7000), Attributes::KERNEL_DATA).0);
    let after = segments(&mut machine, &root);
    assert_eq!(
        changes(&before, &after),
        [
            "~ 0x0-0xfff pa 0x40000000 -> 0x40007000",
            "~ 0x4000-0x7fff access RW -> ro, execute NX -> x",
            "- 0x3f000-0x3ffff ",
            "+ 0x46000-0x46fff ",
        ]
    );
}

/// What is said of `va`.
fn at(segments: &Segments, va: u64) -> Option<(u64, &What)> {
    let segment = segments.list.iter().find(|segment| (segment.first..=segment.last).contains(&va))?;
    Some((segment.pa + (va - segment.first), &segments.what[segment.what as usize]))
}

proptest! {
    #[test]
    fn a_page_is_in_a_change_exactly_if_it_differs(
        edits in prop::collection::vec((0u64..80, 0u64..4, 0u64..80), 0..40),
    ) {
        let (mut machine, root) = machine();
        let before = segments(&mut machine, &root);
        for (index, kind, pa) in edits {
            let attributes = [Attributes::KERNEL_DATA, Attributes::KERNEL_TEXT, Attributes::DEVICE];
            let word = match attributes.get(kind as usize) {
                Some(attributes) => Descriptor::page(small(), Pa(RAM + (pa << 12)), *attributes).0,
                None => 0,
            };
            machine.set(RAM + 0x1000 + 8 * index, word);
        }
        let after = segments(&mut machine, &root);
        let mut found = Vec::new();
        diff::diff(&before, &after, |change| {
            found.push(change.first..=change.last);
            Ok::<(), ()>(())
        }).unwrap();
        for page in 0..512u64 {
            let va = page << 12;
            let differs = at(&before, va) != at(&after, va);
            prop_assert_eq!(found.iter().any(|range| range.contains(&va)), differs, "{:#x}", va);
        }
    }
}
