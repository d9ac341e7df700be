//! What the kernel's half has to translate, as a plain list of stretches: the linear map and the
//! image's own mapping.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use linmap::Layout;
use linmap_board::Board;
use linmap_live::Global;
use linmap_memblock::Memblock;
use linmap_model::Space;
use linmap_vmsa::{Pa, PaRange};

use super::REGIONS;
use super::setting::Setting;

/// What may be done with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State {
    pub valid: bool,
    pub writable: bool,
    pub executable: bool,
}

pub const DATA: State = State { valid: true, writable: true, executable: false };
pub const READ_ONLY: State = State { writable: false, ..DATA };
pub const TEXT: State = State { executable: true, ..READ_ONLY };

/// A stretch of pages that say the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stretch {
    pub len: u64,
    pub pa: u64,
    pub state: State,
}

/// The half as stretches by virtual address, none overlapping.
#[derive(Clone, Debug)]
pub struct Shadow {
    stretches: BTreeMap<u64, Stretch>,
    pub global: Global,
    layout: Layout,
    image: PaRange,
    data: PaRange,
    image_va: u64,
}

impl Shadow {
    pub fn new(setting: &Setting, layout: Layout, memblock: &Memblock<REGIONS>) -> Self {
        let image_va = setting.image_va().0;
        let mut shadow = Self {
            stretches: BTreeMap::new(),
            global: Global::Global,
            layout,
            image: setting.image,
            data: setting.data(),
            image_va,
        };
        for range in memblock.mappable(setting.page()) {
            shadow.add(range);
        }
        let text = setting.text_len;
        shadow.set(shadow.linear(setting.image.start), text, |state| *state = READ_ONLY);
        shadow.remove(setting.data());
        let data = setting.image.len() - text;
        let pa = setting.image.start.0;
        shadow.stretches.insert(image_va, Stretch { len: text, pa, state: TEXT });
        shadow.stretches.insert(image_va + text, Stretch { len: data, pa: pa + text, state: DATA });
        shadow
    }

    pub fn linear(&self, pa: Pa) -> u64 {
        self.layout.linear(pa).0
    }

    /// Where the image has `pa` for itself.
    pub fn own(&self, pa: Pa) -> u64 {
        pa.0 - self.image.start.0 + self.image_va
    }

    pub fn add(&mut self, range: PaRange) {
        let stretch = Stretch { len: range.len(), pa: range.start.0, state: DATA };
        self.stretches.insert(self.linear(range.start), stretch);
    }

    pub fn remove(&mut self, range: PaRange) {
        for (va, _) in self.parts(self.linear(range.start), range.len()) {
            self.stretches.remove(&va);
        }
    }

    fn cut(&mut self, at: u64) {
        let Some((&start, &stretch)) = self.stretches.range(..at).next_back() else { return };
        let done = at - start;
        if done < stretch.len {
            self.stretches.insert(start, Stretch { len: done, ..stretch });
            let rest = Stretch { len: stretch.len - done, pa: stretch.pa + done, ..stretch };
            self.stretches.insert(at, rest);
        }
    }

    /// The stretches from `start` on, cut at its ends.
    pub fn parts(&mut self, start: u64, len: u64) -> Vec<(u64, Stretch)> {
        self.cut(start);
        self.cut(start + len);
        self.stretches.range(start..start + len).map(|(va, stretch)| (*va, *stretch)).collect()
    }

    pub fn set(&mut self, start: u64, len: u64, change: impl Fn(&mut State)) {
        for (va, mut stretch) in self.parts(start, len) {
            change(&mut stretch.state);
            self.stretches.insert(va, stretch);
        }
    }

    /// The first address from `start` on, within `len` bytes, with nothing.
    pub fn hole(&mut self, start: u64, len: u64) -> Option<u64> {
        let mut next = start;
        for (va, stretch) in self.parts(start, len) {
            if va != next {
                break;
            }
            next += stretch.len;
        }
        (next < start + len).then_some(next)
    }

    /// The stretch that has `va`.
    pub fn at(&self, va: u64) -> Option<(u64, Stretch)> {
        let (&start, &stretch) = self.stretches.range(..=va).next_back()?;
        (va - start < stretch.len).then_some((stretch.pa + (va - start), stretch))
    }

    /// All memory that is mapped, valid or not: what the linear map has, and the image's data.
    pub fn mapped(&self) -> Vec<PaRange> {
        let mut parts: Vec<PaRange> = self.memory().into_iter().map(|(range, _)| range).collect();
        parts.push(self.data);
        parts.sort_by_key(|range| range.start);
        let mut mapped: Vec<PaRange> = Vec::new();
        for part in parts {
            match mapped.last_mut() {
                Some(last) if last.end == part.start => last.end = part.end,
                _ => mapped.push(part),
            }
        }
        mapped
    }

    /// All stretches of the linear map.
    pub fn memory(&self) -> Vec<(PaRange, State)> {
        let stretches = self.stretches.range(..self.image_va).map(|(_, stretch)| stretch);
        stretches
            .map(|stretch| (PaRange::new(Pa(stretch.pa), Pa(stretch.pa + stretch.len)), stretch.state))
            .collect()
    }

    /// All stretches of the image's own mapping.
    pub fn image(&self) -> Vec<(PaRange, State)> {
        let stretches = self.stretches.range(self.image_va..).map(|(_, stretch)| stretch);
        stretches
            .map(|stretch| (PaRange::new(Pa(stretch.pa), Pa(stretch.pa + stretch.len)), stretch.state))
            .collect()
    }

    /// The tables say what the shadow does.
    pub fn agrees(&self, board: &Board) -> Result<(), String> {
        let mut expected = Vec::new();
        for (va, stretch) in self.stretches.iter().filter(|(_, stretch)| stretch.state.valid) {
            join(&mut expected, *va, *stretch);
        }
        let mut found = Vec::new();
        let mut odd = None;
        let global = self.global == Global::Global;
        board.with_machine(|machine| {
            let _: ControlFlow<()> = machine.leaves(0, Space::High, |va, pa, shift, value, _| {
                let state =
                    State { valid: true, writable: value >> 7 & 1 == 0, executable: value >> 53 & 1 == 0 };
                // The type of memory, EL1 alone, inner shareable, accessed, and not for EL0 to
                // execute; nG as the map says.
                let rest = value >> 2 & 7 == 0
                    && value >> 6 & 1 == 0
                    && value >> 8 & 3 == 3
                    && value >> 10 & 1 == 1
                    && value >> 54 & 1 == 1
                    && (value >> 11 & 1 == 0) == global;
                if !rest {
                    odd.get_or_insert((va, value));
                }
                join(&mut found, va, Stretch { len: 1 << shift, pa, state });
                ControlFlow::Continue(())
            });
        });
        if let Some((va, value)) = odd {
            return Err(format!("{va:#x}: the leaf is {value:#x}; all leaves have to be {:?}", self.global));
        }
        if found != expected {
            let first = found.iter().zip(&expected).position(|(one, other)| one != other);
            let nth = first.unwrap_or(found.len().min(expected.len()));
            return Err(format!(
                "stretch {nth}: the tables have {:x?}, should have {:x?}",
                found.get(nth),
                expected.get(nth)
            ));
        }
        Ok(())
    }
}

fn join(stretches: &mut Vec<(u64, Stretch)>, va: u64, stretch: Stretch) {
    match stretches.last_mut() {
        Some((before, last))
            if *before + last.len == va
                && last.pa + last.len == stretch.pa
                && last.state == stretch.state =>
        {
            last.len += stretch.len;
        }
        _ => stretches.push((va, stretch)),
    }
}
