//! The CPUs that the device tree describes.

use core::fmt;

use arrayvec::{ArrayString, ArrayVec};
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};
use linmap_memblock::Memblock;
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use crate::arch::layout::MAX_CPUS;
use crate::boot::device_tree::address;

/// Which CPU: the affinity fields of MPIDR_EL1, Aff3 in bits 39:32 and Aff2 to Aff0 in bits 23:0 (Arm ARM D24.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Affinity(u64);

impl Affinity {
    /// The bits of MPIDR_EL1 that are affinity fields.
    pub const MASK: u64 = 0xff_00ff_ffff;

    /// The affinity fields of an MPIDR_EL1 value.
    pub const fn of_mpidr(mpidr: u64) -> Self {
        Self(mpidr & Self::MASK)
    }

    /// The fields in place; the other bits are 0.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Aff3, Aff2, Aff1 and Aff0 as one 32-bit number, as GICR_TYPER has them.
    pub const fn packed(self) -> u32 {
        (self.0 >> 32 << 24 | self.0 & 0xff_ffff) as u32
    }
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = ArrayString::<18>::new();
        // 0x and at most 16 digits.
        let _ = fmt::Write::write_fmt(&mut text, format_args!("{:#x}", self.0));
        f.pad(&text)
    }
}

/// How a CPU is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// By the firmware.
    Psci,
    /// It watches a word of memory for the address to go to.
    SpinTable {
        /// Where the word is: a multiple of 8.
        release: Pa,
    },
    /// By nothing that we know.
    Unknown,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Psci => "psci",
            Self::SpinTable { .. } => "spin-table",
            Self::Unknown => "none",
        })
    }
}

/// A CPU of the device tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Described {
    /// Which.
    pub affinity: Affinity,
    /// How it is started.
    pub method: Method,
}

/// Why a node of /cpus is not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Unusable {
    /// Its `reg` is no number.
    #[error("node {node:?} of /cpus has no reg of 4 or 8 bytes")]
    NoReg {
        /// The node's name, as far as it is short.
        node: ArrayString<32>,
    },
    /// Its `reg` has bits set that no MPIDR_EL1 has.
    #[error("node {node:?} of /cpus: reg {reg:#x} is no MPIDR_EL1 affinity")]
    NoAffinity {
        /// The node's name.
        node: ArrayString<32>,
        /// Its `reg`.
        reg: u64,
    },
    /// An earlier node has the same `reg`.
    #[error("node {node:?} of /cpus: reg {affinity} is an earlier node's")]
    Duplicate {
        /// The node's name.
        node: ArrayString<32>,
        /// Its `reg`.
        affinity: Affinity,
    },
    /// A spin-table CPU without a word to watch.
    #[error("node {node:?} of /cpus has no cpu-release-addr that is 8 bytes and a multiple of 8")]
    NoReleaseAddress {
        /// The node's name.
        node: ArrayString<32>,
    },
    /// A spin-table CPU whose word to watch is memory that anyone may be given.
    #[error(
        "CPU {affinity}: cpu-release-addr {release} is memory that the device tree does not reserve for the firmware"
    )]
    UnreservedMailbox {
        /// Which CPU.
        affinity: Affinity,
        /// Its `cpu-release-addr`.
        release: Pa,
    },
    /// A spin-table CPU that can't be called alone.
    #[error(
        "CPU {affinity}: cpu-release-addr {release} is also that of a CPU which is disabled or can't be told from others, and would come along"
    )]
    SharedMailbox {
        /// Which CPU.
        affinity: Affinity,
        /// Its `cpu-release-addr`.
        release: Pa,
    },
    /// There are more CPUs than the kernel has room for.
    #[error("node {node:?} of /cpus is one more than the {MAX_CPUS} CPUs there is room for")]
    TooMany {
        /// The node's name.
        node: ArrayString<32>,
    },
    /// The CPU that reads this is in no node.
    #[error("no node of /cpus has reg {affinity}, the boot CPU's MPIDR_EL1 affinity")]
    NoBootCpu {
        /// The boot CPU's.
        affinity: Affinity,
    },
}

/// The CPUs of the device tree, the boot CPU first, the others in the tree's order. That order gives CPUs their numbers.
#[derive(Debug)]
pub struct Topology {
    /// The CPUs that may be used.
    pub cpus: ArrayVec<Described, MAX_CPUS>,
    /// The first nodes that can't.
    pub unusable: ArrayVec<Unusable, 8>,
    /// How many nodes can't be used.
    pub unusable_count: usize,
    /// Words that CPUs watch which are in no list: disabled, or not to be told from others.
    unlisted: ArrayVec<Pa, MAX_CPUS>,
}

