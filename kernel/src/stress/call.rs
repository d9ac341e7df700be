//! One random change of the linear map.

use core::fmt;

use linmap::{ChangeError, Changed, Protection};
use linmap_live::Global;
use linmap_vmsa::{Level, PaRange};

use crate::arch::layout::WIDEST;
use crate::memory::live::LiveMap;
use crate::memory::physical::Memory;
use crate::stress::arena::PageState;
use crate::stress::random::Random;

/// The pages of a contiguous run of pages.
const RUN: u64 = match WIDEST.contiguous_entries(Level::L3) {
    Some(pages) => pages as u64,
    None => 16,
};
/// The pages of a block at level 2.
const BLOCK: u64 = WIDEST.entries(Level::L3) as u64;

/// One random change of the arena.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// What it does.
    pub kind: Kind,
    /// The first page that it changes.
    pub first: u64,
    /// The number of pages.
    pub count: u64,
}

/// What a call does.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Changes the protection.
    Protect(Protection),
    /// Makes pages read-only and executable.
    Text,
    /// Splits leaves to this level.
    Split(Level),
    /// Folds leaves.
    Fold,
    /// Makes all translations global or non-global.
    Global(Global),
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Protect(protection) => write!(f, "protect {}", protection.name())?,
            Kind::Text => f.write_str("text")?,
            Kind::Split(level) => write!(f, "split to level {level}")?,
            Kind::Fold => f.write_str("fold")?,
            Kind::Global(Global::Global) => f.write_str("ng off")?,
            Kind::Global(Global::NonGlobal) => f.write_str("ng on")?,
        }
        write!(f, " of pages {:#x} to {:#x}", self.first, self.first + self.count)
    }
}

impl Call {
    /// A random call on an arena of `pages` pages.
    pub fn random(random: &mut Random, pages: u64) -> Self {
        let kind = match random.below(256) {
            0..=49 => Kind::Protect(Protection::ReadOnly),
            50..=109 => Kind::Protect(Protection::ReadWrite),
            110..=134 => Kind::Protect(Protection::Invalid),
            135..=169 => Kind::Protect(Protection::Valid),
            170..=179 => Kind::Text,
            180..=199 => Kind::Protect(Protection::NoExecute),
            200..=219 => Kind::Split(Level::L3),
            220..=223 => Kind::Split(Level::L2),
            224..=254 => Kind::Fold,
            _ => Kind::Global(if random.below(2) == 0 { Global::Global } else { Global::NonGlobal }),
        };
        // Single pages, contiguous runs and blocks of every size, and parts of them.
        let size = match random.below(16) {
            0..=5 => 1,
            6..=8 => 1 + random.below(RUN - 1),
            9..=10 => RUN,
            11 => 1 + random.below(BLOCK - 1),
            12..=13 => BLOCK,
            14 => BLOCK * (1 + random.below(31)),
            _ => BLOCK * 16,
        };
        let count = size.min(pages);
        let align = if random.below(4) == 0 { 1 } else { 1 << count.ilog2() };
        let first = random.below(pages - count + 1) / align * align;
        Self { kind, first, count }
    }

    /// The state of a page after the call, which was in `state` before.
    pub fn apply(self, state: PageState) -> PageState {
        match self.kind {
            Kind::Protect(Protection::ReadOnly) => state.with_writable(false),
            Kind::Protect(Protection::ReadWrite) => state.with_writable(true),
            Kind::Protect(Protection::NoExecute) => state.with_executable(false),
            Kind::Protect(Protection::Invalid) => state.with_valid(false),
            Kind::Protect(Protection::Valid) => state.with_valid(true),
            Kind::Text => state.with_writable(false).with_executable(true),
            Kind::Split(_) | Kind::Fold | Kind::Global(_) => state,
        }
    }

    /// Whether the call changes the state of pages.
    pub fn changes_pages(self) -> bool {
        matches!(self.kind, Kind::Protect(_) | Kind::Text)
    }

    /// Makes the call on `range`.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn run(self, memory: &mut Memory, map: &mut LiveMap, range: PaRange) -> Result<Changed, ChangeError> {
        let (map, mut editor, steps) = map.parts(&mut memory.memblock);
        let editor = &mut editor;
        match self.kind {
            // SAFETY: the range is in memory that the stress test has reserved; its workers access
            // it as it permits, or expect the fault. It executes nothing there.
            Kind::Protect(protection) => unsafe { map.protect(editor, steps, range, protection) },
            // SAFETY: as above.
            Kind::Text => unsafe { map.make_text(editor, steps, range) },
            Kind::Split(to) => map.split(editor, steps, range, to),
            Kind::Fold => map.fold(editor, steps, range),
            Kind::Global(global) => map.set_global(editor, steps, global),
        }
    }
}
