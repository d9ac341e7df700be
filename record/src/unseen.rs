//! Stores that raise no callback: DC ZVA and its kin, and the memory copies and sets of FEAT_MOPS.
//!
//! What they store to follows from their registers before they execute. What they stored is read
//! back before the next event.

use crate::instruction::Stage;
use crate::place::Place;
use crate::readable::Readable;
use crate::recorder::{CurrentCpu, Recorder};
use crate::waiting::Unseen;

/// The most pages of one instruction.
const MOST_PAGES: u64 = 1 << 12;
/// The most pages whose content before is kept. Tables are cleared and copied one at a time.
const MOST_REPLACED: usize = 1 << 6;

/// The bytes that an instruction of FEAT_MOPS stores to, as start and length, by its registers
/// before it executes: the destination, what is left, and PSTATE. Which of the two options an
/// implementation takes shows in PSTATE.C behind the first stage (Arm ARM C6.2, CPYP and SETP).
fn range(stage: Stage, is_copy: bool, to: u64, left: u64, pstate: u64) -> (u64, u64) {
    /// A copy is of 55 bits at most.
    const MOST_COPIED: u64 = (1 << 55) - 1;
    let [is_negative, carries] = [31, 29].map(|bit| pstate >> bit & 1 == 1);
    match stage {
        Stage::Prologue if is_copy => (to, left.min(MOST_COPIED)),
        Stage::Prologue => (to, left.min(i64::MAX as u64)),
        Stage::Other if carries && is_copy && is_negative => (to.wrapping_sub(left), left),
        Stage::Other if carries => (to, left),
        // Up to an end: what is left counts up to 0.
        Stage::Other if (left as i64) < 0 => (to.wrapping_add(left), left.wrapping_neg()),
        // Down from the end.
        Stage::Other if is_copy => (to, left),
        Stage::Other => (to, 0),
    }
}

impl Recorder {
    /// `cpu` is about to clear the block of `va`, as large as DCZID_EL0 says.
    pub(crate) fn zero(&mut self, cpu: usize, pc: u64, va: u64, own: &dyn CurrentCpu) {
        let block = 4 << own.system(Readable::Dczid).map_or(4, |dczid| dczid & 0xf);
        self.unseen(cpu, pc, (va & !(block - 1), block), Some(0), own);
    }

    /// `cpu` is about to execute a memory set.
    pub(crate) fn set(&mut self, cpu: usize, pc: u64, stage: Stage, of: [u64; 3], own: &dyn CurrentCpu) {
        let [to, left, value] = of;
        let range = range(stage, false, to, left, own.system(Readable::Pstate).unwrap_or(0));
        self.unseen(cpu, pc, range, Some((value & 0xff) * 0x0101_0101_0101_0101), own);
    }

    /// `cpu` is about to execute a memory copy.
    pub(crate) fn copy(&mut self, cpu: usize, pc: u64, stage: Stage, of: [u64; 2], own: &dyn CurrentCpu) {
        let [to, left] = of;
        let range = range(stage, true, to, left, own.system(Readable::Pstate).unwrap_or(0));
        self.unseen(cpu, pc, range, None, own);
    }

    /// Takes down what an instruction is about to store to.
    fn unseen(&mut self, cpu: usize, pc: u64, range: (u64, u64), value: Option<u64>, own: &dyn CurrentCpu) {
        if self.started.is_none() {
            return;
        }
        self.settle_unseen(None);
        let (start, len) = range;
        let place = Place::of(own);
        let first = start & !0xfff;
        let end = u128::from(start) + u128::from(len);
        let mut unseen = Unseen { cpu, pc, value, pieces: Vec::new(), replaced: Vec::new() };
        for page in (0..MOST_PAGES).map(|nth| u128::from(first) + u128::from(nth << 12)) {
            if page >= end {
                break;
            }
            let va = page as u64;
            let cached = self.cpus[cpu].zeroed.filter(|(last, _)| *last == va >> 12);
            let pa = cached.map(|(_, pa)| pa).or_else(|| self.translate(cpu, va, place.regime()));
            let Some(pa) = pa else { continue };
            self.cpus[cpu].zeroed = Some((va >> 12, pa));
            let is_followed = self.frames.get_mut(self.frames.of(pa)).is_some();
            // A page that user space stores to is cleared before it is a table.
            if !is_followed && place.el == 0 {
                continue;
            }
            let from = u128::from(start).max(page) - page;
            let to = end.min(page + 0x1000) - page;
            let piece = (pa + from as u64, (to - from) as u64);
            if !is_followed && unseen.pieces.len() < MOST_REPLACED {
                let words = (piece.0 & !7..piece.0 + piece.1).step_by(8);
                let valid = words.filter_map(|pa| Some((pa, self.word(pa).filter(|word| word & 1 == 1)?)));
                unseen.replaced.extend(valid);
            }
            unseen.pieces.push(piece);
        }
        if !unseen.pieces.is_empty() {
            self.unseen = Some(unseen);
        }
    }

