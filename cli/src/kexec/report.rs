//! A kexec plan as text and as JSON.

use linmap_kexec::IndEntry;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::kexec::payload::Kernel;
use crate::kexec::staging::{KexecPlan, LinuxList, Segment, Staged};
use crate::output::{Output, Verbosity};
use crate::plan::json::{address, range};
use crate::plan::machine::Machine;
use crate::plan::size::Bytes;
use crate::plan::text::{plural, printable};

/// The style of headings.
const HEADING: anstyle::Style = anstyle::Style::new().bold();

/// What a report is about.
#[derive(Debug)]
pub struct Report<'r> {
    /// The kernel's file.
    pub name: String,
    /// The kernel.
    pub kernel: &'r Kernel,
    /// Who says what memory there is.
    pub layout: String,
    /// The machine.
    pub machine: &'r Machine,
    /// The plan.
    pub plan: &'r KexecPlan,
    /// Linux's list, if it was asked for.
    pub list: Option<LinuxList>,
}

impl Report<'_> {
    /// Writes the report as text.
    pub fn write(&self, output: &mut Output) -> Result<(), Failure> {
        let Self { name, kernel, layout, machine, plan, list } = self;
        output.line(format_args!("{HEADING}{}{HEADING:#}: {}", printable(name), kernel.describe()))?;
        if output.verbosity() > Verbosity::Quiet {
            for note in &machine.notes {
                output.line(format_args!("note: {}", printable(note)))?;
            }
        }
        let running = machine.image.map_or("no running kernel in it".into(), |image| {
            format!("the running kernel at {}", image.parts.range())
        });
        let ram = Bytes(machine.memory.memory_len());
        output.line(format_args!("{HEADING}memory{HEADING:#}   {}: {ram}, {running}", printable(layout)))?;
        output.line(format_args!(
            "{HEADING}{:<8} {:<14} {:<28} {:>10} {:>10} {:>10} {:>10}{HEADING:#}",
            "segment", "source", "destination", "bytes", "moved", "in place", "cleared"
        ))?;
        for segment in &plan.segments {
            let source = match segment.staged {
                Staged::InPlace => "in place".into(),
                Staged::At(at) => at.to_string(),
                Staged::Pages => "pages".into(),
            };
            output.line(format_args!(
                "{:<8} {source:<14} {:<28} {:>10} {:>10} {:>10} {:>10}",
                segment.name,
                segment.destination.to_string(),
                segment.bytes,
                Bytes(segment.moved()),
                Bytes(segment.in_place()),
                Bytes(segment.cleared)
            ))?;
        }
        let (entry, dtb) = (plan.placed.entry(), plan.placed.dtb.start);
        output.line(format_args!("{HEADING}entry{HEADING:#}    {entry}, the device tree at {dtb} in x0"))?;
        let moves = &plan.moves;
        output.line(format_args!(
            "{HEADING}moves{HEADING:#}    {} {}: {} moved, {} cleared, {} in place; {} {} of {} {}",
            moves.extents,
            plural(moves.extents as usize, "extent"),
            Bytes(moves.moved),
            Bytes(moves.cleared),
            Bytes(moves.in_place),
            moves.lists.len(),
            plural(moves.lists.len(), "list"),
            moves.frames,
            plural(moves.frames as usize, "frame")
        ))?;
        list.as_ref().map_or(Ok(()), |list| write_list(output, list))
    }

    /// The report as JSON.
    pub fn json(&self) -> Value {
        let Self { name, kernel, layout, machine, plan, list } = self;
        let (packing, zboot) = kernel.packing();
        let moves = &plan.moves;
        let mut report = json!({
            "kernel": {
                "file": name,
                "packing": packing,
                "zboot": zboot,
                "bytes": kernel.bytes.len(),
                "image_size": kernel.image.image_size,
                "text_offset": kernel.image.text_offset,
                "granule": kernel.image.page_size.map(|granule| granule.bytes()),
            },
            "memory": {
                "from": layout,
                "ram_bytes": machine.memory.memory_len(),
                "running_kernel": machine.image.map(|image| range(image.parts.range())),
                "notes": machine.notes,
            },
            "segments": plan.segments.iter().map(segment).collect::<Vec<_>>(),
            "entry": address(plan.placed.entry()),
            "dtb": address(plan.placed.dtb.start),
            "moves": {
                "lists": moves.lists.len(),
                "list_frames": moves.frames,
                "extents": moves.extents,
                "moved_bytes": moves.moved,
                "cleared_bytes": moves.cleared,
                "in_place_bytes": moves.in_place,
            },
        });
        if let (Some(list), Some(report)) = (list, report.as_object_mut()) {
            let words: Vec<_> = list.entries.iter().map(|entry| format!("{:#x}", entry.word())).collect();
            report.insert("list".into(), json!({ "zeros": address(list.zeros), "words": words }));
        }
        report
    }
}

fn segment(segment: &Segment) -> Value {
    json!({
        "name": segment.name,
        "source": match segment.staged {
            Staged::InPlace => "in place".into(),
            Staged::At(at) => address(at),
            Staged::Pages => "pages".into(),
        },
        "destination": range(segment.destination),
        "bytes": segment.bytes,
        "moved_bytes": segment.moved(),
        "in_place_bytes": segment.in_place(),
        "cleared_bytes": segment.cleared,
    })
}

fn write_list(output: &mut Output, list: &LinuxList) -> Result<(), Failure> {
    output.line(format_args!("{HEADING}list{HEADING:#}     a page of zeros at {}", list.zeros))?;
    for entry in &list.entries {
        let what = match entry {
            IndEntry::Destination(pa) => format!("destination {pa}"),
            IndEntry::Indirection(pa) => format!("indirection {pa}"),
            IndEntry::Source(pa) if *pa == list.zeros => format!("source {pa}, zeros"),
            IndEntry::Source(pa) => format!("source {pa}"),
            IndEntry::Done => "done".into(),
        };
        output.line(format_args!("  {:#018x}  {what}", entry.word()))?;
        if !output.has_reader() {
            break;
        }
    }
    Ok(())
}
