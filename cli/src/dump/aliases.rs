//! Memory that is mapped more than once, judged by physical address over all trees.
//!
//! Leaves are sorted by the address that they map. One pass then compares each with what still
//! reaches beyond its start: for each right and each kind of memory only the leaf that reaches
//! furthest, since a clash with any means a clash with it. So the work is that of sorting.

use std::collections::HashMap;

use crate::dump::meaning::{Decoder, Meaning, Rights, Sharing};
use crate::dump::memory_attribute::Kind;
use crate::dump::tree::{FLAWS_HELD, Row, Tree};

/// Exception levels: EL0 to EL3.
const LEVELS: usize = 4;

/// What two mappings of memory can't both be, or had better not be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Clash {
    /// An exception level executes what it, or a lower one, may write.
    WritableAndExecutable {
        /// Who writes.
        writer: u8,
        /// Who executes.
        executor: u8,
    },
    /// A lower exception level executes what only higher ones may write.
    WritableFromAbove {
        /// Who writes.
        writer: u8,
        /// Who executes.
        executor: u8,
    },
    /// The memory types differ in more than hints.
    MemoryType,
    /// The shareability differs.
    Shareability,
}

/// A leaf: the number of its tree and of its row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapped {
    /// The tree.
    pub tree: u32,
    /// The row.
    pub row: u32,
}

/// Memory with two mappings that clash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clashing {
    /// How.
    pub clash: Clash,
    /// The first address.
    pub start: u64,
    /// The first address behind it.
    pub end: u64,
    /// The mapping that is writable, or the one that was first.
    pub one: Mapped,
    /// The mapping that is executable, or the other.
    pub other: Mapped,
}

/// What clashes.
#[derive(Clone, Debug, Default)]
pub struct Clashes {
    /// The first ones of each kind.
    pub held: Vec<Clashing>,
    /// By kind, how many bytes.
    pub bytes: HashMap<Clash, u64>,
    /// By kind, how many ranges are not held.
    pub not_held: HashMap<Clash, u64>,
}

/// What has to be equal in all mappings.
type Class = (Kind, Option<Sharing>);

/// What counts of a leaf here.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Traits {
    rights: Rights,
    class: Option<Class>,
}

impl Traits {
    fn of(meaning: &Meaning) -> Self {
        let mut rights = meaning.rights;
        if meaning.is_stage_2 {
            // What a guest executes its own tables say.
            rights.executors = 0;
        }
        // Stage 1 of the guest decides with stage 2.
        let kind = if meaning.is_stage_2 { None } else { meaning.memory.kind() };
        let class = kind.map(|kind| (kind, kind.has_shareability().then_some(meaning.sharing)));
        Self { rights, class }
    }
}

/// A leaf that reaches beyond where the pass stands.
#[derive(Clone, Copy)]
struct Reaching {
    end: u64,
    mapped: Mapped,
}

/// A leaf in the order of the pass. All that the pass needs, so that it runs through memory once.
struct Leaf {
    start: u64,
    end: u64,
    row: u32,
    /// The tree's place among those that are judged.
    tree: u16,
    /// The place of its traits.
    traits: u16,
}

/// Finds what clashes in `trees`, whose output addresses are of one space.
pub fn clashes(trees: &[(u32, Decoder, &Tree)]) -> Clashes {
    let mut pass = Pass::new(trees);
    let mut leaves = pass.leaves();
    leaves.sort_unstable_by_key(|leaf| (leaf.start, leaf.tree, leaf.row));
    for leaf in &leaves {
        pass.leaf(leaf);
    }
    pass.found
}

struct Pass<'t> {
    trees: &'t [(u32, Decoder, &'t Tree)],
    traits: Vec<Traits>,
    writers: [Option<Reaching>; LEVELS],
    executors: [Option<Reaching>; LEVELS],
    classes: Vec<(Class, Reaching)>,
    found: Clashes,
    /// Held clashes that may grow, by kind, trees and distance of virtual from physical addresses.
    growing: HashMap<(Clash, u32, u64, u32, u64), usize>,
    held: HashMap<Clash, u64>,
    /// By kind, the end of what is counted in bytes.
    counted: HashMap<Clash, u64>,
}

