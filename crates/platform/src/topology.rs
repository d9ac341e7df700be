//! The CPUs that the device tree describes.

use core::fmt;

use arrayvec::{ArrayString, ArrayVec};
use linmap_fdt::{Cells, Fdt, FdtNode, RegEntries, Status, first_string, number, string};
use linmap_memblock::Memblock;
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use crate::affinity::Affinity;

/// How a CPU is started: its `enable-method`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EnableMethod {
    /// The firmware starts it by PSCI's CPU_ON.
    Psci,
    /// The CPU polls a word of memory, its mailbox, for the address to jump to.
    SpinTable {
        /// The address of the mailbox, a multiple of 8.
        release: Pa,
    },
    /// The node names no method, or one that is not supported.
    Unknown,
}

impl fmt::Display for EnableMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Psci => "psci",
            Self::SpinTable { .. } => "spin-table",
            Self::Unknown => "none",
        })
    }
}

/// A CPU that the device tree describes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuNode {
    /// Which CPU.
    pub affinity: Affinity,
    /// How it is started.
    pub method: EnableMethod,
}

/// Why a node of `/cpus` is not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum UnusableCpu {
    /// Its `reg` is missing or malformed.
    #[error("node {node:?} of /cpus has no reg of 4 or 8 bytes")]
    NoReg {
        /// The first 32 bytes of the node's name.
        node: ArrayString<32>,
    },
    /// Its `reg` sets bits that are 0 in every MPIDR_EL1 affinity.
    #[error("node {node:?} of /cpus: reg {reg:#x} is not an MPIDR_EL1 affinity")]
    NoAffinity {
        /// The first 32 bytes of the node's name.
        node: ArrayString<32>,
        /// Its `reg`.
        reg: u64,
    },
    /// An earlier node has the same `reg`.
    #[error("node {node:?} of /cpus: an earlier node has reg {affinity} too")]
    Duplicate {
        /// The first 32 bytes of the node's name.
        node: ArrayString<32>,
        /// Its `reg`.
        affinity: Affinity,
    },
    /// A spin-table CPU has no usable mailbox address.
    #[error("node {node:?} of /cpus has no cpu-release-addr of 8 bytes that is a multiple of 8")]
    NoReleaseAddress {
        /// The first 32 bytes of the node's name.
        node: ArrayString<32>,
    },
    /// The mailbox of a spin-table CPU lies in memory that may be allocated.
    #[error(
        "CPU {affinity}: cpu-release-addr {release} lies in memory that the device tree does not \
         reserve for the firmware"
    )]
    UnreservedMailbox {
        /// Which CPU.
        affinity: Affinity,
        /// Its `cpu-release-addr`.
        release: Pa,
    },
    /// A CPU that is not in the list polls the mailbox too, so that both would start.
    #[error("CPU {affinity}: a disabled or unusable CPU polls the same cpu-release-addr {release}")]
    SharedMailbox {
        /// Which CPU.
        affinity: Affinity,
        /// Its `cpu-release-addr`.
        release: Pa,
    },
    /// Its status says that it does not work, or that others use it.
    #[error("node {node:?} of /cpus has status {status:?}: it is never started")]
    OutOfUse {
        /// The first 32 bytes of the node's name.
        node: ArrayString<32>,
        /// The first 32 bytes of its status.
        status: ArrayString<32>,
    },
    /// It is quiescent, and nothing tells how it is started.
    #[error("node {node:?} of /cpus is disabled and has no enable-method that is known: it stays off")]
    NoMethod {
        /// The first 32 bytes of the node's name.
        node: ArrayString<32>,
    },
    /// No node describes the boot CPU.
    #[error("no node of /cpus has reg {affinity}, the boot CPU's MPIDR_EL1 affinity")]
    NoBootCpu {
        /// The boot CPU's affinity.
        affinity: Affinity,
    },
}

/// The CPUs for which a [`Topology`] has no room. They are never called.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error(
    "{count} CPUs stay off, from node {first:?} of /cpus to node {last:?}: the kernel supports {max} CPUs"
)]
pub struct LeftOut {
    /// The first 32 bytes of the first node's name.
    pub first: ArrayString<32>,
    /// The first 32 bytes of the last node's name.
    pub last: ArrayString<32>,
    /// How many there are.
    pub count: usize,
    /// The capacity of the [`Topology`].
    pub max: usize,
}

