//! Descriptors as a walker decodes them.

use crate::space::{Shape, Space};

/// A descriptor as a walker reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    /// The walk ends in a translation fault, which no TLB holds.
    Invalid,
    /// The walk continues in the table at this address.
    Table(u64),
    /// The walk ends here.
    Leaf(Leaf),
}

/// The end of a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leaf {
    /// First output address.
    pub pa: u64,
    /// The physical address space of the output address: NS, at EL3 NSE as well.
    pub pa_space: u8,
    /// log2 of the bytes translated.
    pub shift: u32,
    /// The field that selects the memory type: AttrIndx, or MemAttr at stage 2.
    pub memory: u8,
    /// SH; 0 where it lies in TCR (LPA2).
    pub share: u8,
    /// The permission bits as in the descriptor: AP or S2AP, PXN and UXN or XN, GP and DBM.
    pub permissions: u8,
    /// Holds for every ASID.
    pub global: bool,
    /// The access flag. Without it the access faults, and no TLB holds the entry.
    pub accessed: bool,
    /// The contiguous bit.
    pub contiguous: bool,
    /// nT: accesses may fault.
    pub no_translation: bool,
}

/// The contiguous bit.
pub(crate) const CONTIGUOUS: u64 = 1 << 52;

const AP: u64 = 6;
const ACCESSED: u64 = 1 << 10;

/// Reads `value`, found at `level` of a table of `space`. A leaf is as hardware may have updated
/// it, which is all that a walk may make of it.
pub(crate) fn read(shape: Shape, space: Space, level: i8, value: u64) -> Entry {
    if value & 1 == 0 {
        return Entry::Invalid;
    }
    let typed = value & 2 != 0;
    match (level, typed) {
        (3, false) => Entry::Invalid,
        (3, true) => Entry::Leaf(leaf(shape, space, level, value)),
        (_, true) => Entry::Table(address(shape, value) & (u64::MAX << shape.granule)),
        (_, false) if shape.has_block(level) => Entry::Leaf(leaf(shape, space, level, value)),
        (_, false) => Entry::Invalid,
    }
}

fn address(shape: Shape, value: u64) -> u64 {
    const IN_PLACE: u64 = 0x0000_ffff_ffff_f000;
    if shape.has_ds {
        value & 0x0003_ffff_ffff_f000 | (value >> 8 & 3) << 50
    } else if shape.granule == 16 && shape.pa_bits == 52 {
        value & IN_PLACE & !0xffff | (value >> 12 & 0xf) << 48
    } else {
        value & IN_PLACE
    }
}

/// `value`, a leaf, with the access flag and the permission to write that hardware may have set in
/// it: AP[2] is cleared at stage 1, S2AP[1] set at stage 2 (Arm ARM D8.5).
#[inline]
pub(crate) fn updated(shape: Shape, space: Space, value: u64) -> u64 {
    const DBM: u64 = 1 << 51;
    const READ_ONLY: u64 = 1 << 7;
    if !shape.sets_accessed {
        return value;
    }
    let value = value | ACCESSED;
    match (shape.sets_dirty && value & DBM != 0, space) {
        (true, Space::Stage2) => value | READ_ONLY,
        (true, _) => value & !READ_ONLY,
        (false, _) => value,
    }
}

/// The leaf that `value` is without updates by hardware.
pub(crate) fn as_stored(shape: Shape, space: Space, level: i8, value: u64) -> Leaf {
    leaf(Shape { sets_accessed: false, ..shape }, space, level, value)
}

