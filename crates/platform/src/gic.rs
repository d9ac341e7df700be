//! The GIC that the device tree describes: its version, and where its registers are.

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};
use linmap_vmsa::{Pa, PaRange};
use thiserror::Error;

use crate::device::Device;

/// The distributor and the CPU interface of a GICv2 are mapped in pages of this size.
const PAGE: u64 = 0x1000;
/// The distributor and the redistributors of a GICv3 consist of frames of this size.
pub const FRAME: u64 = 0x1_0000;

/// The device tree gives registers that the GIC cannot have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the GIC's registers ({what}) are not whole pages within {pa_bits} bits of physical address")]
pub struct RegistersError {
    /// Which registers.
    pub what: &'static str,
    /// The limit in bits.
    pub pa_bits: u8,
}

/// The programming model of a GIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// A GICv2.
    V2,
    /// A GICv3 or GICv4.
    V3,
}

impl Version {
    /// Returns the version's number.
    pub fn number(self) -> u8 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }
}

fn version(node: &FdtNode<'_>) -> Option<Version> {
    node.compatible()?.find_map(|name| match name {
        "arm,gic-400" | "arm,cortex-a15-gic" | "arm,cortex-a9-gic" | "arm,cortex-a7-gic" => Some(Version::V2),
        "arm,gic-v3" => Some(Version::V3),
        _ => None,
    })
}

/// Returns the first enabled GIC of the device tree, with its version.
pub fn describe(fdt: Fdt<'_>) -> Option<(Version, Device<'_>)> {
    let device = Device::find(fdt, |node| version(node).is_some())?;
    Some((version(&device.node)?, device))
}

/// Where the registers of a GICv2 are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct V2 {
    /// The distributor's page.
    pub distributor: Pa,
    /// The CPU interface's first page.
    pub cpu_interface: Pa,
}

impl V2 {
    /// Takes them from the device's registers.
    ///
    /// # Errors
    /// [`RegistersError`] if either does not begin with a whole page, or ends above `pa_bits` bits
    /// of physical address.
    pub fn of(device: &Device<'_>, pa_bits: u8) -> Result<Self, RegistersError> {
        let page = |index: usize, what| {
            let range = device.registers.get(index).filter(|range| is_in_reach(**range, PAGE, pa_bits));
            range.map(|range| range.start).ok_or(RegistersError { what, pa_bits })
        };
        Ok(Self { distributor: page(0, "distributor")?, cpu_interface: page(1, "CPU interface")? })
    }
}

/// Where the registers of a GICv3 are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct V3<'d> {
    /// The distributor's frame.
    pub distributor: Pa,
    /// The regions with redistributors. Those of one region follow each other.
    pub regions: &'d [PaRange],
    /// The least distance in bytes from a redistributor to the next, a multiple of [`FRAME`].
    stride: u64,
}

impl<'d> V3<'d> {
    /// Takes them from the device's registers and properties.
    ///
    /// # Errors
    /// [`RegistersError`] if one does not begin with a whole frame, or ends above `pa_bits` bits of
    /// physical address, and if the stride is not a multiple of a frame.
    pub fn of(device: &'d Device<'_>, pa_bits: u8) -> Result<Self, RegistersError> {
        let error = |what| RegistersError { what, pa_bits };
        let (distributor, regions) = device.registers.split_first().ok_or_else(|| error("distributor"))?;
        if !is_in_reach(*distributor, FRAME, pa_bits) {
            return Err(error("distributor"));
        }
        // A GICv2's registers, for guests, follow the redistributors.
        let number = |name: &str| device.node.property(name)?.value_as::<u32>().ok();
        let count = number("#redistributor-regions").unwrap_or(1) as usize;
        let wide_stride = device.node.property("redistributor-stride").and_then(|p| p.value_as::<u64>().ok());
        let stride = wide_stride.or(number("redistributor-stride").map(u64::from)).unwrap_or(0);
        let regions = regions.get(..count).unwrap_or(regions);
        let in_reach = regions.iter().all(|region| is_in_reach(*region, FRAME, pa_bits));
        if regions.is_empty() || !stride.is_multiple_of(FRAME) || !in_reach {
            return Err(error("redistributors"));
        }
        Ok(Self { distributor: distributor.start, regions, stride })
    }

    /// Returns the first redistributor of `region`.
    pub fn first(region: PaRange) -> Option<Pa> {
        redistributor(region, region.start.0)
    }

    /// Returns the redistributor of `region` that follows the one at `at`, whose size is `own`
    /// bytes.
    pub fn next(&self, region: PaRange, at: Pa, own: u64) -> Option<Pa> {
        redistributor(region, at.0.checked_add(self.stride.max(own))?)
    }
}

/// Returns the redistributor at `at` if its two frames lie in `region`.
fn redistributor(region: PaRange, at: u64) -> Option<Pa> {
    let frames = PaRange::from_len(Pa(at), 2 * FRAME)?;
    region.covers(frames).then_some(frames.start)
}

/// Returns whether `range` begins with a whole unit of `unit` bytes and ends within `pa_bits` bits
/// of physical address.
fn is_in_reach(range: PaRange, unit: u64, pa_bits: u8) -> bool {
    range.len() >= unit && range.start.0.is_multiple_of(unit) && (range.end.0 - 1) >> pa_bits == 0
}
