//! What a build cost, beside what was derived before it.

use linmap::{BuildCost, LevelCounts};
use linmap_table::Built;
use linmap_table::cpu::InstructionCounts;
use linmap_vmsa::Level;

/// What was counted while a map was built, and in its tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    pub built: Built,
    pub instructions: InstructionCounts,
    /// Tables without the root, from pages up.
    pub tables: [u64; 5],
    /// Leaves without and with the contiguous bit, from pages up.
    pub leaves: [[u64; 2]; 5],
    /// The most frames that were in use at once.
    pub frames: u64,
}

impl Counts {
    /// Compares all that was counted with `cost`.
    pub fn check(&self, cost: &BuildCost) -> Result<(), String> {
        let levels = [Level::L3, Level::L2, Level::L1, Level::L0, Level::MINUS_1];
        let levels = levels.map(|level| cost.at(level));
        let derived = Self {
            built: cost.built(),
            instructions: cost.instructions,
            tables: levels.map(|level| level.tables),
            leaves: levels.map(|LevelCounts { single, contiguous, .. }| [single, contiguous]),
            frames: cost.built().tables + cost.temporary,
        };
        if *self == derived { Ok(()) } else { Err(format!("cost {derived:?}, counted {self:?}")) }
    }
}
