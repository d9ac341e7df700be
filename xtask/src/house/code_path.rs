//! Paths as they stand in code.

use std::fmt;

/// A path such as `crate::memory::Frames` and the line that it stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodePath {
    /// Whether it begins with `::`, which only a crate's name can follow.
    pub is_global: bool,
    /// Its parts without generic arguments. `$crate` is `crate`.
    pub segments: Vec<String>,
    /// The line, from 1.
    pub line: usize,
}

/// The namespace of a name: identical names in different namespaces are different items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Types, traits and modules.
    Type,
    /// Functions, constants, statics, and structs without named fields.
    Value,
    /// Macros.
    Macro,
}

impl Space {
    /// All of them, as a `use` imports them.
    pub const ALL: [Self; 3] = [Self::Type, Self::Value, Self::Macro];
}

/// A path and what it can name.
#[derive(Debug, Clone)]
pub struct UsedPath {
    /// The path.
    pub path: CodePath,
    /// The kinds of names that are looked for.
    pub spaces: &'static [Space],
}

impl CodePath {
    /// A path of syn's.
    pub fn of(path: &syn::Path) -> Self {
        let line = path.segments.first().map_or(0, |first| first.ident.span().start().line);
        let segments = path.segments.iter().map(|segment| name(&segment.ident)).collect();
        Self { is_global: path.leading_colon.is_some(), segments, line }
    }
}

/// The identifier without the `r#` of a raw one.
pub fn name(ident: &syn::Ident) -> String {
    let text = ident.to_string();
    text.strip_prefix("r#").map_or(text.clone(), str::to_owned)
}

impl fmt::Display for CodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.segments.join("::"))
    }
}