impl Topology {
    /// Reads the children of /cpus that are CPUs and enabled; `boot` is the CPU that this runs on, which is there even if
    /// the tree does not know it.
    pub fn from_fdt(fdt: Fdt<'_>, boot: Affinity) -> Self {
        let mut cpus = ArrayVec::new();
        cpus.push(Described { affinity: boot, method: Method::Unknown });
        let mut topology =
            Self { cpus, unusable: ArrayVec::new(), unusable_count: 0, unlisted: ArrayVec::new() };
        let mut boot_seen = false;
        for node in fdt.find_node("/cpus").into_iter().flat_map(|parent| parent.children()) {
            if !is_cpu(&node) {
                continue;
            }
            let added = if is_enabled(&node) { Some(topology.add(&node, &mut boot_seen)) } else { None };
            // A second node of a CPU that is listed watches nothing of its own.
            if !matches!(added, Some(Ok(()) | Err(Unusable::Duplicate { .. })))
                && let Some(Method::SpinTable { release }) = method(&node)
                && !topology.unlisted.contains(&release)
            {
                // Once there is no room for one more, none counts as its CPU's own.
                let _ = topology.unlisted.try_push(release);
            }
            if let Some(Err(unusable)) = added {
                topology.refuse(unusable);
            }
        }
        if !boot_seen {
            topology.refuse(Unusable::NoBootCpu { affinity: boot });
        }
        topology
    }

    fn add(&mut self, node: &FdtNode<'_>, boot_seen: &mut bool) -> Result<(), Unusable> {
        let name = short_name(node);
        let reg = node
            .reg()
            .ok()
            .flatten()
            .and_then(|mut entries| address(entries.next()?.address))
            .ok_or(Unusable::NoReg { node: name })?;
        let affinity = Affinity::of_mpidr(reg);
        if affinity.bits() != reg {
            return Err(Unusable::NoAffinity { node: name, reg });
        }
        let method = method(node).ok_or(Unusable::NoReleaseAddress { node: name })?;
        match self.cpus.iter_mut().enumerate().find(|(_, cpu)| cpu.affinity == affinity) {
            Some((0, boot)) if !*boot_seen => {
                *boot_seen = true;
                boot.method = method;
                Ok(())
            }
            Some(_) => Err(Unusable::Duplicate { node: name, affinity }),
            None => self
                .cpus
                .try_push(Described { affinity, method })
                .map_err(|_| Unusable::TooMany { node: name }),
        }
    }

    /// Gives up spin-table CPUs whose word to watch is memory that the firmware has not kept for itself, or in one of `ours`, or
    /// that of a CPU which would come uncalled.
    /// `memblock` is as the device tree has it.
    pub fn check_mailboxes<const N: usize>(&mut self, memblock: &Memblock<N>, ours: &[PaRange]) {
        for number in 0..self.cpus.len() {
            let Described { affinity, method: Method::SpinTable { release } } = self.cpus[number] else {
                continue;
            };
            let is_free =
                memblock.is_memory(release) && !memblock.is_no_map(release) && !memblock.is_reserved(release);
            if self.unlisted.is_full() || self.unlisted.contains(&release) {
                self.cpus[number].method = Method::Unknown;
                self.refuse(Unusable::SharedMailbox { affinity, release });
            } else if is_free || ours.iter().any(|range| range.contains(release)) {
                self.cpus[number].method = Method::Unknown;
                self.refuse(Unusable::UnreservedMailbox { affinity, release });
            }
        }
    }

    fn refuse(&mut self, unusable: Unusable) {
        self.unusable_count += 1;
        // The first few say what is wrong with the tree.
        let _ = self.unusable.try_push(unusable);
    }
}

fn is_cpu(node: &FdtNode<'_>) -> bool {
    node.name_without_address() == "cpu"
        || node.property("device_type").is_some_and(|property| property.value() == b"cpu\0")
}

/// Whether the node has no `status` or says that it is fine. `ok` is an old form that firmware still writes.
pub fn is_enabled(node: &FdtNode<'_>) -> bool {
    node.property("status").is_none_or(|status| matches!(status.value(), b"okay\0" | b"ok\0"))
}

/// `None` for a spin table without a usable address.
fn method(node: &FdtNode<'_>) -> Option<Method> {
    let Some(method) = node.property("enable-method") else { return Some(Method::Unknown) };
    match method.value() {
        b"psci\0" => Some(Method::Psci),
        b"spin-table\0" => {
            let release = node.property("cpu-release-addr")?.value_as::<u64>().ok()?;
            release.is_multiple_of(8).then_some(Method::SpinTable { release: Pa(release) })
        }
        _ => Some(Method::Unknown),
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
