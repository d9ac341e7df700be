//! A plan as text.

use std::fmt::Write as _;

use linmap::{BuildCost, LevelCounts};
use linmap_vmsa::{Geometry, Level, PaRange};

use crate::failure::Failure;
use crate::output::{Output, Verbosity};
use crate::plan::image::ImageSource;
use crate::plan::input::Input;
use crate::plan::machine::Machine;
use crate::plan::machine_plan::MachinePlan;
use crate::plan::size::Bytes;

/// The style of headings.
const HEADING: anstyle::Style = anstyle::Style::new().bold();

/// Writes the whole plan of one input.
pub fn write(
    output: &mut Output,
    input: &Input,
    machine: &Machine,
    plan: &MachinePlan,
) -> Result<(), Failure> {
    let model = machine.model.as_ref().map_or(String::new(), |model| format!(", {model}"));
    output.line(format_args!(
        "{HEADING}{}{HEADING:#}: {}{}",
        printable(&input.name),
        input.kind.name(),
        printable(&model)
    ))?;
    if output.verbosity() > Verbosity::Quiet {
        for note in &machine.notes {
            output.line(format_args!("note: {}", printable(note)))?;
        }
    }
    memory(output, machine)?;
    map(output, machine, plan)?;
    leaves(output, plan)?;
    tables(output, plan)?;
    builders(output, plan)?;
    rodata(output, plan)
}

/// The text without what a terminal would obey.
pub fn printable(text: &str) -> String {
    text.replace(char::is_control, " ")
}

fn heading(output: &mut Output, name: &str, rest: impl std::fmt::Display) -> Result<(), Failure> {
    output.line(format_args!("{HEADING}{name:<12}{HEADING:#}{rest}"))
}

fn row(output: &mut Output, range: PaRange, what: &str) -> Result<(), Failure> {
    let (start, end, bytes) = (range.start.0, range.end.0, Bytes(range.len()));
    output.line(format!("  {start:#014x}..{end:#014x}  {bytes:>10}  {what}").trim_end())
}

fn memory(output: &mut Output, machine: &Machine) -> Result<(), Failure> {
    let memory = &machine.memory;
    let count = memory.regions().filter(|region| !region.no_map).count();
    let ram: u64 = memory.memory_len();
    heading(output, "memory", format_args!("{} in {count} {}", Bytes(ram), plural(count, "region")))?;
    for region in memory.regions() {
        row(output, region.range, if region.no_map { "no-map" } else { "RAM" })?;
    }
    let reserved = memory.reserved();
    if !reserved.is_empty() {
        let bytes = reserved.iter().map(|range| range.len()).sum();
        heading(output, "reserved", format_args!("{}, mapped all the same", Bytes(bytes)))?;
        for &range in reserved {
            let is_image = machine.image.is_some_and(|image| range.covers(image.parts.range()));
            row(output, range, if is_image { "with the kernel image" } else { "" })?;
        }
    }
    Ok(())
}

fn map(output: &mut Output, machine: &Machine, plan: &MachinePlan) -> Result<(), Failure> {
    match machine.image {
        None => heading(output, "image", "none in the linear map")?,
        Some(image) => {
            let source = match image.source {
                ImageSource::Option => "as --image says",
                ImageSource::Input => "as the input says",
                ImageSource::Placed => "where a boot loader would place it",
            };
            let (read_only, data) = (Bytes(image.parts.read_only.len()), Bytes(image.parts.data.len()));
            let range = image.parts.range();
            heading(
                output,
                "image",
                format_args!("{range}, {source}: {read_only} read-only, {data} of data, mapped elsewhere"),
            )?;
        }
    }
    let geometry = plan.geometry;
    heading(
        output,
        "linear map",
        format_args!(
            "{} at {}, PA {} first; {}K granule, {} bits of VA, {} of PA",
            Bytes(plan.map.built().bytes),
            plan.layout.start(),
            plan.layout.memstart(),
            geometry.granule().bytes() >> 10,
            geometry.va_bits(),
            geometry.pa_bits()
        ),
    )
}

