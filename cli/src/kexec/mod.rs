//! `linmap kexec plan`: what goes where before anything is loaded.

mod payload;
mod pe;
mod report;
mod staging;
mod tree;

#[cfg(test)]
mod hostile;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::outcome::Outcome;
use crate::output::Output;
use crate::plan::image::ImageOption;
use crate::plan::input::{Input, InputKind};
use crate::plan::machine::{Given, Machine};
use crate::plan::settings::MapOptions;
use crate::plan::size::Bank;
use payload::Kernel;
use report::Report;
use staging::{KexecPlan, Load, Payload, Staging};
use tree::Tree;

const HELP: &str = "\
Examples:
  linmap kexec plan /boot/vmlinuz --initrd /boot/initrd.img
  linmap kexec plan Image.gz --dtb board.dtb --memory 4G@0x80000000
  linmap kexec plan Image --layout /proc/iomem --scattered --list

IMAGE is an arm64 Image, raw or packed with gzip or zstd, or an EFI zboot image. Memory is what
--layout says, which is any INPUT of `linmap plan`, else what the device tree of --dtb says, else
what /sys/firmware/fdt of this machine says.

The list of --list is Linux's: a word for each page, with IND_DESTINATION (1), IND_INDIRECTION (2),
IND_DONE (4) and IND_SOURCE (8).";

#[derive(Debug, clap::Subcommand)]
pub enum KexecCommand {
    /// Show where each segment goes, and what is moved, cleared or in place
    #[command(after_long_help = HELP)]
    Plan(KexecPlanArgs),
}

#[derive(Debug, clap::Args)]
pub struct KexecPlanArgs {
    /// The next kernel
    image: PathBuf,
    /// Its initrd
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// The device tree that it gets, with changes
    #[arg(long, value_name = "FILE")]
    dtb: Option<PathBuf>,
    /// The machine's memory: any input of `linmap plan`
    #[arg(long, value_name = "INPUT")]
    layout: Option<PathBuf>,
    /// Its command line [default: that of the device tree]
    #[arg(long, value_name = "LINE")]
    append: Option<String>,
    /// The running kernel: READONLY+DATA, READONLY+DATA@START or none [default: as of
    /// `linmap plan`]
    #[arg(long, value_name = "IMAGE")]
    running: Option<ImageOption>,
    /// RAM for a device tree that leaves it to its boot loader; once for each bank
    #[arg(long, value_name = "SIZE@START")]
    memory: Vec<Bank>,
    /// Load page by page into unrelated frames, as a loader that receives pieces must
    #[arg(long)]
    scattered: bool,
    /// CPUs that share the move
    #[arg(long, value_name = "COUNT", default_value = "1")]
    cpus: NonZeroUsize,
    /// Print the moves as Linux's list, a word for each page
    #[arg(long)]
    list: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Where Linux shows the device tree that it was booted with.
const OWN_TREE: &str = "/sys/firmware/fdt";

/// `linmap kexec plan`.
pub fn run(arguments: &KexecPlanArgs, output: &mut Output) -> Result<Outcome, Failure> {
    let kernel = Kernel::read(&arguments.image)?;
    let initrd = arguments.initrd.as_deref().map(payload::read_file).transpose()?;
    let dtb = arguments.dtb.as_deref().map(read_tree).transpose()?;
    let layout = match (&arguments.layout, &dtb) {
        (Some(path), _) => Some(Input::read(path)?),
        (None, Some(_)) => None,
        (None, None) => Some(Input::read(Path::new(OWN_TREE)).map_err(|error| {
            error.hint("say what memory the machine has by --layout INPUT or --dtb FILE")
        })?),
    };
    let blob = dtb.as_ref().or(layout.as_ref().filter(|layout| layout.kind == InputKind::DeviceTree));
    let tree = Tree::new(blob.map(|tree| &tree.bytes[..]), arguments.append.as_deref())?;
    let Some(memory) = layout.as_ref().or(dtb.as_ref()) else {
        return Err(Failure::new("nothing says what memory the machine has"));
    };
    let given = Given {
        options: MapOptions::default(),
        image: arguments.running,
        banks: arguments.memory.iter().map(|bank| bank.0).collect(),
    };
    let mut machine = Machine::read(memory, &given).map_err(|error| error.of(&memory.name))?;
    if !tree.is_known() {
        let len = tree::USUAL_LEN >> 10;
        machine.notes.push(format!("a device tree of {len} KiB is assumed: --dtb names the real one"));
    }
    let staging = if arguments.scattered { Staging::Scattered } else { Staging::InPlace };
    let payload = Payload { kernel: &kernel, initrd: initrd.as_deref(), tree: &tree };
    let plan = KexecPlan::new(&mut machine, &payload, Load { staging, cpus: arguments.cpus })?;
    let list = arguments.list.then(|| plan.linux_list(&mut machine.memory)).transpose()?;
    let report = Report {
        name: arguments.image.display().to_string(),
        kernel: &kernel,
        layout: memory.name.clone(),
        machine: &machine,
        plan: &plan,
        list,
    };
    if arguments.json {
        output.line(format_args!("{:#}", report.json()))?;
    } else {
        report.write(output)?;
    }
    Ok(Outcome::Good)
}

/// Reads a file that has to be a device tree.
fn read_tree(path: &Path) -> Result<Input, Failure> {
    let input = Input::read(path)?;
    match input.kind {
        InputKind::DeviceTree => Ok(input),
        kind => Err(Failure::new(format_args!("a {} is not a device tree", kind.name()))
            .of(&input.name)
            .hint("--layout takes any description of memory")),
    }
}
