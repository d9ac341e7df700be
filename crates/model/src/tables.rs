//! Which tables a walk can reach, and how tables enter and leave that set.

use crate::cached::{Held, SEEN};
use crate::descriptor::{Entry, is_cacheable, read};
use crate::machine::{Check, EntryPlace, MAX_PLACES, Machine, Root, TableUse, first_cpu};
use crate::rules::Rule;
use crate::space::Space;
use crate::violation::Violation;

impl Machine {
    /// Adds a pointer to a table, which can be walked from now on.
    pub(crate) fn link(&mut self, root: u32, table: u64, level: i8, va: u64) -> Check {
        self.spend()?;
        let list = self.tables.entry(table).or_default();
        if let Some(at) = list.iter_mut().find(|at| (at.root, at.level, at.va) == (root, level, va)) {
            at.references += 1;
            return Ok(());
        }
        list.push(TableUse { root, level, va, references: 1 });
        self.places += 1;
        if !self.freed.is_empty() {
            // It was allocated again.
            self.freed.remove(&(table & !0xfff));
        }
        if list.len() > MAX_PLACES.0 || self.places > MAX_PLACES.1 {
            return Err(Violation::new(Rule::TooComplex).at_va(va).at_pa(table));
        }
        let Root { space, shape, .. } = self.roots[root as usize];
        let entries = shape.entries(level);
        let shift = shape.shift(level);
        let end = table + 8 * entries as u64;
        self.check_ordered_in(root, table, end).map_err(|violation| violation.at_va(va))?;
        let mut page = table;
        while page < end {
            let words = ((0x1000 - page % 0x1000).min(end - page) / 8) as usize;
            if self.passed.any {
                let number = page / 0x1000;
                if let Some(by) = self.passed.unknown_to_linker(number) {
                    return Err(Violation::new(Rule::Unordered).on_cpu(by).at_va(va).at_pa(page));
                }
                if let Some(linker) = self.passed.linker {
                    for (by, epoch) in self.memory.order_page(page, &self.passed.known[linker]) {
                        self.passed.linked[by].insert(number, epoch);
                    }
                }
            }
            if let Some(unknown) = self.memory.first_unknown(page, words) {
                let index = (unknown - table) / 8;
                return Err(Violation::new(Rule::UnknownEntry).at_va(va + (index << shift)).at_pa(unknown));
            }
            self.memory.mark_table(page, true);
            page += 8 * words as u64;
        }
        // The content of each entry now.
        let mut index = 0;
        while index < entries as u64 {
            let pa = table + 8 * index;
            if pa.is_multiple_of(0x1000) && entries as u64 - index >= 512 {
                let at = |nth: u64| EntryPlace { root, level, va: va + (nth << shift), pa: table + 8 * nth };
                let in_step = self.is_page_in_step(root, level, pa);
                if in_step {
                    self.note_global(root, level, self.memory.newest(pa).unwrap_or(0));
                    for nth in [index, index + 511] {
                        let value = self.memory.newest(table + 8 * nth).unwrap_or(0);
                        self.check_well_formed(at(nth), read(shape, space, level, value), value)?;
                    }
                }
                if in_step || self.is_empty_page(pa) {
                    index += 512;
                    continue;
                }
            }
            self.link_entry(EntryPlace { root, level, va: va + (index << shift), pa })?;
            index += 1;
        }
        Ok(())
    }

    /// Checks an entry of a table that a walk can enter from now on.
    fn link_entry(&mut self, place: EntryPlace) -> Check {
        let EntryPlace { root, level, pa, .. } = place;
        let Some(value) = self.memory.newest(pa) else { return Ok(()) };
        if value & 1 == 0 && self.memory.is_settled(pa) {
            return Ok(());
        }
        let entry = self.entry(place, value);
        self.note_global(root, level, value);
        self.check_well_formed(place, entry, value)?;
        match entry {
            Entry::Table(next) => self.link(root, next, level + 1, place.va)?,
            Entry::Leaf(leaf) if leaf.contiguous => self.check_run(place, value, value, entry)?,
            Entry::Leaf(_) | Entry::Invalid => {}
        }
        if self.memory.is_settled(pa) {
            return Ok(());
        }
        self.link_older(place, value)?;
        self.check_against_cached(place, value)
    }

