//! Facts about the machine that never change after boot.

use linmap::KaslrSeed;
use linmap::features::Features;
use linmap_platform::{CommandLine, Psci};
use linmap_table::Reserved;
use linmap_vmsa::{Pa, PaRange};

use crate::arch::entered::Entered;
use crate::arch::image::Image;

/// The device tree blob that this kernel was booted with.
#[derive(Clone, Copy, Debug)]
pub struct OurTree {
    /// Its bytes.
    pub blob: &'static [u8],
    /// Where it is.
    pub at: PaRange,
}

/// What boot loader, device tree and boot CPU say of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Platform {
    /// How the kernel was entered.
    pub entered: Entered,
    /// The number of kexecs of linmap into itself before this boot.
    pub generation: u64,
    /// The boot CPU's features.
    pub features: Features,
    /// The seed from which addresses were chosen.
    pub seed: Option<KaslrSeed>,
    /// The running image.
    pub image: Image,
    /// The values of TTBR0 and TCR while TTBR0 translates nothing.
    pub reserved: Reserved,
    /// How PSCI is called.
    pub psci: Option<Psci>,
    /// The device tree blob of the boot loader.
    pub dtb: OurTree,
    /// The boot command line.
    pub command_line: CommandLine<'static>,
    /// The boot loader's initrd, which is our archive.
    pub initrd: Option<PaRange>,
    /// The page that the console's slot of the fixmap maps.
    pub console: Option<Pa>,
    /// The first register of the console if it is a PL011 or an SBSA UART, the only ones that the
    /// relocation code prints on.
    pub uart: Option<Pa>,
}

impl Platform {
    /// What the boot loader gave this kernel and no later one needs: its tree and its initrd.
    pub fn vacated(&self) -> [PaRange; 2] {
        [self.dtb.at, self.initrd.unwrap_or_default()]
    }
}
