//! Memory types as leaves name them: a byte of MAIR at stage 1, MemAttr at stage 2.

use std::fmt;

/// The memory type of a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MemoryAttribute {
    /// AttrIndx, where MAIR is not known.
    Index(u8),
    /// The byte of MAIR_ELx that AttrIndx selects (Arm ARM D24.2, MAIR_EL1).
    Mair(u8),
    /// `MemAttr[3:0]` without HCR_EL2.FWB (Arm ARM D8.6.5).
    Stage2(u8),
    /// `MemAttr[3:0]` with HCR_EL2.FWB (Arm ARM D8.6.6).
    Stage2Fwb(u8),
}

/// What has to be equal wherever memory is mapped (Arm ARM B2.16, "Mismatched memory attributes"):
/// not the hints, and not whether there are tags.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Device memory of one of four types.
    Device(Device),
    /// Normal memory.
    Normal {
        /// For the inner caches.
        inner: Caching,
        /// For the outer caches.
        outer: Caching,
    },
}

/// The types of device memory, by their encoding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Device {
    /// Device-nGnRnE.
    Ngnrne,
    /// Device-nGnRE.
    Ngnre,
    /// Device-nGRE.
    Ngre,
    /// Device-GRE.
    Gre,
}

/// What caches do with normal memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Caching {
    /// Nothing.
    None,
    /// They write through.
    WriteThrough,
    /// They write back.
    WriteBack,
}

impl Kind {
    /// Whether shareability matters: device and non-cacheable memory is outer shareable whatever
    /// the leaf says (Arm ARM B2.15).
    pub fn has_shareability(self) -> bool {
        matches!(self, Self::Normal { inner, outer } if inner != Caching::None || outer != Caching::None)
    }
}

impl MemoryAttribute {
    /// What has to be equal wherever the memory is mapped; `None` if that is not known: without
    /// MAIR, for reserved encodings, and where stage 1 decides.
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::Index(_) => None,
            Self::Mair(byte) => kind_of_mair(byte),
            Self::Stage2(attr) => match (attr >> 2 & 0b11, attr & 0b11) {
                (0, device) => Some(Kind::Device(Device::of(device))),
                (outer, inner) => Some(Kind::Normal {
                    inner: Caching::of_stage_2(inner)?,
                    outer: Caching::of_stage_2(outer)?,
                }),
            },
            Self::Stage2Fwb(attr) => match attr {
                0..=0b11 => Some(Kind::Device(Device::of(attr))),
                0b101 => Some(Kind::Normal { inner: Caching::None, outer: Caching::None }),
                0b110 => Some(Kind::Normal { inner: Caching::WriteBack, outer: Caching::WriteBack }),
                _ => None,
            },
        }
    }

    /// Whether it is device memory.
    pub fn is_device(self) -> bool {
        matches!(self.kind(), Some(Kind::Device(_)))
    }

    /// Whether it is normal memory.
    pub fn is_normal(self) -> bool {
        matches!(self.kind(), Some(Kind::Normal { .. })) || self == Self::Stage2Fwb(0b111)
    }

    /// Whether the encoding is reserved or unpredictable.
    pub fn is_reserved(self) -> bool {
        self.kind().is_none() && !matches!(self, Self::Index(_) | Self::Stage2Fwb(0b111))
    }
}

impl Device {
    fn of(encoding: u8) -> Self {
        match encoding & 0b11 {
            0 => Self::Ngnrne,
            1 => Self::Ngnre,
            2 => Self::Ngre,
            _ => Self::Gre,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ngnrne => "nGnRnE",
            Self::Ngnre => "nGnRE",
            Self::Ngre => "nGRE",
            Self::Gre => "GRE",
        }
    }
}

impl Caching {
    fn of_stage_2(bits: u8) -> Option<Self> {
        match bits {
            0b01 => Some(Self::None),
            0b10 => Some(Self::WriteThrough),
            0b11 => Some(Self::WriteBack),
            _ => None,
        }
    }

    /// By four bits of a byte of MAIR: transient or not, with whatever hints.
    fn of_mair(bits: u8) -> Option<Self> {
        match (bits >> 2, bits & 0b11) {
            (0, 0) => None,
            (0b01, 0) => Some(Self::None),
            (0b00 | 0b10, _) => Some(Self::WriteThrough),
            _ => Some(Self::WriteBack),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::None => "NC",
            Self::WriteThrough => "WT",
            Self::WriteBack => "WB",
        }
    }
}

/// Normal memory without XS (FEAT_XS), non-cacheable.
const NC_NO_XS: u8 = 0x40;
/// Normal memory without XS, write-through.
const WT_NO_XS: u8 = 0xa0;
/// Normal write-back memory with allocation tags (FEAT_MTE2).
const TAGGED: u8 = 0xf0;