/// The levels of a geometry from the root down.
pub fn levels(geometry: Geometry) -> impl Iterator<Item = Level> {
    (geometry.start_level().number()..=3).filter_map(Level::new)
}

/// The name of a leaf at `level`.
pub fn leaf_name(geometry: Geometry, level: Level) -> String {
    let kind = if level == Level::L3 { "pages" } else { "blocks" };
    format!("{} {kind}", Bytes(geometry.entry_bytes(level)))
}

fn leaves(output: &mut Output, plan: &MachinePlan) -> Result<(), Failure> {
    let geometry = plan.geometry;
    heading(output, "leaves", format_args!("{}", plan.map.built().entries))?;
    for level in levels(geometry).filter(|level| geometry.has_leaf(*level)) {
        let LevelCounts { single, contiguous, .. } = plan.map.at(level);
        let mut line = format!("  {:<16}{:>12}", leaf_name(geometry, level), single + contiguous);
        if contiguous > 0 {
            let runs = contiguous / geometry.new_run_entries(level).unwrap_or(1) as u64;
            let _ =
                write!(line, ", {contiguous} of them in {runs} contiguous {}", plural(runs as usize, "run"));
        }
        output.line(line)?;
    }
    Ok(())
}

fn tables(output: &mut Output, plan: &MachinePlan) -> Result<(), Failure> {
    let (tables, bytes) = (plan.map.built().tables, plan.table_bytes(&plan.map));
    heading(output, "tables", format_args!("{tables}, {} besides the root", Bytes(bytes)))?;
    for level in levels(plan.geometry).skip(1) {
        let count = plan.map.at(level).tables;
        let bytes = Bytes(count * plan.geometry.granule().bytes());
        output.line(format_args!("  {:<16}{count:>12}, {bytes}", format!("level {}", level.number())))?;
    }
    if bytes > plan.free {
        output.line(format_args!("note: {} are free, less than the tables need", Bytes(plan.free)))?;
    }
    Ok(())
}

fn builders(output: &mut Output, plan: &MachinePlan) -> Result<(), Failure> {
    let columns =
        format_args!("{:>10}{:>12}{:>12}  {}", "TLBI", "DSB", "ISB", "temporary frames").to_string();
    output.line(format_args!("{HEADING}{:<16}{HEADING:#}{columns}", "builders"))?;
    for (builder, cost) in &plan.builders {
        let name = builder.name();
        match cost {
            Ok(BuildCost { instructions, temporary, .. }) => output.line(format_args!(
                "  {name:<14}{:>10}{:>12}{:>12}  {temporary}",
                instructions.tlbi, instructions.dsb, instructions.isb
            ))?,
            Err(error) => output.line(format_args!("  {name:<14}can't build it: {error}"))?,
        }
    }
    Ok(())
}

fn rodata(output: &mut Output, plan: &MachinePlan) -> Result<(), Failure> {
    let (blocks, pages) = (plan.blocks.built(), plan.pages.built());
    output.line(format_args!("{HEADING}rodata=full{HEADING:#}"))?;
    let line = |built: linmap_table::Built, cost| {
        format!("{:>12} leaves{:>10} tables, {}", built.entries, built.tables, Bytes(plan.table_bytes(cost)))
    };
    output.line(format_args!("  in blocks {}", line(blocks, &plan.blocks)))?;
    output.line(format_args!("  in pages  {}", line(pages, &plan.pages)))?;
    if output.verbosity() > Verbosity::Quiet {
        output.line(
            "  Linux keeps blocks where every CPU has BBM level 3, and pages elsewhere;\n  \
             linmap keeps blocks on any CPU: without level 3 it parks the CPUs for a split.",
        )?;
    }
    Ok(())
}

/// The word for `count` of something.
pub fn plural(count: usize, one: &str) -> String {
    if count == 1 { one.into() } else { format!("{one}s") }
}
