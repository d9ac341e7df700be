//! Filling the memory map from a UEFI memory map.

use core::fmt;

use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use crate::memblock::Memblock;
use crate::region_error::{PA_LIMIT, RegionError};

/// UEFI counts memory in pages of this size on every machine.
const PAGE: u64 = 0x1000;
/// The length of `EFI_MEMORY_DESCRIPTOR`. Firmware may use more for each.
const DESCRIPTOR: usize = 40;

/// A memory map as GetMemoryMap gives it (UEFI 2.10, 7.2.3).
///
/// ```
/// use linmap_memblock::{
///     Memblock, UefiAttributes, UefiDescriptor, UefiMap, UefiType, UefiUse,
/// };
/// use linmap_vmsa::Pa;
///
/// // One descriptor as GetMemoryMap gives it: type, padding, address, virtual address, pages,
/// // attributes.
/// let mut bytes = Vec::new();
/// for word in [u64::from(UefiType::CONVENTIONAL.0), 0x4000_0000, 0, 0x100, UefiAttributes::WB.0] {
///     bytes.extend(word.to_le_bytes());
/// }
/// let map = UefiMap::new(&bytes, 40)?;
/// let found: UefiDescriptor = map.at(Pa(0x4000_1000)).expect("memory");
/// assert_eq!((found.kind, found.usage()), (UefiType::CONVENTIONAL, UefiUse::Free));
///
/// let mut memory = Memblock::<16>::new();
/// memory.fill_from_uefi(map)?;
/// assert_eq!(memory.mappable(0x1000).map(|range| range.len()).sum::<u64>(), 0x10_0000);
/// # Ok::<(), linmap_memblock::UefiError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct UefiMap<'a> {
    bytes: &'a [u8],
    descriptor_size: usize,
}

/// A range of a [`UefiMap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UefiDescriptor {
    /// Its type.
    pub kind: UefiType,
    /// Its physical addresses.
    pub range: PaRange,
    /// How it may be used.
    pub attributes: UefiAttributes,
}

/// The type of a range: `EFI_MEMORY_TYPE`. Numbers from 0x7000_0000 on belong to vendors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UefiType(pub u32);

/// The attributes of a range (UEFI 2.10, 7.2.3): the memory types and protections that it supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UefiAttributes(pub u64);

impl UefiType {
    /// The code of the boot loader, and of applications that it started.
    pub const LOADER_CODE: Self = Self(1);
    /// The data of the boot loader.
    pub const LOADER_DATA: Self = Self(2);
    /// Code of boot services, free after ExitBootServices.
    pub const BOOT_SERVICES_CODE: Self = Self(3);
    /// Data of boot services, free after ExitBootServices.
    pub const BOOT_SERVICES_DATA: Self = Self(4);
    /// Free memory.
    pub const CONVENTIONAL: Self = Self(7);
    /// ACPI tables: free when the kernel has read them.
    pub const ACPI_RECLAIM: Self = Self(9);
    /// Persistent memory.
    pub const PERSISTENT: Self = Self(14);

    const NAMES: [&str; 16] = [
        "Reserved",
        "LoaderCode",
        "LoaderData",
        "BootServicesCode",
        "BootServicesData",
        "RuntimeServicesCode",
        "RuntimeServicesData",
        "Conventional",
        "Unusable",
        "ACPIReclaim",
        "ACPIMemoryNVS",
        "MemoryMappedIO",
        "MemoryMappedIOPortSpace",
        "PalCode",
        "Persistent",
        "Unaccepted",
    ];
}

impl fmt::Display for UefiType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.get(self.0 as usize) {
            Some(name) => f.write_str(name),
            None => write!(f, "type {:#x}", self.0),
        }
    }
}

impl UefiAttributes {
    /// Write-combining accesses.
    pub const WC: Self = Self(1 << 1);
    /// Write-through caching.
    pub const WT: Self = Self(1 << 2);
    /// Write-back caching.
    pub const WB: Self = Self(1 << 3);
    /// Memory for a purpose, which the kernel leaves to a driver.
    pub const SPECIAL_PURPOSE: Self = Self(1 << 18);

    /// Returns whether all bits of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What a kernel may do with a range after ExitBootServices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UefiUse {
    /// Map and allocate it.
    Free,
    /// Map it, but leave its content alone: ACPI tables.
    Reserved,
    /// Leave it unmapped: it belongs to the firmware.
    NoMap,
    /// It is not memory, or memory that a driver takes over.
    NotMemory,
}

