//! The devices of which every kernel needs to know, found in one walk over the tree.

use linmap_fdt::Fdt;

use crate::device::{Device, EnabledNodes};
use crate::gic::Version;
use crate::psci::{Psci, PsciBinding};

/// The devices that start and interrupt CPUs. Each is found by its `compatible`, wherever it is:
/// PSCI is at `/psci` in the binding's example, and at `/firmware/psci` on many boards.
#[derive(Clone, Debug, Default)]
pub struct Devices<'a> {
    /// The first enabled PSCI.
    pub psci: Option<Psci>,
    /// The first enabled GIC, with its version.
    pub gic: Option<(Version, Device<'a>)>,
}

impl<'a> Devices<'a> {
    /// Finds the devices of a tree.
    pub fn find(fdt: Fdt<'a>) -> Self {
        let mut devices = Self::default();
        let mut nodes = EnabledNodes::of(fdt);
        while (devices.psci.is_none() || devices.gic.is_none())
            && let Some(found) = nodes.next()
        {
            // The most specific name comes first.
            for name in found.compatible() {
                if let Some(binding) = PsciBinding::of_compatible(name) {
                    devices.psci = devices.psci.or_else(|| Psci::of_node(found.node, binding));
                    break;
                }
                if let Some(version) = Version::of_compatible(name) {
                    devices.gic = devices.gic.or_else(|| Some((version, nodes.device(found))));
                    break;
                }
            }
        }
        devices
    }
}
