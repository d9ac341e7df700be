//! Hierarchical permissions: what table descriptors take away from everything below them.
//!
//! APTable, PXNTable and UXNTable (bits 62:59; XNTable and APTable[1] in a regime with one half)
//! only restrict, and add up over a walk (Arm ARM D8.4.2). A TLB entry has what its walk gathered,
//! and so has a pointer in a walk cache. So a change of these bits reaches an access only once the
//! pointer and everything found through it is invalidated.

use crate::descriptor::Leaf;
use crate::space::Shape;

/// The bits of a table descriptor, from which the numbers of combinations count.
const FIRST: u32 = 59;

const PRIVILEGED_NEVER: u16 = 0b0001;
const NEVER: u16 = 0b0010;
const NOT_UNPRIVILEGED: u16 = 0b0100;
const READ_ONLY: u16 = 0b1000;

/// What the tables of a walk may have taken away: a set of combinations of bits 62:59, one bit for
/// each of the 16. Walks differ while an overwritten pointer may be cached. The set is exact
/// because restrictions are not ordered: without access from EL0, EL1 may execute what EL0 could
/// write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits(u16);

impl Limits {
    /// Nothing is taken away.
    pub const NONE: Self = Self(1);
    /// Anything may be.
    pub const ANY: Self = Self(u16::MAX);
    /// No walk.
    pub const EMPTY: Self = Self(0);

    /// What the table descriptor `value` takes away by itself.
    pub fn of(shape: Shape, value: u64) -> u16 {
        if shape.hierarchical { (value >> FIRST & 0xf) as u16 } else { 0 }
    }

    /// What is left after the table descriptor `value` as well.
    pub fn below(self, shape: Shape, value: u64) -> Self {
        match Self::of(shape, value) {
            0 => self,
            more => self.each().fold(Self::EMPTY, |set, one| Self(set.0 | 1 << (one | more))),
        }
    }

    /// Either of both.
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The combinations.
    pub fn each(self) -> impl Iterator<Item = u16> {
        let set = self.0;
        (0..16).take_while(move |one| set >> one != 0).filter(move |one| set >> one & 1 == 1)
    }
}

impl Leaf {
    /// The leaf with the permissions that the combination `limit` leaves.
    pub fn within(self, limit: u16) -> Self {
        let mut permissions = self.permissions;
        if limit & NOT_UNPRIVILEGED != 0 {
            permissions &= !Self::UNPRIVILEGED;
        }
        for (bit, taken) in [(READ_ONLY, Self::READ_ONLY), (PRIVILEGED_NEVER, Self::PXN), (NEVER, Self::XN)] {
            if limit & bit != 0 {
                permissions |= taken;
            }
        }
        Self { permissions, ..self }
    }
}
