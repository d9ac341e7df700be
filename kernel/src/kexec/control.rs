//! The control frames of a payload: relocation code, orders, the EL2 stub where there is one, and a
//! pen.

use linmap_kexec::SEGMENT_ALIGN;
use linmap_vmsa::{Pa, PaRange};

use crate::arch::cpu;
use crate::arch::el2_stub;
use crate::arch::entered::Entered;
use crate::arch::layout::GRANULE;
use crate::kexec::allocations::PayloadMemory;
use crate::kexec::error::KexecError;
use crate::memory::physical::Memory;
use crate::smp::pen::{self, Pen};

/// Allocates the control frames, with a pen at the end if `has_pen`: whole pages, since the
/// transitional tables execute the first.
///
/// # Errors
/// [`KexecError::Memory`], [`KexecError::Region`].
pub fn allocate(
    memory: &mut PayloadMemory<'_>,
    entered: Entered,
    has_pen: bool,
) -> Result<PaRange, KexecError> {
    let stub = u64::from(entered == Entered::El2Stub);
    let page = GRANULE.bytes();
    let len = ((2 + stub + u64::from(has_pen)) * SEGMENT_ALIGN).next_multiple_of(page);
    let start = memory.alloc(len, page)?;
    Ok(PaRange::new(start, Pa(start.0 + len)))
}

/// Where the pen is in the frames of `control`.
pub fn pen_at(control: PaRange) -> Pa {
    Pa(control.end.0 - pen::LEN)
}

/// Writes relocation code, EL2 stub and the pen at `pen` to the frames of `control`.
pub fn write(memory: &Memory, control: PaRange, entered: Entered, pen: Option<Pa>) -> Option<Pen> {
    // SAFETY: the frames were allocated for this, and nothing else refers to them.
    let mut frames = unsafe { memory.owned_bytes(control) };
    let bytes = frames.as_mut();
    bytes.fill(0);
    let code = linmap_relocate::code();
    bytes[..code.len()].copy_from_slice(code);
    if entered == Entered::El2Stub {
        let vectors = el2_stub::vectors();
        bytes[2 * SEGMENT_ALIGN as usize..][..vectors.len()].copy_from_slice(vectors);
    }
    let pen = pen.map(|at| Pen::write(at, &mut bytes[(at.0 - control.start.0) as usize..]));
    cpu::clean_and_invalidate(memory.layout.linear(control.start), control.len());
    cpu::invalidate_instructions_everywhere();
    pen
}
