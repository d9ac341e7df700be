//! The machine: what is true of it after each event, and the check of each.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::cached::{CachedSpaces, Held, SEEN};
use crate::compare::first;
use crate::descriptor::{CONTIGUOUS, Entry, HIERARCHICAL, Leaf, cacheable, read};
use crate::event::{Access, Domain, Event, Register, Tlbi, Use};
use crate::fresh::FreshEntries;
use crate::invalidate::Scope;
use crate::memory::Memory;
use crate::rules::Rule;
use crate::shape::{Config, ConfigError};
use crate::space::{Shape, Space};
use crate::violation::Violation;

/// Every check ends in this.
pub(crate) type Check<T = ()> = Result<T, Violation>;

/// Where a table is used: a frame may serve several trees, and several places of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub root: u32,
    pub level: i8,
    /// The first address the table translates.
    pub va: u64,
    /// How many pointers, in tables or held by walk caches, lead here.
    pub references: u32,
}

/// A tree that some register led to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Root {
    pub space: Space,
    pub shape: Shape,
    /// The root table.
    pub table: u64,
    /// ASID or VMID.
    pub id: u16,
    /// CPUs that walk it, or may hold something of it.
    pub cpus: u64,
}

/// One entry of one table in one tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub root: u32,
    pub level: i8,
    /// The first address the entry translates.
    pub va: u64,
    /// Where the entry is.
    pub pa: u64,
}

/// A range that a CPU may access at any moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct InUse {
    pub va: u64,
    pub last: u64,
    pub kind: Use,
}

#[derive(Debug, Default)]
pub(crate) struct Cpu {
    /// Per space: the roots that a walk may start from; several until an ISB makes the last one certain.
    pub walks: [Vec<u32>; 4],
    /// Per space: roots of which something may be held, and since when they are walked no more.
    pub left: [Vec<(u32, u64)>; 4],
    /// Per space: bits of input address that this CPU's TCR says.
    pub va_bits: [u32; 4],
    /// Per space: TCR changed and no ISB came yet.
    pub control_pending: [bool; 4],
    pub uses: Vec<InUse>,
    /// Invalidations that no DSB has completed, with the time of each.
    pub tlbis: Vec<(Scope, u64)>,
    /// What this CPU's own invalidations took from it. Without FEAT_ETS2 it is certain to be gone only with the ISB
    /// after the DSB (Arm ARM D8.17, RBLDZX).
    pub invalidated: Vec<Held>,
}

/// The most places that one table may be used in, and that all may be; honest trees stay far below.
const MAX_PLACES: (usize, usize) = (1 << 12, 1 << 22);

/// The most entries that one event may make the model compare.
const MAX_WORK: u64 = 1 << 28;

/// The most words that one event stores: more than any table has.
const MAX_FILL: u64 = 1 << 20;

/// The most older values of one word that walkers may see.
const MAX_OLDER: usize = 1 << 10;

/// The most pages of memory that may be stored to: 8 GiB.
const MAX_PAGES: usize = 1 << 21;

/// A machine to run events on.
pub struct Machine {
    pub(crate) config: Config,
    pub(crate) memory: Memory,
    pub(crate) cached: CachedSpaces,
    pub(crate) roots: Vec<Root>,
    pub(crate) cpus: Vec<Cpu>,
    /// The shape of each space as TCR says now.
    pub(crate) shapes: [Shape; 4],
    pub(crate) mair: Option<u64>,
    pub(crate) fresh: FreshEntries,
    /// Contiguous runs to look at when software relies on them: their first entry.
    pub(crate) runs: FxHashSet<(u32, i8, u64, u64)>,
    pub(crate) now: u64,
    pub(crate) work: u64,
    tables: FxHashMap<u64, Vec<At>>,
    places: usize,
    /// Root tables that do not begin at a multiple of the granule.
    odd_roots: Vec<u64>,
    events: usize,
    broken: Option<Violation>,
}

