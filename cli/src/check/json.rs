//! The verdict as JSON. Addresses and descriptors are strings of hexadecimal digits.

use linmap_model::{Legal, Missed};
use serde_json::{Value, json};

use super::explain::{arm, rule_name, sentence};
use super::judge::{Found, Judged, Shown};
use super::report::by_place;

fn hex(value: u64) -> String {
    format!("{value:#x}")
}

/// `judged` as a value. `place` says where the instruction at an address is.
pub fn value(judged: &Judged, place: &dyn Fn(u64) -> String) -> Value {
    let covers = judged.legal.map(|legal| match legal {
        Legal::Settled { after } => json!({"settled": true, "events_after": after}),
        Legal::NeverSettled => json!({"settled": false, "events_after": judged.events}),
    });
    let counts: Vec<Value> = by_place(&judged.found, place)
        .into_iter()
        .map(|((rule, place), count)| json!({"rule": rule, "place": place, "count": count}))
        .collect();
    json!({
        "trace": judged.name,
        "form": judged.form.name(),
        "verdict": if judged.legal.is_some() { "legal" } else { "illegal" },
        "events": judged.events,
        "covers": covers,
        "violations": judged.found.iter().map(|found| one(found, place)).collect::<Vec<_>>(),
        "counts": counts,
        "notes": judged.notes,
    })
}

fn one(found: &Found, place: &dyn Fn(u64) -> String) -> Value {
    let Found { violation, at, shown } = found;
    json!({
        "rule": rule_name(violation.rule),
        "arm": arm(violation.rule),
        "text": violation.rule.text(),
        "what": sentence(violation, &at.recorded.event),
        "event": violation.event,
        "line": Some(at.line).filter(|line| *line > 0),
        "pc": at.recorded.pc.map(hex),
        "place": at.recorded.pc.map(place),
        "cpu": violation.cpu,
        "address": violation.va.map(hex),
        "entry_at": violation.pa.map(hex),
        "held": violation.old.map(hex),
        "meets": violation.new.map(hex),
        "witness": shown.as_ref().ok().map(|shown| witness(shown, place)),
        "no_witness": shown.as_ref().err(),
    })
}

fn witness(shown: &Shown, place: &dyn Fn(u64) -> String) -> Value {
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
                "place": pc.map(place),
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
