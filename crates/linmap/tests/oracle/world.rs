//! A linear map in host memory, and the oracle beside it.

use linmap::{Changed, ImageParts, Layout, LinearMap, MemoryError, Protection};
use linmap_live::{Global, Half, LiveTree, Step};
use linmap_memblock::Memblock;
use linmap_table::{DetachedTree, LeafIter, Leaves, Mapping, Mappings, ReachableFrames, TableWindow};
use linmap_vmsa::{Access, Attributes, Descriptor, Level, Pa, PaRange, Va};

use crate::arena::Arena;
use crate::edit::Edit;
use crate::kernel::{HostCpu, Kernel};
use crate::pages::{Pages, State, Stretch};
use crate::setting::Setting;

/// Frames that a world has.
const FRAMES: u64 = 160;

pub struct World {
    pub setting: Setting,
    pub kernel: Kernel,
    pub map: LinearMap,
    pub layout: Layout,
    pub pages: Pages,
    steps: Vec<Step>,
}

/// What a walk of the tables finds.
#[derive(Default)]
struct Found {
    pages: Pages,
    tables: u64,
    wrong: Option<String>,
}

fn leaf_state(bits: u64, offset: u64) -> State {
    let attributes = Attributes {
        access: if bits >> 7 & 1 == 1 { Access::KernelReadOnly } else { Access::KernelReadWrite },
        ..Attributes::KERNEL_DATA
    };
    State {
        valid: bits & 1 == 1,
        writable: attributes.access.writable(),
        executable: bits >> 53 & 1 == 0,
        global: bits >> 11 & 1 == 0,
        offset,
    }
}

impl World {
    pub fn new(setting: &Setting) -> Self {
        let geometry = setting.geometry;
        let mut memblock = Box::new(Memblock::new());
        setting.memory.iter().for_each(|range| memblock.add(*range).expect("room"));
        memblock.reserve(setting.image).expect("room");
        let layout = Layout::new(geometry, PaRange::new(setting.memory[0].start, Pa(setting.end())))
            .expect("in reach");
        let mut arena = Arena::new(geometry.granule(), FRAMES);
        let list = mappings(setting, &layout);
        let mappings = Mappings::new(geometry, &list).expect("a list that a builder takes");
        let mut window = arena.window();
        // SAFETY: the window reaches the arena.
        let tree =
            DetachedTree::build(&mappings, &mut unsafe { ReachableFrames::new(&mut window, &mut arena) });
        let root = tree.expect("frames enough").root();
        // SAFETY: nothing walks the tree, and only this value changes it.
        let tree = unsafe { LiveTree::new(geometry, root, Half::High, setting.bbm) };
        let image =
            ImageParts { read_only: setting.read_only(), data: setting.data(), va: Va(setting.image_va()) };
        // SAFETY: the tree holds the linear map and the image; the kernel reaches the arena.
        let mut map = unsafe { LinearMap::new(tree, layout, image, setting.leaves) };
        // SAFETY: nothing walks the tree.
        unsafe { map.rely_on(setting.bbm, setting.ranges) };
        let mut pages = Pages::default();
        for mapping in &list {
            pages.push(Stretch {
                first: mapping.va.0,
                last: mapping.va.0 + (mapping.len - 1),
                state: State {
                    valid: true,
                    writable: mapping.attributes.access.writable(),
                    executable: false,
                    global: true,
                    offset: mapping.pa.0.wrapping_sub(mapping.va.0),
                },
            });
        }
        let kernel = Kernel { arena, memblock, cpu: HostCpu, stubborn: false };
        let steps = vec![Step::Isb; setting.steps];
        let world = Self { setting: setting.clone(), kernel, map, layout, pages, steps };
        world.agree().expect("what was built");
        world
    }

