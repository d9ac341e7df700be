//! A kernel that has nothing of linmap's: entry, vectors and stacks are `aarch64-rt`'s, the console
//! is `arm-pl011-uart`'s, interrupts are `arm-gic`'s, PSCI is `smccc`'s, the allocator and the
//! layout are its own.
//! `linmap` builds its linear map and changes it, `linmap-park` parks its CPUs, while three CPUs
//! read and write through the map all the time.

#![no_std]
#![no_main]

mod boot;
mod cpus;
mod failure;
mod layout;
mod load;
mod machine;
mod pages;

use core::fmt::Write;
use core::sync::atomic::Ordering;

use aarch64_rt::{entry, exception_handlers};
use linmap::features::System;
use linmap::{
    ChangeError, Changed, ChangedRanges, LinearMap, LinearMapConfig, MappingLists, MemoryChange, ParkError,
    Protection,
};
use linmap_cpu::El1And0;
use linmap_live::{Global, PlanError, Step};
use linmap_park::{IdentitySwitch, ParkingEditor, SurgeryLayout, SurgeryRoot, SwitchValues};
use linmap_table::verify::{Compared, TreeError};
use linmap_table::{BumpFrames, Fixmap, FrameSource, Reserved};
use linmap_vmsa::{Level, Pa, PaRange};

use boot::{IDENTITY_MAP, LIVE_ROOT, NOTHING_MAPPED, TCR};
use cpus::{Exceptions, OtherCpus, PARKING};
use failure::Failure;
use layout::{CPUS, FIXMAP, G, IMAGE, OFFSET, RAM, ROOT, SLOTS, SURGERY, WINDOWS};
use load::ARENA;
use machine::{console, end, features, rounds};
use pages::Pages;

/// How often the map is changed and changed back, for each round that is asked for.
const CHANGES: u64 = 32;
/// The bytes of a block.
const BLOCK: u64 = 2 << 20;
/// The contiguous run of 2M blocks in which the arena lies.
const RUN: PaRange = PaRange { start: ARENA.start, end: Pa(ARENA.start.0 + 16 * BLOCK) };

exception_handlers!(Exceptions);
entry!(main);

fn main(_: u64, _: u64, _: u64, _: u64) -> ! {
    let code = match run() {
        Ok(()) => 0,
        Err(failure) => {
            let _ = writeln!(console(), "error: {failure}");
            1
        }
    };
    end(code)
}

/// The map, and what changes it.
struct Kernel {
    map: LinearMap,
    editor: ParkingEditor<'static, El1And0, Pages, OtherCpus, IdentitySwitch, CPUS>,
    changed: ChangedRanges<8>,
    steps: [Step; 64],
}

fn run() -> Result<(), Failure> {
    let mut cpu = El1And0;
    let mut pages = Pages::all_except([PaRange::new(RAM.start, IMAGE.data.end), ARENA]);
    // SAFETY: the table of this fixmap, which is empty.
    let mut fixmap = unsafe { Fixmap::new(G, layout::slots(), FIXMAP) };
    let reserved = Reserved { ttbr0: NOTHING_MAPPED, tcr: TCR };
    let config = LinearMapConfig::new(G, IMAGE, SLOTS, ROOT, reserved);
    let mut lists = MappingLists::<8>::new();
    let prepared = config.prepare([RAM], &mut lists)?;
    // SAFETY: CPU 0 runs alone, on these tables and with these registers; all of RAM is memory.
    let mut map = unsafe { prepared.build(&mut fixmap, &mut cpu, &mut pages)? }.into_map();

    let surgery = SurgeryLayout { geometry: G, mapped_as_live: &layout::mapped(), windows: WINDOWS };
    // SAFETY: these frames lie in the image's data, as the tables do, which never change.
    let surgery = unsafe {
        let mut frames = BumpFrames::new(SURGERY, G);
        SurgeryRoot::build(&surgery, ROOT, OFFSET, &mut frames, cpu)?
    };
    let values = SwitchValues {
        live: LIVE_ROOT,
        nothing: NOTHING_MAPPED,
        identity: IDENTITY_MAP,
        image_offset: OFFSET,
    };
    // SAFETY: they are, and the identity map has all of the image.
    unsafe { PARKING.switch().set(values) };
    load::prepare(map.layout());
    let system = System::of_boot_cpu(&features(), G.pa_bits());
    cpus::start(&system)?;
    // SAFETY: all CPUs have these features.
    unsafe { map.rely_on(system.bbm, system.tlbi_range) };
    // SAFETY: interrupts are masked here, and the stack is in the image, as the surgery root is.
    let editor = unsafe { ParkingEditor::new(&map, cpu, pages, OtherCpus, &PARKING, surgery) };
    let mut kernel = Kernel { map, editor, changed: ChangedRanges::new(), steps: [Step::Isb; 64] };

    let before = kernel.verify()?;
    let mut total = Changed::default();
    let rounds = CHANGES * rounds();
    for round in 0..rounds {
        total = total.and(kernel.change_and_change_back(round)?);
    }
    let after = kernel.verify()?;
    if after.tables != before.tables {
        return Err(Failure::NotFolded { tables: after.tables, before: before.tables });
    }
    kernel.edit_without_a_cpu()?;
    kernel.edit_without_frames()?;
    let last = load::held(ARENA.start);
    kernel.protect(last, Protection::ReadOnly)?;
    let Compared { tables, entries } = kernel.verify()?;
    let checked = load::ROUNDS[1..].iter().map(|rounds| rounds.load(Ordering::Relaxed)).min();
    let _ = writeln!(
        console(),
        "second-kernel: bbm={} cpus={CPUS} rounds={rounds} entries={} invalidations={} parked={} \
         checked={} tables={tables} verified={entries}",
        kernel.map.tree().bbm().number(),
        total.entries,
        total.invalidations,
        total.parked,
        checked.unwrap_or_default(),
    );
    Ok(())
}

