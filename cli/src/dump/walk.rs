//! The walk of one address, level by level.

use linmap_vmsa::{Decoded, Descriptor, Level, Pa, TablePermissions, Va};

use crate::dump::described::Described;
use crate::dump::frames::{Frames, Through};
use crate::dump::guest::Root;
use crate::dump::meaning::Decoder;
use crate::failure::Failure;

/// An entry on the way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The level.
    pub level: Level,
    /// The frame of its table.
    pub table: u64,
    /// Its number.
    pub index: usize,
    /// Its value; `None` if the table is no memory.
    pub value: Option<u64>,
}

/// How a walk ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// The address translates to this one, by a leaf of this kind.
    Leaf(Pa, Box<Described>),
    /// The entry is invalid: a translation fault.
    Invalid,
    /// The encoding is reserved: a translation fault.
    Reserved,
    /// The output address has more bits than a PA: an address size fault.
    BeyondPa(Pa),
    /// The next table is no memory.
    Outside(u64),
}

/// A walk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Walk {
    /// The entries on the way.
    pub steps: Vec<Step>,
    /// The end.
    pub end: End,
}

/// Whether `root` translates `va`.
pub fn translates(root: &Root, va: u64) -> bool {
    va.wrapping_sub(root.first.0) >> root.geometry.va_bits() == 0
}

/// Walks from `root` for `va`, reading one entry a level.
///
/// # Errors
/// Those of the guest's memory.
pub fn walk(root: &Root, va: u64, frames: &mut Frames<'_>, through: Through<'_>) -> Result<Walk, Failure> {
    let geometry = root.geometry;
    let mut level = geometry.start_level();
    let mut table = geometry.root_table(root.table, Va(va)).0;
    let mut tables = TablePermissions::UNRESTRICTED;
    let mut steps = Vec::new();
    loop {
        let index = geometry.index(Va(va), level);
        let mut words = [0];
        let is_memory = frames.read(Pa(table.wrapping_add(8 * index as u64)), through, &mut words)?;
        let [word] = words;
        steps.push(Step { level, table, index, value: is_memory.then_some(word) });
        if !is_memory {
            return Ok(Walk { steps, end: End::Outside(table) });
        }
        let end = match (Descriptor(word).decode(geometry, level), level.next()) {
            (Decoded::Table(frame), Some(next)) => {
                if root.has_table_permissions {
                    tables = tables.and(Descriptor(word).table_permissions(geometry.regime()));
                }
                if geometry.holds(frame) {
                    (table, level) = (frame.0, next);
                    continue;
                }
                End::BeyondPa(frame)
            }
            (Decoded::Leaf(pa), _) if !geometry.holds(pa) => End::BeyondPa(pa),
            (Decoded::Leaf(pa), _) => {
                let decoder = Decoder::new(root);
                let bits = decoder.attribute_bits(Descriptor(word), pa);
                let described = Described::of(&decoder.meaning(bits, level, tables));
                End::Leaf(Pa(pa.0 + (va & (geometry.entry_bytes(level) - 1))), Box::new(described))
            }
            _ if Descriptor(word).is_valid() => End::Reserved,
            _ => End::Invalid,
        };
        return Ok(Walk { steps, end });
    }
}
