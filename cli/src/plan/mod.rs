//! `linmap plan`: what the linear map of a machine takes, derived from its memory.

pub mod image;
pub mod input;
pub mod json;
mod layout_file;
pub mod machine;
mod machine_plan;
pub mod settings;
pub mod size;
pub mod text;
mod uefi_text;

#[cfg(test)]
mod hostile;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use linmap::Builder;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::output::{Output, Verbosity};
use crate::progress;
use image::ImageOption;
use input::Input;
use machine::{Given, Machine};
use machine_plan::MachinePlan;
use settings::MapOptions;
use size::{Bank, Bytes};

pub const HELP: &str = "\
Examples:
  sudo cat /proc/iomem | linmap plan -
  linmap plan /sys/firmware/fdt
  linmap plan --memory 948M@0 --memory 3008M@0x40000000 bcm2711-rpi-4-b.dtb
  linmap plan --granule 16k --json boards/*.dtb

An INPUT is a device tree (.dtb), the text of /proc/iomem, a UEFI memory map, a layout in TOML, or -
for standard input; its content tells which. A UEFI memory map is what GetMemoryMap returns, as
bytes, or what the EFI shell's memmap, U-Boot's efidebug memmap or Linux's log with efi=debug print.

A layout:
  [[region]]
  start = 0x8000_0000
  size = \"4G\"
  [[region]]
  start = 0xfe00_0000
  size = \"16M\"
  flags = [\"no-map\"]   # or [\"reserved\"]
  [image]              # optional
  read-only = \"24M\"
  data = \"16M\"
  [options]            # optional
  granule = \"4k\"";

#[derive(Debug, clap::Args)]
pub struct PlanArgs {
    /// Device trees, /proc/iomem, UEFI memory maps, layouts in TOML; - is standard input
    #[arg(required = true)]
    input: Vec<PathBuf>,
    #[command(flatten)]
    options: MapOptions,
    /// The kernel image: READONLY+DATA, READONLY+DATA@START or none [default: 24M+16M where a boot
    /// loader would place it, or what the input says]
    #[arg(long, value_name = "IMAGE")]
    image: Option<ImageOption>,
    /// RAM for device trees that leave it to their boot loader; once for each bank
    #[arg(long, value_name = "SIZE@START")]
    memory: Vec<Bank>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What became of an input.
type Planned = Result<(Input, Machine, MachinePlan), Failure>;

/// `linmap plan`.
pub fn run(arguments: &PlanArgs, output: &mut Output) -> Result<Outcome, Failure> {
    let given = Given {
        options: arguments.options,
        image: arguments.image,
        banks: arguments.memory.iter().map(|bank| bank.0).collect(),
    };
    let inputs = &arguments.input;
    let mut planned = plan_all(inputs, &given, output.verbosity());
    if arguments.json {
        output.line(format_args!("{:#}", json_of(inputs, &planned)))?;
    } else if let [one] = &planned[..] {
        if let Ok((input, machine, plan)) = one {
            text::write(output, input, machine, plan)?;
        }
    } else {
        rows(output, &planned)?;
    }
    let count = planned.len();
    planned.retain(Result::is_err);
    match (planned.pop(), planned.len() + 1) {
        (Some(Err(failure)), _) if count == 1 => Err(failure),
        (Some(_), failed) => {
            Err(Failure::new(format_args!("{failed} of {count} inputs could not be planned")))
        }
        (None, _) => Ok(Outcome::Good),
    }
}

fn plan(path: &Path, given: &Given) -> Planned {
    plan_of(Input::read(path)?, given)
}

fn plan_of(input: Input, given: &Given) -> Planned {
    let planned = Machine::read(&input, given).and_then(|machine| {
        let plan = MachinePlan::new(&machine)?;
        Ok((machine, plan))
    });
    match planned {
        Ok((machine, plan)) => Ok((Input { bytes: Vec::new(), ..input }, machine, plan)),
        Err(failure) => Err(failure.of(&input.name)),
    }
}

/// Plans all inputs, as many at once as there are CPUs.
fn plan_all(inputs: &[PathBuf], given: &Given, verbosity: Verbosity) -> Vec<Planned> {
    let progress = progress::of("planning", "inputs", Some(inputs.len() as u64), verbosity);
    let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(inputs.len());
    let (next, planned) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(inputs.len())));
    let work = || {
        let mut own = Vec::new();
        loop {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = inputs.get(nth) else { break };
            own.push((nth, plan(path, given)));
            progress.inc(1);
        }
        planned.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(own);
    };
    thread::scope(|scope| {
        for _ in 1..workers {
            scope.spawn(work);
        }
        work();
    });
    progress.finish_and_clear();
    let mut planned = planned.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    planned.sort_by_key(|(nth, _)| *nth);
    planned.into_iter().map(|(_, planned)| planned).collect()
}

/// One line for each input, and their sums.
fn rows(output: &mut Output, planned: &[Planned]) -> Result<(), Failure> {
    let names = planned.iter().flatten().map(|(input, _, _)| input.name.chars().count());
    let width = names.max().unwrap_or(0).clamp(5, 60);
    if output.verbosity() > Verbosity::Quiet {
        output.line(format_args!(
            "{:<width$}  {:>10}  {:>10}  {:>9}  {:>7}  {:>10}  {:>10}",
            "INPUT", "RAM", "MAPPED", "LEAVES", "TABLES", "BYTES", "TLBI"
        ))?;
    }
    for planned in planned {
        match planned {
            Ok((input, machine, plan)) => {
                let built = plan.map.built();
                output.line(format_args!(
                    "{:<width$}  {:>10}  {:>10}  {:>9}  {:>7}  {:>10}  {:>10}",
                    text::printable(&input.name),
                    Bytes(machine.memory.memory_len()).to_string(),
                    Bytes(built.bytes).to_string(),
                    built.entries,
                    built.tables,
                    Bytes(plan.table_bytes(&plan.map)).to_string(),
                    tlbi(plan)
                ))?;
            }
            Err(failure) => failure.print(),
        }
    }
    if output.verbosity() > Verbosity::Quiet {
        let good = || planned.iter().flatten();
        let sum = |of: &dyn Fn(&Machine, &MachinePlan) -> u64| {
            Bytes(good().map(|(_, machine, plan)| of(machine, plan)).fold(0, u64::saturating_add))
        };
        output.line(format_args!(
            "{} of {} planned: {} of RAM, {} mapped, {} of tables",
            good().count(),
            planned.len(),
            sum(&|machine, _| machine.memory.memory_len()),
            sum(&|_, plan| plan.map.built().bytes),
            sum(&|_, plan| plan.table_bytes(&plan.map))
        ))?;
    }
    Ok(())
}

/// The TLBIs of a row: by the builder that was asked for, or by the default one.
fn tlbi(plan: &MachinePlan) -> String {
    let shown = match plan.builders[..] {
        [(_, cost)] => Some(cost),
        _ => plan.builders.iter().find(|(builder, _)| *builder == Builder::Identity).map(|(_, cost)| *cost),
    };
    shown.and_then(Result::ok).map_or("-".into(), |cost| cost.instructions.tlbi.to_string())
}

fn json_of(inputs: &[PathBuf], planned: &[Planned]) -> Value {
    let of_input = |(path, planned): (&PathBuf, &Planned)| match planned {
        Ok((input, machine, plan)) => json::plan(input, machine, plan),
        Err(failure) => json!({ "input": path.display().to_string(), "error": failure.to_string() }),
    };
    let good = || planned.iter().flatten();
    let sum = |of: &dyn Fn(&Machine, &MachinePlan) -> u64| {
        good().map(|(_, machine, plan)| of(machine, plan)).fold(0, u64::saturating_add)
    };
    json!({
        "inputs": inputs.iter().zip(planned).map(of_input).collect::<Vec<_>>(),
        "summary": {
            "inputs": planned.len(),
            "planned": good().count(),
            "ram_bytes": sum(&|machine, _| machine.memory.memory_len()),
            "mapped_bytes": sum(&|_, plan| plan.map.built().bytes),
            "table_bytes": sum(&|_, plan| plan.table_bytes(&plan.map)),
        },
    })
}
