//! `cargo xtask fuzz`: the property tests of the machine model, of the linear map's changes on it,
//! of unpacking kernels, of all parsers of a payload, of the command line, and of reading a
//! machine's device tree, its UEFI memory map or iomem, for as long as one likes.

use std::process::{Command, ExitCode};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::workspace::{Workspace, cargo};
use crate::{process, progress};

/// What `--help` says about time and seeds.
pub const HELP: &str = "\
Every round has a seed of its own: the first the one given, each later one the next number. A round
that fails ends the run and says how to repeat it.

Time: on two CPUs of an x86-64 virtual machine a round of 30000 sequences takes about two and a half
minutes, all of the default four to five hours.

Exit code: 0 nothing was found, 1 something was";

/// Run random edits of live trees and random changes of the linear map on the machine model, random
/// bytes and events through its readers and the machine, and random bytes through what unpacks
/// kernels and reads move lists, archives, command lines, device trees, UEFI memory maps and iomem.
#[derive(Debug, clap::Args)]
pub struct FuzzArgs {
    /// How many sequences of up to 20 edits, in all: a third each in trees of 4K, 16K and 64K
    #[arg(long, default_value_t = 3_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    sequences: u64,
    /// Where the random numbers begin [default: the time]
    #[arg(long)]
    seed: Option<u64>,
}

/// The packages that have the tests.
const MODEL: &str = "linmap-model";
const BOARD: &str = "linmap-board";
const LINMAP: &str = "linmap";
const KEXEC: &str = "linmap-kexec";
const PLATFORM: &str = "linmap-platform";
const MEMBLOCK: &str = "linmap-memblock";
/// Sequences of one round.
const ROUND: u64 = 30_000;
/// Tests in `live_edits`, which share them.
const LIVE_EDITS: u64 = 3;
/// Sequences for each case of the machine's fuzzer, which takes about as long as one.
const SEQUENCES_PER_MACHINE: u64 = 50;
/// Sequences for each sequence of changes of a linear map, which takes as long as many: it builds a
/// map and removes it.
const SEQUENCES_PER_MAP: u64 = 100;

/// Sequences for each map that is compared with an oracle of pages.
const SEQUENCES_PER_ORACLE: u64 = 20;

/// Sequences for each layout of memory that is built: a million layouts in all.
const SEQUENCES_PER_LAYOUT: u64 = 3;

