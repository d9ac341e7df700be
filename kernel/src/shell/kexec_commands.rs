//! The command `kexec`.

use crate::kexec::allocations::Pool;
use crate::kexec::options::LoadOptions;
use crate::say;
use crate::shell::error::CommandError;
use crate::shell::owners::Owners;

/// What `help kexec` says besides.
pub const MORE: &[&str] = &[
    "kexec                              load the payload and enter it",
    "kexec load [--scattered] [--mmu-off] [--verify]",
    "                                   load it: page by page in unrelated frames; without tables;",
    "                                   with digests for exec --verify",
    "kexec load --crash                 load a crash kernel, which is entered on panic",
    "kexec unload [--crash]             free its memory",
    "kexec plan [--crash]               show what is moved where, with SHA-256",
    "kexec list                         print the same as Linux's list, one word a page",
    "kexec exec [--verify]              enter it; check first that nothing has changed",
];

const USAGE: &str = "kexec [load [--scattered] [--mmu-off] [--verify] | load --crash | \
    unload [--crash] | plan [--crash] | list | exec [--verify]]";

/// Loads the payload and enters it, or does one step of that. Only returns with an error when a
/// payload is entered.
pub fn kexec(owners: &mut Owners, rest: &str) -> Result<(), CommandError> {
    const WRONG: CommandError = CommandError::Usage(USAGE);
    let mut words = rest.split_whitespace();
    let what = words.next();
    let mut options = LoadOptions::default();
    let mut verify = false;
    for word in words {
        match (what, word) {
            (Some("load"), "--scattered") => options.scattered = true,
            (Some("load"), "--mmu-off") => options.mmu_off = true,
            (Some("load"), "--verify") => options.digests = true,
            (Some("exec"), "--verify") => verify = true,
            (Some("load" | "unload" | "plan"), "--crash") => options.pool = Pool::CrashKernel,
            _ => return Err(WRONG),
        }
    }
    if options.pool == Pool::CrashKernel && (options.scattered || options.mmu_off) {
        return Err(WRONG);
    }
    let mut hand_over = owners.hand_over();
    let payload = match options.pool {
        Pool::CrashKernel => "crash kernel",
        _ => "payload",
    };
    match what {
        None => match hand_over.run()? {},
        Some("exec") => match hand_over.exec(verify)? {},
        Some("load") => {
            hand_over.load(options)?;
            say!("The {payload} is loaded; `kexec plan` shows where.");
        }
        Some("unload") => {
            hand_over.unload(options.pool)?;
            say!("The {payload}'s memory is free again.");
        }
        Some("plan") => {
            hand_over.show_plan(options.pool)?;
            say!("This is the plan for the {payload}; nothing has been moved.");
        }
        Some("list") => {
            hand_over.list()?;
            say!("This is the same as Linux's list; nothing has been moved.");
        }
        Some(_) => return Err(WRONG),
    }
    Ok(())
}