    /// Makes `edit`, and says what it did to the map.
    pub fn call(&mut self, edit: Edit) -> Result<Changed, MemoryError> {
        let Self { map, kernel, steps, .. } = self;
        Ok(match edit {
            // SAFETY: nothing walks the tables, so no memory is mapped by them. This holds of all
            // changes below.
            Edit::Protect(range, protection) => unsafe { map.protect(kernel, steps, range, protection) }?,
            // SAFETY: as above.
            Edit::MakeText(range) => unsafe { map.make_text(kernel, steps, range) }?,
            // SAFETY: as above.
            Edit::MakeData(range) => unsafe { map.make_data(kernel, steps, range) }?,
            Edit::Split(range, to) => map.split(kernel, steps, range, to)?,
            Edit::Fold(range) => map.fold(kernel, steps, range)?,
            Edit::KeepPages(range) => map.keep_pages(kernel, steps, range)?,
            Edit::AllowBlocks(range) => map.allow_blocks(range).map(|()| Changed::default())?,
            // SAFETY: as above.
            Edit::Add(range) => unsafe { map.add_memory(kernel, steps, range) }?,
            // SAFETY: as above.
            Edit::Remove(range) => unsafe { map.remove_memory(kernel, steps, range) }?,
            Edit::Global(global) => map.set_global(kernel, steps, global)?,
            Edit::Repaint => map.repaint(kernel, steps)?,
        })
    }

    /// Notes in the oracle what `edit`, which was made, does.
    pub fn note(&mut self, edit: Edit) {
        let ends = |range: PaRange| {
            let first = self.layout.linear(range.start).0;
            (first, first + (range.len() - 1))
        };
        match edit {
            Edit::Protect(range, _) if self.setting.data().covers(range) => {
                let first = self.setting.image_va() + (range.start.0 - self.setting.image.start.0);
                self.pages.change(first, first + (range.len() - 1), |state| edit.of(state));
            }
            Edit::Protect(range, _) | Edit::MakeText(range) | Edit::MakeData(range) => {
                let (first, last) = ends(range);
                self.pages.change(first, last, |state| edit.of(state));
            }
            Edit::Global(_) => self.pages.change(0, u64::MAX, |state| edit.of(state)),
            Edit::Add(range) => {
                let (first, last) = ends(range);
                let state = State {
                    valid: true,
                    writable: true,
                    executable: false,
                    global: self.map.global() == Global::Global,
                    offset: range.start.0.wrapping_sub(first),
                };
                self.pages.map(first, last, state);
            }
            Edit::Remove(range) => {
                let (first, last) = ends(range);
                self.pages.unmap(first, last);
            }
            Edit::Split(..) | Edit::Fold(_) | Edit::KeepPages(_) | Edit::AllowBlocks(_) | Edit::Repaint => {}
        }
    }

    /// Whether nothing about `edit` itself is wrong.
    pub fn is_right(&self, edit: Edit) -> bool {
        let is_one =
            edit.range().is_none_or(|range| self.layout.memstart() <= range.start && !range.is_empty());
        is_one && self.is_right_in_reach(edit)
    }

    fn is_right_in_reach(&self, edit: Edit) -> bool {
        let page = self.setting.page();
        let is_pages = |range: PaRange| !range.is_empty() && (range.start.0 | range.end.0) & (page - 1) == 0;
        let ends = |range: PaRange| {
            let first = self.layout.linear(range.start).0;
            (first, first + (range.len() - 1))
        };
        let is_memory = |range: PaRange| {
            let (first, last) = ends(range);
            is_pages(range) && self.pages.covers(first, last)
        };
        match edit {
            Edit::Protect(range, protection) => {
                let (first, last) = match self.setting.data().covers(range) && is_pages(range) {
                    true => {
                        let first = self.setting.image_va() + (range.start.0 - self.setting.image.start.0);
                        (first, first + (range.len() - 1))
                    }
                    false if range.overlaps(self.setting.image) => return false,
                    false if !is_memory(range) => return false,
                    false => ends(range),
                };
                let executable =
                    self.pages.within(first, last).iter().any(|stretch| stretch.state.executable);
                !(protection == Protection::ReadWrite && executable)
            }
            Edit::MakeText(range) | Edit::MakeData(range) | Edit::Remove(range) => {
                is_memory(range) && !range.overlaps(self.setting.image)
            }
            // They leave the image's data out.
            Edit::Split(range, _) | Edit::Fold(range) | Edit::KeepPages(range) => {
                let data = self.setting.data();
                let below = PaRange::new(range.start, range.end.min(data.start));
                let above = PaRange::new(range.start.max(data.end), range.end);
                is_pages(range) && [below, above].into_iter().all(|part| part.is_empty() || is_memory(part))
            }
            Edit::Add(range) => {
                is_pages(range) && !range.overlaps(self.setting.data()) && {
                    let (first, last) = ends(range);
                    self.pages.within(first, last).is_empty()
                }
            }
            Edit::AllowBlocks(range) => is_pages(range),
            Edit::Global(_) | Edit::Repaint => true,
        }
    }