/// Why a UEFI memory map does not describe memory in which a kernel can run. `nth` counts
/// descriptors from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UefiError {
    /// The descriptor size is impossible.
    #[error("UEFI descriptors of {size} bytes: the least is {DESCRIPTOR}, and each is 8-byte aligned")]
    DescriptorSize {
        /// The size in bytes.
        size: usize,
    },
    /// The map ends within a descriptor.
    #[error("the UEFI memory map has {len} bytes, not a multiple of its descriptors' {size}")]
    Length {
        /// Length of the map in bytes.
        len: usize,
        /// Length of a descriptor in bytes.
        size: usize,
    },
    /// A descriptor has no pages.
    #[error("UEFI descriptor {nth}: {kind} at {start} has no pages")]
    NoPages {
        /// The descriptor.
        nth: usize,
        /// Its type.
        kind: UefiType,
        /// Its address.
        start: Pa,
    },
    /// A descriptor does not begin at a page.
    #[error("UEFI descriptor {nth}: {kind} at {start} does not begin at a multiple of {PAGE:#x}")]
    Unaligned {
        /// The descriptor.
        nth: usize,
        /// Its type.
        kind: UefiType,
        /// Its address.
        start: Pa,
    },
    /// A descriptor ends beyond 2^64.
    #[error(
        "UEFI descriptor {nth}: {kind}, {pages:#x} pages at {start}, wraps around the 64-bit address space"
    )]
    Wraps {
        /// The descriptor.
        nth: usize,
        /// Its type.
        kind: UefiType,
        /// Its address.
        start: Pa,
        /// Its length in pages of 4 KiB.
        pages: u64,
    },
    /// Two descriptors overlap, at least one of which is memory.
    #[error("UEFI descriptors {nth} and {other} overlap: {range} and {other_range}")]
    Overlap {
        /// The later descriptor.
        nth: usize,
        /// Its range.
        range: PaRange,
        /// The earlier descriptor.
        other: usize,
        /// Its range.
        other_range: PaRange,
    },
    /// The memory map refuses a descriptor's range.
    #[error("UEFI descriptor {nth}: {source}")]
    Regions {
        /// The descriptor.
        nth: usize,
        /// Why.
        source: RegionError,
    },
    /// No page may be mapped.
    #[error("no memory is left: the UEFI memory map has {memory:#x} bytes of RAM, all of them no-map")]
    NothingMappable {
        /// Bytes of RAM.
        memory: u64,
    },
}

impl<'a> UefiMap<'a> {
    /// Returns the map in `bytes`, whose descriptors are `descriptor_size` bytes apart.
    ///
    /// # Errors
    /// [`UefiError`], for the first descriptor that breaks a rule.
    pub fn new(bytes: &'a [u8], descriptor_size: usize) -> Result<Self, UefiError> {
        if descriptor_size < DESCRIPTOR || !descriptor_size.is_multiple_of(8) {
            return Err(UefiError::DescriptorSize { size: descriptor_size });
        }
        if !bytes.len().is_multiple_of(descriptor_size) {
            return Err(UefiError::Length { len: bytes.len(), size: descriptor_size });
        }
        for (nth, descriptor) in bytes.chunks_exact(descriptor_size).enumerate() {
            read(nth, descriptor)?;
        }
        Ok(Self { bytes, descriptor_size })
    }

    /// Returns the descriptors in their order, which need not ascend.
    pub fn descriptors(&self) -> impl Iterator<Item = UefiDescriptor> + Clone + use<'a> {
        // `new` read every descriptor: none is left out.
        let chunks = self.bytes.chunks_exact(self.descriptor_size).enumerate();
        chunks.filter_map(|(nth, descriptor)| read(nth, descriptor).ok())
    }

    /// Returns the descriptor that has `pa`.
    pub fn at(&self, pa: Pa) -> Option<UefiDescriptor> {
        self.descriptors().find(|descriptor| descriptor.range.contains(pa))
    }
}

