//! The CPUs of the device tree, as many as the kernel has room for.

use crate::arch::layout::MAX_CPUS;

/// The CPUs of the device tree.
pub type Topology = linmap_platform::Topology<MAX_CPUS>;
