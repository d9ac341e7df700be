//! CPUs that wait in a pen for the next kernel (arm64 boot protocol,
//! `enable-method = "spin-table"`).

use arrayvec::ArrayVec;
use linmap_fdt::{CellWidth, DeviceTree, Piece, Token, first_string, number, property};
use linmap_vmsa::{Pa, PaRange};

use super::limits::{MAX_PENNED, is_whole_pages};
use super::names;
use super::section::Section;
use super::tree_error::TreeError;

/// The pen in which CPUs wait with their MMU off, and the CPUs in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpinTable<'a> {
    /// The memory with the loop that they run and the word that they poll, in whole pages of 4 KiB.
    pub pen: PaRange,
    /// The word that all of them poll for the address to jump to: 8 aligned bytes in the pen, 0
    /// while they wait.
    pub release: Pa,
    /// `reg` of the CPUs in the pen, at most [`MAX_PENNED`]: the affinity fields of their
    /// MPIDR_EL1. All other CPUs wait where the tree says.
    pub cpus: &'a [u64],
}

impl SpinTable<'_> {
    pub(super) fn check(&self) -> Result<(), TreeError> {
        let Self { pen, release, cpus } = *self;
        if !is_whole_pages(pen) {
            return Err(TreeError::PenUnaligned { pen });
        }
        if cpus.len() > MAX_PENNED {
            return Err(TreeError::TooManyPenned { count: cpus.len() });
        }
        let word = PaRange::from_len(release, 8).filter(|_| release.0.is_multiple_of(8));
        match word.filter(|&word| pen.covers(word)) {
            Some(_) => Ok(()),
            None => Err(TreeError::ReleaseOutsidePen { release, pen }),
        }
    }

    /// Returns the new value of the `cpu-release-addr` at `offset`, which has `old_len` bytes and
    /// keeps this length. Returns `None` if the old value is not an address.
    pub(super) fn release_value(
        &self,
        old_len: usize,
        offset: usize,
    ) -> Result<Option<ArrayVec<u8, 8>>, TreeError> {
        let release = self.release;
        let value = CellWidth::of_len(old_len).map(|width| width.bytes(release.0));
        value.map(|value| value.ok_or(TreeError::ReleaseTooHigh { offset, release })).transpose()
    }

    /// Returns the index of the CPU whose node continues with `pieces`, if it is in the pen.
    pub(super) fn nth<'a>(&self, pieces: impl Iterator<Item = Piece<'a>> + Clone) -> Option<usize> {
        let reg = number(property(pieces.clone(), names::REG)?)?;
        let nth = self.cpus.iter().position(|&cpu| cpu == reg)?;
        polls_a_word(pieces).then_some(nth)
    }

    /// Returns the words that the other CPUs of `tree` poll: in the firmware's memory, or in the
    /// pen of an earlier kernel. Returns `None` if there are more than [`MAX_PENNED`].
    pub(super) fn left_behind(&self, tree: &DeviceTree<'_>) -> Option<ArrayVec<Pa, MAX_PENNED>> {
        let mut words = ArrayVec::new();
        let mut in_cpus = false;
        let mut tokens = tree.tokens();
        while let Some(Ok(piece)) = tokens.next() {
            match (piece.token, piece.depth) {
                (Token::BeginNode { name }, 2) => in_cpus = Section::Cpus.is_named(name),
                (Token::BeginNode { .. }, 3) if in_cpus => {
                    let properties = || tokens.clone().map_while(Result::ok);
                    let release = property(properties(), names::RELEASE_ADDRESS).and_then(number);
                    if let Some(release) = release.map(Pa)
                        && !words.contains(&release)
                        && polls_a_word(properties())
                        && self.nth(properties()).is_none()
                    {
                        words.try_push(release).ok()?;
                    }
                }
                _ => {}
            }
        }
        Some(words)
    }
}

/// The CPUs of a pen whose nodes were found, by their indices in the list.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found([u64; MAX_PENNED / 64]);

impl Found {
    /// Adds the CPU at index `nth`.
    pub fn insert(&mut self, nth: usize) {
        if let Some(word) = self.0.get_mut(nth / 64) {
            *word |= 1 << (nth % 64);
        }
    }

    /// Checks that all CPUs of the pen were found.
    pub fn check(self, spin_table: SpinTable<'_>) -> Result<(), TreeError> {
        let is_in = |nth: usize| self.0.get(nth / 64).is_some_and(|word| word >> (nth % 64) & 1 == 1);
        match spin_table.cpus.iter().enumerate().find(|&(nth, _)| !is_in(nth)) {
            Some((_, &reg)) => Err(TreeError::PennedUnknown { reg }),
            None => Ok(()),
        }
    }
}

fn polls_a_word<'a>(pieces: impl Iterator<Item = Piece<'a>>) -> bool {
    property(pieces, "enable-method").map(first_string) == Some(b"spin-table")
}
