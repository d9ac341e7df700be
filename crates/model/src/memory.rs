//! Physical memory, and for every word which values a walker may still see.
//!
//! A store reaches walkers at any time, in any order with other stores, until a DSB of the CPU that
//! stored orders it. Until then a walker may see the new value or any older one that was not ruled
//! out before.

mod epochs;

use std::collections::hash_map::Entry;

use linmap_trace::PAGE;
use rustc_hash::FxHashMap;

use crate::config::Config;

const WORDS: usize = 512;

/// One bit a word of a page.
type Bits = [u64; WORDS / 64];

fn bit(bits: &Bits, word: usize) -> bool {
    bits[word / 64] >> (word % 64) & 1 == 1
}

fn set(bits: &mut Bits, word: usize, value: bool) {
    let mask = 1 << (word % 64);
    if value {
        bits[word / 64] |= mask;
    } else {
        bits[word / 64] &= !mask;
    }
}

/// Sets the bits of `count` words from `first` on.
fn set_range(bits: &mut Bits, first: usize, count: usize) {
    let end = first + count;
    let mut word = first;
    while word < end {
        let stop = (word / 64 * 64 + 64).min(end);
        bits[word / 64] |= (u64::MAX >> (64 - (stop - word))) << (word % 64);
        word = stop;
    }
}

struct Page {
    words: Box<[u64; WORDS]>,
    /// Words whose newest value is known: something was stored.
    known: Bits,
    /// Words that a walker may still see as they were before anything was stored.
    unknown_seen: Bits,
    /// Words with entries in [`Memory::older`].
    older: Bits,
    /// The CPU whose first stores are not ordered yet: all of `unknown_seen` are its own.
    first_by: u8,
    /// The epoch of that CPU's last such store.
    first_epoch: u32,
    /// Whether the page holds a part of a table that can be walked.
    pub table: bool,
}

/// An older value that a walker may still see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Older {
    /// The value; `None` when it is unknown.
    value: Option<u64>,
    /// The CPU that stored what came after it.
    by: u8,
    /// In which of its epochs.
    epoch: u32,
}

/// All of memory.
pub(crate) struct Memory {
    ram: Vec<(u64, u64)>,
    index: FxHashMap<u64, u32>,
    pages: Vec<Page>,
    last: (u64, u32),
    older: FxHashMap<u64, Vec<Older>>,
    /// Emptied lists of older values, to be used again.
    spare: Vec<Vec<Older>>,
    /// Values that a DSB ruled out, while it is carried out.
    dropped: Vec<Option<u64>>,
    /// Per CPU: words with older values that its next DSB rules out, in the order of its stores.
    unordered: Vec<Vec<u64>>,
    /// Per CPU: its present epoch, of those that DMBs and store-releases end.
    epochs: Vec<u32>,
    /// Per CPU: pages whose `unknown_seen` its next DSB clears.
    unordered_first: Vec<Vec<u32>>,
}

/// What a store replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stored {
    /// The value before; `None` when nothing was known of it.
    pub before: Option<u64>,
    /// Whether the page holds a part of a table that can be walked.
    pub table: bool,
    /// The number of older values that walkers may see now.
    pub older: usize,
}

impl Memory {
    pub fn new(config: &Config) -> Self {
        let mut ram = config.ram.clone();
        ram.sort_unstable();
        Self {
            ram,
            index: FxHashMap::default(),
            pages: Vec::new(),
            last: (u64::MAX, 0),
            older: FxHashMap::default(),
            spare: Vec::new(),
            dropped: Vec::new(),
            unordered: vec![Vec::new(); config.cpus],
            epochs: vec![0; config.cpus],
            unordered_first: vec![Vec::new(); config.cpus],
        }
    }

    /// Whether all of `len` bytes from `pa` on are memory.
    pub fn holds(&self, pa: u64, len: u64) -> bool {
        let Some(end) = pa.checked_add(len) else { return false };
        let mut at = pa;
        while at < end {
            let after = self.ram.partition_point(|&(start, _)| start <= at);
            let Some(&(start, len)) = after.checked_sub(1).and_then(|nth| self.ram.get(nth)) else {
                return false;
            };
            if start + len <= at {
                return false;
            }
            at = start + len;
        }
        true
    }

