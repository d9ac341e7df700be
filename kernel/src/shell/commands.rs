//! The list of commands, and running one.

use crate::arch::print::Quoted;
use crate::shell::command::{Command, Group, Run};
use crate::shell::cpu_commands;
use crate::shell::crash_commands;
use crate::shell::edit_commands;
use crate::shell::error::CommandError;
use crate::shell::flip_command;
use crate::shell::help;
use crate::shell::kexec_commands;
use crate::shell::map_commands;
use crate::shell::memory_commands;
use crate::shell::owners::Owners;
use crate::shell::stress_command;
use crate::{report, say};

/// What follows a command.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next command.
    Command,
    /// The end: the machine is to be switched off.
    PowerOff,
}

const GROUPS: &[Group] = &[
    Group { title: "look at memory and its map", commands: LOOK },
    Group { title: "change the map", commands: CHANGE },
    Group { title: "own memory to try it on", commands: OWN },
    Group { title: "CPUs", commands: CPUS },
    Group { title: "enter the next kernel, or end this one", commands: END },
    Group { title: "the shell", commands: SHELL },
];

const LOOK: &[Command] = &[
    Command {
        usage: "mem",
        summary: "show memblock: memory, no-map and reserved ranges",
        more: &[],
        run: Run::On(|owners, _| map_commands::mem(&owners.memory)),
    },
    Command {
        usage: "map",
        summary: "show the linear map: ranges, leaf sizes, tables",
        more: &[],
        run: Run::On(|owners, _| map_commands::map(&owners.memory, owners.platform.image)),
    },
    Command {
        usage: "dump",
        summary: "list all live mappings of TTBR1, runs folded",
        more: &["Fails if memory is both writable and executable, and marks it."],
        run: Run::On(|owners, _| map_commands::dump(&owners.memory, owners.platform.image)),
    },
    Command {
        usage: map_commands::TRANSLATE,
        summary: "show how the tables and the MMU translate an address",
        more: &["VA is virtual and hexadecimal."],
        run: Run::On(|owners, rest| map_commands::translate(&owners.memory, owners.platform.image, rest)),
    },
    Command {
        usage: "verify",
        summary: "prove all mappings",
        more: &[
            "Compares every entry of all live tables with what must be mapped, then probes each range of",
            "memory and each hole between them: the MMU and a load have to agree.",
        ],
        run: Run::On(|owners, _| map_commands::verify(owners)),
    },
];

const CHANGE: &[Command] = &[
    Command {
        usage: edit_commands::PROTECT,
        summary: "change the permissions of memory",
        more: &[
            "All CPUs use the new ones by the time it returns. Only memory that you have reserved.",
            "`text` makes memory executable; no `protect` does.",
        ],
        run: Run::On(edit_commands::protect),
    },
    Command {
        usage: edit_commands::TEXT,
        summary: "make memory read-only and executable",
        more: &["Only memory that you have reserved. `free` makes it plain memory again."],
        run: Run::On(edit_commands::text),
    },
    Command {
        usage: edit_commands::SPLIT,
        summary: "split leaves, to level 2 or 3",
        more: &["LEVEL is 2 (blocks of 2M) or 3 (pages). Splits only what is larger."],
        run: Run::On(|Owners { memory, map, .. }, rest| edit_commands::split(memory, map, rest)),
    },
    Command {
        usage: edit_commands::FOLD,
        summary: "fold leaves as far as memory allows",
        more: &["Folds what has the same permissions and is aligned for a run or a block."],
        run: Run::On(|Owners { memory, map, .. }, rest| edit_commands::fold(memory, map, rest)),
    },
    Command {
        usage: edit_commands::PAGES,
        summary: "keep memory in pages, which no fold makes larger",
        more: &["`release` lets `fold` make larger leaves of it again."],
        run: Run::On(|Owners { memory, map, .. }, rest| edit_commands::pages(memory, map, rest)),
    },
    Command {
        usage: edit_commands::NON_GLOBAL,
        summary: "make all translations non-global, or global again",
        more: &["All CPUs leave the map during the change."],
        run: Run::On(|Owners { memory, map, .. }, rest| edit_commands::non_global(memory, map, rest)),
    },
    Command {
        usage: edit_commands::MEMORY,
        summary: "add memory to the map and memblock, or remove it",
        more: &["Adds what the device tree names. Removes what is free. Refused while a crash kernel waits."],
        run: Run::On(edit_commands::memory),
    },
    Command {
        usage: stress_command::STRESS,
        summary: "make random changes while all other CPUs use the map",
        more: &[
            "The others read, write, checksum and execute the memory. All changes are undone at the end.",
            "The same SEED makes the same changes; the first line prints it.",
        ],
        run: Run::On(stress_command::stress),
    },
];

