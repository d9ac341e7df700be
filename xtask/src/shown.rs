//! `cargo xtask shown`: every public type of the crates that change tables is in an example.
//!
//! A type is shown if its own documentation has a fenced block, or if a fenced block of its crate's
//! documentation or README, or a program under examples/, names it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::workspace::Workspace;

/// The folders of the crates.
const CRATES: [&str; 6] = ["vmsa", "table", "live", "linmap", "park", "memblock"];

/// The words that begin the definition of a public type.
const KINDS: [&str; 5] = ["pub struct ", "pub enum ", "pub union ", "pub trait ", "pub unsafe trait "];

/// `cargo xtask shown`.
pub fn run(workspace: &Workspace) -> Result<ExitCode> {
    let mut examples = String::new();
    for file in sources(&workspace.root.join("examples"))? {
        examples += &read(&file)?;
    }
    let (mut types, mut missing) = (0, 0);
    for name in CRATES {
        let folder = workspace.root.join("crates").join(name);
        let mut files = Vec::new();
        for file in sources(&folder.join("src"))? {
            files.push((stem(&file), read(&file)?));
        }
        let readme = fenced(read(&folder.join("README.md"))?.lines());
        let public = public_types(&files);
        types += public.len();
        for hidden in not_shown(&files, &public, &[&examples, &readme]) {
            eprintln!("crates/{name}: no example shows {hidden}");
            missing += 1;
        }
    }
    match missing {
        0 => println!("shown: all {types} public types are in examples"),
        missing => eprintln!("error: shown: {missing} of {types} public types are in no example"),
    }
    Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// All Rust files below `folder`.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// The name in a line that begins the definition of a public type.
fn defined(line: &str) -> Option<&str> {
    KINDS.iter().find_map(|kind| words(line.strip_prefix(kind)?).next())
}

/// The types that other crates can name: those that a `pub use` names, and those that are defined
/// in a file of a `pub mod`. Files have their names without folder and extension.
fn public_types(files: &[(String, String)]) -> Vec<&str> {
    let (mut used, mut modules) = (HashSet::new(), HashSet::new());
    for (_, text) in files {
        used.extend(statements(text, "\npub use ").flat_map(words));
        modules.extend(statements(text, "\npub mod "));
    }
    let mut types = Vec::new();
    for (file, text) in files {
        let is_public = |name: &&str| modules.contains(file.as_str()) || used.contains(name);
        types.extend(text.lines().filter_map(defined).filter(is_public));
    }
    types
}

/// What follows `start` in a file, each up to a semicolon.
fn statements<'t>(text: &'t str, start: &'t str) -> impl Iterator<Item = &'t str> {
    text.split(start).skip(1).filter_map(|rest| rest.split_once(';').map(|(head, _)| head))
}

/// The fenced blocks in lines of Markdown.
fn fenced<'l>(lines: impl Iterator<Item = &'l str>) -> String {
    let (mut inside, mut blocks) = (false, String::new());
    for line in lines {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if inside {
            blocks = blocks + line + "\n";
        }
    }
    blocks
}

/// The text of a line of documentation.
fn documentation(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))
}

/// The types in `public` that neither have an example of their own nor are named in one.
fn not_shown<'t>(files: &[(String, String)], public: &[&'t str], examples: &[&str]) -> Vec<&'t str> {
    let mut shown: HashSet<String> =
        examples.iter().flat_map(|text| words(text)).map(str::to_owned).collect();
    for (_, text) in files {
        shown.extend(words(&fenced(text.lines().filter_map(documentation))).map(str::to_owned));
        let mut has_block = false;
        for line in text.lines() {
            match (documentation(line), defined(line)) {
                (Some(text), _) => has_block |= text.trim_start().starts_with("```"),
                (None, Some(name)) if has_block => _ = shown.insert(name.to_owned()),
                // Attributes are between documentation and definition.
                (None, _) => has_block &= line.starts_with(['#', ' ', ')']),
            }
        }
    }
    public.iter().copied().filter(|name| !shown.contains(*name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn public_types_are_those_that_others_can_name() {
        let lib = "//! A crate\nmod a;\npub mod b;\n\npub use a::{Used, used};\n";
        let a = "pub struct Used;\npub(crate) struct Own;\npub struct Private;\n";
        let b = "pub enum InModule {}\n    pub struct Inner;\npub unsafe trait Seam {}\n";
        let files = files(&[("lib", lib), ("a", a), ("b", b)]);
        assert_eq!(public_types(&files), ["Used", "InModule", "Seam"]);
    }

    #[test]
    fn a_type_is_shown_by_its_own_block_or_by_name_in_another() {
        let own =
            "/// ```\n/// f();\n/// ```\n#[derive(Debug)]\npub struct Own;\n\n/// One.\npub struct Bare;\n";
        let other = "/// ```\n/// let x: Named = g();\n/// ```\nfn g() {}\n/// Bare\npub enum Named {}";
        let files = files(&[("a", own), ("b", other)]);
        let public = ["Own", "Bare", "Named", "Program"];
        assert_eq!(not_shown(&files, &public, &["Program"]), ["Bare"]);
        assert_eq!(not_shown(&files, &public, &[]), ["Bare", "Program"]);
    }
}
