//! Whether two leaves may be used at the same time.

use crate::descriptor::Leaf;
use crate::rules::Rule;

/// A leaf and its place, in a table or in a TLB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlacedLeaf {
    pub leaf: Leaf,
    pub level: i8,
    /// The first address it translates.
    pub va: u64,
    /// ASID or VMID.
    pub id: u16,
    /// Bytes that its TLB entry may cover: those of its contiguous run, or its own.
    pub reach: u64,
}

impl PlacedLeaf {
    /// The first address that its TLB entry may cover.
    pub fn start(&self) -> u64 {
        self.va & !(self.reach - 1)
    }

    /// The output address of `va`, which is within reach.
    pub fn output(&self, va: u64) -> u64 {
        self.leaf.pa.wrapping_add(va.wrapping_sub(self.va))
    }

    /// Whether both may translate some address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start() <= other.start().wrapping_add(other.reach - 1)
            && other.start() <= self.start().wrapping_add(self.reach - 1)
    }
}

/// The rule that forbids using `new` while `old` may be cached, or, if a walk may find it `again`,
/// may be cached after `new` as well. `memory` maps attribute indices to memory types.
pub(crate) fn conflict(
    bbm: u8,
    old: &PlacedLeaf,
    again: bool,
    new: &PlacedLeaf,
    memory: impl Fn(u8) -> u8,
) -> Option<Rule> {
    if !old.overlaps(new) || !old.leaf.accessed || !new.leaf.accessed {
        return None;
    }
    if !old.leaf.global && !new.leaf.global && old.id != new.id {
        return None;
    }
    let at = old.start().max(new.start());
    if old.output(at) != new.output(at) || old.leaf.pa_space != new.leaf.pa_space {
        return Some(Rule::OutputAddress);
    }
    if memory(old.leaf.memory) != memory(new.leaf.memory) {
        return Some(Rule::MemoryType);
    }
    if old.leaf.share != new.leaf.share {
        return Some(Rule::Shareability);
    }
    // Whichever is global must not be cached while the other may be (RWHZWS).
    if new.leaf.global && !old.leaf.global || again && old.leaf.global && !new.leaf.global {
        return Some(Rule::Global);
    }
    if old.level != new.level {
        let larger = if old.level < new.level { &old.leaf } else { &new.leaf };
        return (bbm == 0 || (bbm == 1 && !larger.no_translation)).then_some(Rule::Size);
    }
    // If two entries differ in the contiguous bit, a TLB below level 1 may combine both (RNGLXZ).
    // If they agree in it and differ in permissions, a TLB uses one or the other (RJQQTC). But
    // earlier issues of the Arm ARM required equal permissions in a run, and some CPUs without
    // FEAT_BBM raise conflict aborts if they differ.
    let runs = old.leaf.contiguous || new.leaf.contiguous;
    let agree = old.leaf.contiguous == new.leaf.contiguous && old.leaf.permissions == new.leaf.permissions;
    (bbm == 0 && runs && !agree).then_some(Rule::Contiguous)
}