const OWN: &[Command] = &[
    Command {
        usage: memory_commands::RESERVE,
        summary: "reserve free memory, to try the other commands on",
        more: &[],
        run: Run::On(|Owners { memory, map, reservations, .. }, rest| {
            memory_commands::reserve(memory, map, reservations, rest)
        }),
    },
    Command {
        usage: memory_commands::FREE,
        summary: "free what was reserved",
        more: &["It is plain memory again: readable, writable, not executable."],
        run: Run::On(|Owners { memory, map, reservations, .. }, rest| {
            memory_commands::free(memory, map, reservations, rest)
        }),
    },
    Command {
        usage: memory_commands::FILL,
        summary: "fill reserved memory with a pattern",
        more: &["The same SEED makes the same pattern."],
        run: Run::On(|Owners { memory, map, reservations, .. }, rest| {
            memory_commands::fill(memory, map, reservations, rest)
        }),
    },
    Command {
        usage: memory_commands::DIGEST,
        summary: "print the SHA-256 of reserved or preserved memory",
        more: &["Computes it with the CPU's SHA-256 instructions, where it has them, and without them."],
        run: Run::On(|Owners { memory, map, reservations, preserved, .. }, rest| {
            memory_commands::digest(memory, map, reservations, preserved, rest)
        }),
    },
    Command {
        usage: memory_commands::POKE,
        summary: "write a byte to any memory, to see whether a check notices",
        more: &["Writes whoever owns the memory and however it is protected."],
        run: Run::On(|owners, rest| memory_commands::poke(&mut owners.memory, rest)),
    },
    Command {
        usage: flip_command::FLIP,
        summary: "for tests: flip bits of a live table entry",
        more: &[
            "Flips the bits in TTBR1's entry for VA at LEVEL, to see whether `verify` notices. VA is",
            "virtual and hexadecimal, LEVEL 0 to 3. A wrong bit may end the kernel.",
        ],
        run: Run::On(|Owners { memory, platform, .. }, rest| {
            flip_command::flip(memory, platform.image, rest)
        }),
    },
    Command {
        usage: memory_commands::HOARD,
        summary: "allocate all free memory except some bytes, for good",
        more: &["Shows how the other commands work when memory is short."],
        run: Run::On(|owners, rest| memory_commands::allocate_all_but(&mut owners.memory, rest)),
    },
    Command {
        usage: memory_commands::PRESERVE,
        summary: "preserve reserved memory through kexec",
        more: &["The next kernel's device tree names it. Refused while a payload is loaded."],
        run: Run::On(memory_commands::preserve),
    },
    Command {
        usage: memory_commands::RELEASE,
        summary: "stop preserving memory: it is reserved again",
        more: &[],
        run: Run::On(memory_commands::release),
    },
];

const CPUS: &[Command] = &[
    Command {
        usage: "cpus",
        summary: "show all CPUs, and whether they answer",
        more: &["Also their models and BBM levels."],
        run: Run::On(|owners, _| cpu_commands::show(&owners.cpus)),
    },
    Command {
        usage: cpu_commands::CPU_ON,
        summary: "start a CPU",
        more: &[],
        run: Run::On(cpu_commands::cpu_on),
    },
    Command {
        usage: cpu_commands::CPU_OFF,
        summary: "switch a CPU off",
        more: &[],
        run: Run::On(cpu_commands::cpu_off),
    },
    Command {
        usage: cpu_commands::MASK,
        summary: "mask the interrupts of a CPU for a while, from now on",
        more: &["Shows what a change does that has to interrupt that CPU."],
        run: Run::On(|_, rest| cpu_commands::mask(rest)),
    },
];

const END: &[Command] = &[
    Command {
        usage: "kexec [load|unload|plan|list|exec]",
        summary: "load the payload and enter it, or do one step of that",
        more: kexec_commands::MORE,
        run: Run::On(kexec_commands::kexec),
    },
    Command {
        usage: crash_commands::PANIC,
        summary: "panic, on this CPU or another; enters a crash kernel if one waits",
        more: &["With MILLISECONDS the shell goes on until then."],
        run: Run::On(|_, rest| crash_commands::panic(rest)),
    },
    Command {
        usage: crash_commands::FAULT,
        summary: "fault, on this CPU or another: it reads unmapped memory",
        more: &["With MILLISECONDS the shell goes on until then."],
        run: Run::On(|_, rest| crash_commands::fault(rest)),
    },
    Command { usage: "poweroff", summary: "switch the machine off", more: &[], run: Run::PowerOff },
];

const SHELL: &[Command] = &[Command {
    usage: "help [COMMAND]",
    summary: "list the commands, or describe one",
    more: &[],
    run: Run::Help,
}];

/// Runs the command `line`. It ends in a sentence for people and a line for machines, `done=` or
/// `refused=`.
///
/// # Errors
/// [`CommandError`].
pub fn execute(owners: &mut Owners, line: &str) -> Result<Next, CommandError> {
    match run(owners, line) {
        Ok(next) => {
            report!("done={}", Quoted(line));
            Ok(next)
        }
        Err(error) => {
            say!("Refused: {error}.");
            report!("refused={} what={}", Quoted(line), Quoted(&error));
            Err(error)
        }
    }
}

fn run(owners: &mut Owners, line: &str) -> Result<Next, CommandError> {
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let command = find(name)?;
    let rest = rest.trim();
    let needed = command.words().is_some_and(|words| !words.starts_with('['));
    if rest.is_empty() && needed || !rest.is_empty() && command.words().is_none() {
        return Err(CommandError::Usage(command.usage));
    }
    match command.run {
        Run::Help if rest.is_empty() => help::list(GROUPS),
        Run::Help => help::describe(find(rest)?),
        Run::On(run) => run(owners, rest)?,
        Run::PowerOff => {
            say!("Switching the machine off.");
            return Ok(Next::PowerOff);
        }
    }
    Ok(Next::Command)
}

/// Whether `line` is the command that switches the machine off.
pub fn is_power_off(line: &str) -> bool {
    find(line).is_ok_and(|command| matches!(command.run, Run::PowerOff))
}

/// Passes the words that can follow `before`: the names of all commands, or what a command chooses
/// from.
pub fn following(before: &str, found: &mut dyn FnMut(&'static str)) {
    match before.trim() {
        "" => all().for_each(|command| found(command.name())),
        "help" => all().for_each(|command| found(command.name())),
        name => find(name).into_iter().flat_map(Command::choices).for_each(found),
    }
}

fn all() -> impl Iterator<Item = &'static Command> {
    GROUPS.iter().flat_map(|group| group.commands)
}

fn find(name: &str) -> Result<&'static Command, CommandError> {
    all().find(|command| command.name() == name).ok_or_else(|| CommandError::unknown(name))
}
