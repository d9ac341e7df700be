//! The list of commands, and running one.

use arrayvec::ArrayString;

use crate::arch::psci::power_off;
use crate::say;
use crate::shell::cpu_commands;
use crate::shell::crash_commands;
use crate::shell::edit_commands;
use crate::shell::error::CommandError;
use crate::shell::kexec_commands;
use crate::shell::map_commands;
use crate::shell::memory_commands;
use crate::shell::owners::Owners;
use crate::shell::stress_command;

type Run = fn(&mut Owners, &str) -> Result<(), CommandError>;

struct Command {
    /// Its name and its words. Words in brackets may be left out.
    usage: &'static str,
    help: &'static str,
    run: Run,
}

const COMMANDS: &[Command] = &[
    Command {
        usage: "help",
        help: "this list",
        run: |_, _| {
            help();
            Ok(())
        },
    },
    Command {
        usage: "mem",
        help: "memblock: memory, no-map and reserved ranges",
        run: |owners, _| map_commands::mem(&owners.memory),
    },
    Command {
        usage: "map",
        help: "the linear map: ranges, leaf sizes, tables",
        run: |owners, _| map_commands::map(&owners.memory, owners.platform.image),
    },
    Command {
        usage: "dump",
        help: "all live TTBR1 mappings, runs folded, W+X flagged",
        run: |owners, _| map_commands::dump(&owners.memory, owners.platform.image),
    },
    Command {
        usage: "translate VA",
        help: "how the tables and the MMU translate an address",
        run: |owners, rest| map_commands::translate(&owners.memory, owners.platform.image, rest),
    },
    Command { usage: "verify", help: "verify the linear map", run: |owners, _| map_commands::verify(owners) },
    Command {
        usage: "cpus",
        help: "all CPUs: state, model, BBM level, and whether they answer",
        run: |owners, _| cpu_commands::show(&owners.cpus),
    },
    Command { usage: cpu_commands::CPU_ON, help: "start a CPU", run: cpu_commands::cpu_on },
    Command { usage: cpu_commands::CPU_OFF, help: "switch a CPU off", run: cpu_commands::cpu_off },
    Command {
        usage: memory_commands::RESERVE,
        help: "reserve free memory, to try protections on",
        run: |Owners { memory, map, reservations, .. }, rest| {
            memory_commands::reserve(memory, map, reservations, rest)
        },
    },
    Command {
        usage: memory_commands::FREE,
        help: "free what was reserved",
        run: |Owners { memory, map, reservations, .. }, rest| {
            memory_commands::free(memory, map, reservations, rest)
        },
    },
    Command {
        usage: memory_commands::HOARD,
        help: "allocate all free memory except some bytes",
        run: |owners, rest| memory_commands::allocate_all_but(&mut owners.memory, rest),
    },
    Command {
        usage: memory_commands::FILL,
        help: "fill reserved memory with a pattern",
        run: |Owners { memory, map, reservations, .. }, rest| {
            memory_commands::fill(memory, map, reservations, rest)
        },
    },
    Command {
        usage: memory_commands::DIGEST,
        help: "the SHA-256 of reserved or preserved memory, computed in both ways",
        run: |Owners { memory, map, reservations, preserved, .. }, rest| {
            memory_commands::digest(memory, map, reservations, preserved, rest)
        },
    },
    Command {
        usage: memory_commands::POKE,
        help: "write a byte to any memory, to see whether that is noticed",
        run: |owners, rest| memory_commands::poke(&mut owners.memory, rest),
    },
    Command {
        usage: memory_commands::PRESERVE,
        help: "preserve reserved memory through kexec",
        run: memory_commands::preserve,
    },
    Command {
        usage: memory_commands::RELEASE,
        help: "stop preserving memory: it is reserved again",
        run: memory_commands::release,
    },
    Command {
        usage: edit_commands::PROTECT,
        help: "change the protection of memory",
        run: edit_commands::protect,
    },
    Command {
        usage: edit_commands::TEXT,
        help: "make memory read-only and executable",
        run: edit_commands::text,
    },
    Command {
        usage: edit_commands::SPLIT,
        help: "split leaves, to level 2 or 3",
        run: |Owners { memory, map, .. }, rest| edit_commands::split(memory, map, rest),
    },
    Command {
        usage: edit_commands::FOLD,
        help: "fold leaves as far as possible",
        run: |Owners { memory, map, .. }, rest| edit_commands::fold(memory, map, rest),
    },
    Command {
        usage: edit_commands::NON_GLOBAL,
        help: "make all translations non-global, or global",
        run: |Owners { memory, map, .. }, rest| edit_commands::non_global(memory, map, rest),
    },
    Command {
        usage: edit_commands::MEMORY,
        help: "add memory to the map, or remove it",
        run: edit_commands::memory,
    },
    Command {
        usage: cpu_commands::MASK,
        help: "mask the interrupts of a CPU for a while, from now on",
        run: |_, rest| cpu_commands::mask(rest),
    },
    Command {
        usage: stress_command::STRESS,
        help: "random changes while all other CPUs use the map",
        run: stress_command::stress,
    },
    Command {
        usage: "kexec [load|unload|plan|list|exec]",
        help: "load the payload and enter it, or one step of that",
        run: kexec_commands::kexec,
    },
    Command {
        usage: crash_commands::PANIC,
        help: "panic on this CPU or another; a crash kernel is entered if one waits",
        run: |_, rest| crash_commands::panic(rest),
    },
    Command {
        usage: crash_commands::FAULT,
        help: "fault on this CPU or another: it reads unmapped memory",
        run: |_, rest| crash_commands::fault(rest),
    },
    Command {
        usage: "poweroff",
        help: "switch the machine off",
        run: |owners, _| power_off(owners.platform.psci),
    },
];

impl Command {
    /// The name, and the words.
    fn parts(&self) -> (&'static str, Option<&'static str>) {
        match self.usage.split_once(' ') {
            None => (self.usage, None),
            Some((name, words)) => (name, Some(words)),
        }
    }
}

/// Runs the command `line`.
///
/// # Errors
/// [`CommandError`].
pub fn execute(owners: &mut Owners, line: &str) -> Result<(), CommandError> {
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let Some(command) = COMMANDS.iter().find(|command| command.parts().0 == name) else {
        let mut unknown = ArrayString::new();
        for c in name.chars() {
            if unknown.try_push(c).is_err() {
                break;
            }
        }
        return Err(CommandError::Unknown(unknown));
    };
    let rest = rest.trim();
    let (_, words) = command.parts();
    let needed = words.is_some_and(|words| !words.starts_with('['));
    if rest.is_empty() && needed || !rest.is_empty() && words.is_none() {
        return Err(CommandError::Usage(command.usage));
    }
    (command.run)(owners, rest)
}

fn help() {
    for command in COMMANDS {
        say!("  {:<14} {}", command.usage, command.help);
    }
}
