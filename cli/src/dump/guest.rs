//! A stopped machine: its memory, and the roots of its translation tables.

use std::fmt;
use std::ops::Range;

use linmap_vmsa::{Geometry, HardwareUpdates, Pa, Shareability, Va};

use crate::failure::Failure;

/// The memory of a guest, by physical address.
///
/// Frames are read whole and once, so an implementation need not cache.
pub trait GuestMemory {
    /// The ranges that hold memory (RAM, ROM or flash), ascending and disjoint. Whatever lies
    /// outside is no memory, even if it can be read: QEMU reads zeros there.
    fn ranges(&self) -> &[Range<u64>];

    /// Fills `bytes` from the physical address `pa` on. The caller stays inside one range.
    ///
    /// # Errors
    /// The guest has gone away, or the file can't be read.
    fn read(&mut self, pa: u64, bytes: &mut [u8]) -> Result<(), Failure>;
}

/// A register that holds a root.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RootRegister {
    /// TTBR0_EL1.
    Ttbr0El1,
    /// TTBR1_EL1.
    Ttbr1El1,
    /// TTBR0_EL2.
    Ttbr0El2,
    /// TTBR1_EL2, with HCR_EL2.E2H.
    Ttbr1El2,
    /// TTBR0_EL3.
    Ttbr0El3,
    /// VTTBR_EL2: stage 2.
    VttbrEl2,
}

impl fmt::Display for RootRegister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ttbr0El1 => "TTBR0_EL1",
            Self::Ttbr1El1 => "TTBR1_EL1",
            Self::Ttbr0El2 => "TTBR0_EL2",
            Self::Ttbr1El2 => "TTBR1_EL2",
            Self::Ttbr0El3 => "TTBR0_EL3",
            Self::VttbrEl2 => "VTTBR_EL2",
        })
    }
}

/// The root of a tree of translation tables, and how a CPU walks the tree.
#[derive(Clone, Debug)]
pub struct Root {
    /// The register that holds it.
    pub register: RootRegister,
    /// Granule, sizes, regime and start level of its walks.
    pub geometry: Geometry,
    /// The root table, or the first of several. It is aligned to its own size, which is less than a
    /// frame where the start level resolves few bits: nothing may be read beyond its entries.
    pub table: Pa,
    /// The first address that it translates: that of the upper half for TTBR1.
    pub first: Va,
    /// The ASID or VMID that goes with it.
    pub id: u16,
    /// The regime's TCR_ELx, or VTCR_EL2, if it is known.
    pub tcr: Option<u64>,
    /// The regime's MAIR_ELx, if it is known. Without it attributes are shown by index.
    pub mair: Option<u64>,
    /// Whether stage 2 translates the tree's addresses, those of its tables included: the guest's
    /// [`Guest::roots`] have [`RootRegister::VttbrEl2`] then.
    pub addresses: AddressSpace,
    /// Under LPA2 the shareability of all that the tree maps: TCR_ELx.SHn, if it is known.
    pub shareability: Option<Shareability>,
    /// SCTLR_ELx.WXN: nobody executes what is writable.
    pub writable_never_executes: bool,
    /// Whether hierarchical permissions of tables count: TCR.HPD is clear.
    pub has_table_permissions: bool,
    /// Whether hardware sets access flags (TCR.HA) and dirty state (TCR.HD).
    pub updates: HardwareUpdates,
}

/// Which addresses the descriptors of a tree hold.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AddressSpace {
    /// Physical ones.
    Physical,
    /// Intermediate physical ones, which stage 2 translates: HCR_EL2.VM is set, and the regime is
    /// EL1&0.
    Intermediate,
}

/// A stopped machine.
pub struct Guest {
    /// Its memory.
    pub memory: Box<dyn GuestMemory>,
    /// The roots of its trees.
    pub roots: Vec<Root>,
    /// What the reader has to know: what was not there, or was guessed.
    pub notes: Vec<String>,
}
