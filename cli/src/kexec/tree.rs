//! The device tree that the next kernel gets.

use linmap_fdt::{parse_dtb, string};
use linmap_kexec::{NextTree, Seeds};
use linmap_platform::chosen;
use linmap_vmsa::{Pa, PaRange};

use crate::failure::Failure;

/// The length of a tree that is not known, in bytes.
pub const USUAL_LEN: u64 = 64 << 10;

/// The running kernel's device tree, and what the next kernel's says instead.
#[derive(Clone, Debug)]
pub struct Tree<'t> {
    blob: Option<&'t [u8]>,
    bootargs: String,
    /// The initrd that the running kernel was booted with.
    vacated: Option<PaRange>,
}

impl<'t> Tree<'t> {
    /// The tree `blob`, with the command line `append`, or its own.
    pub fn new(blob: Option<&'t [u8]>, append: Option<&str>) -> Result<Self, Failure> {
        let fdt = blob.map(parse_dtb).transpose()?;
        let own = fdt.and_then(|fdt| fdt.chosen()?.property("bootargs")).and_then(string);
        let bootargs = append.or(own).unwrap_or_default().to_owned();
        Ok(Self { blob, bootargs, vacated: fdt.and_then(chosen::initrd) })
    }

    /// Whether it is known.
    pub fn is_known(&self) -> bool {
        self.blob.is_some()
    }

    /// The initrd that the running kernel was booted with, which the next kernel does not need.
    pub fn vacated(&self) -> Option<PaRange> {
        self.vacated
    }

    fn next<'n>(&'n self, initrd: Option<PaRange>, vacated: &'n [PaRange]) -> NextTree<'n> {
        // Any seeds: their numbers do not change the length.
        let seeds = Seeds::New { kaslr: 1, rng: [1; 32] };
        NextTree { bootargs: &self.bootargs, initrd, seeds, vacated, ..NextTree::default() }
    }

    /// Its length with an initrd of `initrd` bytes.
    pub fn measure(&self, initrd: Option<u64>) -> Result<u64, Failure> {
        let Some(blob) = self.blob else { return Ok(USUAL_LEN) };
        // Where the initrd is does not change the length.
        let initrd = initrd.map(|len| PaRange::new(Pa(SOMEWHERE), Pa(SOMEWHERE + len)));
        let vacated: Vec<_> = self.vacated.into_iter().collect();
        Ok(self.next(initrd, &vacated).measure(blob)? as u64)
    }

    /// The tree, with the initrd at `initrd`.
    pub fn write(&self, initrd: Option<PaRange>) -> Result<Vec<u8>, Failure> {
        let Some(blob) = self.blob else { return Ok(vec![1; USUAL_LEN as usize]) };
        let vacated: Vec<_> = self.vacated.into_iter().collect();
        let tree = self.next(initrd, &vacated);
        let mut bytes = vec![0; tree.measure(blob)?];
        tree.rewrite(blob, &mut bytes)?;
        Ok(bytes)
    }
}

const SOMEWHERE: u64 = 1 << 30;