    /// Records the older values that walkers may see at `place`, whose newest value is `newest`,
    /// and compares each with what the same CPUs may hold or walk.
    fn link_older(&mut self, place: EntryPlace, newest: u64) -> Check {
        let EntryPlace { root, level, va, pa } = place;
        let Root { space, shape, .. } = self.roots[root as usize];
        let cpus = self.holders(root);
        // What is wrong with an older value would be right if the newest were ordered before.
        let unordered = |violation: Violation| match violation.rule {
            Rule::TooComplex => violation,
            _ => Violation::new(Rule::Unordered).at_va(va).at_pa(pa),
        };
        let mut older = Vec::new();
        self.memory.seen(pa, |seen| older.extend(seen.filter(|seen| *seen != newest)));
        for old in older.into_iter().filter(|old| is_cacheable(shape, level, *old)) {
            let entry = read(shape, space, level, old);
            self.note_global(root, level, old);
            self.check_well_formed(place, entry, old).map_err(unordered)?;
            let runs = match entry {
                Entry::Leaf(leaf) if leaf.contiguous && shape.run(level) > 0 => cpus,
                _ => 0,
            };
            let (replaced, edit) = (self.now, self.edit);
            let limits = self.limits_at(place)?;
            let held = Held {
                root,
                limits,
                level,
                va,
                value: old,
                since: SEEN,
                cpus,
                runs,
                replaced,
                edit,
                combined: false,
            };
            if let Entry::Table(next) = entry {
                self.link(root, next, level + 1, va).map_err(unordered)?;
            }
            if self.cached.of_mut(space).add(held) {
                self.release(root, level, va, old)?;
            }
            self.check_seen(place, old)?;
        }
        Ok(())
    }

    /// Checks `value`, which walkers may see at `place`, against all that the same CPUs may hold or
    /// walk.
    fn check_seen(&mut self, place: EntryPlace, value: u64) -> Check {
        self.check_against_cached(place, value)?;
        self.check_run(place, value, value, self.entry(place, value))?;
        self.check_against_tree(place, value)
    }

    /// Lets `cpu` walk a tree that other CPUs walk: it sees what they see, older values too.
    pub(crate) fn join(&mut self, root: u32, cpu: usize) -> Check {
        let Root { space, shape, .. } = self.roots[root as usize];
        let own = 1u64 << cpu | self.holders(root);
        let mut seen = Vec::new();
        for held in self.cached.of_mut(space).all_mut() {
            if held.root == root && held.since == SEEN {
                held.cpus |= own;
                held.runs |= if held.runs != 0 { own } else { 0 };
                seen.push(*held);
            }
        }
        for Held { level, va, value, .. } in seen {
            if is_cacheable(shape, level, value) {
                self.check_against_cached(EntryPlace { root, level, va, pa: 0 }, value)?;
            }
        }
        Ok(())
    }

    /// Removes the pointer `value`, if it is one, of an entry at `level`.
    pub(crate) fn release(&mut self, root: u32, level: i8, va: u64, value: u64) -> Check {
        let Root { space, shape, .. } = self.roots[root as usize];
        match read(shape, space, level, value) {
            Entry::Table(table) => self.unlink(root, table, level + 1, va),
            Entry::Invalid | Entry::Leaf(_) => Ok(()),
        }
    }

