//! Which identifiers of the generation are in use: one bit each.

use crate::atomic::{AtomicU32, Ordering};
use crate::id_error::IdError;

/// Words for 16 bits of identifiers.
const WORDS: usize = 1 << 11;

/// The identifiers of the present generation. All changes are made under the allocator's lock, so
/// no order of the accesses matters.
#[derive(Debug)]
pub(crate) struct Numbers {
    count: u32,
    /// A bit for each that is in use or reserved.
    used: [AtomicU32; WORDS],
    /// Where the last search ended.
    next: AtomicU32,
    reserved: &'static [u16],
}

impl Numbers {
    /// All identifiers of `bits` bits but the `reserved` ones, of which `needed` must be left.
    pub const fn new(bits: u32, reserved: &'static [u16], cpus: usize) -> Result<Self, IdError> {
        if bits == 0 || bits > 16 {
            return Err(IdError::Width { bits });
        }
        let count = 1u32 << bits;
        let mut used = [const { AtomicU32::new(0) }; WORDS];
        let mut words = [0u32; WORDS];
        let mut usable = count as usize;
        let mut i = 0;
        while i < reserved.len() {
            let id = reserved[i];
            if id as u32 >= count {
                return Err(IdError::NoSuchId { id, bits });
            }
            let (word, bit) = place(id as u32);
            if words[word] & bit == 0 {
                words[word] |= bit;
                usable -= 1;
            }
            used[word] = AtomicU32::new(words[word]);
            i += 1;
        }
        if usable <= cpus {
            return Err(IdError::TooFew { usable, cpus });
        }
        Ok(Self { count, used, next: AtomicU32::new(0), reserved })
    }

    /// Begins a generation in which only the reserved ones are in use.
    pub fn clear(&self) {
        for word in &self.used[..self.count.div_ceil(32) as usize] {
            word.store(0, Ordering::Relaxed);
        }
        for id in self.reserved {
            self.take(*id);
        }
        self.next.store(0, Ordering::Relaxed);
    }

    /// Marks `id` as in use. Returns whether it was free.
    pub fn take(&self, id: u16) -> bool {
        let (word, bit) = place(id.into());
        let before = self.used[word].load(Ordering::Relaxed);
        self.used[word].store(before | bit, Ordering::Relaxed);
        before & bit == 0
    }

    /// Takes one that is free. `None` if all are in use. Searches each word once in a generation:
    /// what lies behind was in use when it was searched, and stays so.
    pub fn take_next(&self) -> Option<u16> {
        let mut at = self.next.load(Ordering::Relaxed);
        while at < self.count {
            let (word, bit) = place(at);
            let free = !self.used[word].load(Ordering::Relaxed) & !(bit - 1);
            if free == 0 {
                at = (at | 31) + 1;
                continue;
            }
            at = at & !31 | free.trailing_zeros();
            if at >= self.count {
                break;
            }
            self.next.store(at + 1, Ordering::Relaxed);
            self.take(at as u16);
            return Some(at as u16);
        }
        self.next.store(self.count, Ordering::Relaxed);
        None
    }
}

const fn place(id: u32) -> (usize, u32) {
    (id as usize / 32, 1 << (id % 32))
}
