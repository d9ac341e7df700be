//! What an instruction did, as long as it is not known what comes of it.

use crate::log::Order;

/// An instruction's stores, until they are read back.
pub struct Unseen {
    pub cpu: usize,
    pub pc: u64,
    /// What every word holds behind it, if that is known.
    pub value: Option<u64>,
    /// Physical ranges of words, first byte and length, each within a page of 4 KiB.
    pub pieces: Vec<(u64, u64)>,
    /// What words of frames that are not followed held, if it looks like a valid descriptor.
    pub replaced: Vec<(u64, u64)>,
}

/// A word that a CPU released.
#[derive(Clone)]
pub struct Released {
    pub cpu: usize,
    /// How many DSBs the CPU had executed.
    pub dsbs: u64,
    /// Its releases between the same two recorded stores.
    pub group: u64,
    /// What was ordered before, of what is not recorded.
    pub order: Order,
}

/// The releases of a CPU, in groups: those of one have no recorded store between them, so they pass
/// the same on, and are one event.
#[derive(Clone, Copy, Default)]
pub struct Releases {
    /// The number of the present group.
    pub group: u64,
    /// The log's end at the first release of the group, if there was one.
    pub first: Option<u64>,
    /// The trace has it.
    pub is_recorded: bool,
    /// Earlier groups pass nothing on that a DSB has not ordered.
    pub floor: u64,
}

impl Releases {
    /// Ends the group, if it has releases.
    pub fn end_group(&mut self) {
        if self.first.take().is_some() {
            self.group += 1;
            self.is_recorded = false;
        }
    }

    /// A DSB has ordered what earlier releases passed on.
    pub fn dsb(&mut self) {
        self.end_group();
        self.floor = self.group;
    }
}
