//! What a trace has of each kind of event, by the instruction that did it.

use std::collections::HashMap;

use linmap_model::{Event, Machine};
use linmap_trace::binary::Idle;

use super::events::Located;
use super::form::Form;
use crate::symbols::{Instruction, Ran};

/// The most instructions that are told apart: kernels have some thousands.
const MOST: usize = 1 << 18;

/// The most places of vectors.
const MOST_VECTORS: usize = 64;

/// What an instruction did.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counted {
    /// How often it was executed.
    pub count: u64,
    /// How often that was more than needed.
    pub unneeded: u64,
}

/// What a trace has, by instructions.
#[derive(Default)]
pub struct Tally {
    /// By address and form.
    instructions: HashMap<(Option<u64>, Form), Counted>,
    /// The last instruction, and what it did since it was looked up.
    last: Option<((Option<u64>, Form), Counted)>,
    /// Words that were in tables before the recorder looked.
    found: u64,
    /// Barriers that a recorder left out.
    pub idle: Vec<Idle>,
    /// The most tables at a time.
    pub tables: usize,
    /// Where CPUs' vectors lie.
    vectors: Vec<u64>,
}

impl Tally {
    /// Adds the next event, which `machine` has not run yet.
    pub fn add(&mut self, at: &Located, machine: &Machine) {
        let event = &at.recorded.event;
        let (words, is_needed) = match *event {
            Event::Fill { count, .. } => (count, true),
            Event::Tlbi { cpu, tlbi, operand } => (1, machine.is_needed(cpu, tlbi, operand)),
            _ => (1, true),
        };
        // A recorder has what it finds in tables as stores of a CPU that the guest does not have.
        let is_observer = || event.cpu() == machine.config().cpus.checked_sub(1);
        let form = Form::of(event);
        if at.line == 0 && at.recorded.pc.is_none() && is_observer() {
            self.found += if form.is_store() { words } else { 0 };
            return;
        }
        let key = (at.recorded.pc, form);
        let unneeded = u64::from(!is_needed);
        match &mut self.last {
            Some((last, counted)) if *last == key => {
                counted.count += words;
                counted.unneeded += unneeded;
            }
            _ => {
                self.settle();
                self.last = Some((key, Counted { count: words, unneeded }));
            }
        }
    }

    /// Adds what the last instruction did.
    pub fn settle(&mut self) {
        let Some((key, counted)) = self.last.take() else { return };
        let is_known = self.instructions.len() < MOST || self.instructions.contains_key(&key);
        let key = if is_known { key } else { (None, key.1) };
        let all = self.instructions.entry(key).or_default();
        all.count += counted.count;
        all.unneeded += counted.unneeded;
    }

    /// A CPU's vectors lie at `va`. A kernel has few of them.
    pub fn add_vectors(&mut self, va: u64) {
        if self.vectors.len() < MOST_VECTORS && !self.vectors.contains(&va) {
            self.vectors.push(va);
        }
    }

    /// A barrier that a recorder left out.
    pub fn add_idle(&mut self, idle: Idle) {
        if self.idle.len() < MOST {
            self.idle.push(idle);
        }
    }

    /// What each instruction did, by its address and form.
    pub fn instructions(&self) -> impl Iterator<Item = (Option<u64>, Form, Counted)> {
        self.instructions.iter().map(|(&(pc, form), &counted)| (pc, form, counted))
    }

    /// Words that were in tables before the recorder looked.
    pub fn found(&self) -> u64 {
        self.found
    }

    /// What the trace tells of where the kernel ran.
    pub fn ran(&self) -> Ran {
        let executed = self.instructions.keys().filter_map(|&(pc, form)| Some((pc?, form.instruction(pc?)?)));
        let idle = self.idle.iter().map(|idle| (idle.pc, Form::from(idle.barrier)));
        let idle = idle.filter_map(|(pc, form)| Some((pc, form.instruction(pc)?)));
        let mut instructions: Vec<(u64, Instruction)> = executed.chain(idle).collect();
        instructions.sort_unstable();
        instructions.dedup_by_key(|(pc, _)| *pc);
        Ran { instructions, vectors: self.vectors.clone() }
    }
}