    /// Records what the last instruction that raises no callback has stored by now. A store that
    /// was seen behind it covers `covered`, first byte and length.
    pub fn settle_unseen(&mut self, covered: Option<(u64, u64)>) {
        let Some(Unseen { cpu, pc, value, pieces, replaced }) = self.unseen.take() else { return };
        let actor = std::mem::replace(&mut self.actor, cpu);
        let is_covered = |pa: u64| covered.is_some_and(|(at, len)| at < pa + 8 && pa < at + len);
        let mut replaced = replaced.into_iter().peekable();
        for (start, len) in pieces {
            let frame = self.frames.of(start);
            let is_followed = self.frames.get_mut(frame).is_some();
            let mut words = Vec::new();
            for pa in (start & !7..start + len).step_by(8) {
                let before = replaced.next_if(|(at, _)| *at == pa);
                let Some(now) = self.word(pa) else { continue };
                // Not all of the word may be stored to.
                let is_whole = start <= pa && pa + 8 <= start + len;
                let value = match value {
                    Some(value) if is_whole && (now == value || is_covered(pa)) => value,
                    // It faulted, or was interrupted before.
                    Some(_) if is_whole => continue,
                    _ => now,
                };
                if is_followed && self.stays_followed(frame, value) {
                    if self.stored(frame, pa, value) {
                        words.push((pa, value));
                    }
                    continue;
                }
                if let Some((_, before)) = before {
                    self.log.replaced(cpu, pc, pa, before);
                }
                self.log.store(cpu, pc, pa, value);
            }
            if !words.is_empty() {
                self.put_words(cpu, Some(pc), &words);
                self.has_stored(cpu);
                self.touched.push(frame);
            }
        }
        self.actor = actor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_copy_or_set_stores_to_follows_from_its_registers() {
        const CARRY: u64 = 1 << 29;
        const NEGATIVE: u64 = 1 << 31;
        let minus = |value: u64| value.wrapping_neg();
        for (stage, is_copy, to, left, pstate, expected) in [
            (Stage::Prologue, false, 0x1000, 0x200, CARRY, (0x1000, 0x200)),
            (Stage::Prologue, true, 0x1000, u64::MAX, 0, (0x1000, (1 << 55) - 1)),
            // The first option: to an end, or down to a start.
            (Stage::Other, false, 0x1200, minus(0x1c0), 0, (0x1040, 0x1c0)),
            (Stage::Other, true, 0x1200, minus(0x1c0), 0, (0x1040, 0x1c0)),
            (Stage::Other, true, 0x1000, 0x1c0, 0, (0x1000, 0x1c0)),
            (Stage::Other, false, 0x1200, 0, 0, (0x1200, 0)),
            // The second.
            (Stage::Other, false, 0x1040, 0x1c0, CARRY, (0x1040, 0x1c0)),
            (Stage::Other, true, 0x1040, 0x1c0, CARRY, (0x1040, 0x1c0)),
            (Stage::Other, true, 0x1200, 0x1c0, CARRY | NEGATIVE, (0x1040, 0x1c0)),
        ] {
            assert_eq!(range(stage, is_copy, to, left, pstate), expected, "{to:#x} {left:#x} {pstate:#x}");
        }
    }
}