/// The CPUs of the device tree, at most `CPUS`: the boot CPU first, the others in the tree's order.
/// A CPU's index is its number.
#[derive(Debug)]
pub struct Topology<const CPUS: usize> {
    /// The CPUs that may be used.
    pub cpus: ArrayVec<CpuNode, CPUS>,
    /// Why the first few of the other nodes are not used, apart from those in `left_out`.
    pub unusable: ArrayVec<UnusableCpu, 8>,
    /// How many nodes are not used for such a reason.
    pub unusable_count: usize,
    /// The CPUs for which there is no room.
    pub left_out: Option<LeftOut>,
    /// The mailboxes of CPUs that are not in `cpus`: out of use, or without an affinity of their
    /// own.
    unlisted: ArrayVec<Pa, CPUS>,
}

/// Why a node adds no CPU.
enum NotAdded {
    Unusable(UnusableCpu),
    NoRoom,
}

impl From<UnusableCpu> for NotAdded {
    fn from(unusable: UnusableCpu) -> Self {
        Self::Unusable(unusable)
    }
}

impl<const CPUS: usize> Topology<CPUS> {
    /// Reads the CPUs of `/cpus`. `boot` is the CPU that runs this: it is in the list even if the
    /// tree does not describe it.
    ///
    /// A CPU with the status `disabled` is quiescent, and its `enable-method` starts it (Devicetree
    /// Specification v0.4, section 3.8.1). One whose status is `fail`, or anything else, is not
    /// used.
    ///
    /// # Panics
    /// If `CPUS` is 0.
    pub fn from_fdt(fdt: Fdt<'_>, boot: Affinity) -> Self {
        let mut topology = Self {
            cpus: ArrayVec::new(),
            unusable: ArrayVec::new(),
            unusable_count: 0,
            left_out: None,
            unlisted: ArrayVec::new(),
        };
        topology.cpus.push(CpuNode { affinity: boot, method: EnableMethod::Unknown });
        let mut boot_seen = false;
        if let Some(parent) = fdt.cpus() {
            let cells = parent.cells();
            let method = parent.property("enable-method");
            for node in parent.children().filter_map(|node| Described::of(node, cells, method)) {
                topology.add(&node, &mut boot_seen);
            }
        }
        if !boot_seen {
            topology.refuse(UnusableCpu::NoBootCpu { affinity: boot });
        }
        topology
    }

    fn add(&mut self, node: &Described<'_>, boot_seen: &mut bool) {
        let added = self.try_add(node, boot_seen);
        // A second node of a listed CPU describes no second mailbox.
        if !matches!(added, Ok(()) | Err(NotAdded::Unusable(UnusableCpu::Duplicate { .. })))
            && let Some(EnableMethod::SpinTable { release }) = node.method
            && !self.unlisted.contains(&release)
        {
            // Once the list is full, `check_mailboxes` treats every mailbox as shared.
            let _ = self.unlisted.try_push(release);
        }
        match added {
            Ok(()) => {}
            Err(NotAdded::Unusable(unusable)) => self.refuse(unusable),
            Err(NotAdded::NoRoom) => self.leave_out(node.short_name()),
        }
    }

    fn try_add(&mut self, node: &Described<'_>, boot_seen: &mut bool) -> Result<(), NotAdded> {
        let name = || node.short_name();
        let reg = node.reg.ok_or_else(|| UnusableCpu::NoReg { node: name() })?;
        let affinity = Affinity::of_mpidr(reg);
        if affinity.bits() != reg {
            Err(UnusableCpu::NoAffinity { node: name(), reg })?;
        }
        let place = self.cpus.iter().position(|cpu| cpu.affinity == affinity);
        // The boot CPU runs, whatever its status says.
        let is_boot = place == Some(0);
        match Status::of_value(node.status) {
            Status::Okay | Status::Disabled => {}
            _ if is_boot => {}
            Status::Failed | Status::Reserved => {
                let status = short(string(node.status.unwrap_or_default()).unwrap_or_default());
                Err(UnusableCpu::OutOfUse { node: name(), status })?;
            }
        }
        let method = node.method.ok_or_else(|| UnusableCpu::NoReleaseAddress { node: name() })?;
        match place {
            Some(0) if !*boot_seen => {
                *boot_seen = true;
                if let Some(boot) = self.cpus.first_mut() {
                    boot.method = method;
                }
                Ok(())
            }
            Some(_) => Err(UnusableCpu::Duplicate { node: name(), affinity }.into()),
            None if method == EnableMethod::Unknown && Status::of_value(node.status) == Status::Disabled => {
                Err(UnusableCpu::NoMethod { node: name() }.into())
            }
            None => self.cpus.try_push(CpuNode { affinity, method }).map_err(|_| NotAdded::NoRoom),
        }
    }

