//! The CPUs that the device tree describes.

use core::fmt;

use arrayvec::{ArrayString, ArrayVec};
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};
use linmap_fdt::{address, is_enabled};
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
    /// The list is full.
    #[error("node {node:?} of /cpus: the kernel supports {max} CPUs")]
    TooMany {
        /// The first 32 bytes of the node's name.
        node: ArrayString<32>,
        /// The capacity of the [`Topology`].
        max: usize,
    },
    /// No node describes the boot CPU.
    #[error("no node of /cpus has reg {affinity}, the boot CPU's MPIDR_EL1 affinity")]
    NoBootCpu {
        /// The boot CPU's affinity.
        affinity: Affinity,
    },
}

/// The CPUs of the device tree, at most `CPUS`: the boot CPU first, the others in the tree's order.
/// A CPU's index is its number.
#[derive(Debug)]
pub struct Topology<const CPUS: usize> {
    /// The CPUs that may be used.
    pub cpus: ArrayVec<CpuNode, CPUS>,
    /// Why the first few of the other nodes are not used.
    pub unusable: ArrayVec<UnusableCpu, 8>,
    /// How many nodes are not used.
    pub unusable_count: usize,
    /// The mailboxes of CPUs that are not in `cpus`: disabled, or without an affinity of their own.
    unlisted: ArrayVec<Pa, CPUS>,
}

impl<const CPUS: usize> Topology<CPUS> {
    /// Reads the enabled CPUs of `/cpus`. `boot` is the CPU that runs this: it is in the list even
    /// if the tree does not describe it.
    ///
    /// # Panics
    /// If `CPUS` is 0.
    pub fn from_fdt(fdt: Fdt<'_>, boot: Affinity) -> Self {
        let mut cpus = ArrayVec::new();
        cpus.push(CpuNode { affinity: boot, method: EnableMethod::Unknown });
        let mut topology =
            Self { cpus, unusable: ArrayVec::new(), unusable_count: 0, unlisted: ArrayVec::new() };
        let mut boot_seen = false;
        for node in fdt.find_node("/cpus").into_iter().flat_map(|parent| parent.children()) {
            if !is_cpu(&node) {
                continue;
            }
            let added = if is_enabled(&node) { Some(topology.add(&node, &mut boot_seen)) } else { None };
            // A second node of a listed CPU describes no second mailbox.
            if !matches!(added, Some(Ok(()) | Err(UnusableCpu::Duplicate { .. })))
                && let Some(EnableMethod::SpinTable { release }) = method(&node)
                && !topology.unlisted.contains(&release)
            {
                // Once the list is full, `check_mailboxes` treats every mailbox as shared.
                let _ = topology.unlisted.try_push(release);
            }
            if let Some(Err(unusable)) = added {
                topology.refuse(unusable);
            }
        }
        if !boot_seen {
            topology.refuse(UnusableCpu::NoBootCpu { affinity: boot });
        }
        topology
    }

    fn add(&mut self, node: &FdtNode<'_>, boot_seen: &mut bool) -> Result<(), UnusableCpu> {
        let name = short_name(node);
        let reg = node
            .reg()
            .ok()
            .flatten()
            .and_then(|mut entries| address(entries.next()?.address))
            .ok_or(UnusableCpu::NoReg { node: name })?;
        let affinity = Affinity::of_mpidr(reg);
        if affinity.bits() != reg {
            return Err(UnusableCpu::NoAffinity { node: name, reg });
        }
        let method = method(node).ok_or(UnusableCpu::NoReleaseAddress { node: name })?;
        match self.cpus.iter_mut().enumerate().find(|(_, cpu)| cpu.affinity == affinity) {
            Some((0, boot)) if !*boot_seen => {
                *boot_seen = true;
                boot.method = method;
                Ok(())
            }
            Some(_) => Err(UnusableCpu::Duplicate { node: name, affinity }),
            None => self
                .cpus
                .try_push(CpuNode { affinity, method })
                .map_err(|_| UnusableCpu::TooMany { node: name, max: CPUS }),
        }
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

fn is_cpu(node: &FdtNode<'_>) -> bool {
    node.name_without_address() == "cpu"
        || node.property("device_type").is_some_and(|property| property.value() == b"cpu\0")
}

/// Returns `None` for a spin table without a usable address.
fn method(node: &FdtNode<'_>) -> Option<EnableMethod> {
    let Some(method) = node.property("enable-method") else { return Some(EnableMethod::Unknown) };
    match method.value() {
        b"psci\0" => Some(EnableMethod::Psci),
        b"spin-table\0" => {
            let release = node.property("cpu-release-addr")?.value_as::<u64>().ok()?;
            release.is_multiple_of(8).then_some(EnableMethod::SpinTable { release: Pa(release) })
        }
        _ => Some(EnableMethod::Unknown),
    }
}

fn short_name(node: &FdtNode<'_>) -> ArrayString<32> {
    let mut short = ArrayString::new();
    for c in node.name().chars() {
        if short.try_push(c).is_err() {
            break;
        }
    }
    short
}
