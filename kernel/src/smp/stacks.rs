//! The stacks of secondary CPUs, in a window of their own. Each CPU has two, each above an unmapped
//! page.

use core::ops::Range;

use arrayvec::ArrayVec;
use linmap::MemblockFrames;
use linmap_live::Global;
use linmap_memblock::AllocError;
use linmap_table::cpu::{Cpu, Dsb, store_valid};
use linmap_table::verify::{Content, Expected, Validity};
use linmap_table::{Leaves, Mapping, MappingError, Mappings, ReachableFrames, Subtree, SubtreeError};
use linmap_vmsa::{Attributes, Descriptor, Pa, PaRange, TablePermissions, Va};
use thiserror::Error;

use crate::arch::cpu::ThisCpu;
use crate::arch::geometry::geometry;
use crate::arch::image::level_2_entry;
use crate::arch::layout::{GRANULE, MAX_CPUS, STACKS, TABLE, stack};
use crate::memory::physical::Memory;

/// CPUs whose slots share one table of pages.
const PER_TABLE: usize = {
    let slots = (TABLE / stack::SLOT) as usize;
    if slots < MAX_CPUS { slots } else { MAX_CPUS }
};

/// Why a CPU has no stacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum StackError {
    /// No memory is free for them.
    #[error("stacks of a secondary CPU: {0}")]
    Memory(#[from] AllocError),
    /// Their table can't be built.
    #[error("table of the stacks of secondary CPUs: {0}")]
    Table(#[from] SubtreeError),
    /// They can't be mapped.
    #[error("stacks of secondary CPUs: {0}")]
    Mapping(#[from] MappingError),
}

/// The memory of all stacks, as they were mapped.
#[derive(Clone, Debug, Default)]
pub struct StackMemory(ArrayVec<Mapping, { 2 * MAX_CPUS }>);

impl StackMemory {
    /// What the window of stacks must translate.
    pub fn expected(&self, global: Global) -> impl Iterator<Item = Expected> + Clone {
        let global = global == Global::Global;
        self.0.iter().map(move |&Mapping { va, pa, len, attributes, leaves }| {
            let attributes = Attributes { global, ..attributes };
            Expected {
                va,
                len,
                content: Content::Leaves { pa, attributes, validity: Validity::Valid, leaves },
                tables: TablePermissions::UNRESTRICTED,
            }
        })
    }
}

/// Maps stacks for the CPUs with numbers from 1 to below `count`, and notes them in `mapped`.
/// Called once.
///
/// # Errors
/// [`StackError`], with the first CPU that has none. Those before it have stacks.
pub fn map(memory: &mut Memory, count: usize, mapped: &mut StackMemory) -> Result<(), (usize, StackError)> {
    let numbers = 0..count.min(MAX_CPUS);
    for first in numbers.clone().step_by(PER_TABLE) {
        // The first slot is empty: the boot CPU has its stacks in the image.
        let sharing = first.max(1)..numbers.end.min(first + PER_TABLE);
        map_sharing(memory, sharing, mapped).map_err(|error| (first, error))?;
    }
    Ok(())
}

/// Maps the stacks of CPUs whose slots share a table of pages. On an error all memory is free
/// again.
fn map_sharing(
    memory: &mut Memory,
    numbers: Range<usize>,
    mapped: &mut StackMemory,
) -> Result<(), StackError> {
    let mut list = StackMappings::new();
    let result = allocate_and_map(memory, numbers, &mut list);
    if result.is_ok() {
        mapped.0.extend(list);
    } else {
        for mapping in list {
            // What memblock refuses to free stays reserved: lost, and harmless.
            let _ = memory.memblock.free(PaRange::new(mapping.pa, Pa(mapping.pa.0 + mapping.len)));
        }
    }
    result
}

/// The stacks of the CPUs that share a table.
type StackMappings = ArrayVec<Mapping, { 2 * PER_TABLE }>;

fn allocate_and_map(
    memory: &mut Memory,
    numbers: Range<usize>,
    list: &mut StackMappings,
) -> Result<(), StackError> {
    for number in numbers {
        let slot = slot(number);
        for (offset, len) in [(stack::MAIN, stack::MAIN_LEN), (stack::EXCEPTION, stack::EXCEPTION_LEN)] {
            let everywhere = memory.everywhere();
            list.push(Mapping {
                va: Va(slot.0 + offset),
                pa: memory.memblock.alloc(len, GRANULE.bytes(), everywhere)?,
                len,
                attributes: Attributes::KERNEL_DATA,
                leaves: Leaves::Pages,
            });
        }
    }
    if list.is_empty() {
        return Ok(());
    }
    Ok(link(memory, &Mappings::new(geometry(), list)?)?)
}

/// Builds the table of pages for `mappings`, which share one, and links it.
fn link(memory: &mut Memory, mappings: &Mappings<'_>) -> Result<(), SubtreeError> {
    let mut window = memory.tables();
    // SAFETY: memblock knows all memory that is in use.
    let mut frames = unsafe { MemblockFrames::new(&mut memory.memblock, geometry()) };
    // SAFETY: the linear map has all of memblock's memory.
    let table = Subtree::lowest(mappings, &mut unsafe { ReachableFrames::new(&mut window, &mut frames) })?;
    let cpu = &mut ThisCpu;
    cpu.dsb(Dsb::Ishst);
    let link = Descriptor::table(geometry(), table.table());
    // SAFETY: this entry of the live table belongs to the window of stacks. It is invalid, and only
    // this function sets it. The barrier ordered the table, which maps memory that memblock has
    // just handed out.
    unsafe { store_valid(cpu, level_2_entry(table.base()), link) };
    Ok(())
}

fn slot(number: usize) -> Va {
    Va(STACKS.0 + number as u64 * stack::SLOT)
}

/// The unmapped pages below the stacks of the CPU `number`.
pub fn guards(number: usize) -> [Va; 2] {
    [stack::GUARD, stack::EXCEPTION_GUARD].map(|offset| Va(slot(number).0 + offset))
}
