//! linmap's kernel: boots on an arm64 machine, builds the linear map of its memory, shows and proves what it built, and
//! hands over to the next kernel with the MMU on.
//!
//! The order of a boot is that of [`kernel_main`]. Lines that begin with `linmap: ` are for machines.

#![no_std]
#![no_main]

mod arch;
mod boot;
mod end;
mod gic;
mod kexec;
mod memory;
mod shell;
mod smp;
mod stress;

use core::fmt::Display;
use core::panic::PanicInfo;

use arrayvec::ArrayVec;
use linmap_fdt::parse_dtb;
use linmap_memblock::Memblock;
use linmap_platform::{Affinity, CommandLine, Uart, chosen};
use linmap_table::{Fixmap, Reserved};
use linmap_vmsa::registers::ttbr;
use linmap_vmsa::{Attributes, Pa, PaRange};

use crate::arch::console::{Console, Quoted};
use crate::arch::cpu;
use crate::arch::cpu::ThisCpu;
use crate::arch::exceptions::Frame;
use crate::arch::percpu;
use crate::arch::psci::Psci;
use crate::boot::command_line::is_ours;
use crate::boot::dtb;
use crate::boot::entry;
use crate::boot::entry::{Entered, Image};
use crate::boot::topology::Topology;
use crate::end::fatal;
use crate::kexec::command::TakenRanges;
use crate::kexec::crash;
use crate::kexec::crash::CrashKernel;
use crate::memory::kept;
use crate::memory::layout::{self, slot};
use crate::memory::linear_map;
use crate::memory::live;
use crate::memory::live::Live;
use crate::memory::machine;
use crate::memory::machine::{Machine, REGIONS};
use crate::smp::cpus;
use crate::smp::cpus::Cpus;
use crate::smp::parking;

/// A command line that is part of the image, for the loader's tool to write: `earlycon=` there gives a console even when
/// the device tree can't be read. 16 bytes of name, 240 of text, padded with NULs.
#[used]
static BUILT_IN_COMMAND_LINE: [u8; 256] = {
    let name = *b"LINMAP-CMDLINE\0\0";
    let mut line = [0; 256];
    let mut i = 0;
    while i < name.len() {
        line[i] = name[i];
        i += 1;
    }
    line
};

/// The words of the command line that mean something to linmap.
const WORDS: [&str; 12] = [
    "linmap.bbm",
    "linmap.build",
    "linmap.cpus",
    crash::WORD,
    "linmap.generation",
    "linmap.generations",
    "linmap.icount",
    "linmap.leaf",
    "linmap.payload",
    "linmap.repaint",
    "linmap.shell",
    "linmap.trace",
];

