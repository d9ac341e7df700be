//! What a trace has, in numbers, and by function.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::form::Form;
use super::names::Names;
use super::tally::Tally;

/// What a trace has, in numbers.
pub struct Summary {
    /// The most tables at a time.
    pub tables: usize,
    /// Words that were stored to tables, or to frames that became tables.
    pub stores: u64,
    /// Words that were in tables before the recorder looked.
    pub found: u64,
    /// TLBIs by form, most first.
    pub tlbis: Vec<(String, u64)>,
    /// DSBs by option.
    pub dsbs: Vec<(String, u64)>,
    /// Context synchronizations.
    pub isbs: u64,
    /// Register writes by register.
    pub writes: Vec<(String, u64)>,
    /// What was more than needed.
    pub unneeded: Vec<Unneeded>,
}

/// Instructions of one kind that had no effect on any table.
pub struct Unneeded {
    /// What they are.
    pub kind: Kind,
    /// How often they were executed without effect, in all functions together.
    pub count: u64,
    /// How often they were executed.
    pub of: u64,
    /// Those of functions that edit tables, by form and function, most first.
    pub rows: Vec<Row>,
    /// Those of functions that edit no table, where they serve something else.
    pub elsewhere: u64,
}

/// A kind of instruction that can be more than is needed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// TLBIs.
    Tlbi,
    /// DSBs.
    Dsb,
    /// ISBs.
    Isb,
}

/// What a function did without effect.
pub struct Row {
    /// The instruction.
    pub form: String,
    /// The function.
    pub function: String,
    /// How often it was without effect.
    pub count: u64,
    /// How often the function executed it.
    pub of: u64,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Tlbi, Self::Dsb, Self::Isb];

    fn of(form: Form) -> Option<Self> {
        match form {
            Form::Tlbi(_) => Some(Self::Tlbi),
            Form::Dsb(..) => Some(Self::Dsb),
            Form::Isb => Some(Self::Isb),
            _ => None,
        }
    }

    /// The kind's name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tlbi => "tlbi",
            Self::Dsb => "dsb",
            Self::Isb => "isb",
        }
    }

    /// What it means that one is without effect.
    pub fn text(self) -> &'static str {
        match self {
            Self::Tlbi => "TLBIs that reach nothing that differs from the tables",
            Self::Dsb => "DSBs that order no store to a live table and complete no TLBI",
            Self::Isb => "ISBs with no edit of a live table since the last one",
        }
    }
}

/// Both counts of a form in a function.
#[derive(Default)]
struct Both {
    unneeded: u64,
    all: u64,
}

impl Summary {
    /// The summary of `tally`.
    pub fn of(tally: &Tally, names: &Names) -> Self {
        let mut functions: HashMap<u64, String> = HashMap::new();
        let mut function = |pc: Option<u64>| match pc {
            Some(pc) => functions.entry(pc).or_insert_with(|| names.function(pc)).clone(),
            None => "unknown".to_owned(),
        };
        let mut by_form: BTreeMap<(Option<Kind>, String), u64> = BTreeMap::new();
        let mut rows: HashMap<(Kind, String, String), Both> = HashMap::new();
        let mut editing: BTreeSet<String> = BTreeSet::new();
        let (mut stores, mut isbs) = (0, 0);
        for (pc, form, counted) in tally.instructions() {
            let own = function(pc);
            if form.is_store() || matches!(form, Form::Tlbi(_)) {
                editing.insert(own.clone());
            }
            if let Some(kind) = Kind::of(form) {
                let both = rows.entry((kind, form.to_string(), own)).or_default();
                both.all += counted.count;
                both.unneeded += counted.unneeded;
            }
            match form {
                _ if form.is_store() => stores += counted.count,
                Form::Isb => isbs += counted.count,
                Form::Tlbi(_) | Form::Dsb(..) | Form::Write(_) => {
                    *by_form.entry((Kind::of(form), short(form))).or_insert(0) += counted.count;
                }
                _ => {}
            }
        }
        for idle in &tally.idle {
            let form = Form::from(idle.barrier);
            if let Some(kind) = Kind::of(form) {
                let both = rows.entry((kind, form.to_string(), function(Some(idle.pc)))).or_default();
                both.all = both.all.saturating_add(idle.count);
                both.unneeded = both.unneeded.saturating_add(idle.count);
            }
        }
        let of_kind = |kind| {
            let own = by_form.iter().filter(|((of, _), _)| *of == kind);
            let mut forms: Vec<_> = own.map(|((_, form), count)| (form.clone(), *count)).collect();
            forms.sort_by_key(|(_, count)| Reverse(*count));
            forms
        };
        Self {
            tables: tally.tables,
            stores,
            found: tally.found(),
            tlbis: of_kind(Some(Kind::Tlbi)),
            dsbs: of_kind(Some(Kind::Dsb)),
            isbs,
            writes: of_kind(None),
            unneeded: unneeded(rows, |function| !names.has_functions() || editing.contains(function)),
        }
    }
}

/// The form without the word that its kind has.
fn short(form: Form) -> String {
    let text = form.to_string();
    text.split_once(' ').map_or(text.clone(), |(_, short)| short.to_owned())
}

/// What of `rows` was more than needed.
fn unneeded(rows: HashMap<(Kind, String, String), Both>, is_editing: impl Fn(&str) -> bool) -> Vec<Unneeded> {
    let mut all = Kind::ALL.map(|kind| Unneeded { kind, count: 0, of: 0, rows: Vec::new(), elsewhere: 0 });
    for ((kind, form, function), both) in rows {
        let Some(own) = all.iter_mut().find(|own| own.kind == kind) else { continue };
        own.count = own.count.saturating_add(both.unneeded);
        own.of = own.of.saturating_add(both.all);
        if both.unneeded == 0 {
            continue;
        }
        if is_editing(&function) {
            own.rows.push(Row { form, function, count: both.unneeded, of: both.all });
        } else {
            own.elsewhere = own.elsewhere.saturating_add(both.unneeded);
        }
    }
    let mut all: Vec<Unneeded> = all.into_iter().filter(|own| own.count > 0).collect();
    for own in &mut all {
        own.rows.sort_by(|a, b| (b.count, &a.function, &a.form).cmp(&(a.count, &b.function, &b.form)));
    }
    all
}
