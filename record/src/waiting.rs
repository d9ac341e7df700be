//! What an instruction did, as long as it is not known what comes of it.

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
#[derive(Clone, Copy)]
pub struct Released {
    pub cpu: usize,
    /// How many DSBs the CPU had executed.
    pub dsbs: u64,
}
