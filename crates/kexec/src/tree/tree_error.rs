//! Why a device tree is not rewritten.

use linmap_fdt::{DtbError, WriteError};
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use super::limits::{MAX_PENNED, MAX_PRESERVED, PAGE};

/// Why a device tree cannot be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The source is not a device tree.
    #[error(transparent)]
    DeviceTree(#[from] DtbError),
    /// The result cannot be written.
    #[error("rewriting the device tree: {0}")]
    Write(#[from] WriteError),
    /// The root has two children of this name. It is unknown which of them the next kernel would
    /// read.
    #[error("the device tree has a second /{node} node at offset {offset:#x}")]
    SecondNode {
        /// `chosen`, `cpus` or `reserved-memory`.
        node: &'static str,
        /// The offset of the second in bytes from the start of the tree.
        offset: usize,
    },
    /// A string contains a NUL, which would end it early.
    #[error("the {property} for the device tree has a NUL at byte {at}")]
    Nul {
        /// `bootargs` or `label`.
        property: &'static str,
        /// Its offset in the string.
        at: usize,
    },
    /// A range must be written, and the root does not give its format.
    #[error("{property} of the device tree's root is missing or not 1 or 2: no range can be written")]
    RootCells {
        /// `#address-cells` or `#size-cells`.
        property: &'static str,
    },
    /// A range must be reserved in a node that Linux would not read (`fdt_scan_reserved_mem`).
    #[error(
        "/reserved-memory at offset {offset:#x} does not have the root's {property}: Linux ignores \
         all its children"
    )]
    ReservedMemory {
        /// The offset of the node's end in bytes from the start of the tree.
        offset: usize,
        /// `#address-cells`, `#size-cells`, or `ranges`, which may have any value.
        property: &'static str,
    },
    /// A pen is not whole pages.
    #[error("the spin-table pen {pen} is empty or not whole pages of {PAGE:#x} bytes")]
    PenUnaligned {
        /// The pen.
        pen: PaRange,
    },
    /// The word that CPUs poll is not an aligned word of their pen.
    #[error(
        "the release address {release} is not that of an aligned 64-bit word in the spin-table pen {pen}"
    )]
    ReleaseOutsidePen {
        /// The word's address.
        release: Pa,
        /// The pen.
        pen: PaRange,
    },
    /// A CPU's node has a 32-bit release address.
    #[error("cpu-release-addr at offset {offset:#x} has 32 bits, too few for {release}")]
    ReleaseTooHigh {
        /// The offset of the property in bytes from the start of the tree.
        offset: usize,
        /// The new address.
        release: Pa,
    },
    /// A pen has too many CPUs.
    #[error("the spin-table pen has {count} CPUs, more than {MAX_PENNED}")]
    TooManyPenned {
        /// The number of CPUs.
        count: usize,
    },
    /// The next kernel would not find a CPU of the pen.
    #[error(
        "CPU {reg:#x} is in the spin-table pen, but no node of /cpus with that reg has \
         enable-method spin-table and a cpu-release-addr of one or two cells"
    )]
    PennedUnknown {
        /// Its `reg`.
        reg: u64,
    },
    /// There are more preserved ranges than a next kernel reads.
    #[error("{count} ranges to preserve, more than the {MAX_PRESERVED} of a device tree")]
    TooManyPreserved {
        /// The number of ranges.
        count: usize,
    },
    /// A preserved range is not whole pages.
    #[error("the preserved range {range} is empty or not whole pages of {PAGE:#x} bytes")]
    PreservedUnaligned {
        /// The range.
        range: PaRange,
    },
    /// A preserved range overlaps another or the pen.
    #[error("the preserved range {range} overlaps {other}, which is preserved or the spin-table pen")]
    PreservedOverlap {
        /// The range.
        range: PaRange,
        /// The other one.
        other: PaRange,
    },
    /// Linux reads one or two usable ranges.
    #[error("{count} usable ranges for a crash kernel; Linux reads 1 or 2")]
    UsableCount {
        /// The number of ranges.
        count: usize,
    },
    /// A crash kernel maps its usable memory only.
    #[error("the crash kernel's {what} at {range} is empty or not in one of its usable ranges")]
    OutsideUsable {
        /// `initrd` or `ELF core header`.
        what: &'static str,
        /// The range.
        range: PaRange,
    },
    /// The output buffer is too small.
    #[error("the rewritten device tree has {needed:#x} bytes, its buffer {capacity:#x}")]
    NoRoom {
        /// Length of the rewritten tree in bytes.
        needed: usize,
        /// Length of the buffer in bytes.
        capacity: usize,
    },
}
