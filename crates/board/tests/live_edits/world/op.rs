//! One edit of a tree.

use linmap_live::{Change, Global};
use linmap_table::Leaves;
use linmap_vmsa::{Attributes, Geometry, Level, MemoryType};

/// One edit. Offsets and lengths are in bytes, in the area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    Map {
        at: u64,
        len: u64,
        shift: u64,
        attributes: Attributes,
        leaves: Leaves,
    },
    Unmap {
        at: u64,
        len: u64,
    },
    Protect {
        at: u64,
        len: u64,
        change: Change,
    },
    Split {
        at: u64,
        len: u64,
        to: Level,
    },
    Fold {
        at: u64,
        len: u64,
    },
    /// Other memory for what is mapped.
    Remap {
        at: u64,
        len: u64,
        shift: u64,
        change: Change,
    },
    /// Another memory type for what is mapped.
    MemoryType {
        at: u64,
        len: u64,
        memory: MemoryType,
    },
    /// All of the tree, also what lies outside of the area.
    Clear {
        area_len: u64,
    },
    /// Of parked trees alone.
    Global {
        at: u64,
        len: u64,
        global: Global,
    },
}

/// Who uses the addresses of an edit while it is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// Every CPU, at any moment.
    Anybody,
    /// Every CPU, at any moment, and accesses that fault are retried.
    Retrying,
    /// No CPU uses the range.
    Nobody,
    /// No CPU walks the tree.
    Parked,
}

impl Op {
    pub fn range(self) -> (u64, u64) {
        match self {
            Self::Map { at, len, .. }
            | Self::Unmap { at, len }
            | Self::Protect { at, len, .. }
            | Self::Split { at, len, .. }
            | Self::Fold { at, len }
            | Self::Remap { at, len, .. }
            | Self::MemoryType { at, len, .. }
            | Self::Global { at, len, .. } => (at, len),
            Self::Clear { area_len } => (0, area_len),
        }
    }
}

/// A mapping that allows no more than the tree's tables.
pub fn under_tables(op: Op, geometry: Geometry) -> Op {
    let tables = geometry.table_permissions();
    match op {
        Op::Map { at, len, shift, attributes, leaves } => {
            Op::Map { at, len, shift, attributes: tables.restrict(attributes), leaves }
        }
        op => op,
    }
}

/// The attributes after a change of access and execution.
pub fn changed(attributes: Attributes, change: Change) -> Attributes {
    Attributes {
        access: change.access.unwrap_or(attributes.access),
        execute: change.execute.unwrap_or(attributes.execute),
        ..attributes
    }
}