impl Kernel {
    /// Splits a block, in every second turn through the blocks by itself, has a part of it refuse
    /// stores for a while, and folds it.
    fn change_and_change_back(&mut self, round: u64) -> Result<Changed, Failure> {
        let start = Pa(ARENA.start.0 + round % 4 * BLOCK);
        let held = load::held(Pa(start.0 + round % 8 * (BLOCK / 8)));
        let mut changed = Changed::default();
        if round % 8 < 4 {
            let block = PaRange::new(start, Pa(start.0 + BLOCK));
            changed = self.map.split(&mut self.editor, &mut self.steps, block, Level::L3)?;
        }
        // All CPUs hold a translation that allows the store before one that refuses it.
        Self::expect_refused(held, round, 0)?;
        changed = changed.and(self.protect(held, Protection::ReadOnly)?);
        Self::expect_refused(held, round, CPUS)?;
        changed = changed.and(self.protect(held, Protection::ReadWrite)?);
        Self::expect_refused(held, round, 0)?;
        Ok(changed.and(self.map.fold(&mut self.editor, &mut self.steps, RUN)?))
    }

    /// Has all CPUs write to `held`. As many as `wanted` must be refused.
    fn expect_refused(held: PaRange, round: u64, wanted: usize) -> Result<(), Failure> {
        let refused = load::refused(held.start)?;
        if refused == wanted { Ok(()) } else { Err(Failure::Stores { round, refused }) }
    }

    fn protect(&mut self, range: PaRange, protection: Protection) -> Result<Changed, Failure> {
        let Self { map, editor, changed, steps } = self;
        changed.record(range, MemoryChange::Protect(protection), || {
            // SAFETY: the range is held: stores there are the test.
            Ok(unsafe { map.protect(editor, steps, range, protection)? })
        })
    }

    /// A CPU that does not park is an error, and the map stays what it was.
    fn edit_without_a_cpu(&mut self) -> Result<(), Failure> {
        load::deafen(2)?;
        let refused = self.map.set_global(&mut self.editor, &mut self.steps, Global::NonGlobal);
        load::deafen(0)?;
        let Err(ChangeError::Park(ParkError { cpu: 2, .. })) = refused else {
            return Err(Failure::Expected(refused));
        };
        self.verify()?;
        // Then it parks again.
        for global in [Global::NonGlobal, Global::Global] {
            self.map.set_global(&mut self.editor, &mut self.steps, global)?;
        }
        Ok(())
    }

    /// Without a frame for a table nothing is split, and no frame is lost.
    fn edit_without_frames(&mut self) -> Result<(), Failure> {
        let free = self.editor.pages().clone();
        while self.editor.pages().alloc().is_ok() {}
        let refused = self.map.split(&mut self.editor, &mut self.steps, ARENA, Level::L3);
        let still_empty = self.editor.pages().alloc().is_err();
        *self.editor.pages() = free;
        match refused {
            Err(ChangeError::Plan(PlanError::OutOfFrames(_))) if still_empty => {}
            _ => return Err(Failure::Expected(refused)),
        }
        self.verify()?;
        Ok(())
    }

    /// Compares every entry of the tables with what the kernel knows of its memory.
    fn verify(&mut self) -> Result<Compared, TreeError> {
        let Self { map, editor, changed, .. } = self;
        // SAFETY: the window reaches all of RAM, and only this CPU changes tables.
        unsafe { map.verify(editor, [RAM].into_iter(), changed, layout::expected()) }
    }
}
