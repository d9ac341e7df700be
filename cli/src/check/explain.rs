//! What happened, in a sentence.

use std::fmt::Write as _;

use linmap_model::{Event, Rule, Violation};

/// The rule's name in JSON: that of [`Rule`] in lower case, with hyphens.
pub fn rule_name(rule: Rule) -> String {
    let mut name = String::new();
    for letter in format!("{rule:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

/// Where the Arm ARM has the rule: section and identifier, as far as it has them.
pub fn arm(rule: Rule) -> Option<String> {
    let (section, id) = (rule.section()?, rule.id()?);
    Some(if section == id { format!("Arm ARM {section}") } else { format!("Arm ARM {section}, {id}") })
}

/// What happened when `event` broke the rule of `violation`.
pub fn sentence(violation: &Violation, event: &Event) -> String {
    let Violation { rule, cpu, va, pa, old, new, .. } = *violation;
    let cpu = cpu.map_or("a CPU".to_owned(), |cpu| format!("CPU {cpu}"));
    let address = va.map_or("an address".to_owned(), |va| format!("{va:#x}"));
    let entry = pa.map_or("the entry".to_owned(), |pa| format!("the entry at {pa:#x}"));
    let held = old.map_or("an old descriptor".to_owned(), |old| format!("the descriptor {old:#x}"));
    let now = new.map_or("another".to_owned(), |new| format!("{new:#x}"));
    let by = does(event);
    let mut said = match rule {
        Rule::OutputAddress
        | Rule::MemoryType
        | Rule::Shareability
        | Rule::Global
        | Rule::Size
        | Rule::Contiguous
        | Rule::NextTable => {
            let what = match rule {
                Rule::OutputAddress => "has another output address",
                Rule::MemoryType => "has another memory type",
                Rule::Shareability => "has another shareability",
                Rule::Global => "differs in nG",
                Rule::Size => "translates it in another size",
                Rule::Contiguous => "differs in a contiguous run",
                _ => "leads to another table",
            };
            format!("{by}, where {cpu} may still hold {held} for {address}; {now} {what}")
        }
        Rule::NoTranslation => format!("{by} with nT, which this BBM level does not have"),
        Rule::MixedRun => {
            format!("{by}: {now} for {address} disagrees with {held} in the same contiguous run")
        }
        Rule::MisalignedRun => {
            format!(
                "{by}: {entry} for {address} has the contiguous bit, but its address does not fit its place"
            )
        }
        Rule::IncompleteRun => {
            format!("{by}, but the contiguous run of {address} is uneven: {held} beside {now}, {entry}")
        }
        Rule::UnknownEntry => {
            format!(
                "{by}, from where on a walk for {address} may read {entry}, whose content is \
                unknown or unordered"
            )
        }
        Rule::TableReachable => {
            format!("{by}, but {cpu} may still walk the table at {} for {address}", hex(pa))
        }
        Rule::StaleTranslation => {
            format!(
                "{by}, but {cpu} may still translate {address} by {held}, which the tables no longer hold"
            )
        }
        Rule::Unordered => format!("{by}, but no DSB has ordered the store to {entry} for {address}"),
        Rule::NoIsb => {
            format!("{by}, but {cpu} has executed no ISB since the change for {address} was complete")
        }
        Rule::MayFault => format!("{by}: the access of {cpu} to {address} may fault"),
        Rule::MayAbort => format!("{by}: an access of {cpu} to {address} may raise a TLB conflict abort"),
        Rule::WrongAddress => {
            format!("{by}: the access of {cpu} to {address} may reach another address, by {held}")
        }
        Rule::MayPass => format!("{by}: the access of {cpu} to {address} may succeed, by {held}"),
        Rule::LostUpdate => {
            format!(
                "{by}, which loses what hardware may have updated in {entry} for {address}: \
                {held} may be {now}"
            )
        }
        Rule::TranslationControl => {
            format!("{by}, while {cpu} may walk or hold something under the old value, or has no ISB since")
        }
        Rule::MemoryAttributes => {
            format!("{by}, while a leaf for {address} has its memory type from a slot of MAIR that changes")
        }
        Rule::AddressSize => format!("{by}: {now} exceeds the output address size"),
        Rule::MisalignedTable => format!("{by}: the root at {} is not aligned to its size", hex(pa)),
        Rule::NotMemory => format!("{by}: {} is not memory of the machine", hex(new.or(pa))),
        _ => format!("{by}: {}", rule.text()),
    };
    if let Some(first) = said.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let _ = write!(said, ".");
    said
}

fn hex(value: Option<u64>) -> String {
    value.map_or("an address".to_owned(), |value| format!("{value:#x}"))
}

/// What `event` does, as the beginning of a sentence.
fn does(event: &Event) -> String {
    match *event {
        Event::Store { cpu, pa, value, .. } => format!("CPU {cpu} stores {value:#x} to {pa:#x}"),
        Event::Update { cpu, pa, value, .. } => format!("CPU {cpu} updates {pa:#x} to {value:#x}"),
        Event::Fill { cpu, pa, count, .. } => format!("CPU {cpu} stores {count} words from {pa:#x} on"),
        Event::Dsb { cpu, .. } => format!("CPU {cpu} executes a DSB"),
        Event::Dmb { cpu, .. } => format!("CPU {cpu} executes a DMB"),
        Event::Release { cpu, pa } => format!("CPU {cpu} executes a store-release to {pa:#x}"),
        Event::Acquire { cpu, pa } => format!("CPU {cpu} executes a load-acquire from {pa:#x}"),
        Event::Isb { cpu } => format!("CPU {cpu} executes an ISB"),
        Event::Thread { cpu, .. } => format!("a thread on CPU {cpu} has stored"),
        Event::User { cpu, .. } => format!("CPU {cpu} returns to EL0"),
        Event::Tlbi { cpu, tlbi, .. } => format!("CPU {cpu} executes TLBI {tlbi}"),
        Event::Write { cpu, register, value } => format!("CPU {cpu} writes {value:#x} to {register}"),
        Event::Access { cpu, va, kind, .. } | Event::Faults { cpu, va, kind } => {
            format!("CPU {cpu} relies on {} {va:#x}", kind_of(kind))
        }
        Event::Uses { cpu, va, kind, .. } | Event::Unuses { cpu, va, kind, .. } => {
            format!("CPU {cpu} relies on {} from {va:#x} on", kind_of(kind))
        }
        Event::Free { pa, len } => format!("{len:#x} bytes from {pa:#x} on are freed"),
        Event::Settled => "software relies on the tables as they are".to_owned(),
    }
}

fn kind_of(kind: linmap_model::event::Use) -> &'static str {
    match kind {
        linmap_model::event::Use::Read => "reading",
        linmap_model::event::Use::Write => "writing",
        linmap_model::event::Use::Execute => "executing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_has_a_name_and_a_place_in_the_arm_arm() {
        assert_eq!(rule_name(Rule::StaleTranslation), "stale-translation");
        assert_eq!(arm(Rule::OutputAddress).as_deref(), Some("Arm ARM D8.16.1, RWHZWS"));
        assert_eq!(arm(Rule::MixedRun).as_deref(), Some("Arm ARM D8.7.1"));
        assert_eq!(arm(Rule::TooComplex), None);
    }

    #[test]
    fn a_sentence_says_who_did_what_and_who_is_in_danger() {
        let violation = Violation::new(Rule::StaleTranslation)
            .on_cpu(1)
            .at_va(0xffff_8000_0000_1000)
            .with_values(0x4000_0703, 0x4000_0703);
        assert_eq!(
            sentence(&violation, &Event::Settled),
            "Software relies on the tables as they are, but CPU 1 may still translate 0xffff800000001000 by \
             the descriptor 0x40000703, which the tables no longer hold."
        );
    }
}