    /// The number of pages that were stored to.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// The page of `pa`, created at its first use.
    fn page(&mut self, pa: u64) -> u32 {
        let number = pa / PAGE;
        if self.last.0 == number {
            return self.last.1;
        }
        let next = self.pages.len() as u32;
        let at = *self.index.entry(number).or_insert(next);
        if at == next {
            self.pages.push(Page {
                words: Box::new([0; WORDS]),
                known: [0; WORDS / 64],
                unknown_seen: [0; WORDS / 64],
                older: [0; WORDS / 64],
                first_by: u8::MAX,
                first_epoch: 0,
                table: false,
            });
        }
        self.last = (number, at);
        at
    }

    fn existing(&self, pa: u64) -> Option<&Page> {
        let number = pa / PAGE;
        let at = if self.last.0 == number { self.last.1 } else { *self.index.get(&number)? };
        self.pages.get(at as usize)
    }

    fn word(pa: u64) -> usize {
        (pa % PAGE / 8) as usize
    }

    /// Stores `value` at `pa`, an aligned word of memory.
    pub fn store(&mut self, cpu: usize, pa: u64, value: u64) -> Stored {
        let at = self.page(pa);
        let word = Self::word(pa);
        let page = &mut self.pages[at as usize];
        let known = bit(&page.known, word);
        let before = known.then_some(page.words[word]);
        let table = page.table;
        page.words[word] = value;
        if !known {
            set(&mut page.known, word, true);
            let by = cpu as u8;
            if page.first_by == u8::MAX {
                page.first_by = by;
                self.unordered_first[cpu].push(at);
            }
            if page.first_by == by {
                page.first_epoch = self.epochs[cpu];
                set(&mut page.unknown_seen, word, true);
                return Stored { before, table, older: 0 };
            }
        } else if before == Some(value) {
            // Storing what is there already changes nothing that a walker can see.
            return Stored { before, table, older: 0 };
        }
        set(&mut page.older, word, true);
        // Of two equal values, the later one stays visible longer.
        let spare = &mut self.spare;
        let older = self.older.entry(pa).or_insert_with(|| spare.pop().unwrap_or_default());
        let replaced = Older { value: before, by: cpu as u8, epoch: self.epochs[cpu] };
        older.retain(|older| (older.value, older.by) != (replaced.value, replaced.by));
        older.push(replaced);
        self.unordered[cpu].push(pa);
        Stored { before, table, older: older.len() }
    }

    /// Gives the word at `pa`, which is known, the value that hardware made of it.
    pub fn update(&mut self, pa: u64, value: u64) {
        let at = self.page(pa);
        self.pages[at as usize].words[Self::word(pa)] = value;
    }

    /// Stores `first`, `first + step` and so on to `count` words from `pa` on, if none of them was
    /// stored to before, all lie in one page, and no walk can enter it. Returns whether it did.
    pub fn store_first(&mut self, cpu: usize, pa: u64, count: usize, first: u64, step: u64) -> bool {
        let at = self.page(pa);
        let word = Self::word(pa);
        let page = &mut self.pages[at as usize];
        let by = cpu as u8;
        let fresh = page.known == [0; WORDS / 64] && (page.first_by == u8::MAX || page.first_by == by);
        let Some(words) = page.words.get_mut(word..word + count).filter(|_| fresh && !page.table) else {
            return false;
        };
        let mut value = first;
        for word in words {
            *word = value;
            value = value.wrapping_add(step);
        }
        set_range(&mut page.known, word, count);
        if page.first_by == u8::MAX {
            page.first_by = by;
            self.unordered_first[cpu].push(at);
        }
        page.first_epoch = self.epochs[cpu];
        page.unknown_seen = page.known;
        true
    }

    /// The newest value at `pa`; `None` when nothing was stored there.
    pub fn newest(&self, pa: u64) -> Option<u64> {
        let page = self.existing(pa)?;
        let word = Self::word(pa);
        bit(&page.known, word).then(|| page.words[word])
    }

    /// Calls `each` with every value that a walker may see at `pa`, the newest first, and with
    /// `None` for an unknown one.
    pub fn seen(&self, pa: u64, mut each: impl FnMut(Option<u64>)) {
        let Some(page) = self.existing(pa) else { return each(None) };
        let word = Self::word(pa);
        each(bit(&page.known, word).then(|| page.words[word]));
        if bit(&page.unknown_seen, word) {
            each(None);
        }
        if bit(&page.older, word) {
            for older in self.older.get(&pa).into_iter().flatten() {
                each(older.value);
            }
        }
    }