    /// The edits after which every page is as it was built.
    pub fn undo(&self, built: &Pages) -> Vec<Edit> {
        let linear = |range: PaRange| (self.layout.linear(range.start).0, range.len());
        let range = |first: u64, last: u64| {
            let start = first.wrapping_sub(self.layout.offset());
            PaRange::new(Pa(start), Pa(start + (last - first) + 1))
        };
        let image = self.setting.image;
        let mut edits = vec![Edit::Global(Global::Global)];
        let first = Layout::base(self.setting.geometry).0;
        let last = first + ((1 << (self.setting.geometry.va_bits() - 1)) - 1);
        for stretch in self.pages.within(first, last) {
            for part in beyond(built, stretch.first, stretch.last) {
                edits.push(Edit::Remove(range(part.0, part.1)));
            }
        }
        for memory in &self.setting.memory {
            let data = self.setting.data();
            let below = PaRange::new(memory.start, memory.end.min(data.start));
            let above = PaRange::new(memory.start.max(data.end), memory.end);
            for (first, len) in [below, above].into_iter().filter(|part| !part.is_empty()).map(linear) {
                for part in beyond(&self.pages, first, first + (len - 1)) {
                    edits.push(Edit::Add(range(part.0, part.1)));
                }
            }
            let below = PaRange::new(memory.start, memory.end.min(image.start));
            let above = PaRange::new(memory.start.max(image.end), memory.end);
            edits.extend([below, above].into_iter().filter(|part| !part.is_empty()).map(Edit::MakeData));
        }
        let data = self.setting.data();
        let own = [Protection::Valid, Protection::NoExecute, Protection::ReadWrite];
        edits.extend(own.map(|protection| Edit::Protect(data, protection)));
        edits.extend(self.map.pages().iter().map(Edit::AllowBlocks));
        edits.extend(self.setting.memory.iter().copied().map(Edit::Fold));
        edits
    }

    /// Every leaf but those of the alias of the image's text, which stays split: its address, its
    /// level and its bits.
    pub fn leaves(&self) -> Vec<(u64, Level, u64)> {
        let image = self.layout.linear(self.setting.image.start).0;
        let mut leaves = Vec::new();
        let mut window = self.kernel.arena.window();
        let (geometry, tree) = (self.setting.geometry, self.map.tree());
        // SAFETY: the window reaches the arena, where all tables are.
        let iter =
            unsafe { LeafIter::new(geometry, tree.root(), geometry.start_level(), tree.base(), &mut window) };
        for leaf in iter {
            if leaf.va.0.wrapping_sub(image) >= self.setting.image.len() {
                leaves.push((leaf.va.0, leaf.level, leaf.descriptor.0));
            }
        }
        leaves
    }

    /// Makes edits that need neither few steps nor few frames.
    pub fn has_room(&mut self) {
        self.steps = vec![Step::Isb; 1 << 14];
        self.kernel.arena.left = u64::MAX;
        self.kernel.stubborn = false;
    }

    /// Compares the tables with the oracle, and the frames that are out with the tables.
    pub fn agree(&self) -> Result<(), String> {
        let mut found = Found::default();
        let geometry = self.setting.geometry;
        self.visit(self.map.tree().root(), geometry.start_level(), self.map.tree().base().0, &mut found);
        if let Some(wrong) = found.wrong {
            return Err(wrong);
        }
        if found.pages != self.pages {
            let (is, said) = (found.pages.stretches(), self.pages.stretches());
            let different = (0..).find(|nth| is.get(*nth) != said.get(*nth)).unwrap_or(0);
            return Err(format!("{:x?} should be {:x?}", is.get(different), said.get(different)));
        }
        if found.tables != self.kernel.arena.out() {
            return Err(format!("{} tables, and {} frames are out", found.tables, self.kernel.arena.out()));
        }
        Ok(())
    }