#[inline]
fn leaf(shape: Shape, space: Space, level: i8, value: u64) -> Leaf {
    let value = updated(shape, space, value);
    let shift = shape.shift(level);
    let execute = (value >> 53 & 3) as u8;
    let (memory, global) = match space {
        Space::Stage2 => (value >> 2 & 0xf, false),
        _ => (value >> 2 & 7, !shape.has_el0 || value >> 11 & 1 == 0),
    };
    Leaf {
        pa: address(shape, value) & (u64::MAX << shift),
        pa_space: match space {
            Space::Stage2 => 0,
            Space::El3 => (value >> 5 & 1 | value >> 10 & 2) as u8,
            _ => (value >> 5 & 1) as u8,
        },
        shift,
        memory: memory as u8,
        share: if shape.has_ds { 0 } else { (value >> 8 & 3) as u8 },
        permissions: (value >> AP & 3) as u8 | execute << 2 | ((value >> 50 & 3) as u8) << 4,
        global,
        accessed: value >> 10 & 1 == 1,
        contiguous: value & CONTIGUOUS != 0,
        no_translation: level < 3 && value >> 16 & 1 == 1,
    }
}

impl Leaf {
    /// Bits of `permissions` at stage 1. At stage 2 the last two are XN[0] and XN[1].
    pub const UNPRIVILEGED: u8 = 0b01;
    pub const READ_ONLY: u8 = 0b10;
    pub const PXN: u8 = 0b0100;
    pub const XN: u8 = 0b1000;

    /// Whether the kernel (or the guest, at stage 2) may read through it.
    pub fn readable(&self, space: Space) -> bool {
        space != Space::Stage2 || self.permissions & 1 != 0
    }

    /// Whether the kernel may write through it.
    pub fn writable(&self, space: Space) -> bool {
        match space {
            Space::Stage2 => self.permissions & Self::READ_ONLY != 0,
            _ => self.permissions & Self::READ_ONLY == 0,
        }
    }

    /// Whether the kernel may execute through it. `None` if that depends on FEAT_XNX: with it XN[0]
    /// of stage 2 swaps EL0 and EL1, without it the bit means nothing.
    pub fn executable(&self, shape: Shape, space: Space) -> Option<bool> {
        match space {
            Space::Stage2 if self.permissions & Self::PXN != 0 => None,
            // What EL0 may write EL1 never executes, whatever PXN says (Arm ARM D8.4.1).
            _ if shape.has_el0 => Some(
                self.permissions & Self::PXN == 0
                    && self.permissions & (Self::UNPRIVILEGED | Self::READ_ONLY) != Self::UNPRIVILEGED,
            ),
            _ => Some(self.permissions & Self::XN == 0),
        }
    }
}

/// Whether a TLB or a walk cache may hold `value`: whether [`read`] finds a table, or a leaf with
/// the access flag. Almost every value is asked about more than once, so nothing else is decoded.
#[inline]
pub(crate) fn is_cacheable(shape: Shape, level: i8, value: u64) -> bool {
    let (table_or_page, accessed) = (value & 2 != 0, value & ACCESSED != 0 || shape.sets_accessed);
    value & 1 != 0
        && if level == 3 {
            table_or_page && accessed
        } else {
            table_or_page || (accessed && shape.has_block(level))
        }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Config;

    proptest! {
        #[test]
        fn what_is_cacheable_is_what_a_walk_finds(
            granule in prop::sample::select(vec![0x1000_u64, 0x4000, 0x1_0000]),
            (va_bits, pa_bits) in prop::sample::select(vec![(48, 48), (52, 52), (39, 40)]),
            level in -1..=3_i8,
            ha: bool,
            hd: bool,
            value: u64,
        ) {
            let leniency = crate::config::Leniency::Strict;
            let config = Config { cpus: 1, bbm: 0, granule, va_bits, pa_bits, ram: Vec::new(), leniency };
            let shape = Shape::of(&config, Space::High).with_updates(ha, hd);
            // Levels that a walk of this shape has.
            prop_assume!(level >= shape.start);
            let expected = match read(shape, Space::High, level, value) {
                Entry::Invalid => false,
                Entry::Table(_) => true,
                Entry::Leaf(leaf) => leaf.accessed,
            };
            prop_assert_eq!(is_cacheable(shape, level, value), expected);
        }
    }
}
