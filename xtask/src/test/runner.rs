//! Runs tests: each in a process of its own, as many at a time as there are CPUs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::executables::Executable;
use crate::process;

/// A test that has ended.
#[derive(Debug)]
pub struct Ran {
    /// Its program and its own name.
    pub name: String,
    /// Its program.
    pub program: String,
    /// How long it took.
    pub time: Duration,
    /// Whether it passed.
    pub passed: bool,
}

/// A test to be run.
#[derive(Debug)]
struct Test<'e> {
    executable: &'e Executable,
    name: String,
}

/// Runs the tests whose names contain `filter`, with these variables, and shows the output of those
/// that fail.
pub fn run(
    executables: &[Executable],
    filter: Option<&str>,
    variables: &[(&str, OsString)],
) -> Result<Vec<Ran>> {
    let mut tests = Vec::new();
    for executable in executables {
        let names = list(executable)?.into_iter();
        let wanted = names.filter(|name| filter.is_none_or(|filter| name.contains(filter)));
        tests.extend(wanted.map(|name| Test { executable, name }));
    }
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let ran = Mutex::new(Vec::new());
    std::thread::scope(|scope| -> Result<()> {
        let work = || -> Result<()> {
            while let Some(test) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                let done = test.run(variables)?;
                ran.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(done);
            }
            Ok(())
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?)
    })?;
    Ok(ran.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()))
}

fn list(executable: &Executable) -> Result<Vec<String>> {
    let mut list = Command::new(&executable.path);
    list.args(["--list", "--format", "terse"]).current_dir(&executable.folder);
    let listed = process::capture(&mut list)?;
    Ok(listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

impl Test<'_> {
    fn run(&self, variables: &[(&str, OsString)]) -> Result<Ran> {
        let Self { executable: Executable { folder, name: program, path }, name } = self;
        let mut command = Command::new(path);
        command.args(["--exact", name]).current_dir(folder);
        command.env("CARGO_MANIFEST_DIR", folder).envs(variables.iter().cloned());
        let started = Instant::now();
        let output = process::output(&mut command)?;
        let time = started.elapsed();
        let passed = output.status.success();
        let named = format!("{program} {name}");
        if passed {
            eprintln!("{:>7.1} s  {named}", time.as_secs_f64());
        } else {
            eprintln!("{:>7.1} s  {named}: FAILED, {}", time.as_secs_f64(), output.status);
            eprint!("{}", String::from_utf8_lossy(&output.stdout));
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(Ran { name: named, program: program.clone(), time, passed })
    }
}

/// Prints how many passed, what failed, and the five that took longest; of a long run also what
/// each program's tests took together.
pub fn report(ran: &mut [Ran], is_soak: bool) -> Result<bool> {
    let failed: Vec<_> = ran.iter().filter(|test| !test.passed).map(|test| test.name.clone()).collect();
    println!("tests: {} passed, {} failed", ran.len() - failed.len(), failed.len());
    failed.iter().for_each(|name| println!("  FAILED {name}"));
    if is_soak {
        let mut programs: BTreeMap<&str, (usize, Duration)> = BTreeMap::new();
        for test in ran.iter() {
            let (count, time) = programs.entry(&test.program).or_default();
            *count += 1;
            *time += test.time;
        }
        println!("by program, where tests of others run beside them:");
        for (program, (count, time)) in programs {
            println!("  {:>7.1} s  {program}: {count} tests", time.as_secs_f64());
        }
    }
    ran.sort_by_key(|test| std::cmp::Reverse(test.time));
    println!("the slowest:");
    for test in ran.iter().take(5) {
        println!("  {:>7.1} s  {}", test.time.as_secs_f64(), test.name);
    }
    if ran.is_empty() {
        bail!("no test has such a name");
    }
    Ok(failed.is_empty())
}
