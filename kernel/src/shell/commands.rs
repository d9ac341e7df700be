//! What happens once the linear map is live: a script, the shell, or the payload; and the shell's commands.

use core::fmt;

use arrayvec::ArrayString;
use linmap::Layout;
use linmap::listing::{Run, Runs, Size};
use linmap_platform::CommandLine;
use linmap_table::{LeafIter, Walk, walk};
use linmap_vmsa::{Level, Va};
use thiserror::Error;

use crate::arch::console::{Console, Quoted};
use crate::arch::cpu;
use crate::end::halt as end;
use crate::kexec::command::KexecError;
use crate::memory::machine::Machine;
use crate::memory::verify::{Mismatch, verify};
use crate::shell::changes::{self, ChangesError};
use crate::smp::cpus;
use crate::smp::cpus::CpuError;
use crate::smp::cross_call::DidNotAnswer;
use crate::{fail, kexec, report, say};

/// Why a command failed.
#[derive(Debug, Error)]
pub enum CommandError {
    /// There is no such command.
    #[error("no command {0:?}; `help` lists them")]
    Unknown(ArrayString<32>),
    /// The command was given the wrong words.
    #[error("usage: {0}")]
    Usage(&'static str),
    /// The map is wrong.
    #[error(transparent)]
    Verify(#[from] Mismatch),
    /// The payload can't be handed over to.
    #[error(transparent)]
    Kexec(#[from] KexecError),
    /// A CPU can't be started or switched off.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// CPUs do not answer.
    #[error(transparent)]
    Silent(#[from] DidNotAnswer),
    /// A command behind an exclamation mark was done.
    #[error("this should have been refused")]
    NotRefused,
    /// The map can't be changed so.
    #[error(transparent)]
    Change(#[from] ChangesError),
    /// Something maps memory both writable and executable.
    #[error("{0} runs are both writable and executable")]
    WritableAndExecutable(u64),
}

type Handler = fn(&mut Machine<'_>, &str) -> Result<(), CommandError>;

struct Command {
    name: &'static str,
    usage: &'static str,
    help: &'static str,
    run: Handler,
}

const COMMANDS: &[Command] = &[
    Command { name: "help", usage: "help", help: "this list", run: help },
    Command { name: "mem", usage: "mem", help: "memblock: memory, no-map and reserved ranges", run: mem },
    Command { name: "map", usage: "map", help: "the linear map: ranges, leaf sizes, tables", run: map },
    Command {
        name: "dump",
        usage: "dump",
        help: "all live TTBR1 mappings, runs folded, W+X flagged",
        run: dump,
    },
    Command {
        name: "translate",
        usage: "translate VA",
        help: "what the tables and the MMU make of an address",
        run: translate,
    },
    Command { name: "verify", usage: "verify", help: "prove the linear map", run: run_verify },
    Command {
        name: "cpus",
        usage: "cpus",
        help: "all CPUs: state, model, BBM level, and whether they answer",
        run: |machine, _| Ok(cpus::show(machine)?),
    },
    Command { name: "cpu-on", usage: "cpu-on N", help: "start a CPU", run: cpu_on },
    Command { name: "cpu-off", usage: "cpu-off N", help: "switch a CPU off", run: cpu_off },
    Command {
        name: "reserve",
        usage: "reserve START LENGTH",
        help: "take free memory, to try protections on",
        run: |machine, rest| Ok(changes::reserve(machine, rest)?),
    },
    Command {
        name: "free",
        usage: "free START LENGTH",
        help: "give it back",
        run: |machine, rest| Ok(changes::free(machine, rest)?),
    },
    Command {
        name: "hoard",
        usage: "hoard ALL-BUT",
        help: "take all free memory but so many bytes",
        run: |machine, rest| Ok(changes::hoard(machine, rest)?),
    },
    Command {
        name: "fill",
        usage: "fill START LENGTH SEED",
        help: "fill reserved memory with a pattern",
        run: |machine, rest| Ok(changes::fill(machine, rest)?),
    },
    Command {
        name: "digest",
        usage: "digest START LENGTH",
        help: "the SHA-256 of reserved or kept memory, made in both ways there are",
        run: |machine, rest| Ok(changes::digest(machine, rest)?),
    },
    Command {
        name: "poke",
        usage: "poke ADDRESS BYTE",
        help: "store a byte to memory, whoever has it: to see whether that is noticed",
        run: |machine, rest| Ok(changes::poke(machine, rest)?),
    },
    Command {
        name: "keep",
        usage: "keep START LENGTH LABEL",
        help: "have reserved memory go through kexec untouched",
        run: |machine, rest| Ok(changes::keep(machine, rest)?),
    },
    Command {
        name: "unkeep",
        usage: "unkeep LABEL",
        help: "end that",
        run: |machine, rest| Ok(changes::unkeep(machine, rest)?),
    },
    Command {
        name: "protect",
        usage: "protect ro|rw|nx|invalid|valid START LENGTH",
        help: "change what memory may be used for",
        run: |machine, rest| Ok(changes::protect(machine, rest)?),
    },
    Command {
        name: "text",
        usage: "text START LENGTH",
        help: "make memory read-only and executable",
        run: |machine, rest| Ok(changes::text(machine, rest)?),
    },
    Command {
        name: "split",
        usage: "split LEVEL START LENGTH",
        help: "make leaves smaller, to level 2 or 3",
        run: |machine, rest| Ok(changes::split(machine, rest)?),
    },
    Command {
        name: "fold",
        usage: "fold START LENGTH",
        help: "make leaves as large as they can be",
        run: |machine, rest| Ok(changes::fold(machine, rest)?),
    },
    Command {
        name: "ng",
        usage: "ng on|off",
        help: "make all translations non-global, or global",
        run: |machine, rest| Ok(changes::non_global(machine, rest)?),
    },
    Command {
        name: "memory",
        usage: "memory add|remove START LENGTH",
        help: "add memory to the map, or take it away",
        run: |machine, rest| Ok(changes::memory(machine, rest)?),
    },
    Command {
        name: "mask",
        usage: "mask CPU MILLISECONDS",
        help: "keep interrupts from a CPU for a while, from now on",
        run: |machine, rest| Ok(changes::mask(machine, rest)?),
    },
    Command {
        name: "stress",
        usage: "stress CALLS [SEED]",
        help: "random changes while all other CPUs use the map",
        run: |machine, rest| Ok(changes::stress(machine, rest)?),
    },
    Command {
        name: "kexec",
        usage: "kexec [load|unload|plan|list|exec]",
        help: "load the payload and enter it, or one step of that",
        run: |machine, rest| Ok(kexec::command::command(machine, rest)?),
    },
    Command {
        name: "panic",
        usage: end::PANIC,
        help: "meet the end, on this CPU or another: a crash kernel is entered, if one waits",
        run: |_, rest| end::panic(rest),
    },
    Command {
        name: "fault",
        usage: end::FAULT,
        help: "the same by reading what is not mapped",
        run: |_, rest| end::fault(rest),
    },
    Command {
        name: "poweroff",
        usage: "poweroff",
        help: "switch the machine off",
        run: |machine, _| machine.power_off(),
    },
];

/// Goes on as the command line and the archive ask; never returns.
pub fn run(machine: &mut Machine<'_>) -> ! {
    let archive = machine.archive();
    let command_line = CommandLine(machine.command_line);
    let generation = machine.generation;
    // A script is for the first generation.
    if let Ok(Some(archive)) = &archive
        && let Some(script) = archive.find("script").filter(|_| generation == 0)
    {
        run_script(machine, script.data);
    }
    if command_line.get("linmap.shell").is_some() {
        interact(machine);
    }
    if let Err(error) = archive {
        fail(error.kind(), &error, machine.psci);
    }
    match kexec::command::payload(machine) {
        Ok(Some(_)) => {
            let Err(error) = kexec::command::run(machine);
            fail(error.kind(), &error, machine.psci)
        }
        Ok(None) => {
            report!("state=done generation={generation}");
            machine.power_off()
        }
        Err(error) => fail(error.kind(), &error, machine.psci),
    }
}

/// Runs the commands of a script, separated by `;` or line ends, up to the first that fails; then switches off.
fn run_script(machine: &mut Machine<'_>, script: &[u8]) -> ! {
    let mut count = 0;
    for line in script.split(|byte| matches!(byte, b';' | b'\n')) {
        let line = core::str::from_utf8(line).unwrap_or("?").trim();
        if line.is_empty() {
            continue;
        }
        say!("linmap> {line}");
        count += 1;
        // As in a shell of Unix: a command behind an exclamation mark has to fail.
        let result = match line.strip_prefix('!') {
            None => execute(machine, line),
            Some(command) => match execute(machine, command.trim()) {
                Ok(()) => Err(CommandError::NotRefused),
                Err(error) => {
                    say!("{error}");
                    report!("refused={} what={}", Quoted(command.trim()), Quoted(&error));
                    Ok(())
                }
            },
        };
        if let Err(error) = result {
            say!("{error}");
            report!("script=failed command={} what={}", Quoted(line), Quoted(&error));
            machine.power_off();
        }
    }
    report!("script=ok commands={count}");
    machine.power_off()
}

/// Reads and runs commands until one of them leaves.
fn interact(machine: &mut Machine<'_>) -> ! {
    report!("shell=ready");
    say!("linmap's shell; `help` lists the commands");
    loop {
        let mut line = ArrayString::new();
        if !read_line(&mut line) {
            machine.power_off();
        }
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        if let Err(error) = execute(machine, line) {
            say!("{error}");
        }
    }
}

/// Reads a line with echo; backspace and ^U edit it, ^D on an empty line ends the input (`false`).
fn read_line(line: &mut ArrayString<256>) -> bool {
    let echo = |text: fmt::Arguments<'_>| {
        let _ = fmt::Write::write_fmt(&mut Console, text);
    };
    echo(format_args!("linmap> "));
    loop {
        let Some(byte) = Console::get() else { return false };
        match byte {
            b'\r' | b'\n' => {
                echo(format_args!("\n"));
                return true;
            }
            0x08 | 0x7f if line.pop().is_some() => echo(format_args!("\x08 \x08")),
            0x15 => {
                while line.pop().is_some() {
                    echo(format_args!("\x08 \x08"));
                }
            }
            0x04 if line.is_empty() => return false,
            b' '..=b'~' if line.try_push(char::from(byte)).is_ok() => {
                echo(format_args!("{}", char::from(byte)));
            }
            _ => {}
        }
    }
}

fn execute(machine: &mut Machine<'_>, line: &str) -> Result<(), CommandError> {
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        let mut unknown = ArrayString::new();
        for c in name.chars() {
            if unknown.try_push(c).is_err() {
                break;
            }
        }
        return Err(CommandError::Unknown(unknown));
    };
    let rest = rest.trim();
    // Words in brackets may be left out.
    let (any, needed) = match command.usage.split_once(' ') {
        None => (false, false),
        Some((_, words)) => (true, !words.starts_with('[')),
    };
    if rest.is_empty() && needed || !rest.is_empty() && !any {
        return Err(CommandError::Usage(command.usage));
    }
    (command.run)(machine, rest)
}

fn help(_: &mut Machine<'_>, _: &str) -> Result<(), CommandError> {
    for command in COMMANDS {
        say!("  {:<14} {}", command.usage, command.help);
    }
    Ok(())
}

fn mem(machine: &mut Machine<'_>, _: &str) -> Result<(), CommandError> {
    let line = |kind: &str, range| say!("  {kind:<9} {range}  {}", Size(linmap_vmsa::PaRange::len(range)));
    for region in machine.memblock.regions() {
        line(if region.no_map { "no-map" } else { "memory" }, region.range);
    }
    for range in machine.memblock.reserved() {
        line("reserved", *range);
    }
    let reserved: u64 = machine.memblock.reserved().iter().map(|range| range.len()).sum();
    report!("memory={} reserved={reserved}", machine.memblock.memory_len());
    Ok(())
}

/// Counts of one kind of leaf.
#[derive(Clone, Copy, Default)]
struct LeafCount {
    entries: u64,
    bytes: u64,
}

fn map(machine: &mut Machine<'_>, _: &str) -> Result<(), CommandError> {
    let geometry = machine.geometry();
    let base = Layout::base(geometry);
    let linear_end = base.0 + (1 << (geometry.va_bits() - 1));
    say!("linear map from {base}, memstart {}", machine.layout.memstart());
    for range in machine.mapped() {
        say!("  {} {range}  {}", machine.layout.linear(range.start), Size(range.len()));
    }
    // By level, 0 to 3, and by the contiguous bit.
    let mut counts = [[LeafCount::default(); 2]; 4];
    let mut window = machine.tables();
    let mut leaves =
        LeafIter::new(geometry, machine.image.swapper(), geometry.start_level(), base, &mut window);
    let mut tables = 0;
    while let Some(leaf) = leaves.next() {
        if leaf.va.0 >= linear_end {
            break;
        }
        // All tables entered so far are the linear map's, but for the root.
        tables = leaves.tables() - 1;
        let level = usize::try_from(leaf.level.number()).unwrap_or(0);
        let count = &mut counts[level][usize::from(leaf.descriptor.is_contiguous())];
        count.entries += 1;
        count.bytes += geometry.entry_bytes(leaf.level);
    }
    for (number, by_level) in (0..).zip(&counts) {
        let Some(level) = Level::new(number) else { continue };
        for (count, contiguous) in by_level.iter().zip(["", " contiguous"]) {
            if count.entries > 0 {
                let leaf = Size(geometry.entry_bytes(level));
                say!("  {leaf:>4}{contiguous:<11} {:>10} entries  {}", count.entries, Size(count.bytes));
            }
        }
    }
    let table_bytes = tables * geometry.granule().bytes();
    say!("  {tables} tables, {}", Size(table_bytes));
    let [.., pages] = counts.map(|by_level| by_level[0].entries + by_level[1].entries);
    let blocks: u64 = counts.iter().flatten().map(|count| count.entries).sum::<u64>() - pages;
    report!("map=ok tables={tables} table_bytes={table_bytes} blocks={blocks} pages={pages}");
    Ok(())
}

fn dump(machine: &mut Machine<'_>, _: &str) -> Result<(), CommandError> {
    let geometry = machine.geometry();
    let base = Layout::base(geometry);
    let mut window = machine.tables();
    let leaves = LeafIter::new(geometry, machine.image.swapper(), geometry.start_level(), base, &mut window);
    let (mut runs, mut both) = (0, 0u64);
    let mut area = "";
    for run in Runs::new(geometry, leaves) {
        let here = area_of(&run, base, geometry.va_bits());
        if here != area {
            say!("---[ {here} ]---");
            area = here;
        }
        say!("{run}");
        runs += 1;
        both += u64::from(run.writable_and_executable());
    }
    report!("dump=ok runs={runs} wx={both}");
    if both > 0 { Err(CommandError::WritableAndExecutable(both)) } else { Ok(()) }
}

fn area_of(run: &Run, base: Va, va_bits: u8) -> &'static str {
    use crate::memory::layout::{DTB_WINDOW, FIXMAP, IMAGE, STACKS};
    if run.va.0 < base.0 + (1 << (va_bits - 1)) {
        "linear map"
    } else if run.va < STACKS && run.va >= IMAGE {
        "kernel image"
    } else if run.va < DTB_WINDOW {
        "stacks of CPUs"
    } else if run.va < FIXMAP {
        "device tree"
    } else {
        "fixmap"
    }
}

fn translate(machine: &mut Machine<'_>, word: &str) -> Result<(), CommandError> {
    const USAGE: CommandError = CommandError::Usage("translate VA (hexadecimal)");
    let va = Va(u64::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).map_err(|_| USAGE)?);
    let in_ttbr1 = va.0 >= Layout::base(machine.geometry()).0;
    match walk(machine.geometry(), machine.image.swapper(), va, &mut machine.tables()) {
        _ if !in_ttbr1 => say!("  tables: not an address of TTBR1"),
        Walk::Leaf { pa, level, descriptor } => say!("  tables: {pa}, level {level}, {descriptor:?}"),
        Walk::Fault { level } => say!("  tables: translation fault, level {level}"),
    }
    match cpu::translate(va) {
        Ok(pa) => say!("  AT:     {pa}"),
        Err(status) => say!("  AT:     fault, status {status:#x}"),
    }
    Ok(())
}

fn run_verify(machine: &mut Machine<'_>, _: &str) -> Result<(), CommandError> {
    let started = cpu::counter();
    let verified = verify(machine).inspect_err(|mismatch| {
        report!("verify=failed what={}", Quoted(mismatch));
    })?;
    report!(
        "verify=ok mapped={} faults={} ranges={} holes={} ticks={}",
        verified.mapped,
        verified.faults,
        verified.ranges,
        verified.holes,
        cpu::ticks_since(started)
    );
    Ok(())
}

fn cpu_on(machine: &mut Machine<'_>, word: &str) -> Result<(), CommandError> {
    let number = cpu_number(word, "cpu-on N")?;
    let started = cpu::counter();
    cpus::start_late(machine, number)?;
    machine.live.cpu_started(number);
    report!("cpu={number} state=online ticks={}", cpu::ticks_since(started));
    Ok(())
}

fn cpu_off(machine: &mut Machine<'_>, word: &str) -> Result<(), CommandError> {
    let number = cpu_number(word, "cpu-off N")?;
    let started = cpu::counter();
    cpus::stop(machine, number)?;
    machine.live.cpu_stopped(number);
    report!("cpu={number} state=off ticks={}", cpu::ticks_since(started));
    Ok(())
}

fn cpu_number(word: &str, usage: &'static str) -> Result<usize, CommandError> {
    word.parse().map_err(|_| CommandError::Usage(usage))
}