/// `cargo xtask fuzz`.
pub fn run(workspace: &Workspace, arguments: &FuzzArgs) -> Result<ExitCode> {
    let sequences = arguments.sequences;
    let seed = arguments.seed.unwrap_or_else(now);
    let count = sequences.div_ceil(ROUND);
    println!("{sequences} sequences in rounds of {ROUND}, seed {seed}");
    for (name, mut build) in rounds(sequences, seed).take(1).flat_map(|round| round.commands(workspace)) {
        build.arg("--no-run");
        progress::during(&format!("building {name}"), || process::capture(&mut build))?;
    }
    let started = Instant::now();
    for (round, number) in rounds(sequences, seed).zip(1u64..) {
        let Round { seed, done, .. } = round;
        let what = format!("round {number} of {count}, seed {seed}, {done} sequences done");
        for (test, mut command) in round.commands(workspace) {
            let output = progress::during(&format!("{what}: {test}"), || process::output(&mut command))?;
            if !output.status.success() {
                print!("{}", String::from_utf8_lossy(&output.stdout));
                eprint!("{}", String::from_utf8_lossy(&output.stderr));
                eprintln!("error: {test} failed with seed {seed}; the same again:");
                eprintln!("  {}", shown(&command));
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    println!("nothing found in {sequences} sequences, seed {seed}: {minutes:.1} minutes");
    Ok(ExitCode::SUCCESS)
}

/// The seed when none is given.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A part of the run that can be repeated by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Round {
    seed: u64,
    /// Sequences of the rounds before.
    done: u64,
    sequences: u64,
}

fn rounds(sequences: u64, seed: u64) -> impl Iterator<Item = Round> {
    (0..sequences.div_ceil(ROUND)).map(move |nth| Round {
        seed: seed.wrapping_add(nth),
        done: nth * ROUND,
        sequences: ROUND.min(sequences - nth * ROUND),
    })
}

impl Round {
    /// The tests of a round, by name.
    fn commands(self, workspace: &Workspace) -> [(&'static str, Command); 11] {
        [
            (
                BOARD,
                "live_edits",
                [("LINMAP_SEED", self.seed), ("LINMAP_SEQUENCES", self.sequences.div_ceil(LIVE_EDITS))],
            ),
            (
                LINMAP,
                "changes",
                [
                    // This test counts seeds up from its own, so the rounds' seeds are a round
                    // apart. Otherwise consecutive rounds would repeat most of each other.
                    ("LINMAP_SEED", self.seed.wrapping_mul(ROUND)),
                    ("LINMAP_SEQUENCES", self.sequences.div_ceil(SEQUENCES_PER_MAP)),
                ],
            ),
            (
                LINMAP,
                "oracle",
                [
                    ("LINMAP_SEED", self.seed.wrapping_mul(ROUND)),
                    ("LINMAP_SEQUENCES", self.sequences.div_ceil(SEQUENCES_PER_ORACLE)),
                ],
            ),
            (
                LINMAP,
                "layouts",
                [
                    ("LINMAP_SEED", self.seed.wrapping_mul(ROUND)),
                    ("LINMAP_SEQUENCES", self.sequences.div_ceil(SEQUENCES_PER_LAYOUT)),
                ],
            ),
            (
                MODEL,
                "fuzz_readers",
                [("PROPTEST_RNG_SEED", self.seed), ("LINMAP_FUZZ_CASES", self.sequences)],
            ),
            (KEXEC, "unpack_fuzz", [("PROPTEST_RNG_SEED", self.seed), ("LINMAP_FUZZ_CASES", self.sequences)]),
            (
                MODEL,
                "fuzz_machine",
                [
                    ("PROPTEST_RNG_SEED", self.seed),
                    ("LINMAP_FUZZ_CASES", self.sequences.div_ceil(SEQUENCES_PER_MACHINE)),
                ],
            ),
            (
                KEXEC,
                "parsers_fuzz",
                [("PROPTEST_RNG_SEED", self.seed), ("LINMAP_FUZZ_CASES", self.sequences)],
            ),
            (KEXEC, "device_tree", [("PROPTEST_RNG_SEED", self.seed), ("PROPTEST_CASES", self.sequences)]),
            (PLATFORM, "reading", [("PROPTEST_RNG_SEED", self.seed), ("LINMAP_FUZZ_CASES", self.sequences)]),
            (
                MEMBLOCK,
                "other_sources",
                [("PROPTEST_RNG_SEED", self.seed), ("LINMAP_FUZZ_CASES", self.sequences)],
            ),
        ]
        .map(|(package, name, variables)| {
            let mut command = test(workspace, &["--package", package, "--test", name]);
            command.envs(variables.map(|(name, value)| (name, value.to_string())));
            (name, command)
        })
    }
}

fn test(workspace: &Workspace, words: &[&str]) -> Command {
    let mut command = Command::new(cargo());
    command.args(["test", "--quiet"]).args(words).current_dir(&workspace.root);
    command
}

/// The command with its variables, as one would type it into a shell.
fn shown(command: &Command) -> String {
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_string_lossy(), value?.to_string_lossy())));
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    variables.chain(["cargo".to_owned()]).chain(words).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_share_all_sequences_and_no_seed() {
        let all: Vec<_> = rounds(70_000, u64::MAX).collect();
        assert_eq!(
            all.iter().map(|round| (round.seed, round.sequences)).collect::<Vec<_>>(),
            [(u64::MAX, ROUND), (0, ROUND), (1, 10_000)]
        );
        assert_eq!(all.iter().map(|round| round.done).collect::<Vec<_>>(), [0, ROUND, 2 * ROUND]);
    }

    #[test]
    fn a_round_alone_is_the_same_as_within_a_run() {
        let within = rounds(10 * ROUND, 40).nth(3).unwrap();
        let alone = rounds(ROUND, 43).next().unwrap();
        assert_eq!((alone.seed, alone.sequences), (within.seed, within.sequences));
    }

    #[test]
    fn a_round_is_shown_as_a_line_for_the_shell() {
        let workspace = Workspace { root: ".".into(), target: "target".into() };
        let round = Round { seed: 7, done: 0, sequences: 60 };
        let shown = round.commands(&workspace).map(|(_, command)| shown(&command));
        assert!(shown[0].starts_with("LINMAP_SEED=7 LINMAP_SEQUENCES=20 "), "{}", shown[0]);
        assert!(shown[1].starts_with("LINMAP_SEED=210000 LINMAP_SEQUENCES=1 "), "{}", shown[1]);
        assert!(
            shown[6].ends_with(" test --quiet --package linmap-model --test fuzz_machine"),
            "{}",
            shown[6]
        );
    }
}
