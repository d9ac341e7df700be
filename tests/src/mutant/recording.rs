//! What the recorder has of a boot, and the verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::image::Kernel;
use super::instruction::Instruction;
use crate::recorded::recorded_events;
use crate::tool::tool;

/// A mistake: its rule, or [`OVERDUE`], and the function.
pub type Mistake = (String, String);

/// The rule of a [`Mistake`] that is none of the architecture's: access was taken back, and was
/// still cached when its thread returned to EL0.
pub const OVERDUE: &str = "overdue";

/// An instruction that was executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Site {
    /// Where.
    pub pc: u64,
    /// How often it was recorded.
    pub count: usize,
}

/// A recorded boot.
#[derive(Debug)]
pub struct Recording {
    /// How often each instruction was recorded.
    counts: BTreeMap<u64, usize>,
    /// How many events there are.
    pub events: usize,
    /// What is illegal.
    pub mistakes: BTreeSet<Mistake>,
}

impl Recording {
    /// Reads the trace at `path`, of a guest that ran `kernel`, and judges it up to the first
    /// mistake.
    ///
    /// # Panics
    /// When it is not a whole trace.
    #[track_caller]
    pub fn read(path: &Path, kernel: &Kernel) -> Self {
        Self::with(path, mistakes(path, kernel))
    }

    /// Reads the trace at `path`, which was judged.
    ///
    /// # Panics
    /// As [`Self::read`].
    #[track_caller]
    pub fn with(path: &Path, mistakes: BTreeSet<Mistake>) -> Self {
        let recorded = recorded_events(path);
        let mut counts = BTreeMap::new();
        for pc in recorded.iter().filter_map(|recorded| recorded.pc) {
            *counts.entry(pc).or_insert(0) += 1;
        }
        Self { counts, events: recorded.len(), mistakes }
    }

    /// The instructions of this kind in `function` that were executed, in ascending order.
    pub fn sites(&self, kernel: &Kernel, function: &str, instruction: Instruction) -> Vec<Site> {
        let is_one = |(pc, _): &(&u64, &usize)| {
            kernel.instruction(**pc) == Some(instruction) && kernel.function(**pc) == Some(function)
        };
        self.counts.iter().filter(is_one).map(|(pc, count)| Site { pc: *pc, count: *count }).collect()
    }

    /// How many events are of instructions in the function of `pc`, apart from that at `pc`.
    pub fn around(&self, kernel: &Kernel, pc: u64) -> usize {
        let function = kernel.function(pc);
        let others =
            self.counts.iter().filter(|(other, _)| **other != pc && kernel.function(**other) == function);
        others.map(|(_, count)| count).sum()
    }

    /// Whether the instruction at `pc` was recorded.
    pub fn has(&self, pc: u64) -> bool {
        self.counts.contains_key(&pc)
    }

    /// All that a mutant may lose: the function, the kind, which of them it is, and the site.
    pub fn candidates(&self, kernel: &Kernel) -> Vec<(String, Instruction, usize, Site)> {
        let mut seen: BTreeMap<(String, Instruction), usize> = BTreeMap::new();
        let mut all = Vec::new();
        for (&pc, &count) in &self.counts {
            let Some((instruction, function)) = kernel.instruction(pc).zip(kernel.function(pc)) else {
                continue;
            };
            let nth = seen.entry((function.to_owned(), instruction)).or_insert(0);
            all.push((function.to_owned(), instruction, *nth, Site { pc, count }));
            *nth += 1;
        }
        all
    }
}

/// The first mistake that `linmap check` finds: a mutant may make one at each edit.
fn mistakes(path: &Path, kernel: &Kernel) -> BTreeSet<Mistake> {
    let mut check = tool();
    check.args(["check", "--json", "--symbols"]).arg(&kernel.symbols).arg(path);
    let output = check.output().expect("linmap runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let verdict: Value = serde_json::from_str(&said)
        .unwrap_or_else(|error| panic!("{error}: {said}{}", String::from_utf8_lossy(&output.stderr)));
    let text = |count: &Value, key: &str| count[key].as_str().unwrap_or_default().to_owned();
    let counts = verdict["counts"].as_array().expect("counts");
    let function = |place: String| place.split('+').next().unwrap_or_default().to_owned();
    let broken = counts.iter().map(|count| (text(count, "rule"), function(text(count, "place"))));
    let overdue = verdict["summary"]["overdue"]["functions"].as_array().expect("what is overdue");
    broken.chain(overdue.iter().map(|row| (OVERDUE.to_owned(), text(row, "function")))).collect()
}
