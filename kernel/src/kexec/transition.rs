//! The tables for the move of a payload.

use linmap::{MappingList, MemblockFrames, identity_geometry};
use linmap_kexec::{Transition, TransitionError};
use linmap_table::{Mappings, ReachableFrames};
use linmap_vmsa::{Pa, PaRange};

use crate::arch::cpu;
use crate::kexec::error::KexecError;
use crate::memory::long_lists::MappingRoom;
use crate::memory::physical::Memory;
use crate::{report, say};

/// Builds the transitional tables, which execute the code in `control`. `None` if no memory is free
/// for them.
///
/// # Errors
/// [`KexecError::Ranges`], [`KexecError::Identity`], [`KexecError::Transition`].
pub fn build(memory: &mut Memory, control: PaRange) -> Result<Option<Transition>, KexecError> {
    let started = cpu::counter();
    let page = memory.geometry().granule().bytes();
    let mut list: MappingList = MappingList::new();
    let count = memory.memblock.mappable(page).count();
    let room = match count > list.capacity() {
        true => Some(MappingRoom::in_linear_map(&mut memory.memblock, count)),
        false => None,
    };
    let room_at = match room {
        None => PaRange::default(),
        Some(Ok(MappingRoom { memory, room })) => {
            list.lend(room);
            memory
        }
        Some(Err(error)) => {
            say!("no memory for the list of transitional mappings ({error}): the MMU is off during the move");
            return Ok(None);
        }
    };
    let built = build_of(memory, &mut list, control, started);
    memory.memblock.free(room_at)?;
    built
}

/// Builds the tables with room for their mappings in `list`.
fn build_of(
    memory: &mut Memory,
    list: &mut MappingList<'_>,
    control: PaRange,
    started: u64,
) -> Result<Option<Transition>, KexecError> {
    let layout = memory.layout;
    let geometry = layout.geometry();
    let page = geometry.granule().bytes();
    for range in memory.memblock.mappable(page) {
        list.push(range, Transition::mapping(range, layout.linear(range.start)))?;
    }
    let linear = Mappings::new(geometry, list).map_err(TransitionError::Mapping)?;
    let code = control.start;
    let code_geometry = identity_geometry(geometry, Pa(code.0.saturating_add(page)))?;
    let mut window = memory.tables();
    // SAFETY: memblock knows all memory that is in use.
    let mut frames = unsafe { MemblockFrames::new(&mut memory.memblock, geometry) };
    // SAFETY: the linear map has all of memblock's memory.
    let mut reachable = unsafe { ReachableFrames::new(&mut window, &mut frames) };
    match Transition::build(&linear, code, code_geometry, &mut reachable) {
        Ok(both) => {
            report!(
                "phase=kexec-tables ticks={} tables={}",
                cpu::ticks_since(started),
                both.linear.built().tables + both.code.built().tables
            );
            Ok(Some(both))
        }
        Err(TransitionError::OutOfFrames(error)) => {
            say!(
                "no memory for transitional tables ({error}): the payload is moved with the MMU off, slowly"
            );
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
