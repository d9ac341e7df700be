//! The translation granule that the kernel is built for. Each has an Image of its own.

/// The size of a page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Granule {
    /// 4 KiB
    #[default]
    #[value(name = "4k")]
    K4,
    /// 16 KiB
    #[value(name = "16k")]
    K16,
    /// 64 KiB
    #[value(name = "64k")]
    K64,
}

impl Granule {
    /// Every granule, the default last.
    pub const ALL: [Self; 3] = [Self::K16, Self::K64, Self::K4];

    /// The feature of the kernel that chooses it, if it is not the default.
    pub fn feature(self) -> Option<&'static str> {
        match self {
            Self::K4 => None,
            Self::K16 => Some("granule-16k"),
            Self::K64 => Some("granule-64k"),
        }
    }

    /// The ending of the names of what is built for it.
    pub fn ending(self) -> &'static str {
        match self {
            Self::K4 => "",
            Self::K16 => "-16k",
            Self::K64 => "-64k",
        }
    }

    /// The bits of virtual address that linmap can use with it.
    pub fn va_sizes(self) -> &'static [u8] {
        match self {
            Self::K4 => linmap_vmsa::Granule::K4.va_sizes(),
            Self::K16 => linmap_vmsa::Granule::K16.va_sizes(),
            Self::K64 => linmap_vmsa::Granule::K64.va_sizes(),
        }
    }
}