/// Entered from `entry.S`, MMU and caches on, at the link address, with the physical addresses of DTB and image, how the
/// boot loader entered us, and when.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(dtb_pa: u64, image_pa: u64, entered: u64, entered_at: u64) -> ! {
    percpu::become_boot_cpu();
    let entered = Entered::from_code(entered);
    let image = Image::at(Pa(image_pa));
    let mut cpu = ThisCpu;
    let reserved = Reserved { ttbr0: ttbr(layout::GEOMETRY, image.reserved_table(), 0), tcr: cpu::tcr() };
    // TTBR0 leaves the early identity map, which has the T0SZ that `entry.S` set for good.
    reserved.restore(&mut cpu);

    // SAFETY: this is the live table of pages at `FIXMAP`, empty since `entry.S` made it, and nothing else changes it.
    let mut fixmap = unsafe { Fixmap::new(layout::GEOMETRY, entry::fixmap_table(), layout::FIXMAP) };
    let built_in = built_in_command_line();
    let pa_bits = cpus::boot_pa_bits();
    let mut console = None;
    if let Some(uart) = CommandLine(built_in).get("earlycon").and_then(Uart::from_earlycon) {
        console = use_console(uart, pa_bits, &mut fixmap, &mut cpu);
    }

    let dtb = dtb::map(Pa(dtb_pa), pa_bits, &mut cpu).unwrap_or_else(|error| fail("dtb", &error, None));
    let fdt = parse_dtb(dtb).unwrap_or_else(|error| fail("dtb", &error, None));
    let psci = Psci::reachable(fdt, entered);
    let command_line = chosen::string(fdt, "bootargs").unwrap_or("");
    let earlycon = CommandLine(command_line).get("earlycon").and_then(Uart::from_earlycon);
    if let Some(uart) = Uart::from_stdout_path(fdt).or(earlycon) {
        console = use_console(uart, pa_bits, &mut fixmap, &mut cpu).or(console);
    }
    let features =
        cpus::boot_features(CommandLine(command_line)).unwrap_or_else(|error| fail("cpus", &error, psci));
    let generation = kexec::command::generation(CommandLine(command_line))
        .unwrap_or_else(|error| fail(error.kind(), &error, psci));
    report!(
        "generation={generation} el={} vhe={} midr={:#x} bbm={} pa_bits={} image={} dtb={:#x}",
        entered.el(),
        u8::from(entered == Entered::El2Vhe),
        features.midr.0,
        features.bbm.number(),
        features.pa_bits(),
        image.range().start,
        dtb_pa
    );

    if generation > 0 {
        // Our predecessor left the time of its departure in a register that means nothing to anyone.
        report!("phase=kexec-jump ticks={}", entered_at.wrapping_sub(cpu::thread_id()));
    }

    for word in CommandLine(command_line).words().filter(is_ours) {
        if !WORDS.contains(&word.key()) && !cpus::is_bbm_of_cpu(word.key()) {
            say!("linmap does not know the word {}", word.as_str());
            report!("warning=unknown-word word={}", Quoted(word.as_str()));
        }
    }

    let started = cpu::counter();
    let mut memblock = Memblock::<REGIONS>::new();
    memblock.fill_from_fdt(fdt).unwrap_or_else(|error| fail("memory", &error, psci));
    let initrd = chosen::initrd(fdt);
    let firmware = reserved_but(&memblock, initrd);
    let dtb_range = PaRange::new(Pa(dtb_pa), Pa(dtb_pa + dtb.len() as u64));
    let in_use = [image.range(), dtb_range, initrd.unwrap_or_default()];
    let kept = kept::from_tree(fdt, &memblock, &in_use);
    let mut topology = Topology::from_fdt(fdt, Affinity::of_mpidr(cpu::mpidr()));
    topology.check_mailboxes(&memblock, &in_use);
    let page = layout::GEOMETRY.granule().bytes();
    for range in [Some(image.range()), dtb_range.align_outward(page)].into_iter().flatten() {
        memblock.reserve(range).unwrap_or_else(|error| fail("memory", &error, psci));
    }
    let crash = crash::reserve(CommandLine(command_line), &mut memblock).unwrap_or_else(|error| {
        say!("no memory is reserved for a crash kernel: {error}");
        report!("warning=crash-kernel what={}", Quoted(&error));
        CrashKernel::default()
    });
    report!(
        "phase=memblock ticks={} regions={} bytes={} reserved={} reserved_bytes={}",
        cpu::ticks_since(started),
        memblock.regions().count(),
        memblock.memory_len(),
        memblock.reserved().len(),
        memblock.reserved().iter().map(|range| range.len()).sum::<u64>()
    );

    let (map, choices) =
        linear_map::build(image, reserved, features, CommandLine(command_line), &mut memblock, &mut fixmap)
            .unwrap_or_else(|error| fail("linear-map", &error, psci));

    let hardware = memblock.mappable(page).collect();
    parking::prepare(image, reserved);
    let memory = PaRange::new(Pa(0), memblock.memory_end());
    let in_use =
        cpus::bits_to_reach([memory, image.range(), dtb_range].into_iter().chain(console.map(registers)));
    let mut machine = Machine {
        entered,
        generation,
        features,
        image,
        reserved,
        psci,
        dtb,
        command_line,
        initrd,
        memblock: &mut memblock,
        fixmap: &mut fixmap,
        cpus: Cpus::new(&topology, features, in_use),
        layout: map.layout(),
        hardware,
        live: Live::new(image, map),
        firmware,
        uart: console.map(|uart| uart.registers),
        loaded: None,
        taken: TakenRanges::new(),
        crash,
        kept,
    };
    cpus::start_at_boot(&mut machine, fdt, &topology).unwrap_or_else(|error| fail("cpus", &error, psci));
    live::settle(&mut machine, choices).unwrap_or_else(|error| fail("repaint", &error, psci));
    kept::show(&machine);
    shell::commands::run(&mut machine)
}

