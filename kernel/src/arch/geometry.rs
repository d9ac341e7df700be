//! The geometry that this boot uses: the granule is the image's, the VA size and the descriptor
//! format are those in TCR.

use core::cell::UnsafeCell;

use linmap_vmsa::registers::upper_geometry;
use linmap_vmsa::{Geometry, GeometryError};

use crate::arch::layout::{DEFAULT, GRANULE, IDENTITY};

struct Current(UnsafeCell<Geometry>);

// SAFETY: the boot CPU writes it before any other CPU runs.
unsafe impl Sync for Current {}

static CURRENT: Current = Current(UnsafeCell::new(DEFAULT));

/// The geometry of the kernel's half, TTBR1.
#[inline]
pub fn geometry() -> Geometry {
    // SAFETY: it is written once, before anything else uses it.
    unsafe { *CURRENT.0.get() }
}

/// The geometry of the identity map in the image.
#[inline]
pub fn identity() -> Geometry {
    identity_beside(geometry()).unwrap_or(IDENTITY)
}

/// The geometry of the identity map beside a kernel's half of geometry `kernel`. TCR has one
/// descriptor format for both: the PA size keeps LPA2 on where the VA size does not ask for it.
pub fn identity_beside(kernel: Geometry) -> Result<Geometry, GeometryError> {
    let pa_bits = if kernel.lpa2() { 52 } else { kernel.pa_bits() };
    Geometry::new(GRANULE, IDENTITY.va_bits(), pa_bits)
}

/// Notes the geometry that `entry.S` has set in `tcr`.
///
/// # Safety
/// Called on the boot CPU, before anything uses [`geometry`] and before any other CPU runs.
pub unsafe fn note(tcr: u64) {
    if let Some(geometry) = upper_geometry(tcr) {
        // SAFETY: the caller's.
        unsafe { *CURRENT.0.get() = geometry };
    }
}
