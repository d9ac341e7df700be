//! A plan as JSON. Addresses are strings, counts and sizes numbers.

use linmap::BuildCost;
use linmap_vmsa::{Pa, PaRange};
use serde_json::{Value, json};

use crate::plan::input::Input;
use crate::plan::machine::Machine;
use crate::plan::machine_plan::MachinePlan;
use crate::plan::text::levels;

/// The plan of one input.
pub fn plan(input: &Input, machine: &Machine, plan: &MachinePlan) -> Value {
    let geometry = plan.geometry;
    let memory = &machine.memory;
    let regions: Vec<_> = memory
        .regions()
        .map(|region| {
            let PaRange { start, end } = region.range;
            json!({ "start": address(start), "end": address(end), "no_map": region.no_map })
        })
        .collect();
    let image = machine.image.map(|image| {
        json!({
            "read_only": range(image.parts.read_only),
            "data": range(image.parts.data),
            "from": image.source.name(),
        })
    });
    let leaves: Vec<_> = levels(geometry)
        .filter(|level| geometry.has_leaf(*level))
        .map(|level| {
            let at = plan.map.at(level);
            json!({
                "level": level.number(),
                "bytes": geometry.entry_bytes(level),
                "single": at.single,
                "contiguous": at.contiguous,
            })
        })
        .collect();
    let tables: Vec<_> = levels(geometry)
        .skip(1)
        .map(|level| json!({ "level": level.number(), "tables": plan.map.at(level).tables }))
        .collect();
    json!({
        "input": input.name,
        "kind": input.kind.name(),
        "model": machine.model,
        "notes": machine.notes,
        "memory": {
            "ram_bytes": memory.memory_len(),
            "regions": regions,
            "reserved": memory.reserved().iter().map(|reserved| range(*reserved)).collect::<Vec<_>>(),
            "free_bytes": plan.free,
        },
        "image": image,
        "geometry": {
            "granule": geometry.granule().bytes(),
            "va_bits": geometry.va_bits(),
            "pa_bits": geometry.pa_bits(),
        },
        "linear_map": {
            "start": format!("{:#x}", plan.layout.start().0),
            "memstart": address(plan.layout.memstart()),
            "bytes": plan.map.built().bytes,
            "leaf": linmap::leaves_name(machine.options.leaves().leaves()),
            "entries": plan.map.built().entries,
            "leaves": leaves,
            "tables": tables,
            "table_frames": plan.map.built().tables,
            "table_bytes": plan.table_bytes(&plan.map),
        },
        "builders": plan.builders.iter().map(|(builder, cost)| match cost {
            Ok(cost) => json!({
                "build": builder.name(),
                "tlbi": cost.instructions.tlbi,
                "dsb": cost.instructions.dsb,
                "isb": cost.instructions.isb,
                "temporary_frames": cost.temporary,
            }),
            Err(error) => json!({ "build": builder.name(), "error": error.to_string() }),
        }).collect::<Vec<_>>(),
        "rodata_full": { "blocks": totals(plan, &plan.blocks), "pages": totals(plan, &plan.pages) },
    })
}

/// An address, which may not fit a number of JSON.
pub fn address(pa: Pa) -> String {
    format!("{:#x}", pa.0)
}

/// A range.
pub fn range(range: PaRange) -> Value {
    json!({ "start": address(range.start), "end": address(range.end) })
}

fn totals(plan: &MachinePlan, cost: &BuildCost) -> Value {
    let built = cost.built();
    json!({
        "entries": built.entries,
        "table_frames": built.tables,
        "table_bytes": plan.table_bytes(cost),
    })
}
