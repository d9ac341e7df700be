//! The boot on the boot CPU, from the entry into Rust to the shell.

use linmap::ChangedRanges;
use linmap_fdt::{Fdt, parse_dtb};
use linmap_platform::{Devices, Uart, chosen};
use linmap_vmsa::{Pa, PaRange};

use crate::arch::cpu;
use crate::arch::entered::Entered;
use crate::arch::geometry::geometry;
use crate::arch::platform::{OurTree, Platform};
use crate::arch::psci;
use crate::boot::command_line::warn_of_unknown_words;
use crate::boot::console;
use crate::boot::dtb;
use crate::boot::early::Early;
use crate::boot::memory::{self, Found};
use crate::boot::pass::Pass;
use crate::end::fail::fail;
use crate::kexec::command_line::generation;
use crate::kexec::hand_over::Payloads;
use crate::memory::linear_map;
use crate::memory::live::{self, LiveMap};
use crate::memory::parking;
use crate::memory::physical::Memory;
use crate::memory::reservations::Reservations;
use crate::report;
use crate::shell::owners::Owners;
use crate::shell::session;
use crate::smp::boot_cpu::{self, bits_to_reach};
use crate::smp::cpus::Cpus;
use crate::smp::start_all::start_all;

/// Entered from `entry.S`, MMU and caches on, with the physical addresses of DTB and image, the
/// code of the entry, its time, and the number of the pass.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(dtb_pa: u64, image_pa: u64, entered: u64, entered_at: u64, pass: u64) -> ! {
    let mut early = Early::start(Pa(image_pa), entered);
    let pass = Pass { is_first: pass == 0, image: early.image, dtb: Pa(dtb_pa), entered, entered_at };
    let dtb = dtb::map(Pa(dtb_pa), early.pa_bits).unwrap_or_else(|error| fail("dtb", &error, None));
    let started = cpu::counter();
    let fdt = parse_dtb(dtb).unwrap_or_else(|error| fail("dtb", &error, None));
    let devices = Devices::find(fdt);
    let uart = Uart::from_stdout_path(fdt);
    let read = cpu::ticks_since(started);
    let dtb = OurTree { blob: dtb, at: PaRange::new(Pa(dtb_pa), Pa(dtb_pa + dtb.len() as u64)) };
    let platform = read_platform(&mut early, dtb, fdt, &devices, uart);
    let line = platform.command_line;
    pass.use_va_size(line).unwrap_or_else(|error| fail("va-bits", &error, platform.psci));
    report_entry(&platform, entered_at);
    report!("phase=device-tree ticks={read} bytes={}", dtb.blob.len());
    warn_of_unknown_words(line);

    let found = memory::find(fdt, dtb.at, pass, line, &mut early.fixmap)
        .unwrap_or_else(|error| fail("memory", &error, platform.psci));
    boot(platform, early, found, fdt, &devices)
}

/// Reads the facts about the machine that do not depend on its memory.
fn read_platform(
    early: &mut Early,
    dtb: OurTree,
    fdt: Fdt<'static>,
    devices: &Devices<'_>,
    uart: Option<Uart>,
) -> Platform {
    let psci = psci::reachable(devices.psci, early.entered);
    let line = chosen::command_line(fdt);
    early.use_console(uart.into_iter().chain(console::named_by(line)));
    let features = boot_cpu::features(line).unwrap_or_else(|error| fail("cpus", &error, psci));
    let generation = generation(line).unwrap_or_else(|error| fail(error.kind(), &error, psci));
    Platform {
        entered: early.entered,
        generation,
        features,
        image: early.image,
        reserved: early.reserved,
        psci,
        dtb,
        command_line: line,
        initrd: None,
        console: early.console.map(|uart| console::registers(uart).start),
        uart: early.console.filter(|uart| uart.kind.is_pl011()).map(|uart| uart.registers),
    }
}

fn report_entry(platform: &Platform, entered_at: u64) {
    let Platform { generation, entered, features, image, dtb, .. } = platform;
    let geometry = geometry();
    report!(
        "generation={generation} el={} vhe={} midr={:#x} bbm={} granule={} va_bits={} lpa2={} pa_bits={} \
         image={} dtb={:#x}",
        entered.el(),
        u8::from(*entered == Entered::El2Vhe),
        features.midr.0,
        features.bbm.number(),
        geometry.granule().bytes(),
        geometry.va_bits(),
        u8::from(geometry.lpa2()),
        geometry.pa_bits(),
        image.range().start,
        dtb.at.start.0
    );
    if *generation > 0 {
        // The previous generation left the time of its departure in a register that the boot
        // protocol leaves free.
        report!("phase=kexec-jump ticks={}", entered_at.wrapping_sub(cpu::thread_id()));
    }
}

/// Builds the linear map, starts the other CPUs, and runs the shell.
fn boot(
    mut platform: Platform,
    mut early: Early,
    mut found: Found,
    fdt: Fdt<'static>,
    devices: &Devices<'_>,
) -> ! {
    platform.initrd = found.initrd;
    let Platform { image, features, reserved, psci, dtb, command_line: line, .. } = platform;
    let Found { memblock, window, .. } = &mut found;
    let (map, choices) =
        linear_map::build(image, reserved, features, line, memblock, window, &mut early.fixmap)
            .unwrap_or_else(|error| fail("linear-map", &error, psci));
    let vacated = platform.vacated();
    let settled = memory::settle(&mut found, fdt, vacated, &mut early.fixmap, map.layout());
    let (hardware, firmware) = settled.unwrap_or_else(|error| fail("memory", &error, psci));
    parking::prepare(image, reserved);
    let ram = PaRange::new(Pa(0), found.memblock.memory_end());
    let console = early.console.map(console::registers);
    let pa_bits = bits_to_reach([ram, image.range(), dtb.at].into_iter().chain(console));
    let mut owners = Owners {
        platform,
        memory: Memory {
            memblock: found.memblock,
            fixmap: early.fixmap,
            layout: map.layout(),
            image,
            changed: ChangedRanges::new(),
            hardware,
            firmware,
        },
        map: LiveMap::new(image, map),
        cpus: Cpus::new(&found.topology, psci, features, pa_bits),
        reservations: Reservations::default(),
        preserved: found.preserved,
        payloads: Payloads { crash_memory: found.crash, ..Payloads::default() },
    };
    let Owners { platform, memory, map, cpus, preserved, .. } = &mut owners;
    start_all(cpus, platform, memory, devices, &found.topology, map.map.attributes().memory)
        .unwrap_or_else(|error| fail("cpus", &error, psci));
    live::rely_on(map, memory, platform, cpus.system(), choices)
        .unwrap_or_else(|error| fail("repaint", &error, psci));
    preserved.show(memory);
    session::run(&mut owners)
}