impl Machine {
    /// A machine as `config` says, with nothing in its registers.
    ///
    /// # Errors
    /// [`ConfigError`] when there can be no such machine.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            memory: Memory::new(config),
            cached: CachedSpaces::default(),
            roots: Vec::new(),
            cpus: (0..config.cpus)
                .map(|_| Cpu { va_bits: [u32::from(config.va_bits); 4], ..Cpu::default() })
                .collect(),
            shapes: [Shape::of(config); 4],
            mair: None,
            fresh: FreshEntries::new(config.cpus),
            runs: FxHashSet::default(),
            now: 0,
            work: 0,
            tables: FxHashMap::default(),
            places: 0,
            odd_roots: Vec::new(),
            events: 0,
            broken: None,
            config: config.clone(),
        })
    }

    /// The newest value of the word at `pa`, a multiple of 8; `None` when nothing was stored there.
    pub fn word(&self, pa: u64) -> Option<u64> {
        self.memory.newest(pa)
    }

    /// The page of `pa` as it is in memory, when every word of it is known.
    pub(crate) fn page(&self, pa: u64) -> Option<&[u64]> {
        self.memory.known_page(pa)
    }

    /// Whether `cpu` said that it uses `va`.
    pub(crate) fn in_use(&self, cpu: usize, va: u64) -> bool {
        self.cpus[cpu].uses.iter().any(|in_use| in_use.va <= va && va <= in_use.last)
    }

    /// Lets `event` happen.
    ///
    /// # Errors
    /// The [`Violation`] that makes it, or what was legal before it, unsafe. What such a machine does afterwards means
    /// nothing, so every later event gives the same violation.
    pub fn step(&mut self, event: &Event) -> Check {
        if let Some(violation) = self.broken {
            return Err(violation);
        }
        self.now += 1;
        self.work = MAX_WORK;
        let number = self.events;
        self.events += 1;
        self.run(event).map_err(|violation| {
            let violation = Violation { event: number, ..violation };
            self.broken = Some(violation);
            violation
        })
    }

    fn run(&mut self, event: &Event) -> Check {
        match *event {
            Event::Store { cpu, pa, value, via } => {
                self.cpu(cpu)?;
                self.in_memory(pa, 8)?;
                if let Some(via) = via {
                    self.reaches(cpu, via, Use::Write, pa)?;
                }
                self.store(cpu, pa, value)
            }
            Event::Fill { cpu, pa, count, first, step } => {
                self.cpu(cpu)?;
                let len = count.checked_mul(8).ok_or(Violation::of(Rule::NotMemory).entry(pa))?;
                self.in_memory(pa, len)?;
                if count > MAX_FILL {
                    return Err(Violation::of(Rule::TooComplex).entry(pa));
                }
                let mut value = first;
                for at in (pa..pa + len).step_by(8) {
                    self.store(cpu, at, value)?;
                    value = value.wrapping_add(step);
                }
                Ok(())
            }
            Event::Dsb { cpu, domain, access } => {
                self.cpu(cpu)?;
                self.dsb(cpu, domain, access)
            }
            Event::Isb { cpu } => {
                self.cpu(cpu)?;
                self.isb(cpu);
                Ok(())
            }
            Event::Tlbi { cpu, tlbi, operand } => {
                self.cpu(cpu)?;
                self.tlbi(cpu, tlbi, operand);
                Ok(())
            }
            Event::Write { cpu, register, value } => {
                self.cpu(cpu)?;
                match register {
                    Register::Ttbr0 => self.write_base(cpu, Space::Low, value),
                    Register::Ttbr1 => self.write_base(cpu, Space::High, value),
                    Register::Ttbr0El2 => self.write_base(cpu, Space::El2, value),
                    Register::Vttbr => self.write_base(cpu, Space::Stage2, value),
                    Register::Tcr => self.write_tcr(cpu, value),
                    Register::Mair => self.write_mair(value),
                }
            }
            Event::Access { cpu, va, kind, pa } => {
                self.cpu(cpu)?;
                self.reaches(cpu, va, kind, pa)
            }
            Event::Faults { cpu, va, kind } => {
                self.cpu(cpu)?;
                self.faults(cpu, va, kind)
            }
            Event::Uses { cpu, va, len, kind } => {
                self.cpu(cpu)?;
                let last = len.checked_sub(1).and_then(|len| va.checked_add(len));
                let last = last.ok_or(Violation::of(Rule::Unmodelled).at(va))?;
                let in_use = InUse { va, last, kind };
                self.keeps(cpu, in_use)?;
                self.cpus[cpu].uses.push(in_use);
                Ok(())
            }
            Event::Unuses { cpu, va, len, kind } => {
                self.cpu(cpu)?;
                let last = va.wrapping_add(len).wrapping_sub(1);
                let uses = &mut self.cpus[cpu].uses;
                match uses.iter().position(|in_use| *in_use == InUse { va, last, kind }) {
                    Some(nth) => {
                        uses.swap_remove(nth);
                        Ok(())
                    }
                    None => Err(Violation::of(Rule::Unmodelled).on(cpu).at(va)),
                }
            }
            Event::Free { pa, len } => self.free(pa, len),
            Event::Settled => self.settle(),
        }
    }

    pub(crate) fn cpu(&self, cpu: usize) -> Check {
        if cpu < self.cpus.len() { Ok(()) } else { Err(Violation::of(Rule::NoSuchCpu).on(cpu)) }
    }

    fn in_memory(&self, pa: u64, len: u64) -> Check {
        if pa.is_multiple_of(8) && self.memory.holds(pa, len) {
            Ok(())
        } else {
            Err(Violation::of(Rule::NotMemory).entry(pa))
        }
    }

    /// Counts a step of a search that hostile tables could make endless.
    pub(crate) fn spend(&mut self) -> Check {
        self.spend_all(1)
    }

    /// Counts `steps` at once.
    pub(crate) fn spend_all(&mut self, steps: u64) -> Check {
        self.work = self.work.saturating_sub(steps);
        if self.work == 0 { Err(Violation::of(Rule::TooComplex)) } else { Ok(()) }
    }

    /// All CPUs.
    pub(crate) fn everyone(&self) -> u64 {
        u64::MAX >> (64 - self.cpus.len())
    }

    /// All places in trees that the word at `pa` is an entry of.
    pub(crate) fn each_place(&self, pa: u64, mut each: impl FnMut(Place)) {
        let granule = self.config.granule;
        let mut of = |base: u64| {
            for at in self.tables.get(&base).into_iter().flatten() {
                let shape = self.roots[at.root as usize].shape;
                let index = (pa - base) / 8;
                if index < shape.entries(at.level) as u64 {
                    let va = at.va + (index << shape.shift(at.level));
                    each(Place { root: at.root, level: at.level, va, pa });
                }
            }
        };
        of(pa & !(granule - 1));
        for &base in &self.odd_roots {
            if base <= pa && pa - base < granule {
                of(base);
            }
        }
    }

    fn store(&mut self, cpu: usize, pa: u64, value: u64) -> Check {
        let stored = self.memory.store(cpu, pa, value);
        if self.memory.pages() > MAX_PAGES || stored.older > MAX_OLDER {
            return Err(Violation::of(Rule::TooComplex).entry(pa));
        }
        if !stored.table || stored.before == Some(value) {
            return Ok(());
        }
        let mut places = Places::default();
        self.each_place(pa, |place| places.push(place));
        for place in places.iter() {
            self.changed(place, stored.before.unwrap_or(0), value)?;
        }
        Ok(())
    }

    /// An entry that can be walked changes.
    fn changed(&mut self, place: Place, old: u64, new: u64) -> Check {
        let root = self.roots[place.root as usize];
        let (space, shape) = (root.space, root.shape);
        let mark = |violation: Violation| {
            let mut violation = violation;
            violation.pa = violation.pa.or(Some(place.pa));
            violation
        };
        let entry = read(shape, space, place.level, new);
        self.well_formed(place, entry, new)?;
        if cacheable(shape, space, place.level, new) {
            self.well_read(space, root.cpus).map_err(mark)?;
        }
        if cacheable(shape, space, place.level, old) {
            let runs = match read(shape, space, place.level, old) {
                Entry::Leaf(leaf) if leaf.contiguous && shape.run(place.level) > 0 => root.cpus,
                _ => 0,
            };
            let held = Held {
                root: place.root,
                id: root.id,
                level: place.level,
                va: place.va,
                value: old,
                since: SEEN,
                cpus: root.cpus,
                runs,
                combined: false,
            };
            let known = self.cached.of_mut(space).add(held);
            if known {
                // The note has its own reference to the table.
                self.release(place.root, place.level, place.va, old)?;
            }
        }
        if let Entry::Table(table) = entry {
            self.link(place.root, table, place.level + 1, place.va)?;
        }
        self.joins(place, new).map_err(mark)?;
        self.run_of(place, old, new, entry)?;
        self.fits_in(place, new).map_err(mark)?;
        let last = place.va + ((1u64 << shape.shift(place.level)) - 1);
        self.still_kept(space, root.cpus, place.va, last).map_err(mark)
    }

    /// Refuses what no walker could make sense of, or the model can't.
    fn well_formed(&self, place: Place, entry: Entry, value: u64) -> Check {
        let violation = |rule| Violation::of(rule).at(place.va).entry(place.pa);
        match entry {
            Entry::Invalid => Ok(()),
            Entry::Table(_) if value & HIERARCHICAL != 0 => Err(violation(Rule::Unmodelled)),
            Entry::Table(table) if !self.memory.holds(table, self.config.granule) => {
                Err(violation(Rule::NotMemory).values(value, table))
            }
            Entry::Table(_) => Ok(()),
            Entry::Leaf(leaf) => {
                if leaf.no_translation && self.config.bbm == 0 {
                    return Err(violation(Rule::NoTranslation));
                }
                let shape = self.roots[place.root as usize].shape;
                let entries = shape.run(place.level);
                let run = (entries as u64) << leaf.shift;
                // A root may be shorter than a run.
                let fits = entries <= shape.entries(place.level);
                if leaf.contiguous && run > 0 && (!fits || (leaf.pa ^ place.va) & (run - 1) != 0) {
                    return Err(violation(Rule::MisalignedRun));
                }
                Ok(())
            }
        }
    }

    /// A change of `old` to `new` and the other entries of its contiguous run.
    fn run_of(&mut self, place: Place, old: u64, new: u64, entry: Entry) -> Check {
        let root = self.roots[place.root as usize];
        let run = root.shape.run(place.level);
        if run == 0 {
            return Ok(());
        }
        let first = place.pa & !(8 * run as u64 - 1);
        let words = self.memory.words(first, run);
        let any = words.iter().fold(old | new, |any, word| any | word) & CONTIGUOUS;
        if any == 0 || words.len() < run {
            return Ok(());
        }
        let leaf = |value| match read(root.shape, root.space, place.level, value) {
            Entry::Leaf(leaf) => Some(leaf),
            Entry::Invalid | Entry::Table(_) => None,
        };
        let size = 1u64 << root.shape.shift(place.level);
        if let Entry::Leaf(mine) = entry {
            let own = (place.pa - first) / 8;
            for (nth, &word) in words.iter().enumerate() {
                let Some(other) = leaf(word).filter(|other| other.contiguous || mine.contiguous) else {
                    continue;
                };
                let expected = mine.pa.wrapping_add((nth as u64).wrapping_sub(own).wrapping_mul(size));
                let alike = other.permissions == mine.permissions
                    && other.global == mine.global
                    && other.contiguous == mine.contiguous;
                let above = mine.global && !other.global;
                if other.pa != expected
                    || self.memory_type(root.space, other.memory) != self.memory_type(root.space, mine.memory)
                    || other.share != mine.share
                    || above
                    || (self.config.bbm == 0 && !alike)
                {
                    return Err(Violation::of(Rule::MixedRun).at(place.va).entry(place.pa).values(word, new));
                }
            }
        }
        let key = (place.root, place.level, first, place.va & !((size * run as u64) - 1));
        if leaf(old).is_some() || leaf(new).is_some() {
            self.runs.insert(key);
        }
        Ok(())
    }

    /// What MAIR_EL1 gives for the memory attribute index of a leaf of `space`; the index itself while MAIR was not
    /// written, and where another register or none holds the types.
    pub(crate) fn memory_type(&self, space: Space, index: u8) -> u8 {
        match (space, self.mair) {
            (Space::Low | Space::High, Some(mair)) => (mair >> (8 * index)) as u8,
            _ => index,
        }
    }

    /// A table can be walked at one more place, or by one more pointer.
    pub(crate) fn link(&mut self, root: u32, table: u64, level: i8, va: u64) -> Check {
        self.spend()?;
        let list = self.tables.entry(table).or_default();
        if let Some(at) = list.iter_mut().find(|at| (at.root, at.level, at.va) == (root, level, va)) {
            at.references += 1;
            return Ok(());
        }
        list.push(At { root, level, va, references: 1 });
        self.places += 1;
        if list.len() > MAX_PLACES.0 || self.places > MAX_PLACES.1 {
            return Err(Violation::of(Rule::TooComplex).at(va).entry(table));
        }
        let Root { space, shape, cpus, id, .. } = self.roots[root as usize];
        let entries = shape.entries(level);
        let shift = shape.shift(level);
        let end = table + 8 * entries as u64;
        let mut page = table;
        while page < end {
            let words = ((0x1000 - page % 0x1000).min(end - page) / 8) as usize;
            if let Some(unknown) = self.memory.first_unknown(page, words) {
                let index = (unknown - table) / 8;
                return Err(Violation::of(Rule::UnknownEntry).at(va + (index << shift)).entry(unknown));
            }
            self.memory.mark_table(page, true);
            page += 8 * words as u64;
        }
        // What each entry holds now.
        for index in 0..entries as u64 {
            let pa = table + 8 * index;
            let Some(value) = self.memory.newest(pa) else { continue };
            if value & 1 == 0 && self.memory.settled(pa) {
                continue;
            }
            let place = Place { root, level, va: va + (index << shift), pa };
            let entry = read(shape, space, level, value);
            self.well_formed(place, entry, value)?;
            match entry {
                Entry::Table(next) => self.link(root, next, level + 1, place.va)?,
                Entry::Leaf(leaf) if leaf.contiguous => self.run_of(place, value, value, entry)?,
                Entry::Leaf(_) | Entry::Invalid => {}
            }
            if self.memory.settled(pa) {
                continue;
            }
            // Older values can be seen from here too.
            let mut older = Vec::new();
            self.memory.seen(pa, |seen| older.extend(seen.filter(|seen| *seen != value)));
            for old in older.into_iter().filter(|old| cacheable(shape, space, level, *old)) {
                let held = Held {
                    root,
                    id,
                    level,
                    va: place.va,
                    value: old,
                    since: SEEN,
                    cpus,
                    runs: 0,
                    combined: false,
                };
                if let Entry::Table(next) = read(shape, space, level, old) {
                    self.link(root, next, level + 1, place.va)?;
                }
                if self.cached.of_mut(space).add(held) {
                    self.release(root, level, place.va, old)?;
                }
                self.joins(place, value)?;
            }
        }
        Ok(())
    }

    /// A pointer that an entry at `level` held, if `value` is one, is gone.
    pub(crate) fn release(&mut self, root: u32, level: i8, va: u64, value: u64) -> Check {
        let Root { space, shape, .. } = self.roots[root as usize];
        match read(shape, space, level, value) {
            Entry::Table(table) => self.unlink(root, table, level + 1, va),
            Entry::Invalid | Entry::Leaf(_) => Ok(()),
        }
    }

    /// One pointer less leads to a table.
    pub(crate) fn unlink(&mut self, root: u32, table: u64, level: i8, va: u64) -> Check {
        self.spend()?;
        let Some(list) = self.tables.get_mut(&table) else { return Ok(()) };
        let Some(nth) = list.iter().position(|at| (at.root, at.level, at.va) == (root, level, va)) else {
            return Ok(());
        };
        list[nth].references -= 1;
        if list[nth].references > 0 {
            return Ok(());
        }
        list.swap_remove(nth);
        self.places -= 1;
        let unused = list.is_empty();
        let Root { space, shape, .. } = self.roots[root as usize];
        let entries = shape.entries(level) as u64;
        let mut older = false;
        for page in (table..table + 8 * entries).step_by(0x1000) {
            older |= self.memory.any_older(page);
            if unused && !self.shares_page(page, table) {
                self.memory.mark_table(page, false);
            }
        }
        if unused {
            self.tables.remove(&table);
        }
        if level < 3 {
            for index in 0..entries {
                let value = self.memory.newest(table + 8 * index).unwrap_or(0);
                if value & 1 != 0 {
                    self.release(root, level, va + (index << shape.shift(level)), value)?;
                }
            }
        }
        if older {
            // What walkers could still see there is only held from now on.
            let last = va + ((entries << shape.shift(level)) - 1);
            let now = self.now;
            for held in self.cached.of_mut(space).at_level_mut(level, va, last) {
                if held.root == root {
                    held.since = held.since.min(now);
                }
            }
        }
        Ok(())
    }

    /// Whether another table than `table` lies in the page at `page`: roots can be smaller than a page.
    fn shares_page(&self, page: u64, table: u64) -> bool {
        let page = page & !0xfff;
        let granule = self.config.granule;
        self.odd_roots.iter().chain([&(page & !(granule - 1))]).any(|&base| {
            base != table && base < page + 0x1000 && page < base + granule && self.tables.contains_key(&base)
        })
    }

    /// A root table to be walked. Roots are never forgotten: there are few, and what was held of one names it.
    pub(crate) fn root(&mut self, space: Space, table: u64, id: u16) -> u32 {
        let shape = self.shapes[space.index()];
        let same =
            |root: &Root| root.space == space && root.shape == shape && root.table == table && root.id == id;
        if let Some(nth) = self.roots.iter().position(same) {
            return nth as u32;
        }
        if !table.is_multiple_of(self.config.granule) && !self.odd_roots.contains(&table) {
            self.odd_roots.push(table);
        }
        self.roots.push(Root { space, shape, table, id, cpus: 0 });
        self.roots.len() as u32 - 1
    }

    fn dsb(&mut self, cpu: usize, domain: Domain, access: Access) -> Check {
        let own = 1u64 << cpu;
        let everyone = self.everyone();
        // NSH reaches the CPU itself: all there is of a machine with one.
        if domain != Domain::Nsh || everyone == own {
            let mut ordered = Vec::new();
            self.memory.order(cpu, |memory, pa, gone| {
                let newest = memory.newest(pa);
                for &old in gone {
                    // Another CPU's store may have left it visible.
                    let mut visible = false;
                    memory.seen(pa, |seen| visible |= seen == old);
                    ordered.push((pa, old, newest, visible && newest != old));
                }
            });
            for (pa, old, newest, visible) in ordered {
                self.ordered(cpu, pa, old, newest, visible)?;
            }
        }
        if access == Access::All {
            let mut issued = std::mem::take(&mut self.cpus[cpu].tlbis);
            // What one DSB completes may have been done in any order. A leaf that was invalidated alone comes back
            // while a walk cache leads to it, so the worst order is last levels first; of the others each takes the
            // pointers with it.
            issued.sort_by_key(|(scope, _)| !scope.last_level);
            for (scope, since) in issued {
                // NSH completes what is for this CPU alone (Arm ARM D8.17, RPSMWS).
                if scope.broadcast && domain == Domain::Nsh {
                    self.cpus[cpu].tlbis.push((scope, since));
                } else {
                    self.invalidate(cpu, &scope, since, if scope.broadcast { everyone } else { own })?;
                }
            }
        }
        Ok(())
    }

    /// No walker sees `old` at `pa` any more as what was there before, unless it is still `visible` as that. As the
    /// newest value it may be cached anyhow.
    fn ordered(
        &mut self,
        cpu: usize,
        pa: u64,
        old: Option<u64>,
        newest: Option<u64>,
        visible: bool,
    ) -> Check {
        let mut places = Places::default();
        self.each_place(pa, |place| places.push(place));
        for place in places.iter() {
            let Root { space, shape, cpus, .. } = self.roots[place.root as usize];
            let valid =
                |value: Option<u64>| value.filter(|value| cacheable(shape, space, place.level, *value));
            match valid(old) {
                Some(old) if !visible => {
                    let now = self.now;
                    let held = self.cached.of_mut(space).find(place.root, place.level, place.va, old);
                    if let Some(held) = held {
                        held.since = held.since.min(now);
                    }
                }
                Some(_) => {}
                None if valid(newest).is_some() => {
                    self.fresh.became_valid(self.now, space, place.level, place.va, cpu, cpus);
                }
                None => {}
            }
        }
        Ok(())
    }

    fn isb(&mut self, cpu: usize) {
        let now = self.now;
        let state = &mut self.cpus[cpu];
        state.control_pending = [false; 4];
        state.invalidated.clear();
        for space in Space::ALL.map(Space::index) {
            let certain = state.walks[space].len().saturating_sub(1);
            let kept = state.walks[space].last().copied();
            for root in state.walks[space].drain(..certain) {
                if Some(root) != kept && !state.left[space].iter().any(|(left, _)| *left == root) {
                    state.left[space].push((root, now));
                }
            }
        }
        self.fresh.synchronized(cpu, now);
    }

    fn tlbi(&mut self, cpu: usize, tlbi: Tlbi, operand: u64) {
        // Until an ISB a VTTBR that was just written may not be the current one.
        let mut vmids =
            self.cpus[cpu].walks[Space::Stage2.index()].iter().map(|root| self.roots[*root as usize].id);
        let first = vmids.next().unwrap_or(0);
        let vmid = vmids.all(|vmid| vmid == first).then_some(first);
        let scope = Scope::of(tlbi, operand, self.shapes[Space::Low.index()], vmid);
        self.cpus[cpu].tlbis.push((scope, self.now));
    }

    fn free(&mut self, pa: u64, len: u64) -> Check {
        if !(pa | len).is_multiple_of(0x1000) {
            return Err(Violation::of(Rule::NotMemory).entry(pa));
        }
        self.in_memory(pa, len)?;
        let end = pa + len;
        let granule = self.config.granule;
        let regular = (pa & !(granule - 1)..end).step_by(granule as usize);
        for base in regular.chain(self.odd_roots.iter().copied()) {
            for at in self.tables.get(&base).into_iter().flatten() {
                let root = self.roots[at.root as usize];
                let bytes = 8 * root.shape.entries(at.level) as u64;
                if base < end && pa < base + bytes {
                    return Err(Violation::of(Rule::TableReachable)
                        .at(at.va)
                        .entry(base)
                        .on(first(root.cpus)));
                }
            }
        }
        self.memory.forget(pa, len);
        Ok(())
    }

    /// Whether the word at `pa` is still an entry at `level` of a table of `root`.
    pub(crate) fn is_table(&self, pa: u64, root: u32, level: i8) -> bool {
        let mut found = false;
        self.each_place(pa, |place| found |= place.root == root && place.level == level);
        found
    }

    /// The leaf that `value` is at `place`, if it is one.
    pub(crate) fn leaf(&self, root: u32, level: i8, value: u64) -> Option<Leaf> {
        let Root { space, shape, .. } = self.roots[root as usize];
        match read(shape, space, level, value) {
            Entry::Leaf(leaf) => Some(leaf),
            Entry::Invalid | Entry::Table(_) => None,
        }
    }
}

/// The places of one entry: almost always one.
#[derive(Default)]
struct Places {
    first: Option<Place>,
    more: Vec<Place>,
}

impl Places {
    fn push(&mut self, place: Place) {
        if self.first.is_none() {
            self.first = Some(place);
        } else {
            self.more.push(place);
        }
    }

    fn iter(&self) -> impl Iterator<Item = Place> {
        self.first.into_iter().chain(self.more.iter().copied())
    }
}
