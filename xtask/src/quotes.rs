//! `cargo xtask quotes`: code in Markdown that is quoted from a file equals the file.
//!
//! A line `<!-- quote: PATH -->`, PATH from the workspace's root, stands before a fenced block. The
//! block's lines are lines of the file, one after the other. A line `// …` leaves lines out, and so
//! does its like in other languages. Blocks may be indented less than the file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::workspace::Workspace;

const QUOTE: &str = "<!-- quote: ";

/// A quoted block.
#[derive(Debug, PartialEq, Eq)]
struct Quote<'m> {
    /// The line of the Markdown with the path, from 1.
    line: usize,
    path: &'m str,
    block: Vec<&'m str>,
}

/// `cargo xtask quotes`.
pub fn run(workspace: &Workspace) -> Result<ExitCode> {
    let mut files = Vec::new();
    markdown(&workspace.root, &workspace.target, &mut files).context("listing the workspace's files")?;
    files.sort();
    let (mut quotes, mut wrong) = (0, 0);
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let shown = file.strip_prefix(&workspace.root).unwrap_or(&file).display();
        for quote in quotes_in(&text) {
            quotes += 1;
            let found = match std::fs::read_to_string(workspace.root.join(quote.path)) {
                Ok(source) => first_not_in(&source, &quote.block),
                Err(_) => Some(quote.path),
            };
            if let Some(line) = found {
                eprintln!("{shown}:{}: not in {}: {line}", quote.line, quote.path);
                wrong += 1;
            }
        }
    }
    match wrong {
        0 => println!("quotes: all {quotes} equal their files"),
        wrong => eprintln!("error: quotes: {wrong} of {quotes} differ from their files"),
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All Markdown files below `folder`, without hidden folders and cargo's `target`.
fn markdown(folder: &Path, target: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        if kind.is_dir() && !is_hidden && path != target && entry.file_name() != "target" {
            markdown(&path, target, files)?;
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "md") {
            files.push(path);
        }
    }
    Ok(())
}

/// The quotes of a Markdown file. A quote without a block has an empty one.
fn quotes_in(text: &str) -> Vec<Quote<'_>> {
    let lines: Vec<_> = text.lines().collect();
    let quoted = lines.iter().enumerate().filter_map(|(index, line)| {
        let path = line.trim().strip_prefix(QUOTE)?.strip_suffix("-->")?.trim();
        let mut after = lines[index + 1..].iter().copied();
        let is_fenced = after.next().is_some_and(|line| line.trim_start().starts_with("```"));
        let block = after.take_while(|line| is_fenced && !line.trim_start().starts_with("```"));
        Some(Quote { line: index + 1, path, block: block.collect() })
    });
    quoted.collect()
}

/// Whether a line stands for lines that are left out.
fn is_gap(line: &str) -> bool {
    matches!(line.trim(), "// …" | "# …" | "/* … */")
}

/// The first line of `block` that `source` does not have where it should; the empty line for an
/// empty block.
fn first_not_in<'b>(source: &str, block: &[&'b str]) -> Option<&'b str> {
    let source: Vec<_> = source.lines().collect();
    let mut from = 0;
    let parts = block.split(|line| is_gap(line)).filter(|part| !part.is_empty());
    let mut has_part = false;
    for part in parts {
        has_part = true;
        match (from..source.len()).find(|&at| matching(&source[at..], part) == part.len()) {
            Some(at) => from = at + part.len(),
            None => {
                let longest = (from..source.len()).map(|at| matching(&source[at..], part)).max();
                return part.get(longest.unwrap_or_default()).copied();
            }
        }
    }
    (!has_part).then_some("")
}

/// How many lines of `part` are the first of `source`, all of them indented less by the same.
fn matching(source: &[&str], part: &[&str]) -> usize {
    let indent = source.first().zip(part.first());
    let Some(indent) = indent.and_then(|(line, first)| line.strip_suffix(first)) else { return 0 };
    if !indent.trim().is_empty() {
        return 0;
    }
    let is_same = |(line, quoted): &(&&str, &&str)| {
        line.strip_prefix(indent).unwrap_or(line.trim_start()) == quoted.trim_end()
    };
    source.iter().zip(part).take_while(is_same).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "fn a() {\n    b();\n\n    c();\n}\nfn d() {}\n";

    #[test]
    fn a_block_is_found_in_its_file_with_less_indentation_and_with_lines_left_out() {
        assert_eq!(first_not_in(SOURCE, &["b();", "", "c();"]), None);
        assert_eq!(first_not_in(SOURCE, &["fn a() {", "    // …", "}", "fn d() {}"]), None);
        assert_eq!(first_not_in(SOURCE, &["b();", "c();"]), Some("c();"));
        assert_eq!(first_not_in(SOURCE, &["fn d() {}", "// …", "fn a() {"]), Some("fn a() {"));
        assert_eq!(first_not_in(SOURCE, &["    b();", "c();"]), Some("c();"));
        assert_eq!(first_not_in(SOURCE, &[]), Some(""));
    }

    #[test]
    fn a_quote_is_the_block_right_after_its_path() {
        let text = "x\n<!-- quote: a/b.rs -->\n```rust\nfn d() {}\n```\n<!-- quote: c -->\n\n```\ny\n```\n";
        let quote = |line, path, block| Quote { line, path, block };
        assert_eq!(quotes_in(text), [quote(2, "a/b.rs", vec!["fn d() {}"]), quote(6, "c", vec![])]);
    }
}
