//! The words of the command line that more than one wing knows.

use linmap_platform::Word;

/// All words for linmap begin with this. The others are the payload's.
const PREFIX: &str = "linmap.";
/// The number of kexecs of linmap into itself before this boot.
pub const GENERATION: &str = "linmap.generation";
/// The number of CPUs that linmap starts.
pub const CPUS: &str = "linmap.cpus";
/// The memory that linmap reserves for a crash kernel.
pub const CRASH_KERNEL: &str = "linmap.crashkernel";

/// Whether `word` is for linmap and not for its payload.
pub fn is_ours(word: &Word<'_>) -> bool {
    word.key().starts_with(PREFIX)
}
