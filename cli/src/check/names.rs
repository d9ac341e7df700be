//! The names of instructions, if there are symbols.

use crate::symbols::{Place, Symbols};

/// The names of instructions.
#[derive(Default)]
pub struct Names(Option<Symbols>);

impl From<Option<Symbols>> for Names {
    fn from(symbols: Option<Symbols>) -> Self {
        Self(symbols)
    }
}

impl Names {
    /// The instruction at `pc`: its function and the distance, or its address.
    pub fn place(&self, pc: u64) -> String {
        match &self.0 {
            Some(symbols) => symbols.place(pc).to_string(),
            None => format!("{pc:#x}"),
        }
    }

    /// The function of the instruction at `pc`; its address if it has no name.
    pub fn function(&self, pc: u64) -> String {
        match self.0.as_ref().map(|symbols| symbols.place(pc)) {
            Some(Place::In { name, .. }) => name.to_owned(),
            Some(place @ Place::At { .. }) => place.to_string(),
            None => format!("{pc:#x}"),
        }
    }

    /// Whether there are symbols, so that a function is more than an address.
    pub fn has_functions(&self) -> bool {
        self.0.is_some()
    }

    /// Where the kernel's first byte is when it runs.
    pub fn places(&self) -> &[u64] {
        self.0.as_ref().map_or(&[], Symbols::places)
    }
}
