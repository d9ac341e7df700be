//! Contiguous runs whose entries differ because hardware updates them.
//!
//! With hardware updates of the access flag and of dirty state, a CPU may update any one entry of a
//! run on behalf of all (Arm ARM D8.5, D8.7.1). Software has to take the run as accessed when one
//! of its entries is, and as dirty when one of them is.

use linmap_vmsa::{Access, Descriptor, Regime};

use crate::entry::CONTIGUOUS;

/// The access flag of a leaf (Arm ARM D8.3.1.2).
pub(crate) const ACCESSED: u64 = 1 << 10;

/// AP[2]: clear in a leaf that may be written, and in a dirty one. S2AP[1] of stage 2, set in such
/// leaves, has the same place.
pub(crate) const READ_ONLY: u64 = Access::KernelReadOnly.bits();

/// DBM: hardware clears AP[2], or sets S2AP[1], at the first write (Arm ARM D8.5.4).
pub(crate) const DIRTY_MODIFIER: u64 = 1 << 51;

/// The bits in which a leaf may differ from the others of its run.
#[inline(always)]
pub(crate) const fn updated_bits(leaf: u64) -> u64 {
    // AP[2] or S2AP[1] where DBM is set.
    ACCESSED | (leaf & DIRTY_MODIFIER) >> (DIRTY_MODIFIER.trailing_zeros() - READ_ONLY.trailing_zeros())
}

/// Whether a leaf of stage 1 may be written: now, or once hardware has marked it dirty.
#[inline(always)]
pub(crate) const fn is_writable(leaf: u64) -> bool {
    leaf & (READ_ONLY | DIRTY_MODIFIER) != READ_ONLY
}

/// A contiguous run as one leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gathered {
    /// Its first entry, accessed and dirty if one of the run is.
    pub lead: Descriptor,
    /// The bits to clear and to set in every entry, to make all equal to the first but for their
    /// addresses.
    pub clear: u64,
    pub set: u64,
}

/// Returns what the entries of a run are together, or the number of the first that does not
/// continue those before it by `1 << shift` bytes.
#[inline]
pub(crate) fn gather(run: &[u64], shift: u32, regime: Regime) -> Result<Gathered, usize> {
    let Some(first) = run.first().copied() else { return Err(0) };
    // The bits in which any entry differs from what continues the first.
    let mut differs = 0;
    let mut expected = first;
    for entry in run {
        differs |= *entry ^ expected;
        expected = expected.wrapping_add(1 << shift);
    }
    if differs == 0 {
        return Ok(Gathered { lead: Descriptor(first), clear: 0, set: 0 });
    }
    gather_uneven(run, shift, regime, differs)
}

/// [`gather`] where the entries differ in the bits `differs`.
#[cold]
#[inline(never)]
fn gather_uneven(run: &[u64], shift: u32, regime: Regime, differs: u64) -> Result<Gathered, usize> {
    let first = run.first().copied().unwrap_or_default();
    let updated = updated_bits(first);
    if differs & !updated != 0 {
        let continues = |nth: usize| first.wrapping_add((nth as u64) << shift);
        let breaks = |(nth, entry): (usize, &u64)| (*entry ^ continues(nth)) & !updated != 0;
        return Err(run.iter().enumerate().position(breaks).unwrap_or_default());
    }
    let uneven = differs & updated;
    // A dirty entry has AP[2] clear, and S2AP[1] set.
    let (clear, set) =
        if regime.is_stage_2() { (0, uneven) } else { (uneven & READ_ONLY, uneven & ACCESSED) };
    Ok(Gathered { lead: Descriptor(first & !clear | set), clear, set })
}

/// Returns whether the entries are consecutive leaves of one value, whatever their contiguous bits.
#[inline]
pub(crate) fn are_consecutive(entries: &[u64], shift: u32) -> bool {
    let mut expected = entries.first().map_or(0, |first| first & !CONTIGUOUS);
    let mut consecutive = true;
    for entry in entries {
        consecutive &= entry & !CONTIGUOUS == expected;
        expected = expected.wrapping_add(1 << shift);
    }
    consecutive
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIFT: u32 = 12;
    const PAGE: u64 = 0x0070_0000_4000_0703;

    fn run(change: impl Fn(usize) -> u64) -> [u64; 16] {
        core::array::from_fn(|nth| (PAGE | change(nth)) + ((nth as u64) << SHIFT))
    }

    #[test]
    fn one_accessed_entry_makes_all_of_the_run_accessed() {
        let entries = run(|_| 0).map(|entry| entry & !ACCESSED);
        assert_eq!(gather(&entries, SHIFT, Regime::El1And0).unwrap().lead.0, entries[0]);
        let mut one = entries;
        one[7] |= ACCESSED;
        let gathered = gather(&one, SHIFT, Regime::El1And0).unwrap();
        assert_eq!((gathered.clear, gathered.set), (0, ACCESSED));
        assert_eq!(gathered.lead.0, entries[0] | ACCESSED);
    }

    #[test]
    fn one_dirty_entry_makes_all_of_the_run_dirty_where_hardware_marks_it() {
        let mut entries = run(|_| DIRTY_MODIFIER | READ_ONLY);
        assert_eq!(gather(&entries, SHIFT, Regime::El1And0).unwrap().lead.0, entries[0]);
        entries[3] &= !READ_ONLY;
        let gathered = gather(&entries, SHIFT, Regime::El1And0).unwrap();
        assert_eq!((gathered.clear, gathered.set), (READ_ONLY, 0));
        assert_eq!(gathered.lead.0, (PAGE | DIRTY_MODIFIER) & !READ_ONLY);
    }

    #[test]
    fn one_dirty_entry_of_a_guest_has_the_permission_that_the_others_lack() {
        let regime = Regime::Stage2(linmap_vmsa::Stage2::Base);
        let mut entries = run(|_| DIRTY_MODIFIER);
        entries[3] |= READ_ONLY;
        let gathered = gather(&entries, SHIFT, regime).unwrap();
        assert_eq!((gathered.clear, gathered.set), (0, READ_ONLY));
        assert_eq!(gathered.lead.0, entries[0] | READ_ONLY);
    }

    #[test]
    fn entries_that_differ_in_more_are_not_a_run() {
        let mut entries = run(|_| 0);
        entries[5] |= READ_ONLY;
        assert_eq!(gather(&entries, SHIFT, Regime::El1And0), Err(5));
        let mut entries = run(|_| DIRTY_MODIFIER);
        entries[9] += 1 << SHIFT;
        assert_eq!(gather(&entries, SHIFT, Regime::El1And0), Err(9));
    }
}