    /// Whether a walker can see nothing but the newest value at `pa`.
    pub fn is_settled(&self, pa: u64) -> bool {
        let Some(page) = self.existing(pa) else { return false };
        let word = Self::word(pa);
        bit(&page.known, word) && !bit(&page.unknown_seen, word) && !bit(&page.older, word)
    }

    /// Whether a walker can see nothing but the newest values in the page of `pa`, all of which are
    /// known.
    pub fn is_settled_page(&self, pa: u64) -> bool {
        self.existing(pa).is_some_and(|page| {
            page.known == [u64::MAX; WORDS / 64]
                && page.unknown_seen == [0; WORDS / 64]
                && page.older == [0; WORDS / 64]
        })
    }

    /// The first of `count` words from `pa`, all in one page, that a walker may see with an unknown
    /// value.
    pub fn first_unknown(&self, pa: u64, count: usize) -> Option<u64> {
        let Some(page) = self.existing(pa) else { return Some(pa) };
        let first = Self::word(pa);
        // Whole groups at a time: a table that is linked is almost always whole.
        let mut word = first;
        while word < first + count {
            if word.is_multiple_of(64)
                && first + count - word >= 64
                && page.known[word / 64] == u64::MAX
                && page.unknown_seen[word / 64] == 0
                && page.older[word / 64] == 0
            {
                word += 64;
                continue;
            }
            let at = pa + 8 * (word - first) as u64;
            let mut unknown = false;
            self.seen(at, |value| unknown |= value.is_none());
            if unknown {
                return Some(at);
            }
            word += 1;
        }
        None
    }

    /// The newest values of the words from `pa` on that lie in one page.
    pub fn words(&self, pa: u64, count: usize) -> &[u64] {
        let first = Self::word(pa);
        self.existing(pa).map_or(&[], |page| &page.words[first..(first + count).min(WORDS)])
    }

    /// Those of `count` words from `pa` on that are known: their numbers and newest values.
    pub fn known(&self, pa: u64, count: usize) -> impl Iterator<Item = (u64, u64)> {
        let end = pa + 8 * count as u64;
        let next = move |at: &u64| Some((at / PAGE + 1) * PAGE).filter(|next| *next < end);
        let pages = std::iter::successors(Some(pa), next);
        pages.filter_map(|at| Some((at, self.existing(at)?))).flat_map(move |(at, page)| {
            let first = Self::word(at);
            let last = (first + ((end - at) / 8) as usize).min(WORDS);
            let known = (first..last).filter(|word| bit(&page.known, *word));
            known.map(move |word| ((at - pa) / 8 + (word - first) as u64, page.words[word]))
        })
    }

    /// The words of the page of `pa`, and which of them are known.
    pub fn stored_page(&self, pa: u64) -> Option<(&[u64], &[u64])> {
        self.existing(pa).map(|page| (&page.words[..], &page.known[..]))
    }

    /// Whether any word of the page of `pa` has older values that a walker may see.
    pub fn any_older(&self, pa: u64) -> bool {
        self.existing(pa).is_some_and(|page| page.older != [0; WORDS / 64])
    }

    /// Whether the page of `pa` holds a part of a table that can be walked.
    pub fn is_table(&self, pa: u64) -> bool {
        self.existing(pa).is_some_and(|page| page.table)
    }

    /// The CPU that made first stores to the page of `pa` which are not ordered: a set.
    pub fn first_by(&self, pa: u64) -> u64 {
        self.existing(pa).filter(|page| page.first_by != u8::MAX).map_or(0, |page| 1 << page.first_by)
    }

    /// The CPUs whose stores to the word at `pa` are not ordered: a set.
    pub fn storing(&self, pa: u64) -> u64 {
        self.older.get(&pa).into_iter().flatten().fold(0, |cpus, older| cpus | 1 << older.by)
    }

    /// Takes every word of the page of `pa` that is unknown as 0, and as seen by every walker.
    pub fn make_known(&mut self, pa: u64) {
        let at = self.page(pa);
        let page = &mut self.pages[at as usize];
        for word in 0..WORDS {
            if !bit(&page.known, word) {
                page.words[word] = 0;
            }
        }
        page.known = [u64::MAX; WORDS / 64];
        page.unknown_seen = [0; WORDS / 64];
        for older in self.older.values_mut() {
            older.retain(|older| older.value.is_some());
        }
    }

