//! Access that software took back: which instructions did, and edits whose thread has not returned
//! to EL0 since.

use rustc_hash::FxHashMap;

/// The most instructions that are told apart: kernels have some dozens.
const MOST_PLACES: usize = 1 << 16;

/// Pending edits are looked through when there are as many more than last time.
const MORE: usize = 1 << 12;

/// An instruction that took access back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TakenBack {
    /// Where it lies, if that is known.
    pub pc: Option<u64>,
    /// How often it did.
    pub count: u64,
    /// How often some CPU could still have the access when its thread returned to EL0.
    pub overdue: u64,
    /// The first event for which that was so, and the address.
    pub first: Option<(usize, u64)>,
}

/// A change of an entry that took access back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edit {
    pub root: u32,
    pub level: i8,
    pub va: u64,
    /// The address of the entry.
    pub pa: u64,
    /// What it was.
    pub old: u64,
    /// When it was changed.
    pub at: u64,
    /// The number of the event.
    pub event: usize,
    /// What [`TakenBack`] it is counted by.
    pub pc: Option<u64>,
}

impl Edit {
    /// Whether one store made both: a table of several trees has an entry in each.
    pub fn is_of_store(&self, other: &Self) -> bool {
        (self.at, self.pa) == (other.at, other.pa)
    }
}

/// Edits whose thread has not returned.
#[derive(Debug)]
pub(crate) struct PendingEdits {
    /// The CPU that stores now.
    pub cpu: usize,
    /// By CPU, those of which no event has told the thread.
    own: Vec<Vec<Edit>>,
    threads: FxHashMap<u64, Vec<Edit>>,
    count: usize,
    /// The number at which those that are invalidated are dropped.
    most: usize,
    pub taken: FxHashMap<Option<u64>, TakenBack>,
    /// How often a thread has returned.
    pub returns: u64,
}

impl PendingEdits {
    pub fn new(cpus: usize) -> Self {
        Self {
            cpu: 0,
            own: vec![Vec::new(); cpus],
            threads: FxHashMap::default(),
            count: 0,
            most: MORE,
            taken: FxHashMap::default(),
            returns: 0,
        }
    }

    /// Adds an edit of the CPU that stores.
    pub fn add(&mut self, edit: Edit) {
        let Some(own) = self.own.get_mut(self.cpu) else { return };
        let is_new = own.last().is_none_or(|last| !last.is_of_store(&edit));
        let is_known = self.taken.len() < MOST_PLACES || self.taken.contains_key(&edit.pc);
        let pc = edit.pc.filter(|_| is_known);
        let new = TakenBack { pc, count: 0, overdue: 0, first: None };
        self.taken.entry(pc).or_insert(new).count += u64::from(is_new);
        own.push(Edit { pc, ..edit });
        self.count += 1;
    }

    /// What `cpu` has edited was edited by `thread`.
    pub fn stored_by(&mut self, cpu: usize, thread: u64) {
        if !self.own[cpu].is_empty() {
            self.threads.entry(thread).or_default().append(&mut self.own[cpu]);
        }
    }

    /// Drops edits for which `is_held` is false, if there are many more than last time.
    pub fn thin_out(&mut self, is_held: impl Fn(&Edit) -> bool) {
        if self.count <= self.most {
            return;
        }
        self.own.iter_mut().for_each(|edits| edits.retain(&is_held));
        self.threads.retain(|_, edits| {
            edits.retain(&is_held);
            !edits.is_empty()
        });
        self.count = self.own.iter().chain(self.threads.values()).map(Vec::len).sum();
        self.most = 2 * self.count + MORE;
    }

    /// Takes out what `thread` has edited, as it returns on `cpu`.
    pub fn returned(&mut self, cpu: usize, thread: u64) -> Vec<Edit> {
        self.returns += 1;
        let mut edits = self.threads.remove(&thread).unwrap_or_default();
        edits.append(&mut self.own[cpu]);
        self.count = self.count.saturating_sub(edits.len());
        edits
    }

    /// Counts `edit` as overdue.
    pub fn count_overdue(&mut self, edit: &Edit) {
        if let Some(taken) = self.taken.get_mut(&edit.pc) {
            taken.overdue += 1;
            taken.first = taken.first.or(Some((edit.event, edit.va)));
        }
    }
}