    fn visit(&self, table: Pa, level: Level, base: u64, found: &mut Found) {
        let geometry = self.setting.geometry;
        let mut window = self.kernel.arena.window();
        // SAFETY: the table is one of the tree's, in the arena.
        let pointer = unsafe { window.open(level, table) };
        found.tables += 1;
        let shift = geometry.shift(level);
        let count = geometry.entries(level);
        // SAFETY: an open table has this many entries, and nothing changes them.
        let entries = unsafe { std::slice::from_raw_parts(pointer.as_ptr(), count) };
        let mut before = 0u64;
        for (index, bits) in entries.iter().enumerate() {
            // Most entries continue the one before, outside of runs.
            let continues = before & 1 << 52 == 0 && before.wrapping_add(1 << shift) == *bits;
            if *bits == 0 || (before != 0 && continues && level == Level::L3) {
                if *bits != 0 {
                    found.pages.extend(1 << shift);
                }
                before = *bits;
                continue;
            }
            before = *bits;
            let va = base + ((index as u64) << shift);
            let descriptor = Descriptor(*bits);
            if let (Some(next), Some(below)) = (level.next(), descriptor.next_table(geometry)) {
                self.visit(below, next, va, found);
                continue;
            }
            let Some(pa) = leaf_address(geometry, level, descriptor) else {
                found.wrong.get_or_insert(format!("{va:#x} is {bits:#x} at level {level}"));
                continue;
            };
            let state = leaf_state(*bits, pa.wrapping_sub(va));
            found.pages.push(Stretch { first: va, last: va + ((1u64 << shift) - 1), state });
            let is_kept =
                va < self.setting.image_va() && self.map.pages().iter().any(|range| range.contains(Pa(pa)));
            if is_kept && (level != Level::L3 || descriptor.is_contiguous()) {
                found.wrong.get_or_insert(format!("{va:#x} is {bits:#x} at level {level}: no page"));
            }
            if descriptor.is_contiguous() && !is_run(geometry, level, entries, index) {
                found.wrong.get_or_insert(format!("the run at {va:#x} is not one: {bits:#x}"));
            }
        }
    }
}

fn leaf_address(geometry: linmap_vmsa::Geometry, level: Level, descriptor: Descriptor) -> Option<u64> {
    match Descriptor(descriptor.0 | 1).decode(geometry, level) {
        linmap_vmsa::Decoded::Leaf(pa) => Some(pa.0),
        _ => None,
    }
}

/// Whether the run that entry `index` says it belongs to is one.
fn is_run(geometry: linmap_vmsa::Geometry, level: Level, entries: &[u64], index: usize) -> bool {
    let Some(run) = geometry.contiguous_entries(level) else { return false };
    let start = index / run * run;
    let Some(whole) = entries.get(start..start + run) else { return false };
    let aligned = leaf_address(geometry, level, Descriptor(whole[0]))
        .is_some_and(|pa| pa.is_multiple_of((run as u64) << geometry.shift(level)));
    let consecutive =
        |(nth, bits): (usize, &u64)| *bits == whole[0] + ((nth as u64) << geometry.shift(level));
    aligned && whole.iter().enumerate().all(consecutive)
}

/// The linear map of all memory, and the image's own mapping in pages.
fn mappings(setting: &Setting, layout: &Layout) -> Vec<Mapping> {
    let mut list = Vec::new();
    let mut push = |part: PaRange, va: u64, attributes, leaves| {
        if !part.is_empty() {
            list.push(Mapping { va: Va(va), pa: part.start, len: part.len(), attributes, leaves });
        }
    };
    let alias = if setting.leaves == Leaves::ContiguousBlocks { Leaves::Blocks } else { setting.leaves };
    for memory in &setting.memory {
        let below = PaRange::new(memory.start, memory.end.min(setting.image.start));
        let above = PaRange::new(memory.start.max(setting.image.end), memory.end);
        let linear = |pa: Pa| layout.linear(pa).0;
        push(below, linear(below.start), Attributes::KERNEL_DATA, setting.leaves);
        let text = memory.intersection(setting.read_only());
        push(text, linear(text.start), Attributes::KERNEL_RODATA, alias);
        push(above, linear(above.start), Attributes::KERNEL_DATA, setting.leaves);
    }
    let own = setting.image_va();
    push(setting.read_only(), own, Attributes::KERNEL_RODATA, Leaves::Pages);
    push(setting.data(), own + setting.read_only, Attributes::KERNEL_DATA, Leaves::Pages);
    list
}

/// The parts of `first..=last` that `pages` has nothing at.
fn beyond(pages: &Pages, first: u64, last: u64) -> Vec<(u64, u64)> {
    let mut parts = Vec::new();
    let mut next = first;
    for stretch in pages.within(first, last) {
        if next < stretch.first {
            parts.push((next, stretch.first - 1));
        }
        next = stretch.last + 1;
    }
    if next <= last {
        parts.push((next, last));
    }
    parts
}