    /// Sets whether the page of `pa` holds a part of a table that can be walked.
    pub fn mark_table(&mut self, pa: u64, table: bool) {
        let at = self.page(pa);
        self.pages[at as usize].table = table;
    }

    /// Words with a store that is not ordered yet, without first stores.
    pub fn unordered(&self) -> impl Iterator<Item = u64> {
        self.older.keys().copied()
    }

    /// Orders all stores of `cpu`: from here on no walker sees what they replaced. Calls `gone`
    /// with every word of a table that was stored to again, and with the values that no walker sees
    /// any longer, in the order of the stores.
    pub fn order(&mut self, cpu: usize, mut gone: impl FnMut(&Self, u64, &[Option<u64>])) {
        for at in std::mem::take(&mut self.unordered_first[cpu]) {
            let page = &mut self.pages[at as usize];
            // It may have been ordered when it was linked, and stored to by another CPU since.
            if usize::from(page.first_by) == cpu {
                page.unknown_seen = [0; WORDS / 64];
                page.first_by = u8::MAX;
            }
        }
        let words = std::mem::take(&mut self.unordered[cpu]);
        self.order_words(cpu, &words, u32::MAX, &mut gone);
        // Reuses the buffer.
        if self.unordered[cpu].is_empty() {
            let mut words = words;
            words.clear();
            self.unordered[cpu] = words;
        }
    }

    /// The words whose older values the next DSB of `cpu` rules out. Another CPU may have stored
    /// over them since and ordered that.
    pub fn unordered_by(&self, cpu: usize) -> impl Iterator<Item = u64> {
        let is_own = move |older: &Older| usize::from(older.by) == cpu;
        let words = self.unordered[cpu].iter().copied();
        words.filter(move |pa| self.older.get(pa).is_some_and(|older| older.iter().any(is_own)))
    }

    /// Does what [`Self::order`] does, for these words alone.
    pub fn order_some(
        &mut self,
        cpu: usize,
        words: &[u64],
        mut gone: impl FnMut(&Self, u64, &[Option<u64>]),
    ) {
        self.unordered[cpu].retain(|pa| !words.contains(pa));
        self.order_words(cpu, words, u32::MAX, &mut gone);
    }

    /// Orders stores of `cpu` to `words` before the epoch `until`.
    fn order_words(
        &mut self,
        cpu: usize,
        words: &[u64],
        until: u32,
        gone: &mut impl FnMut(&Self, u64, &[Option<u64>]),
    ) {
        let is_ordered = |older: &Older| usize::from(older.by) == cpu && older.epoch < until;
        let mut dropped = std::mem::take(&mut self.dropped);
        for &pa in words {
            let Entry::Occupied(mut entry) = self.older.entry(pa) else { continue };
            // In the order of coherence: no value from before this CPU's last store to the word is
            // visible.
            let older = entry.get_mut();
            let Some(last) = older.iter().rposition(is_ordered) else { continue };
            dropped.clear();
            dropped.extend(older.drain(..=last).map(|older| older.value));
            let ruled_out = older.is_empty();
            if ruled_out {
                self.spare.push(entry.remove());
            }
            let at = self.page(pa);
            let page = &mut self.pages[at as usize];
            if ruled_out {
                set(&mut page.older, Self::word(pa), false);
            }
            // What no walk can enter nothing was recorded of.
            if page.table {
                gone(self, pa, &dropped);
            }
        }
        self.dropped = dropped;
    }

    /// Makes the content of `len` bytes from `pa` unknown.
    pub fn forget(&mut self, pa: u64, len: u64) {
        let mut at = pa;
        while at < pa + len {
            if let Some(&page) = self.index.get(&(at / PAGE)) {
                let page = &mut self.pages[page as usize];
                if at.is_multiple_of(PAGE) && pa + len - at >= PAGE && page.older == [0; WORDS / 64] {
                    page.known = [0; WORDS / 64];
                    page.unknown_seen = [0; WORDS / 64];
                    at += PAGE;
                    continue;
                }
                let word = Self::word(at);
                set(&mut page.known, word, false);
                set(&mut page.unknown_seen, word, false);
                if bit(&page.older, word) {
                    set(&mut page.older, word, false);
                    self.older.remove(&at);
                }
                at += 8;
            } else {
                at = (at / PAGE + 1) * PAGE;
            }
        }
    }
}
