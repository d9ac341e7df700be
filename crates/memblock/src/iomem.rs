//! Filling the memory map from the text of Linux's /proc/iomem.
//!
//! A line has two spaces for each line that it lies in, the first and the last address in
//! hexadecimal digits, and a name:
//!
//! ```text
//! 40000000-7fffffff : System RAM
//!   40210000-4161ffff : Kernel code
//!   7c000000-7fffffff : reserved
//! ```

use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use crate::memblock::Memblock;
use crate::region_error::RegionError;

/// The least page of an arm64 kernel. What is in use is in use by whole pages.
const PAGE: u64 = 0x1000;

/// Why the text does not describe memory in which a kernel can run. `line` counts from 1.
///
/// ```
/// use linmap_memblock::{IomemError, Memblock};
///
/// let mut memory = Memblock::<16>::new();
/// memory.fill_from_iomem("40000000-7fffffff : System RAM\n  40200000-403fffff : Kernel code\n")?;
/// assert_eq!(memory.mappable(0x1000).map(|range| range.len()).sum::<u64>(), 1 << 30);
/// # Ok::<(), IomemError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IomemError {
    /// The line is not `START-END : NAME`.
    #[error("line {line} of iomem is not START-END : NAME with hexadecimal addresses")]
    Syntax {
        /// The line.
        line: usize,
    },
    /// A line ends before it starts.
    #[error("line {line} of iomem: the last address {last} lies below the first, {first}")]
    Reversed {
        /// The line.
        line: usize,
        /// The first address.
        first: Pa,
        /// The last address.
        last: Pa,
    },
    /// All addresses are 0: Linux hides them from whoever lacks CAP_SYS_ADMIN.
    #[error("line {line} of iomem has no address: Linux shows addresses to root alone")]
    Hidden {
        /// The line.
        line: usize,
    },
    /// A line of memory overlaps an earlier one.
    #[error("line {line} of iomem: memory {range} overlaps memory of an earlier line")]
    Overlap {
        /// The line.
        line: usize,
        /// Its range.
        range: PaRange,
    },
    /// The memory map refuses a line's range.
    #[error("line {line} of iomem: {source}")]
    Regions {
        /// The line.
        line: usize,
        /// Why.
        source: RegionError,
    },
    /// No line is memory that may be mapped.
    #[error("iomem has no line \"System RAM\" with a whole page")]
    NoMemory,
}

/// What a line says about memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Memory of the kernel: `System RAM`, or `System RAM (kmem)` and the like.
    Memory,
    /// Memory that the linear map leaves out: arm64 names it so, outside all others.
    NoMap,
    Other,
}

impl Line {
    fn of(name: &str, depth: usize) -> Self {
        if name == "System RAM" || name.starts_with("System RAM (") {
            Self::Memory
        } else if name == "reserved" && depth == 0 {
            Self::NoMap
        } else {
            Self::Other
        }
    }
}

impl<const N: usize> Memblock<N> {
    /// Replaces the content of the map by the memory that the text of /proc/iomem of an arm64
    /// machine lists.
    ///
    /// - Memory: `System RAM`, at any depth.
    /// - Reserved: everything inside of it (`Kernel code`, `Crash kernel`, `reserved`), in whole
    ///   pages of 4 KiB.
    /// - No-map: `reserved` that lies in nothing else.
    ///
    /// # Errors
    /// [`IomemError`], after which the map is empty.
    pub fn fill_from_iomem(&mut self, text: &str) -> Result<(), IomemError> {
        self.clear();
        let filled = self.add_lines(text);
        if filled.is_err() {
            self.clear();
        }
        filled
    }

    fn add_lines(&mut self, text: &str) -> Result<(), IomemError> {
        // The depth of the line of memory that the next line may lie in.
        let mut within = None;
        for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
            let (depth, first, last, name) = parse(text).ok_or(IomemError::Syntax { line })?;
            if last < first {
                return Err(IomemError::Reversed { line, first: Pa(first), last: Pa(last) });
            }
            within = within.filter(|memory| depth > *memory);
            let kind = Line::of(name, depth);
            if kind == Line::Other && within.is_none() {
                continue;
            }
            if last == 0 {
                return Err(IomemError::Hidden { line });
            }
            // Only the very last address has no end. No memory has it.
            let range = PaRange::new(Pa(first), Pa(last.saturating_add(1)));
            let refused = |source| IomemError::Regions { line, source };
            match kind {
                Line::Other => {
                    let above = RegionError::AbovePaLimit { range };
                    let pages = range.align_outward(PAGE).ok_or(refused(above))?;
                    self.reserve(pages).map_err(refused)?;
                }
                Line::Memory | Line::NoMap => {
                    if self.overlapping_memory(range).is_some() {
                        return Err(IomemError::Overlap { line, range });
                    }
                    self.add(range).map_err(refused)?;
                    if kind == Line::NoMap {
                        self.mark_no_map(range).map_err(refused)?;
                    } else {
                        within = Some(depth);
                    }
                }
            }
        }
        if self.mappable(PAGE).next().is_none() {
            return Err(IomemError::NoMemory);
        }
        Ok(())
    }
}

/// Returns the depth, the first and the last address and the name of a line.
fn parse(line: &str) -> Option<(usize, u64, u64, &str)> {
    let text = line.trim_start_matches(' ');
    let depth = (line.len() - text.len()) / 2;
    let (addresses, name) = text.split_once(" : ")?;
    let (first, last) = addresses.split_once('-')?;
    Some((depth, hexadecimal(first)?, hexadecimal(last)?, name.trim_end()))
}

/// Reads hexadecimal digits. The standard library's reader accepts a sign.
fn hexadecimal(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))
}