impl UefiDescriptor {
    /// Returns what a kernel may do with the range (UEFI 2.10, table 7.10). As in Linux:
    ///
    /// - memory is what can be write-back, write-through or write-combining;
    /// - memory that can't be write-back has no place in a linear map;
    /// - special-purpose memory is left to the driver that it is for.
    pub fn usage(&self) -> UefiUse {
        let UefiAttributes(attributes) = self.attributes;
        let cacheable = UefiAttributes::WB.0 | UefiAttributes::WT.0 | UefiAttributes::WC.0;
        if attributes & cacheable == 0 || self.attributes.contains(UefiAttributes::SPECIAL_PURPOSE) {
            return UefiUse::NotMemory;
        }
        match self.kind {
            _ if !self.attributes.contains(UefiAttributes::WB) => UefiUse::NoMap,
            UefiType::LOADER_CODE
            | UefiType::LOADER_DATA
            | UefiType::BOOT_SERVICES_CODE
            | UefiType::BOOT_SERVICES_DATA
            | UefiType::CONVENTIONAL
            | UefiType::PERSISTENT => UefiUse::Free,
            UefiType::ACPI_RECLAIM => UefiUse::Reserved,
            _ => UefiUse::NoMap,
        }
    }
}

impl<const N: usize> Memblock<N> {
    /// Replaces the content of the map by the memory of a UEFI memory map, as it is after
    /// ExitBootServices: see [`UefiDescriptor::usage`]. ACPI tables are reserved.
    ///
    /// The caller reserves what the boot loader left in its own memory: the running image, the
    /// initrd, the memory map itself.
    ///
    /// # Errors
    /// [`UefiError`], after which the map is empty.
    pub fn fill_from_uefi(&mut self, map: UefiMap<'_>) -> Result<(), UefiError> {
        self.clear();
        let filled = self.add_descriptors(map);
        if filled.is_err() {
            self.clear();
        }
        filled
    }

    fn add_descriptors(&mut self, map: UefiMap<'_>) -> Result<(), UefiError> {
        for (nth, descriptor) in map.descriptors().enumerate() {
            let usage = descriptor.usage();
            let range = descriptor.range;
            if usage == UefiUse::NotMemory {
                continue;
            }
            if self.overlapping_memory(range).is_some() {
                return Err(overlap(map, nth, range));
            }
            self.add(range)
                .and_then(|()| match usage {
                    UefiUse::Reserved => self.reserve(range),
                    UefiUse::NoMap => self.mark_no_map(range),
                    UefiUse::Free | UefiUse::NotMemory => Ok(()),
                })
                .map_err(|source| UefiError::Regions { nth, source })?;
        }
        // What is not memory must not lie within memory either.
        for (nth, descriptor) in map.descriptors().enumerate() {
            if descriptor.usage() == UefiUse::NotMemory && self.overlapping_memory(descriptor.range).is_some()
            {
                return Err(overlap(map, nth, descriptor.range));
            }
        }
        if self.mappable(PAGE).next().is_none() {
            return Err(UefiError::NothingMappable { memory: self.memory_len() });
        }
        Ok(())
    }
}

/// Returns the error for descriptor `nth`, which overlaps another one that is memory.
fn overlap(map: UefiMap<'_>, nth: usize, range: PaRange) -> UefiError {
    let is_memory = |descriptor: &UefiDescriptor| descriptor.usage() != UefiUse::NotMemory;
    let other = map
        .descriptors()
        .enumerate()
        .find(|(other, descriptor)| {
            *other != nth && is_memory(descriptor) && descriptor.range.overlaps(range)
        })
        .map_or((nth, range), |(other, descriptor)| (other, descriptor.range));
    let [(other, other_range), (nth, range)] =
        if other.0 < nth { [other, (nth, range)] } else { [(nth, range), other] };
    UefiError::Overlap { nth, range, other, other_range }
}

/// Reads a descriptor of at least [`DESCRIPTOR`] bytes: a 32-bit type, 4 bytes of padding, and
/// physical start, virtual start, pages and attributes of 64 bits each.
fn read(nth: usize, bytes: &[u8]) -> Result<UefiDescriptor, UefiError> {
    let word = |at: usize| {
        let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
        u64::from_le_bytes(bytes.copied().unwrap_or_default())
    };
    let kind = UefiType(word(0) as u32);
    let (start, pages, attributes) = (Pa(word(8)), word(24), UefiAttributes(word(32)));
    if pages == 0 {
        return Err(UefiError::NoPages { nth, kind, start });
    }
    if !start.0.is_multiple_of(PAGE) {
        return Err(UefiError::Unaligned { nth, kind, start });
    }
    let range = pages.checked_mul(PAGE).and_then(|len| PaRange::from_len(start, len));
    let range = range.ok_or(UefiError::Wraps { nth, kind, start, pages })?;
    if range.end > PA_LIMIT && (UefiDescriptor { kind, range, attributes }).usage() != UefiUse::NotMemory {
        return Err(UefiError::Regions { nth, source: RegionError::AbovePaLimit { range } });
    }
    Ok(UefiDescriptor { kind, range, attributes })
}