impl<'t> Pass<'t> {
    fn new(trees: &'t [(u32, Decoder, &'t Tree)]) -> Self {
        Self {
            trees,
            traits: Vec::new(),
            writers: [None; LEVELS],
            executors: [None; LEVELS],
            classes: Vec::new(),
            found: Clashes::default(),
            growing: HashMap::new(),
            held: HashMap::new(),
            counted: HashMap::new(),
        }
    }

    /// All leaves, as the trees have them.
    fn leaves(&mut self) -> Vec<Leaf> {
        let count = self.trees.iter().map(|(_, _, tree)| tree.rows.len()).sum();
        let mut leaves = Vec::with_capacity(count);
        let mut places: HashMap<Traits, u16> = HashMap::new();
        for (place, (_, decoder, tree)) in self.trees.iter().enumerate() {
            let mut last = None;
            for (nth, row) in tree.rows.iter().enumerate() {
                let Row::Leaves { pa, bits, level, tables, .. } = *row else { continue };
                let key = (bits, level, tables);
                let traits = match last {
                    Some((known, traits)) if known == key => traits,
                    _ => {
                        let traits = Traits::of(&decoder.meaning(bits, level, tables));
                        // There are few: rights of four levels, and kinds of memory.
                        let next = self.traits.len() as u16;
                        *places.entry(traits).or_insert_with(|| {
                            self.traits.push(traits);
                            next
                        })
                    }
                };
                last = Some((key, traits));
                let end = pa.saturating_add(tree.bytes(row));
                leaves.push(Leaf { start: pa, end, row: nth as u32, tree: place as u16, traits });
            }
        }
        leaves
    }

    fn leaf(&mut self, leaf: &Leaf) {
        let Some(&Traits { rights, class }) = self.traits.get(leaf.traits as usize) else { return };
        let (start, end) = (leaf.start, leaf.end);
        let this = Reaching { end, mapped: Mapped { tree: u32::from(leaf.tree), row: leaf.row } };
        for (level, (writer, executor)) in self.writers.iter_mut().zip(&mut self.executors).enumerate() {
            if rights.writers >> level & 1 != 0 {
                further(writer, this);
            }
            if rights.executors >> level & 1 != 0 {
                further(executor, this);
            }
        }
        self.rights(rights, start, this);
        if let Some(class) = class {
            self.class(class, start, this);
        }
    }

    /// Who executes what someone writes. Both are entered, so that a leaf that is both meets
    /// itself.
    fn rights(&mut self, rights: Rights, start: u64, this: Reaching) {
        let mut met: Vec<(Clash, Reaching, Reaching)> = Vec::new();
        for (executor, at) in self.executors.iter().enumerate() {
            let is_executor = rights.executors >> executor & 1 != 0;
            let Some(at) = at.filter(|at| at.end > start || is_executor) else { continue };
            let at = if is_executor { this } else { at };
            for (writer, by) in self.writers.iter().enumerate() {
                let is_writer = rights.writers >> writer & 1 != 0;
                let Some(by) = by.filter(|by| by.end > start || is_writer) else { continue };
                if !is_writer && !is_executor {
                    continue;
                }
                let by = if is_writer { this } else { by };
                let (writer, executor) = (writer as u8, executor as u8);
                let clash = match writer <= executor {
                    true => Clash::WritableAndExecutable { writer, executor },
                    false => Clash::WritableFromAbove { writer, executor },
                };
                met.push((clash, by, at));
            }
        }
        // Of the same two leaves the worst is enough.
        met.sort_by_key(|(clash, ..)| std::cmp::Reverse(rank(*clash)));
        for (nth, (clash, by, at)) in met.iter().enumerate() {
            let pair = (by.mapped, at.mapped);
            if !met.iter().take(nth).any(|(_, by, at)| (by.mapped, at.mapped) == pair) {
                self.add(*clash, start, *by, *at);
            }
        }
    }

    fn class(&mut self, class: Class, start: u64, this: Reaching) {
        if let [(one, reaching)] = &mut self.classes[..]
            && *one == class
        {
            // The usual case: there is only one kind.
            if reaching.end < this.end {
                *reaching = this;
            }
            return;
        }
        self.classes.retain(|(_, reaching)| reaching.end > start);
        let others: Vec<_> = self.classes.iter().filter(|(other, _)| *other != class).copied().collect();
        for ((kind, _), reaching) in others {
            let clash = if kind == class.0 { Clash::Shareability } else { Clash::MemoryType };
            self.add(clash, start, reaching, this);
        }
        match self.classes.iter_mut().find(|(other, _)| *other == class) {
            Some((_, reaching)) if reaching.end < this.end => *reaching = this,
            Some(_) => {}
            None => self.classes.push((class, this)),
        }
    }

    fn add(&mut self, clash: Clash, start: u64, one: Reaching, other: Reaching) {
        let end = one.end.min(other.end);
        let counted = self.counted.entry(clash).or_default();
        let new = end.saturating_sub(start.max(*counted));
        *counted = end.max(*counted);
        *self.found.bytes.entry(clash).or_default() += new;
        let key = (
            clash,
            one.mapped.tree,
            self.distance(one.mapped),
            other.mapped.tree,
            self.distance(other.mapped),
        );
        if let Some(held) = self.growing.get(&key).and_then(|held| self.found.held.get_mut(*held))
            && held.end >= start
        {
            held.end = held.end.max(end);
            return;
        }
        let held = self.held.entry(clash).or_default();
        if *held < FLAWS_HELD {
            *held += 1;
            self.growing.insert(key, self.found.held.len());
            let tree = |mapped: Mapped| {
                let tree = self.trees.get(mapped.tree as usize).map_or(0, |(tree, ..)| *tree);
                Mapped { tree, ..mapped }
            };
            let (one, other) = (tree(one.mapped), tree(other.mapped));
            self.found.held.push(Clashing { clash, start, end, one, other });
        } else {
            *self.found.not_held.entry(clash).or_default() += 1;
        }
    }

    fn distance(&self, mapped: Mapped) -> u64 {
        let row =
            self.trees.get(mapped.tree as usize).and_then(|(_, _, tree)| tree.rows.get(mapped.row as usize));
        match row {
            Some(Row::Leaves { va, pa, .. }) => va.wrapping_sub(*pa),
            _ => 0,
        }
    }
}

/// What is written from a lower level is worse.
fn rank(clash: Clash) -> (u8, u8) {
    match clash {
        Clash::WritableAndExecutable { writer, executor } => (2, executor * 4 + (3 - writer)),
        Clash::WritableFromAbove { writer, executor } => (1, executor * 4 + (3 - writer)),
        Clash::MemoryType | Clash::Shareability => (0, 0),
    }
}

fn further(slot: &mut Option<Reaching>, this: Reaching) {
    if slot.is_none_or(|reaching| reaching.end < this.end) {
        *slot = Some(this);
    }
}
