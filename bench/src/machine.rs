//! What the results were measured on.

use std::num::NonZero;
use std::thread;

/// The host and the compiler.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What the CPU calls itself, or the architecture where it does not say.
    pub cpu: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// The compiler that built the benchmarks.
    pub rustc: &'static str,
    /// Bytes of the memory that the tables are written to.
    pub arena_bytes: u64,
    /// How many of them huge pages back.
    pub huge_bytes: u64,
}

impl Machine {
    /// This machine, with an arena of `arena_bytes` bytes, which must be there already.
    pub fn with_arena(arena_bytes: u64) -> Self {
        let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let cpus = thread::available_parallelism().map_or(1, NonZero::get);
        let huge_kib = field("/proc/self/smaps_rollup", "AnonHugePages")
            .and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0);
        let huge_bytes = huge_kib.saturating_mul(1024).min(arena_bytes);
        Self { cpu, cpus, rustc: env!("BENCH_RUSTC"), arena_bytes, huge_bytes }
    }
}

/// The value of the first line `name: value` in a file of the kernel's.
pub fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}
