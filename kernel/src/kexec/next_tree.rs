//! What the payload's device tree says.

use arrayvec::ArrayVec;
use linmap_kexec::{CrashMemory, MAX_PRESERVED, NextTree, PreservedRange, Seeds};
use linmap_vmsa::{Pa, PaRange};

use crate::arch::affinities;
use crate::arch::cpu_set::CpuSet;
use crate::arch::layout::MAX_CPUS;
use crate::kexec::error::KexecError;
use crate::smp::pen::Pen;

/// What the payload's device tree says, apart from where its initrd is.
pub struct TreeContent<'t> {
    /// The command line.
    pub bootargs: &'t str,
    /// Random numbers.
    pub seeds: Seeds,
    /// What this kernel was booted with and gives up.
    vacated: [PaRange; 2],
    /// Preserved memory; empty for a crash kernel, which does not use that memory.
    pub preserved: ArrayVec<PreservedRange<'t>, MAX_PRESERVED>,
    /// The memory of a crash kernel.
    pub usable: [PaRange; 1],
    /// The header of the core file that a crash kernel gets.
    pub core_header: Option<PaRange>,
    /// Where the pen is, if there is one.
    pub pen: Option<Pa>,
    /// The affinities of the CPUs in it.
    penned: ArrayVec<u64, MAX_CPUS>,
}

impl<'t> TreeContent<'t> {
    /// A tree with `bootargs` and `seeds`, without reservations for `vacated`.
    pub fn new(bootargs: &'t str, seeds: Seeds, vacated: [PaRange; 2]) -> Self {
        Self {
            bootargs,
            seeds,
            vacated,
            preserved: ArrayVec::new(),
            usable: [PaRange::default()],
            core_header: None,
            pen: None,
            penned: ArrayVec::new(),
        }
    }

    /// Adds the pen at `pen` with the CPUs of `penned`.
    pub fn set_pen(&mut self, pen: Pa, penned: CpuSet) {
        self.pen = Some(pen);
        self.penned = penned.iter().map(|cpu| affinities::of(cpu).bits()).collect();
    }

    /// The tree with the initrd at `initrd`.
    pub fn with_initrd(&self, initrd: Option<PaRange>) -> NextTree<'_> {
        NextTree {
            bootargs: self.bootargs,
            initrd,
            seeds: self.seeds,
            crash: self
                .core_header
                .map(|elf_core_header| CrashMemory { usable: &self.usable, elf_core_header }),
            spin_table: self.pen.map(|at| Pen::spin_table(at, &self.penned)),
            vacated: &self.vacated,
            preserved: &self.preserved,
        }
    }

    /// The length of the tree, which does not depend on where the `initrd` is.
    ///
    /// # Errors
    /// [`KexecError::DeviceTree`].
    pub fn measure(&self, dtb: &[u8], initrd: Option<PaRange>) -> Result<u64, KexecError> {
        let initrd = match self.core_header {
            None => initrd,
            // The tree of a crash kernel has to name memory that the crash kernel may use, so
            // another range stands in.
            Some(_) => initrd.map(|initrd| {
                let [usable] = self.usable;
                PaRange::new(usable.start, usable.end.min(Pa(usable.start.0.saturating_add(initrd.len()))))
            }),
        };
        Ok(self.with_initrd(initrd).measure(dtb)? as u64)
    }
}
