//! The command `kexec`.

use crate::kexec::allocations::Pool;
use crate::kexec::options::LoadOptions;
use crate::shell::error::CommandError;
use crate::shell::owners::Owners;

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
    let result = match what {
        None => hand_over.run().map(|never| match never {}),
        Some("load") => hand_over.load(options),
        Some("unload") => hand_over.unload(options.pool),
        Some("plan") => hand_over.show_plan(options.pool),
        Some("list") => hand_over.list(),
        Some("exec") => hand_over.exec(verify).map(|never| match never {}),
        Some(_) => return Err(WRONG),
    };
    Ok(result?)
}