    /// Removes a pointer to a table.
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
            let known = self.memory.known(table, entries as usize);
            let valid: Vec<_> = known.filter(|(_, value)| value & 1 != 0).collect();
            for (index, value) in valid {
                self.release(root, level, va + (index << shape.shift(level)), value)?;
            }
        }
        if older {
            // From now on no walker reads the table: values that walkers could still see there may
            // at most be cached.
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

    /// Whether another table than `table` lies in the page at `page`: roots can be smaller than a
    /// page.
    pub(crate) fn shares_page(&self, page: u64, table: u64) -> bool {
        let page = page & !0xfff;
        let granule = self.config.granule;
        self.odd_roots
            .iter()
            .chain([&(page & !(granule - 1))])
            .any(|&base| base != table && base < page + 0x1000 && page < self.end_of(base))
    }

    /// The end of the table at `base`; 0 if there is none.
    fn end_of(&self, base: u64) -> u64 {
        let end = |at: &TableUse| base + 8 * self.roots[at.root as usize].shape.entries(at.level) as u64;
        self.tables.get(&base).into_iter().flatten().map(end).max().unwrap_or(0)
    }

    /// Notes that a leaf of the tree of `root` is global, if `value` is one.
    #[inline]
    pub(crate) fn note_global(&mut self, root: u32, level: i8, value: u64) {
        if !self.roots[root as usize].global && value & 1 != 0 {
            let is_global = self.leaf(root, level, value).is_some_and(|leaf| leaf.global);
            self.roots[root as usize].global = is_global;
        }
    }

    /// Whether an address may be translated by either tree on a CPU that holds parts of both: they
    /// are used with one identifier, or one has global leaves.
    pub(crate) fn may_meet(&self, one: u32, other: u32) -> bool {
        self.roots[one as usize].global || self.roots[other as usize].global || self.share_id(one, other)
    }

    /// The number of a root table. Roots are never forgotten: there are few, and records name them.
    pub(crate) fn root(&mut self, space: Space, table: u64, id: u16) -> u32 {
        let shape = self.shapes[space.index()];
        let same = |root: &Root| {
            (root.space, root.shape, root.table, root.id) == (space, shape, table, id)
                && root.retired.is_none()
        };
        let known = self.root_numbers.get(&(space, table, id)).copied();
        if let Some(nth) = known.filter(|nth| same(&self.roots[*nth as usize])) {
            return nth;
        }
        // By another shape, it may have been known before that.
        if let Some(nth) = known.and_then(|_| self.roots.iter().position(same)) {
            self.root_numbers.insert((space, table, id), nth as u32);
            return nth as u32;
        }
        let granule = self.config.granule;
        let odd = !table.is_multiple_of(granule) || 8 * shape.entries(shape.start) as u64 > granule;
        if odd && !self.odd_roots.contains(&table) {
            self.odd_roots.push(table);
        }
        self.spaces |= 1 << space.index();
        let root = Root { space, shape, table, id, cpus: 0, common: false, global: false, retired: None };
        self.roots.push(root);
        let nth = self.roots.len() as u32 - 1;
        self.root_numbers.insert((space, table, id), nth);
        nth
    }

    /// A use of a table in memory from `pa` to `end`: the root, and the violation of freeing it.
    fn use_of(&self, pa: u64, end: u64) -> Option<(u32, Violation)> {
        let granule = self.config.granule;
        let regular = (pa & !(granule - 1)..end).step_by(granule as usize);
        for base in regular.chain(self.odd_roots.iter().copied()) {
            for at in self.tables.get(&base).into_iter().flatten() {
                let root = self.roots[at.root as usize];
                let bytes = 8 * root.shape.entries(at.level) as u64;
                if base < end && pa < base + bytes {
                    let violation = Violation::new(Rule::TableReachable).at_va(at.va).at_pa(base);
                    return Some((at.root, violation.on_cpu(first_cpu(root.cpus))));
                }
            }
        }
        None
    }

    pub(crate) fn free(&mut self, pa: u64, len: u64) -> Check {
        if !(pa | len).is_multiple_of(0x1000) {
            return Err(Violation::new(Rule::NotMemory).at_pa(pa));
        }
        self.check_memory(pa, len)?;
        while let Some((root, violation)) = self.use_of(pa, pa + len) {
            if !self.is_excused(root, &violation)? {
                return Err(violation);
            }
        }
        self.memory.forget(pa, len);
        Ok(())
    }
}
