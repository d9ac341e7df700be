//! The guests.

use crate::setup::payload::{Line, Tools};

/// A guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Guest {
    /// Debian's Linux, the newest of the 6.1 line, to BusyBox and through the workload
    #[value(name = "linux-6.1")]
    Linux6_1,
    /// The newest of the 6.12 line
    #[value(name = "linux-6.12")]
    Linux6_12,
    /// The newest of the 6.12 line with pages of 16K, for --cpu max
    #[value(name = "linux-16k")]
    Linux16K,
    /// The newest of the 6.18 line
    #[value(name = "linux-6.18")]
    Linux6_18,
    /// The newest of all
    LinuxNewest,
    /// Debian's EDK2 to its shell, and its end
    Edk2,
    /// Debian's U-Boot to its prompt, and its end
    UBoot,
    /// Debian's Xen up to where it looks for a kernel
    Xen,
    /// linmap's own kernel: boot, `verify` and `stress`
    Linmap,
    /// linmap's kernel, which moves Linux 6.1 into place with the MMU on: both kernels
    Handover,
    /// examples/second-kernel
    SecondKernel,
    /// examples/user-space
    UserSpace,
    /// examples/hypervisor, with Linux under it
    Hypervisor,
}

impl Guest {
    /// The kernel that is booted, alone or under it.
    pub fn line(self) -> Option<Line> {
        match self {
            Self::Linux6_1 | Self::Handover => Some(Line::Linux6_1),
            Self::Linux6_12 | Self::Hypervisor => Some(Line::Linux6_12),
            Self::Linux16K => Some(Line::Linux16K),
            Self::Linux6_18 => Some(Line::Linux6_18),
            Self::LinuxNewest => Some(Line::Newest),
            Self::Xen => Some(Line::Xen),
            _ => None,
        }
    }

    /// What has to be downloaded for it.
    pub fn payloads(self) -> (&'static [Line], Tools) {
        let line = self.line().and_then(|line| Line::ALL.iter().position(|of| *of == line));
        let lines = line.map_or(&[][..], |nth| &Line::ALL[nth..=nth]);
        let has_busybox = self.line().is_some_and(|line| line != Line::Xen);
        (lines, if has_busybox { Tools::BusyBox } else { Tools::None })
    }
}
