//! The verdict as JSON. Addresses and descriptors are strings of hexadecimal digits.

use linmap_model::{Legal, Missed};
use serde_json::{Value, json};

use super::explain::{arm, rule_name, sentence};
use super::found::{Found, groups};
use super::judge::Judged;
use super::names::Names;
use super::overdue::{self, Overdue, Row};
use super::shown::Shown;
use super::summary::{Summary, Unneeded};
use super::trail::runs;

/// The most runs of events before a violation.
const MOST_RUNS: usize = 64;

fn hex(value: u64) -> String {
    format!("{value:#x}")
}

/// `judged` as a value.
pub fn value(judged: &Judged, names: &Names) -> Value {
    let covers = judged.legal.map(|legal| match legal {
        Legal::Settled { after } => json!({"settled": true, "events_after": after}),
        Legal::NeverSettled => json!({"settled": false, "events_after": judged.events}),
    });
    let counts: Vec<Value> = judged
        .counts
        .by_place(names)
        .into_iter()
        .map(|(rule, place, count)| json!({"rule": rule, "place": place, "count": count}))
        .collect();
    let groups: Vec<Value> = groups(&judged.found, &judged.counts, names)
        .into_iter()
        .map(|group| {
            json!({
                "rule": group.rule,
                "function": group.function,
                "count": group.count,
                "first_event": group.first.violation.event,
            })
        })
        .collect();
    json!({
        "trace": judged.name,
        "form": judged.form.name(),
        "verdict": if judged.legal.is_some() { "legal" } else { "illegal" },
        "events": judged.events,
        "complete": !judged.is_cut,
        "covers": covers,
        "count": judged.count,
        "violations": judged.found.iter().map(|found| one(found, names)).collect::<Vec<_>>(),
        "groups": groups,
        "counts": counts,
        "summary": summary(judged, names),
        "kernel_at": names.places().iter().copied().map(hex).collect::<Vec<_>>(),
        "notes": judged.notes,
    })
}

fn summary(judged: &Judged, names: &Names) -> Value {
    let Summary { tables, stores, found, tlbis, dsbs, isbs, writes, unneeded } =
        Summary::of(&judged.tally, names);
    let forms = |key: &str, forms: &[(String, u64)]| -> Vec<Value> {
        forms.iter().map(|(form, count)| json!({key: form, "count": count})).collect()
    };
    json!({
        "tables": tables,
        "stores": stores,
        "found_in_tables": found,
        "tlbis": forms("form", &tlbis),
        "dsbs": forms("option", &dsbs),
        "isbs": isbs,
        "register_writes": forms("register", &writes),
        "unneeded": unneeded.iter().map(more_than_needed).collect::<Vec<_>>(),
        "overdue": still_cached(judged, names),
    })
}

fn still_cached(judged: &Judged, names: &Names) -> Value {
    let Overdue { count, of, rows } = Overdue::of(&judged.taken_back, names);
    let row = |row: &Row| {
        let Row { function, count, of, first: (event, va) } = row;
        json!({"function": function, "count": count, "of": of, "first_event": event, "address": hex(*va)})
    };
    json!({
        "text": overdue::TEXT,
        "returns": judged.returns,
        "count": count,
        "of": of,
        "functions": rows.iter().map(row).collect::<Vec<_>>(),
    })
}

fn more_than_needed(unneeded: &Unneeded) -> Value {
    let Unneeded { kind, count, of, rows, elsewhere } = unneeded;
    let functions: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({"instruction": row.form, "function": row.function, "count": row.count, "of": row.of})
        })
        .collect();
    json!({
        "kind": kind.name(),
        "text": kind.text(),
        "count": count,
        "of": of,
        "functions": functions,
        "elsewhere": elsewhere,
    })
}

fn one(found: &Found, names: &Names) -> Value {
    let Found { violation, at, shown, trail } = found;
    let before: Vec<Value> = runs(trail, &|pc| names.function(pc), MOST_RUNS)
        .into_iter()
        .map(|run| {
            json!({
                "function": run.function,
                "first_event": run.events.0,
                "last_event": run.events.1,
                "did": run.did,
            })
        })
        .collect();
    json!({
        "rule": rule_name(violation.rule),
        "arm": arm(violation.rule),
        "text": violation.rule.text(),
        "what": sentence(violation, &at.recorded.event),
        "event": violation.event,
        "line": Some(at.line).filter(|line| *line > 0),
        "pc": at.recorded.pc.map(hex),
        "place": at.recorded.pc.map(|pc| names.place(pc)),
        "function": at.recorded.pc.map(|pc| names.function(pc)),
        "cpu": violation.cpu,
        "address": violation.va.map(hex),
        "entry_at": violation.pa.map(hex),
        "held": violation.old.map(hex),
        "meets": violation.new.map(hex),
        "before": before,
        "witness": shown.as_ref().ok().map(|shown| witness(shown, names)),
        "no_witness": shown.as_ref().err(),
    })
}

fn witness(shown: &Shown, names: &Names) -> Value {
    let Shown { witness, numbers, located, left_out, cut } = shown;
    let events: Vec<Value> = witness
        .trace
        .events
        .iter()
        .enumerate()
        .map(|(nth, event)| {
            let number = numbers.get(nth).copied().flatten();
            let at = number.and_then(|number| located.get(&number));
            let pc = at.and_then(|at| at.recorded.pc);
            let missed = witness.missed.iter().find(|Missed { event, .. }| *event == nth);
            json!({
                "event": number,
                "line": at.map(|at| at.line).filter(|line| *line > 0),
                "text": event.to_string(),
                "pc": pc.map(hex),
                "place": pc.map(|pc| names.place(pc)),
                "note": witness.notes.get(nth).cloned().flatten(),
                "misses": missed.map(|missed| missed.why.to_string()),
                "breaks": nth == witness.violation.event,
            })
        })
        .collect();
    json!({
        "events": events,
        "tlbis_left_out": left_out + witness.left_out,
        "history_begins_at": cut,
    })
}