fn kind_of_mair(byte: u8) -> Option<Kind> {
    let both = |caching| Some(Kind::Normal { inner: caching, outer: caching });
    match byte {
        NC_NO_XS => both(Caching::None),
        WT_NO_XS => both(Caching::WriteThrough),
        TAGGED => both(Caching::WriteBack),
        // 0b0000dd0x: x is "no XS".
        0..=0xf if byte & 0b10 == 0 => Some(Kind::Device(Device::of(byte >> 2))),
        0..=0xf => None,
        _ => Some(Kind::Normal { inner: Caching::of_mair(byte & 0xf)?, outer: Caching::of_mair(byte >> 4)? }),
    }
}

impl fmt::Display for MemoryAttribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Index(index) = self {
            return write!(f, "MEM/INDEX-{index}");
        }
        if *self == Self::Stage2Fwb(0b111) {
            return f.write_str("MEM/AS-STAGE-1");
        }
        let Some(kind) = self.kind() else {
            return match self {
                Self::Mair(byte) => write!(f, "MEM/UNPREDICTABLE-MAIR-{byte:#04x}"),
                Self::Stage2(attr) | Self::Stage2Fwb(attr) => write!(f, "MEM/RESERVED-MEMATTR-{attr:#x}"),
                Self::Index(index) => write!(f, "MEM/INDEX-{index}"),
            };
        };
        match kind {
            Kind::Device(device) => write!(f, "DEVICE/{}", device.name())?,
            Kind::Normal { inner, outer } if inner == outer => match inner {
                Caching::WriteBack => f.write_str("MEM/NORMAL")?,
                Caching::None | Caching::WriteThrough => write!(f, "MEM/NORMAL-{}", inner.name())?,
            },
            Kind::Normal { inner, outer } => write!(f, "MEM/NORMAL-i{}o{}", inner.name(), outer.name())?,
        }
        // What is not usual in the rest of the byte: hints and XS.
        match *self {
            Self::Mair(TAGGED) => f.write_str("-TAGGED"),
            Self::Mair(NC_NO_XS | WT_NO_XS) => f.write_str("-noXS"),
            Self::Mair(byte) if byte < 0x10 && byte & 1 != 0 => f.write_str("-noXS"),
            Self::Mair(byte) if byte >= 0x10 && !matches!(byte, 0xff | 0x44 | 0xbb) => {
                write!(f, "-MAIR-{byte:#04x}")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_types_have_the_names_of_the_architecture() {
        use MemoryAttribute::{Index, Mair, Stage2, Stage2Fwb};
        for (attribute, name) in [
            (Mair(0xff), "MEM/NORMAL"),
            (Mair(0xf0), "MEM/NORMAL-TAGGED"),
            (Mair(0x44), "MEM/NORMAL-NC"),
            (Mair(0xbb), "MEM/NORMAL-WT"),
            (Mair(0x40), "MEM/NORMAL-NC-noXS"),
            (Mair(0x4f), "MEM/NORMAL-iWBoNC-MAIR-0x4f"),
            (Mair(0x77), "MEM/NORMAL-MAIR-0x77"),
            (Mair(0x00), "DEVICE/nGnRnE"),
            (Mair(0x04), "DEVICE/nGnRE"),
            (Mair(0x08), "DEVICE/nGRE"),
            (Mair(0x0c), "DEVICE/GRE"),
            (Mair(0x05), "DEVICE/nGnRE-noXS"),
            (Mair(0x02), "MEM/UNPREDICTABLE-MAIR-0x02"),
            (Mair(0x50), "MEM/UNPREDICTABLE-MAIR-0x50"),
            (Index(3), "MEM/INDEX-3"),
            (Stage2(0b1111), "MEM/NORMAL"),
            (Stage2(0b0101), "MEM/NORMAL-NC"),
            (Stage2(0b0111), "MEM/NORMAL-iWBoNC"),
            (Stage2(0b0001), "DEVICE/nGnRE"),
            (Stage2(0b0100), "MEM/RESERVED-MEMATTR-0x4"),
            (Stage2Fwb(0b0110), "MEM/NORMAL"),
            (Stage2Fwb(0b0111), "MEM/AS-STAGE-1"),
            (Stage2Fwb(0b0100), "MEM/RESERVED-MEMATTR-0x4"),
        ] {
            assert_eq!(attribute.to_string(), name);
        }
    }

    #[test]
    fn hints_and_tags_do_not_make_a_mismatch() {
        let kind = |byte| MemoryAttribute::Mair(byte).kind();
        assert_eq!(kind(0xff), kind(0xf0));
        assert_eq!(kind(0xff), kind(0x77));
        assert_eq!(kind(0x04), kind(0x05));
        assert_ne!(kind(0xff), kind(0x44));
        assert_ne!(kind(0x00), kind(0x04));
        assert!(!kind(0x44).unwrap().has_shareability());
    }
}
