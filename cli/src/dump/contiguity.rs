//! Contiguous runs: those that break a rule, and those that could be.

use linmap_vmsa::{Decoded, Descriptor, Geometry, Level, Pa};

use crate::dump::meaning::{CONTIGUOUS, Decoder, SOFTWARE};
use crate::dump::tree::Contiguity;

/// Bit 63 of a leaf and those of software: hardware ignores them.
const IGNORED: u64 = 1 << 63 | SOFTWARE;

/// What a group of entries that a contiguous run would take up is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// No leaf of it has the bit, and it could not have it.
    Plain,
    /// No leaf of it has the bit. All of them could.
    Could,
    /// A run by the rules.
    Run,
    /// A run that breaks one.
    Broken(Contiguity),
}

/// Judges `words`, all entries of one run at `level`: as many as the architecture asks for, from a
/// multiple of that on.
///
/// All leaves of a run have the bit, consecutive addresses from a multiple of the run's size on,
/// and the same attributes (Arm ARM D8.7.1). Flags that hardware changes on its own may differ, and
/// so may bits that hardware ignores.
pub fn judge(decoder: &Decoder, geometry: Geometry, level: Level, words: &[u64]) -> Group {
    let leaf = |word: u64| match Descriptor(word).decode(geometry, level) {
        Decoded::Leaf(pa) => Some((pa.0, decoder.attribute_bits(Descriptor(word), pa))),
        Decoded::Invalid | Decoded::Table(_) => None,
    };
    let Some(without) = words.iter().copied().map(leaf).try_fold(0u32, |without, leaf| match leaf {
        Some((_, bits)) if bits & CONTIGUOUS != 0 => Some(without),
        _ => without.checked_add(1),
    }) else {
        return Group::Plain;
    };
    let all = words.len() as u32;
    if without != 0 && without != all {
        return Group::Broken(Contiguity::Incomplete { without });
    }
    let mut leaves = words.iter().copied().map(leaf);
    let Some(Some((first, bits))) = leaves.next() else { return Group::Plain };
    let (step, mut differs, mut expected) = (geometry.entry_bytes(level), 0, Pa(first));
    for leaf in leaves {
        expected.0 = expected.0.wrapping_add(step);
        let Some((pa, others)) = leaf else { return Group::Plain };
        if pa != expected.0 {
            return not_a_run(without, Contiguity::NotConsecutive);
        }
        let updated = decoder.updated_bits(bits & others);
        differs |= (bits ^ others) & !IGNORED & !updated;
        if without != 0 && bits != others {
            return Group::Plain;
        }
    }
    if first & (step * u64::from(all) - 1) != 0 {
        not_a_run(without, Contiguity::Misaligned)
    } else if differs != 0 {
        not_a_run(without, Contiguity::Differs { bits: differs })
    } else if without == 0 {
        Group::Run
    } else {
        Group::Could
    }
}

fn not_a_run(without: u32, what: Contiguity) -> Group {
    if without == 0 { Group::Broken(what) } else { Group::Plain }
}