/// What is reserved, without `initrd`, which was reserved as well.
fn reserved_but(memblock: &Memblock<REGIONS>, initrd: Option<PaRange>) -> ArrayVec<PaRange, REGIONS> {
    let initrd = initrd.unwrap_or_default();
    let around = |range: &PaRange| {
        let below = PaRange::new(range.start, range.end.min(initrd.start));
        let above = PaRange::new(range.start.max(initrd.end), range.end);
        [if initrd.is_empty() { *range } else { below }, if initrd.is_empty() { initrd } else { above }]
    };
    memblock
        .reserved()
        .iter()
        .flat_map(around)
        .filter(|range| range.start < range.end)
        .take(REGIONS)
        .collect()
}

/// Uses `uart` as the console, unless its registers can't be where they are said to be: then the one before stays, and this
/// is `None`.
fn use_console(uart: Uart, pa_bits: u8, fixmap: &mut Fixmap, cpu: &mut ThisCpu) -> Option<Uart> {
    let page = layout::GEOMETRY.granule().bytes();
    let offset = uart.registers.0 & (page - 1);
    let in_reach = uart.registers.0 >> pa_bits == 0;
    if !in_reach || !offset.is_multiple_of(4) || offset > page - Console::REGISTERS_LEN {
        return None;
    }
    // The same slot may hold the console named first.
    fixmap.clear(cpu, slot::CONSOLE);
    let frame = Pa(uart.registers.0 - offset);
    let mapped = fixmap.map(cpu, slot::CONSOLE, frame, Attributes::DEVICE);
    // SAFETY: all registers lie in the page that was just mapped, aligned, and the slot stays mapped. That it is a PL011
    // or an SBSA UART is what the device tree or the command line says.
    unsafe { Console::use_uart(mapped.byte_add(offset as usize), uart.kind) };
    Some(uart)
}

/// The page with the registers of `uart`, which was checked.
fn registers(uart: Uart) -> PaRange {
    let page = layout::GEOMETRY.granule().bytes();
    let start = uart.registers.0 & !(page - 1);
    PaRange::new(Pa(start), Pa(start + page))
}

fn built_in_command_line() -> &'static str {
    // The text was not there when this was compiled, so what the compiler knows of it must be hidden.
    let line: &'static [u8; 256] = core::hint::black_box(&BUILT_IN_COMMAND_LINE);
    let text = line[16..].split(|byte| *byte == 0).next().unwrap_or(&[]);
    core::str::from_utf8(text).unwrap_or("")
}

/// Ends the kernel with an error of kind `kind`: one line for people, one for machines, power off if that is possible.
fn fail(kind: &str, error: &dyn Display, psci: Option<Psci>) -> ! {
    say!("linmap cannot go on: {error}");
    report!("error={kind} what={}", Quoted(error));
    machine::power_off(psci)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let frame = Frame::here();
    fatal::begin(&frame);
    let cpu = percpu::this_cpu();
    say!("CPU {cpu}: {info}");
    report!("error=panic cpu={cpu} what={}", Quoted(info.message()));
    fatal::stop(&frame)
}
