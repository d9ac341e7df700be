//! The CPUs of the machine, as many as this kernel has room for.

use crate::memory::layout::MAX_CPUS;

/// The CPUs that the device tree describes.
pub type Topology = linmap_platform::Topology<MAX_CPUS>;
