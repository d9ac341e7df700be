//! Violations: a rule, and where it was broken.

use std::fmt;

use crate::rules::Rule;

/// A rule that was broken, and where.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// The index of the event that broke it.
    pub event: usize,
    /// The CPU in danger, if it is one.
    pub cpu: Option<usize>,
    /// The input address concerned.
    pub va: Option<u64>,
    /// The entry concerned, or the physical address.
    pub pa: Option<u64>,
    /// The descriptor that may be cached or seen.
    pub old: Option<u64>,
    /// The descriptor that conflicts with it.
    pub new: Option<u64>,
}

impl Violation {
    /// A violation of `rule` without a place, which the methods below add.
    pub const fn new(rule: Rule) -> Self {
        Self { rule, event: 0, cpu: None, va: None, pa: None, old: None, new: None }
    }

    /// The same violation at the input address `va`.
    #[must_use]
    pub const fn at_va(self, va: u64) -> Self {
        Self { va: Some(va), ..self }
    }

    /// The same violation with the CPU in danger.
    #[must_use]
    pub const fn on_cpu(self, cpu: usize) -> Self {
        Self { cpu: Some(cpu), ..self }
    }

    /// The same violation at the entry or physical address `pa`.
    #[must_use]
    pub const fn at_pa(self, pa: u64) -> Self {
        Self { pa: Some(pa), ..self }
    }

    /// The same violation with what may be cached or seen, and what conflicts with it.
    #[must_use]
    pub const fn with_values(self, old: u64, new: u64) -> Self {
        Self { old: Some(old), new: Some(new), ..self }
    }

    /// Whether both break the same rule at the same place. If so, their traces have the same
    /// mistake.
    pub fn same_mistake(&self, other: &Self) -> bool {
        self.mistake() == other.mistake()
    }

    /// What tells mistakes apart: the rule and the place.
    pub(crate) fn mistake(&self) -> (Rule, Option<u64>, Option<u64>) {
        (self.rule, self.va, self.pa)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event {}: {}", self.event, self.rule)?;
        if let Some(cpu) = self.cpu {
            write!(f, "; cpu {cpu}")?;
        }
        if let Some(va) = self.va {
            write!(f, "; address {va:#018x}")?;
        }
        if let Some(pa) = self.pa {
            write!(f, "; at {pa:#x}")?;
        }
        if let Some(old) = self.old {
            write!(f, "; old {old:#018x}")?;
        }
        if let Some(new) = self.new {
            write!(f, "; new {new:#018x}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Violation {}
