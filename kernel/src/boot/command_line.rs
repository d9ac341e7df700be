//! The words of the command line that are ours. All others are the payload's.

use linmap_platform::Word;

/// What each of them begins with.
const PREFIX: &str = "linmap.";
/// How many kexecs of linmap into itself came before this boot.
pub const GENERATION: &str = "linmap.generation";
/// How many CPUs linmap starts.
pub const CPUS: &str = "linmap.cpus";
/// What linmap reserves for a crash kernel.
pub const CRASH_KERNEL: &str = "linmap.crashkernel";

/// Returns whether `word` is for linmap and not for its payload.
pub fn is_ours(word: &Word<'_>) -> bool {
    word.key().starts_with(PREFIX)
}
