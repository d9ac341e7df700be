//! Changes of the linear map: random ones, the errors that they must have, and their effect on the
//! plain record.

use linmap::{ChangeError, Changed, MemoryError, Protection};
use linmap_live::{Global, PlanError};
use linmap_model::Event;
use linmap_model::event::Use;
use linmap_vmsa::{Level, Pa, PaRange};

use super::Running;
use super::random::Random;
use super::shadow::{DATA, State};

/// A call of the linear map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    Protect(PaRange, Protection),
    MakeText(PaRange),
    MakeData(PaRange),
    Split(PaRange, Level),
    Fold(PaRange),
    Global(Global),
    Repaint,
    Add(PaRange),
    Remove(PaRange),
}

/// What is wrong with a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrong {
    Unaligned,
    OutOfReach,
    NotMemory(u64),
    NoMap(u64),
    ImageText,
    PartlyImage,
    WritableAndExecutable,
    Present,
    InUse,
    /// Anything else.
    Other,
}

impl Wrong {
    pub fn of(error: &MemoryError) -> Self {
        match error {
            MemoryError::Present { .. } => Self::Present,
            MemoryError::InUse { .. } => Self::InUse,
            MemoryError::Change(change) => match change {
                ChangeError::Unaligned { .. } => Self::Unaligned,
                ChangeError::OutOfReach { .. } => Self::OutOfReach,
                ChangeError::NotMemory { pa, .. } => Self::NotMemory(pa.0),
                ChangeError::NoMap { pa, .. } => Self::NoMap(pa.0),
                ChangeError::ImageText { .. } => Self::ImageText,
                ChangeError::PartlyImage { .. } => Self::PartlyImage,
                ChangeError::Plan(PlanError::WritableAndExecutable { .. }) => Self::WritableAndExecutable,
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

/// What `protection` makes of a page.
pub fn protected(state: State, protection: Protection) -> State {
    match protection {
        Protection::ReadOnly => State { writable: false, ..state },
        Protection::ReadWrite => State { writable: true, ..state },
        Protection::NoExecute => State { executable: false, ..state },
        Protection::Invalid => State { valid: false, ..state },
        Protection::Valid => State { valid: true, ..state },
    }
}

impl Op {
    pub fn range(self) -> Option<PaRange> {
        match self {
            Self::Protect(range, _)
            | Self::MakeText(range)
            | Self::MakeData(range)
            | Self::Split(range, _)
            | Self::Fold(range)
            | Self::Add(range)
            | Self::Remove(range) => Some(range),
            Self::Global(_) | Self::Repaint => None,
        }
    }
}

impl Running {
    /// Makes the call.
    pub fn call(&mut self, op: Op) -> Result<Changed, MemoryError> {
        let Self { map, editor, steps, .. } = self;
        Ok(match op {
            // SAFETY: no code of the test lies in the board's memory; what its CPUs use, the model
            // watches. This holds of all changes below.
            Op::Protect(range, protection) => unsafe { map.protect(editor, steps, range, protection) }?,
            // SAFETY: as above.
            Op::MakeText(range) => unsafe { map.make_text(editor, steps, range) }?,
            // SAFETY: as above.
            Op::MakeData(range) => unsafe { map.make_data(editor, steps, range) }?,
            Op::Split(range, to) => map.split(editor, steps, range, to)?,
            Op::Fold(range) => map.fold(editor, steps, range)?,
            Op::Global(global) => map.set_global(editor, steps, global)?,
            Op::Repaint => map.repaint(editor, steps)?,
            // SAFETY: as above.
            Op::Add(range) => unsafe { map.add_memory(editor, steps, range) }?,
            // SAFETY: as above.
            Op::Remove(range) => unsafe { map.remove_memory(editor, steps, range) }?,
        })
    }

    /// The first thing that is wrong with a call; where two are, the call may name either.
    pub fn wrong(&mut self, op: Op) -> Vec<Wrong> {
        let Some(range) = op.range() else { return Vec::new() };
        let page = self.setting.page();
        if range.is_empty() || (range.start.0 | range.end.0) % page != 0 {
            return vec![Wrong::Unaligned];
        }
        let first = self.layout.memstart().0;
        if range.start.0 < first || range.end.0 - first > 1 << (self.setting.geometry.va_bits() - 1) {
            return vec![Wrong::OutOfReach];
        }
        let (text, image) = (self.setting.text(), self.setting.image);
        let mut wrong = Vec::new();
        let mut own = None;
        match op {
            Op::Protect(..) if range.overlaps(text) => return vec![Wrong::ImageText],
            Op::Protect(..) if range.overlaps(image) && !image.covers(range) => {
                return vec![Wrong::PartlyImage];
            }
            Op::Protect(..) if range.overlaps(image) => own = Some(self.shadow.own(range.start)),
            Op::MakeText(_) | Op::MakeData(_) if range.overlaps(image) => return vec![Wrong::ImageText],
            Op::Add(_) => {
                let ram = self.editor.memblock.regions().any(|region| region.range.overlaps(range));
                if ram {
                    return vec![Wrong::Present];
                }
                let no_map = self.setting.no_map.iter().find(|no_map| no_map.overlaps(range));
                return no_map
                    .map(|no_map| Wrong::NoMap(no_map.start.0.max(range.start.0)))
                    .into_iter()
                    .collect();
            }
            Op::Remove(_) if self.editor.memblock.reserved().iter().any(|taken| taken.overlaps(range)) => {
                return vec![Wrong::InUse];
            }
            _ => {}
        }
        let start = own.unwrap_or_else(|| self.shadow.linear(range.start));
        let data = self.setting.data();
        let parts = match op {
            // They leave the image's data out.
            Op::Split(..) | Op::Fold(_) => [
                PaRange::new(range.start, range.end.min(data.start)),
                PaRange::new(range.start.max(data.end), range.end),
            ],
            _ => [range, PaRange::default()],
        };
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let start = start + (part.start.0 - range.start.0);
            if let Some(va) = self.shadow.hole(start, part.len()) {
                wrong.push(self.missing(part.start.0 + (va - start)));
            }
        }
        if matches!(op, Op::Protect(_, Protection::ReadWrite))
            && self.shadow.parts(start, range.len()).iter().any(|(_, part)| part.state.executable)
        {
            wrong.push(Wrong::WritableAndExecutable);
        }
        wrong
    }

    /// Why the page at `pa` is not mapped, by its first byte that must not be.
    fn missing(&self, pa: u64) -> Wrong {
        let no_map = |pa: &u64| self.setting.no_map.iter().any(|no_map| no_map.contains(Pa(*pa)));
        let memory = |pa: &u64| self.editor.memblock.is_memory(Pa(*pa));
        let byte = (pa..pa + self.setting.page()).find(|pa| no_map(pa) || !memory(pa));
        match byte {
            Some(pa) if no_map(&pa) => Wrong::NoMap(pa),
            Some(pa) => Wrong::NotMemory(pa),
            None => Wrong::Other,
        }
    }

    /// Notes what the call does.
    pub fn note(&mut self, op: Op) {
        let image = self.setting.image;
        let shadow = &mut self.shadow;
        match op {
            Op::Protect(range, protection) if image.covers(range) => {
                let change = |state: &mut State| *state = protected(*state, protection);
                shadow.set(shadow.own(range.start), range.len(), change);
            }
            Op::Protect(range, protection) => {
                let start = shadow.linear(range.start);
                shadow.set(start, range.len(), |state| *state = protected(*state, protection));
            }
            Op::MakeText(range) => {
                let start = shadow.linear(range.start);
                let text = |state: &mut State| {
                    *state = State { writable: false, executable: true, ..*state };
                };
                shadow.set(start, range.len(), text);
            }
            Op::MakeData(range) => {
                let start = shadow.linear(range.start);
                shadow.set(start, range.len(), |state| *state = DATA);
            }
            Op::Global(global) => shadow.global = global,
            Op::Add(range) => shadow.add(range),
            Op::Remove(range) => shadow.remove(range),
            Op::Split(..) | Op::Fold(_) | Op::Repaint => {}
        }
    }

    /// The accesses to the page at `va` that succeed, and those that fault.
    pub fn accesses(&self, cpu: usize, va: u64) -> Vec<Event> {
        let kinds = [Use::Read, Use::Write, Use::Execute];
        let found = self.shadow.at(va).filter(|(_, stretch)| stretch.state.valid);
        let allows = |kind| {
            found.filter(|(_, stretch)| match kind {
                Use::Read => true,
                Use::Write => stretch.state.writable,
                Use::Execute => stretch.state.executable,
            })
        };
        let access = |kind| match allows(kind) {
            Some((pa, _)) => Event::Access { cpu, va, kind, pa },
            None => Event::Faults { cpu, va, kind },
        };
        kinds.into_iter().map(access).collect()
    }

    /// What may happen on a page during `op`: the accesses that it does not touch.
    pub fn untouched(&self, op: Op, cpu: usize, va: u64) -> Vec<Event> {
        let Some((pa, _)) = self.shadow.at(va) else {
            let is_in = |range: PaRange| va.wrapping_sub(self.shadow.linear(range.start)) < range.len();
            let is_added = matches!(op, Op::Add(range) if is_in(range));
            return if is_added { Vec::new() } else { self.accesses(cpu, va) };
        };
        let mut accesses = self.accesses(cpu, va);
        match op {
            Op::Protect(range, protection) if range.contains(Pa(pa)) => accesses.retain(|event| {
                let kind = match event {
                    Event::Access { kind, .. } | Event::Faults { kind, .. } => *kind,
                    _ => return false,
                };
                match protection {
                    Protection::ReadOnly | Protection::ReadWrite => kind != Use::Write,
                    Protection::NoExecute => kind != Use::Execute,
                    Protection::Invalid | Protection::Valid => false,
                }
            }),
            Op::MakeText(range) if range.contains(Pa(pa)) => accesses.retain(|event| {
                matches!(event, Event::Access { kind: Use::Read, .. } | Event::Faults { kind: Use::Read, .. })
            }),
            Op::MakeData(range) | Op::Remove(range) | Op::Add(range) if range.contains(Pa(pa)) => {
                accesses.clear();
            }
            _ => {}
        }
        accesses
    }

    /// Addresses at which something begins or ends.
    fn landmarks(&self) -> Vec<u64> {
        let setting = &self.setting;
        let ranges = [setting.image, setting.text(), setting.scratch(), setting.spare, setting.tables];
        let all = setting.ram.iter().chain(&setting.no_map).chain(&ranges);
        let mut marks: Vec<u64> = all.flat_map(|range| [range.start.0, range.end.0]).collect();
        for ram in &setting.ram {
            for level in [Level::L1, Level::L2] {
                let bytes = setting.geometry.entry_bytes(level);
                let inner = ram.align_inward(bytes);
                marks.extend([inner.start.0, inner.end.0, inner.start.0 + inner.len() / 2 / bytes * bytes]);
            }
        }
        marks
    }

    fn random_range(&self, random: &mut Random) -> PaRange {
        let setting = self.setting.clone();
        let page = setting.page();
        let mark = if random.percent(50) {
            random.pick(&self.landmarks())
        } else {
            let ram = random.pick(&setting.ram);
            address_in(random, ram, page)
        };
        let [table, block] = [Level::L2, Level::L1].map(|level| setting.geometry.entry_bytes(level));
        let run = setting.geometry.contiguous_entries(Level::L3).unwrap_or(1) as u64 * page;
        let runs = setting.geometry.contiguous_entries(Level::L2).unwrap_or(1) as u64 * table;
        let shift = random.pick(&[0, 0, page, 3 * page, run, table, 17 * page]);
        let mark = if random.percent(50) { mark.saturating_sub(shift) } else { mark + shift };
        let start = mark / page * page;
        let few = (1 + random.below(40)) * page;
        let len =
            random.pick(&[page, page, 2 * page, few, few, run, table, 2 * table, runs, block.min(1 << 30)]);
        let range = PaRange::new(Pa(start), Pa(start + len));
        match random.below(100) {
            0 => PaRange::new(range.start, range.start),
            1 => PaRange::new(range.start, Pa(range.end.0 + page / 2)),
            2 => PaRange::new(Pa(range.start.0 ^ (page / 2)), range.end),
            3 => {
                PaRange::new(Pa(setting.tables.end.0 + (1 << 47)), Pa(setting.tables.end.0 + (1 << 47) + len))
            }
            4..20 => range,
            // Most are to be ranges that can be changed.
            _ => self.clipped(range, random),
        }
    }

    /// The part of `range`, or of what lies after it, that is mapped memory, and no part of the
    /// image that is needed.
    fn clipped(&self, range: PaRange, random: &mut Random) -> PaRange {
        let setting = &self.setting;
        let mut list = Vec::new();
        for mapped in self.shadow.mapped() {
            let below = PaRange::new(mapped.start, mapped.end.min(setting.image.start));
            let above =
                PaRange::new(mapped.start.max(setting.image.end), mapped.end.min(setting.tables.start));
            list.extend([below, above, mapped.intersection(setting.scratch())]);
        }
        list.retain(|part| !part.is_empty());
        let part = match list.iter().find(|part| part.overlaps(range)) {
            Some(part) => *part,
            None => random.pick(&list),
        };
        let found = part.intersection(range);
        if !found.is_empty() {
            return found;
        }
        PaRange::new(part.start, part.end.min(Pa(part.start.0 + range.len().max(setting.page()))))
    }

    pub fn random_op(&self, random: &mut Random) -> Op {
        const PROTECTIONS: [Protection; 5] = [
            Protection::ReadOnly,
            Protection::ReadWrite,
            Protection::NoExecute,
            Protection::Invalid,
            Protection::Valid,
        ];
        let range = self.random_range(random);
        let tables = self.setting.tables;
        let stack = PaRange::new(self.setting.scratch().end, self.setting.image.end);
        // What the machine needs to run stays as it is.
        let needed = range.overlaps(tables) || range.overlaps(stack);
        match random.below(100) {
            0..46 if !needed => Op::Protect(range, random.pick(&PROTECTIONS)),
            46..53 if !range.overlaps(tables) => Op::MakeText(range),
            53..56 if !range.overlaps(tables) => Op::MakeData(range),
            0..68 => Op::Split(range, random.pick(&[Level::L3, Level::L3, Level::L2])),
            68..80 => Op::Fold(range),
            80..84 => Op::Global(random.pick(&[Global::Global, Global::NonGlobal])),
            84 if random.percent(30) => Op::Repaint,
            84..92 => {
                let spare = self.setting.spare;
                match random.below(4) {
                    0 => Op::Add(range),
                    1 => Op::Add(spare),
                    _ => {
                        let start = address_in(random, spare, self.setting.page());
                        let end = (start + range.len().max(self.setting.page())).min(spare.end.0);
                        Op::Add(PaRange::new(Pa(start), Pa(end)))
                    }
                }
            }
            _ => Op::Remove(range),
        }
    }

    /// The calls that give every page back what it said at first, beginning with those that must
    /// come first.
    pub fn undo(&self) -> Vec<Op> {
        let setting = self.setting.clone();
        let mut ops = Vec::new();
        if self.shadow.global != Global::Global {
            ops.push(Op::Global(Global::Global));
        }
        let page = setting.page();
        let is_now: Vec<_> = self.shadow.memory();
        let mut at_first = linmap_memblock::Memblock::<{ super::REGIONS }>::new();
        setting.ram.iter().for_each(|range| at_first.add(*range).expect("room"));
        setting.no_map.iter().for_each(|range| at_first.mark_no_map(*range).expect("room"));
        let at_first: Vec<PaRange> = at_first.mappable(page).collect();
        // Remove what was added, add again what was removed.
        for (range, _) in &is_now {
            for part in beyond(*range, &at_first) {
                ops.push(Op::Remove(part));
            }
        }
        let now: Vec<PaRange> = is_now.iter().map(|(range, _)| *range).collect();
        for range in &at_first {
            for part in beyond(*range, &now) {
                ops.push(Op::Add(part));
            }
        }
        let kept = is_now.into_iter().flat_map(|(range, state)| {
            at_first.iter().map(move |first| (range.intersection(*first), state)).collect::<Vec<_>>()
        });
        let kept = kept.filter(|(range, _)| !range.is_empty() && !range.overlaps(setting.image));
        let data = setting.data();
        let own = self.shadow.image().into_iter().filter(|(range, _)| range.overlaps(data));
        for (range, state) in kept.chain(own) {
            if !state.valid {
                ops.push(Op::Protect(range, Protection::Valid));
            }
            if state.executable {
                ops.push(Op::Protect(range, Protection::NoExecute));
            }
            if state.writable != DATA.writable {
                ops.push(Op::Protect(range, Protection::ReadWrite));
            }
        }
        ops
    }
}

/// The parts of `range` that lie in none of `others`, which are in ascending order.
fn beyond(range: PaRange, others: &[PaRange]) -> Vec<PaRange> {
    let mut parts = Vec::new();
    let mut next = range.start;
    for other in others.iter().filter(|other| other.overlaps(range)) {
        parts.push(PaRange::new(next, other.start));
        next = next.max(other.end);
    }
    parts.push(PaRange::new(next, range.end));
    parts.retain(|part| !part.is_empty());
    parts
}

/// A random address in `range` that is a multiple of `align`.
pub fn address_in(random: &mut Random, range: PaRange, align: u64) -> u64 {
    let range = range.align_inward(align);
    range.start.0 + random.below((range.len() / align).max(1)) * align
}
