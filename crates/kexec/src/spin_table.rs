//! CPUs that wait in a pen of ours for the next kernel (arm64 boot protocol, `enable-method = "spin-table"`).

use arrayvec::ArrayVec;
use linmap_fdt::{DeviceTree, Piece, Token};
use linmap_vmsa::{Pa, PaRange};

use crate::TreeError;
use crate::cells::Width;
use crate::kept::PAGE;
use crate::next_tree::{Section, properties_of};
use crate::tree_output::Name;

/// How many CPUs a pen is for, at most.
pub const MAX_PENNED: usize = 256;

/// Where CPUs wait with their MMU off, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpinTable<'a> {
    /// The memory with the loop that they run and the word that they watch, in whole pages of 4 KiB.
    pub pen: PaRange,
    /// The word that they all watch for the address to go to: 8 bytes in the pen, aligned, and 0 while they wait.
    pub release: Pa,
    /// `reg` of the CPUs that wait there, at most [`MAX_PENNED`]: the affinity fields of their MPIDR_EL1. All other CPUs
    /// are where the tree says.
    pub cpus: &'a [u64],
}

impl SpinTable<'_> {
    pub(crate) fn check(&self) -> Result<(), TreeError> {
        let Self { pen, release, cpus } = *self;
        if pen.is_empty() || pen.align_inward(PAGE) != pen {
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

    /// The value that replaces one of `old_len` bytes in the `cpu-release-addr` at `offset`, as long as that. `None` if
    /// the old one is no address.
    pub(crate) fn release_value(
        &self,
        old_len: usize,
        offset: usize,
    ) -> Result<Option<ArrayVec<u8, 8>>, TreeError> {
        let release = self.release;
        let value = Width::of_len(old_len).map(|width| width.bytes(release.0));
        value.map(|value| value.ok_or(TreeError::ReleaseTooHigh { offset, release })).transpose()
    }

    /// Which of the CPUs in the pen it is whose node goes on with `pieces`, if it is one.
    pub(crate) fn nth<'a>(&self, pieces: impl Iterator<Item = Piece<'a>> + Clone) -> Option<usize> {
        let reg = number(value_of(pieces.clone(), Name::Reg.text())?)?;
        let nth = self.cpus.iter().position(|&cpu| cpu == reg)?;
        watches_a_word(pieces).then_some(nth)
    }

    /// The words that CPUs of `tree` watch which are not in this pen: in the firmware's memory, or in the pen of an earlier
    /// kernel. `None` when there are more than [`MAX_PENNED`].
    pub(crate) fn left_behind(&self, tree: &DeviceTree<'_>) -> Option<ArrayVec<Pa, MAX_PENNED>> {
        let mut words = ArrayVec::new();
        let mut in_cpus = false;
        let mut tokens = tree.tokens();
        while let Some(Ok(piece)) = tokens.next() {
            match (piece.token, piece.depth) {
                (Token::BeginNode { name }, 2) => in_cpus = Section::Cpus.is_named(name),
                (Token::BeginNode { .. }, 3) if in_cpus => {
                    let properties = || tokens.clone().map_while(Result::ok);
                    let release = value_of(properties(), Name::ReleaseAddress.text()).and_then(number);
                    if let Some(release) = release.map(Pa)
                        && !words.contains(&release)
                        && watches_a_word(properties())
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

/// The CPUs of a pen whose nodes were found, by their places in the list.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found([u64; MAX_PENNED / 64]);

impl Found {
    /// Takes the CPU at place `nth` in.
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

fn watches_a_word<'a>(pieces: impl Iterator<Item = Piece<'a>>) -> bool {
    value_of(pieces, "enable-method") == Some(b"spin-table\0")
}

fn value_of<'a>(pieces: impl Iterator<Item = Piece<'a>>, wanted: &str) -> Option<&'a [u8]> {
    properties_of(pieces).find(|(name, _)| *name == wanted).map(|(_, value)| value)
}

/// A number of one or two cells.
fn number(value: &[u8]) -> Option<u64> {
    let wide = value.try_into().map(u64::from_be_bytes);
    wide.ok().or_else(|| value.try_into().map(u32::from_be_bytes).map(u64::from).ok())
}
