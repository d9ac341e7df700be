//! Which trees, and which of their addresses, are asked for.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::dump::address::address;
use crate::dump::guest::{Root, RootRegister};
use crate::failure::Failure;
use linmap_vmsa::Va;

/// Which trees, and which of their addresses, are asked for.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "SavedAsked")]
pub struct Asked {
    /// The names of their registers as the user has them; empty for all.
    pub roots: Vec<String>,
    /// The first and the last address.
    pub range: (u64, u64),
}

/// A tree, and what of it is asked for.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its root.
    pub root: Root,
    /// The first and the last address, by whole pages.
    pub range: (u64, u64),
}

/// As JSON has it.
#[derive(Deserialize)]
struct SavedAsked {
    roots: Vec<String>,
    range: SavedRange,
}

#[derive(Deserialize)]
struct SavedRange {
    first: String,
    last: String,
}

impl TryFrom<SavedAsked> for Asked {
    type Error = String;

    fn try_from(saved: SavedAsked) -> Result<Self, String> {
        let SavedAsked { roots, range } = saved;
        let (first, last) = (address(&range.first)?, address(&range.last)?);
        match first <= last {
            true => Ok(Self { roots, range: (first, last) }),
            false => Err(format!("the range {first:#x} to {last:#x} is empty")),
        }
    }
}

/// Whether `name` is what a user calls `register`: its name, or that of stage 2.
fn is_called(register: RootRegister, name: &str) -> bool {
    let is_stage_2 = register == RootRegister::VttbrEl2 && matches!(name, "stage2" | "stage-2" | "vttbr");
    is_stage_2 || register.to_string().eq_ignore_ascii_case(name)
}

impl Asked {
    /// All addresses.
    pub const ALL: (u64, u64) = (0, u64::MAX);

    /// Whether the tree of `register` is asked for.
    pub fn names(&self, register: RootRegister) -> bool {
        self.roots.is_empty() || self.roots.iter().any(|name| is_called(register, name))
    }

    /// The addresses that are asked for of the tree of `root`, by whole pages.
    pub fn range_of(&self, root: &Root) -> (u64, u64) {
        let (first, last) = root.untagged(self.range);
        let page = root.geometry.granule().bytes() - 1;
        (first & !page, last | page)
    }

    /// The roots that are asked for.
    ///
    /// # Errors
    /// There is none, or none that has one of the names.
    pub fn roots_of<'r>(&self, roots: &'r [Root]) -> Result<Vec<&'r Root>, Failure> {
        let known: Vec<_> = roots.iter().map(|root| root.register.to_string().to_lowercase()).collect();
        for name in &self.roots {
            if !roots.iter().any(|root| is_called(root.register, name)) {
                return Err(Failure::new(format_args!("there is no root {name}"))
                    .hint(format_args!("the guest has {}", known.join(", "))));
            }
        }
        if roots.is_empty() {
            return Err(Failure::new("the guest has no translation tables").hint("is its MMU on?"));
        }
        Ok(roots.iter().filter(|root| self.names(root.register)).collect())
    }

    /// The trees that are asked for and translate some of the addresses.
    ///
    /// # Errors
    /// As of [`roots_of`](Self::roots_of), or none of them does.
    pub fn parts_of(&self, roots: &[Root]) -> Result<Vec<Part>, Failure> {
        let parts = self.roots_of(roots)?.into_iter();
        let parts = parts.map(|root| Part { root: root.clone(), range: self.range_of(root) });
        let parts: Vec<_> = parts
            .filter(|Part { root, range }| common(*range, (root.first.0, root.last().0)).is_some())
            .collect();
        if parts.is_empty() {
            return Err(untranslated(self.range.0, roots));
        }
        Ok(parts)
    }

    /// As JSON has it.
    pub fn to_json(&self) -> Value {
        let (first, last) = self.range;
        json!({
            "roots": self.roots,
            "range": {"first": format!("{first:#x}"), "last": format!("{last:#x}")},
        })
    }
}

/// What two ranges have in common.
pub fn common(one: (u64, u64), other: (u64, u64)) -> Option<(u64, u64)> {
    let (first, last) = (one.0.max(other.0), one.1.min(other.1));
    (first <= last).then_some((first, last))
}

/// That no root translates `va`.
pub fn untranslated(va: u64, roots: &[Root]) -> Failure {
    let ranges: Vec<_> =
        roots.iter().map(|root| format!("{} {}-{}", root.register, root.first, root.last())).collect();
    Failure::new(format_args!("no root translates {}", Va(va)))
        .hint(format_args!("they translate {}", ranges.join(", ")))
}
