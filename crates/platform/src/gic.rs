//! The GIC that the device tree describes: its version, and where its registers are.

use linmap_fdt::number;
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

impl Version {
    /// Returns the version of a device that is compatible with `name`: all names of Linux's drivers
    /// of both. Some GICs of the first group are a GICv1, which has the same registers as far as
    /// CPUs interrupt each other.
    pub fn of_compatible(name: &[u8]) -> Option<Self> {
        match name {
            b"arm,gic-400"
            | b"arm,cortex-a15-gic"
            | b"arm,cortex-a9-gic"
            | b"arm,cortex-a7-gic"
            | b"arm,pl390"
            | b"arm,arm11mp-gic"
            | b"arm,arm1176jzf-devchip-gic"
            | b"qcom,msm-qgic2"
            | b"qcom,msm-8660-qgic"
            | b"st,stm32mp2-cortex-a7-gic" => Some(Self::V2),
            b"arm,gic-v3" => Some(Self::V3),
            _ => None,
        }
    }
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
    /// [`RegistersError`] if either does not begin with a page, or ends above `pa_bits` bits of
    /// physical address. Sizes are rounded up to pages: some trees give a CPU interface the 0x100
    /// bytes that have registers.
    pub fn of(device: &Device<'_>, pa_bits: u8) -> Result<Self, RegistersError> {
        let page = |index: usize, what| {
            let units = device.registers.get(index).and_then(|range| whole_units(*range, PAGE, pa_bits));
            units.map(|range| range.start).ok_or(RegistersError { what, pa_bits })
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
    regions: &'d [PaRange],
    /// The least distance in bytes from a redistributor to the next, a multiple of [`FRAME`].
    stride: u64,
}

impl<'d> V3<'d> {
    /// Takes them from the device's registers and properties.
    ///
    /// # Errors
    /// [`RegistersError`] if one does not begin with a frame, or ends above `pa_bits` bits of
    /// physical address, and if the stride is not a multiple of a frame. Sizes are rounded up to
    /// frames.
    pub fn of(device: &'d Device<'_>, pa_bits: u8) -> Result<Self, RegistersError> {
        let error = |what| RegistersError { what, pa_bits };
        let (distributor, regions) = device.registers.split_first().ok_or_else(|| error("distributor"))?;
        let distributor = whole_units(*distributor, FRAME, pa_bits).ok_or_else(|| error("distributor"))?;
        // A GICv2's registers, for guests, follow the redistributors.
        let [count, stride] = device.node.values(["#redistributor-regions", "redistributor-stride"]);
        let count = count.and_then(number).unwrap_or(1);
        let stride = stride.and_then(number).unwrap_or(0);
        let regions = usize::try_from(count).ok().and_then(|count| regions.get(..count)).unwrap_or(regions);
        let in_reach = regions.iter().all(|region| whole_units(*region, FRAME, pa_bits).is_some());
        if regions.is_empty() || !stride.is_multiple_of(FRAME) || !in_reach {
            return Err(error("redistributors"));
        }
        Ok(Self { distributor: distributor.start, regions, stride })
    }

    /// Returns the regions with redistributors, in whole frames. Those of one region follow each
    /// other.
    pub fn regions(&self) -> impl Iterator<Item = PaRange> {
        self.regions.iter().filter_map(|region| region.align_outward(FRAME))
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

/// Returns `range` with its size rounded up to units of `unit` bytes, if it begins with a unit, is
/// not empty, and ends within `pa_bits` bits of physical address.
fn whole_units(range: PaRange, unit: u64, pa_bits: u8) -> Option<PaRange> {
    let units = range.align_outward(unit)?;
    let is_in_reach = |units: PaRange| (units.end.0 - 1) >> pa_bits == 0;
    (!range.is_empty() && units.start == range.start && is_in_reach(units)).then_some(units)
}
