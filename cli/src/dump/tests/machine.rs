//! Memory that holds trees, and roots for them.

use std::ops::Range;

use indicatif::ProgressBar;
use linmap_table::FirstMap;
use linmap_vmsa::{
    Attributes, Geometry, Granule, HardwareUpdates, Mair, Pa, PaRange, Regime, Shareability, Stage2, Va,
};

use crate::dump::frames::{Frames, Through};
use crate::dump::guest::{AddressSpace, GuestMemory, Root, RootRegister};
use crate::dump::judgement::ReadTree;
use crate::dump::reading::{self, Bounds};
use crate::dump::tree::Tree;
use crate::failure::Failure;

/// Where memory starts.
pub const RAM: u64 = 0x4000_0000;

/// A range of memory from [`RAM`] on.
pub struct Machine {
    pub bytes: Vec<u8>,
    ranges: Vec<Range<u64>>,
    /// How many times memory was read.
    pub reads: u64,
}

impl Machine {
    pub fn new(len: usize) -> Self {
        Self { bytes: vec![0; len], ranges: std::iter::once(RAM..RAM + len as u64).collect(), reads: 0 }
    }

    pub fn set(&mut self, at: u64, word: u64) {
        let at = (at - RAM) as usize;
        self.bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }

    pub fn get(&self, at: u64) -> u64 {
        let at = (at - RAM) as usize;
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    /// A machine with `map` at its start, and the root of the tree.
    pub fn with<const N: usize>(map: &FirstMap<N>, len: usize) -> (Self, Root) {
        let mut machine = Self::new(len);
        let mut room = vec![0; len / 8 + map.geometry().granule().entries()];
        let image = map.image(Pa(RAM), &mut room).unwrap();
        machine.bytes[..image.bytes().len()].copy_from_slice(image.bytes());
        let root = root(map.geometry(), image.tree().root());
        (machine, root)
    }

    pub fn read_in(&mut self, root: &Root, bounds: Bounds) -> Tree {
        let bar = ProgressBar::hidden();
        let mut frames = Frames::new(self);
        reading::read(root, &mut frames, Through::Nothing, bounds, &bar).unwrap().unwrap()
    }

    pub fn read_tree(&mut self, root: &Root) -> Tree {
        self.read_in(root, Bounds { range: (0, u64::MAX), rows: 1 << 20 })
    }

    /// The names of all findings in the trees of `roots`, and their texts.
    pub fn findings(&mut self, roots: &[Root]) -> Vec<(&'static str, String)> {
        let trees: Vec<_> =
            roots.iter().map(|root| ReadTree { root: root.clone(), tree: self.read_tree(root) }).collect();
        let found = crate::dump::judgement::findings(&trees, &self.ranges);
        let texts = found.into_iter().flat_map(|findings| {
            let kind = findings.kind;
            assert!(findings.total >= findings.findings.len() as u64);
            findings.findings.into_iter().map(move |finding| (kind, finding.text))
        });
        texts.collect()
    }
}

impl GuestMemory for Machine {
    fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    fn read(&mut self, pa: u64, bytes: &mut [u8]) -> Result<(), Failure> {
        self.reads += 1;
        let at = (pa - RAM) as usize;
        bytes.copy_from_slice(&self.bytes[at..at + bytes.len()]);
        Ok(())
    }
}

pub fn root(geometry: Geometry, table: Pa) -> Root {
    Root {
        register: match geometry.regime() {
            Regime::El1And0 => RootRegister::Ttbr0El1,
            Regime::El2And0 | Regime::El2 => RootRegister::Ttbr0El2,
            Regime::El3 => RootRegister::Ttbr0El3,
            Regime::Stage2(_) => RootRegister::VttbrEl2,
        },
        geometry,
        table,
        first: Va(0),
        id: 0,
        tcr: None,
        mair: (!geometry.regime().is_stage_2()).then(|| Mair::DEFAULT.value()),
        addresses: AddressSpace::Physical,
        shareability: Some(Shareability::Inner),
        writable_never_executes: false,
        has_table_permissions: true,
        updates: HardwareUpdates::Off,
    }
}

/// Every form of tree: granules, sizes, regimes, and roots of several tables.
pub fn geometries() -> Vec<Geometry> {
    let mut all = Vec::new();
    for granule in [Granule::K4, Granule::K16, Granule::K64] {
        for (va, pa) in [(36, 40), (39, 48), (42, 44), (47, 48), (48, 48), (48, 52), (52, 52)] {
            let geometry = Geometry::new(granule, va, pa).unwrap();
            for regime in [Regime::El1And0, Regime::El2, Regime::El3, Regime::El2And0] {
                all.push(geometry.in_regime(regime));
            }
            for stage_2 in [Stage2::Base, Stage2::FwbXnx] {
                all.extend(Geometry::stage_2(granule, va, pa, stage_2));
            }
        }
        all.push(Geometry::stage_2(granule, 40, 40, Stage2::Fwb).unwrap());
        all.push(Geometry::stage_2(granule, 43, 44, Stage2::Xnx).unwrap());
    }
    all
}

pub fn range(start: u64, len: u64) -> PaRange {
    PaRange::from_len(Pa(start), len).unwrap()
}

/// Attributes that leaves of the regime can have.
pub fn attributes(geometry: Geometry) -> Vec<Attributes> {
    let some = [
        Attributes::KERNEL_DATA,
        Attributes::KERNEL_TEXT,
        Attributes::KERNEL_RODATA,
        Attributes::DEVICE,
        Attributes::USER_DATA,
        Attributes::USER_TEXT,
        Attributes::GUEST_RAM,
        Attributes::GUEST_DEVICE,
        Attributes { accessed: false, ..Attributes::KERNEL_DATA },
        Attributes { shareability: Shareability::Non, ..Attributes::KERNEL_DATA },
    ];
    some.into_iter().filter(|attributes| attributes.check_in(geometry).is_ok()).collect()
}
