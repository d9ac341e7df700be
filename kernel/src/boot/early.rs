//! The boot before the device tree: the boot CPU on the early tables.

use linmap_platform::Uart;
use linmap_table::{Fixmap, Reserved};
use linmap_vmsa::Pa;

use crate::arch::cpu::{self, ThisCpu};
use crate::arch::entered::Entered;
use crate::arch::geometry::{self, geometry};
use crate::arch::image::{self, Image};
use crate::arch::layout::FIXMAP;
use crate::arch::per_cpu;
use crate::arch::stop;
use crate::boot::command_line::built_in;
use crate::boot::console;
use crate::end::stopping;

/// What the boot CPU knows without the device tree.
pub struct Early {
    /// How the kernel was entered.
    pub entered: Entered,
    /// The running image.
    pub image: Image,
    /// The values of TTBR0 and TCR while TTBR0 translates nothing.
    pub reserved: Reserved,
    /// Slots for single frames.
    pub fixmap: Fixmap,
    /// The bits of physical address that the early tables reach.
    pub pa_bits: u8,
    /// The console.
    pub console: Option<Uart>,
}

impl Early {
    /// Sets up the boot CPU, and the console that the built-in command line names. Called once.
    pub fn start(image: Pa, entered: u64) -> Self {
        // SAFETY: this is the first that runs.
        unsafe { geometry::note(cpu::tcr()) };
        per_cpu::become_boot_cpu();
        stop::install(stopping::stop);
        let image = Image::at(image);
        let reserved = Reserved { ttbr0: image.ttbr(image.reserved_table()), tcr: cpu::tcr() };
        // TTBR0 leaves the early identity map. T0SZ stays what `entry.S` set.
        // SAFETY: the kernel runs in TTBR1's half, and TCR does not change.
        unsafe { reserved.restore(&mut ThisCpu) };
        // SAFETY: this is the live table of pages at `FIXMAP`. It is empty since `entry.S` made it,
        // and nothing else changes it.
        let fixmap = unsafe { Fixmap::new(geometry(), image::fixmap_table(), FIXMAP) };
        let entered = Entered::from_code(entered);
        let mut early =
            Self { entered, image, reserved, fixmap, pa_bits: geometry().pa_bits(), console: None };
        early.use_console(console::named_by(built_in()));
        early
    }

    /// Makes the first of `candidates` that the machine has the console.
    pub fn use_console(&mut self, candidates: impl IntoIterator<Item = Uart>) {
        self.console = console::switch_to_first(candidates, self.console, self.pa_bits, &mut self.fixmap);
    }
}
