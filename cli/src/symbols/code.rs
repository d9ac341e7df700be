//! Where a kernel runs, found by its instructions.
//!
//! A trace has the address and the kind of each barrier, TLBI and register write; the kernel's file
//! has the words. Each distance between where an instruction ran and where one of its kind is
//! linked, at the same place of a page, is a candidate. Where the kernel ran many instructions have
//! the same distance: one distance while it ran at its physical address, another behind KASLR.

use std::collections::HashMap;

use super::instruction::Instruction;

/// The instructions of a kernel's file, by their kind and place within a page.
#[derive(Debug, Default)]
pub struct Code(HashMap<(Instruction, u64), Vec<u64>>);

/// What the distances between where code runs and where it is linked are multiples of.
const PAGE: u64 = 0x1000;
/// The most places that a kernel is looked for at.
const MOST: usize = 16;
/// How many instructions have to be where one distance says.
const FEWEST: usize = 3;
/// The most addresses that are looked at: more tell nothing new.
const MOST_SEEN: usize = 1 << 14;

impl Code {
    /// Adds the words of `bytes`, the first of which is linked at `address`.
    pub fn add(&mut self, address: u64, bytes: &[u8]) {
        let words = bytes.chunks_exact(4).filter_map(|bytes| bytes.first_chunk());
        for (nth, word) in (0..).zip(words) {
            if let Some(instruction) = Instruction::of(u32::from_le_bytes(*word)) {
                let at = address.wrapping_add(4 * nth);
                self.0.entry((instruction, at % PAGE)).or_default().push(at);
            }
        }
    }

    /// By how much the code that ran is away from where it is linked, nearest to the whole first.
    /// `ran` has each address once. Code lies in `first..=last` when it is linked.
    pub fn distances(&self, mut ran: Vec<(u64, Instruction)>, first: u64, last: u64) -> Vec<u64> {
        ran.truncate(MOST_SEEN);
        let mut found = Vec::new();
        while found.len() < MOST {
            let mut votes: HashMap<u64, usize> = HashMap::new();
            for &(pc, instruction) in &ran {
                for at in self.0.get(&(instruction, pc % PAGE)).into_iter().flatten() {
                    *votes.entry(pc.wrapping_sub(*at)).or_insert(0) += 1;
                }
            }
            let is_inside = |pc: u64, distance: u64| (first..=last).contains(&pc.wrapping_sub(distance));
            // Code that is patched at boot has other words than the file.
            let fits = |&(distance, matching): &(u64, usize)| {
                let inside = ran.iter().filter(|(pc, _)| is_inside(*pc, distance)).count();
                matching >= FEWEST && 2 * matching >= inside
            };
            let mut likely: Vec<(u64, usize)> = votes.into_iter().collect();
            likely.sort_by_key(|&(distance, matching)| (std::cmp::Reverse(matching), distance));
            let Some((distance, _)) = likely.into_iter().take(MOST).find(fits) else { break };
            ran.retain(|(pc, _)| !is_inside(*pc, distance));
            found.push(distance);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Code of 64 KiB with an instruction of some kind at places that follow no pattern.
    fn code() -> (Vec<u8>, Vec<(u64, Instruction)>) {
        let words = [0xd503_3a9f_u32, 0xd503_3b9f, 0xd503_3fdf, 0xd508_871f, 0xd518_2021];
        let mut bytes = [0x1f, 0x20, 0x03, 0xd5].repeat(0x4000);
        let mut sites = Vec::new();
        let mut state = 1_u64;
        for _ in 0..500 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (at, word) = ((state >> 33) as usize % 0x4000 * 4, words[(state >> 50) as usize % 5]);
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
            sites.push(at as u64);
        }
        sites.sort_unstable();
        sites.dedup();
        let kind = |at: u64| {
            let word = bytes[at as usize..].first_chunk().map(|word| u32::from_le_bytes(*word));
            (at, Instruction::of(word.unwrap()).unwrap())
        };
        let sites = sites.into_iter().map(kind).collect();
        (bytes, sites)
    }

    #[test]
    fn the_places_where_code_ran_are_found_by_its_instructions() {
        const LINKED: u64 = 0xffff_8000_8000_0000;
        let (bytes, sites) = code();
        let mut code = Code::default();
        code.add(LINKED, &bytes);
        let (low, high) = (0x4020_0000_u64, 0xffff_bb5c_f140_0000_u64);
        let at = |base: u64, step: usize| {
            sites.iter().step_by(step).map(move |&(at, what)| (base + at, what)).collect::<Vec<_>>()
        };
        // A few instructions 1:1, many behind KASLR, and some of another program.
        let mut ran = [at(low, 40), at(high, 2)].concat();
        ran.extend((0..40).map(|nth| (0xffff_bb5c_e000_0000 + 52 * nth, Instruction::Tlbi)));
        let distances = [high.wrapping_sub(LINKED), low.wrapping_sub(LINKED)];
        assert_eq!(code.distances(ran, LINKED, LINKED + 0xffff), distances);
        assert_eq!(code.distances(at(high, 300), LINKED, LINKED + 0xffff), [0; 0]);
        assert_eq!(Code::default().distances(at(high, 2), LINKED, LINKED + 0xffff), [0; 0]);
    }
}