    fn leave_out(&mut self, name: ArrayString<32>) {
        let first = self.left_out.map_or(name, |earlier| earlier.first);
        let count = self.left_out.map_or(0, |earlier| earlier.count) + 1;
        self.left_out = Some(LeftOut { first, last: name, count, max: CPUS });
    }

    /// Sets the method of a spin-table CPU to [`EnableMethod::Unknown`] if its mailbox lies in
    /// memory that is free or in one of `ours`, or if a CPU that is not in the list polls it too.
    /// `memblock` must hold what the device tree says and nothing else.
    pub fn check_mailboxes<const N: usize>(&mut self, memblock: &Memblock<N>, ours: &[PaRange]) {
        for number in 0..self.cpus.len() {
            let CpuNode { affinity, method: EnableMethod::SpinTable { release } } = self.cpus[number] else {
                continue;
            };
            let is_free =
                memblock.is_memory(release) && !memblock.is_no_map(release) && !memblock.is_reserved(release);
            if self.unlisted.is_full() || self.unlisted.contains(&release) {
                self.cpus[number].method = EnableMethod::Unknown;
                self.refuse(UnusableCpu::SharedMailbox { affinity, release });
            } else if is_free || ours.iter().any(|range| range.contains(release)) {
                self.cpus[number].method = EnableMethod::Unknown;
                self.refuse(UnusableCpu::UnreservedMailbox { affinity, release });
            }
        }
    }

    fn refuse(&mut self, unusable: UnusableCpu) {
        self.unusable_count += 1;
        // The first few tell what is wrong with the tree.
        let _ = self.unusable.try_push(unusable);
    }
}

/// What a node of `/cpus` says of its CPU.
struct Described<'a> {
    node: FdtNode<'a>,
    status: Option<&'a [u8]>,
    /// The first address of `reg`.
    reg: Option<u64>,
    /// `None` for a spin table without a usable address.
    method: Option<EnableMethod>,
}

impl<'a> Described<'a> {
    /// Reads `node` if it is a CPU. What all CPUs have in common may stand in `/cpus` instead
    /// (section 3.7): `method` is its `enable-method`.
    fn of(node: FdtNode<'a>, cells: Cells, method: Option<&'a [u8]>) -> Option<Self> {
        let [kind, status, reg, own_method, release] =
            node.values(["device_type", "status", "reg", "enable-method", "cpu-release-addr"]);
        if kind.map(first_string) != Some(b"cpu") && !node.is_called("cpu") {
            return None;
        }
        let first = RegEntries::new(reg.unwrap_or_default(), cells).ok().and_then(|mut reg| reg.next());
        let method = match own_method.or(method).map(first_string) {
            Some(b"psci") => Some(EnableMethod::Psci),
            Some(b"spin-table") => release
                .and_then(number)
                .filter(|release| release.is_multiple_of(8))
                .map(|release| EnableMethod::SpinTable { release: Pa(release) }),
            _ => Some(EnableMethod::Unknown),
        };
        Some(Self { node, status, reg: first.and_then(|entry| entry.address()), method })
    }

    fn short_name(&self) -> ArrayString<32> {
        short(self.node.name())
    }
}

/// Returns the first 32 bytes of `text`, in whole characters.
fn short(text: &str) -> ArrayString<32> {
    let mut short = ArrayString::new();
    for c in text.chars() {
        if short.try_push(c).is_err() {
            break;
        }
    }
    short
}
