//! How memory is mapped: granule, address sizes, leaves, builders.

use std::str::FromStr;

use linmap::{Builder, LeafPolicy};
use linmap_vmsa::{Geometry, Granule, Pa};
use serde::Deserialize;

use crate::failure::Failure;

/// What the command line and a layout may say. What is missing has a default.
#[derive(Clone, Copy, Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MapOptions {
    /// The granule [default: 4k]
    #[arg(long, ignore_case = true)]
    pub granule: Option<GranuleName>,
    /// Bits of virtual address of the kernel's half [default: 48]
    #[arg(long, value_name = "BITS")]
    pub va_bits: Option<u8>,
    /// Bits of physical address [default: 48, or 52 where memory lies higher]
    #[arg(long, value_name = "BITS")]
    pub pa_bits: Option<u8>,
    /// The leaves of the map [default: auto, which is block]
    #[arg(long)]
    pub leaf: Option<LeafName>,
    /// A builder, or all: base, no-cont-remap, batch-barriers, no-alloc-remap, lazy-unmap, identity
    /// [default: all]
    #[arg(long, value_name = "BUILDER")]
    pub build: Option<BuildChoice>,
}

impl MapOptions {
    /// These options, and where they say nothing those of `other`.
    pub fn or(self, other: Self) -> Self {
        Self {
            granule: self.granule.or(other.granule),
            va_bits: self.va_bits.or(other.va_bits),
            pa_bits: self.pa_bits.or(other.pa_bits),
            leaf: self.leaf.or(other.leaf),
            build: self.build.or(other.build),
        }
    }

    /// The granule.
    pub fn granule(&self) -> Granule {
        match self.granule.unwrap_or(GranuleName::K4) {
            GranuleName::K4 => Granule::K4,
            GranuleName::K16 => Granule::K16,
            GranuleName::K64 => Granule::K64,
        }
    }

    /// The geometry for memory that ends at `end`.
    pub fn geometry(&self, end: Pa) -> Result<Geometry, Failure> {
        let pa_bits = self.pa_bits.unwrap_or(if end.0 > 1 << 48 { 52 } else { 48 });
        Ok(Geometry::new(self.granule(), self.va_bits.unwrap_or(48), pa_bits)?)
    }

    /// Which leaves the map may be made of.
    pub fn leaves(&self) -> LeafPolicy {
        match self.leaf {
            None | Some(LeafName::Auto) => LeafPolicy::Auto,
            Some(LeafName::Block) => LeafPolicy::Block,
            Some(LeafName::Page) => LeafPolicy::Page,
        }
    }

    /// The builders to show.
    pub fn builders(&self) -> &[Builder] {
        match &self.build {
            Some(BuildChoice::One(one)) => std::slice::from_ref(one),
            None | Some(BuildChoice::All) => &Builder::ALL,
        }
    }
}

/// A granule by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, clap::ValueEnum)]
pub enum GranuleName {
    /// Pages of 4 KiB
    #[serde(rename = "4k")]
    #[value(name = "4k")]
    K4,
    /// Pages of 16 KiB
    #[serde(rename = "16k")]
    #[value(name = "16k")]
    K16,
    /// Pages of 64 KiB
    #[serde(rename = "64k")]
    #[value(name = "64k")]
    K64,
}

/// Which leaves are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LeafName {
    /// As block
    Auto,
    /// The largest blocks that fit, with the contiguous bit on aligned runs
    Block,
    /// Pages alone
    Page,
}

/// The builders whose costs are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub enum BuildChoice {
    /// All of them.
    All,
    /// One.
    One(Builder),
}

impl FromStr for BuildChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if name == "all" {
            return Ok(Self::All);
        }
        Builder::from_name(name).map(Self::One).ok_or_else(|| {
            let names = Builder::ALL.map(Builder::name).join(", ");
            format!("{name} is no builder: there are {names}, and all")
        })
    }
}

impl TryFrom<String> for BuildChoice {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}
