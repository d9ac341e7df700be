//! `cargo xtask width`: how long lines may be.
//!
//! Comments and Markdown have at most 100 columns, code at most 110. Tables, links and fenced
//! blocks are left out, since they can't be broken.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::workspace::Workspace;

const PROSE: usize = 100;
const CODE: usize = 110;

/// A line that is too long.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TooLong {
    /// From 1.
    line: usize,
    columns: usize,
    most: usize,
}

/// The languages that differ in their comments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    Markdown,
    /// Rust and assembly.
    Slashes,
    /// TOML and shell scripts, whose code is long where a value is.
    Hashes,
}

impl Language {
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "md" => Some(Self::Markdown),
            "rs" | "S" | "ld" => Some(Self::Slashes),
            "toml" | "sh" => Some(Self::Hashes),
            _ => None,
        }
    }

    /// The prose of a line; `None` if it is code.
    fn prose(self, line: &str) -> Option<&str> {
        let line = line.trim_start();
        match self {
            Self::Markdown => Some(line),
            Self::Slashes => ["///", "//!", "//", "/*"].iter().find_map(|start| line.strip_prefix(start)),
            Self::Hashes => line.strip_prefix('#'),
        }
    }
}

/// `cargo xtask width`.
pub fn run(workspace: &Workspace) -> Result<ExitCode> {
    let mut files = Vec::new();
    collect(&workspace.root, &workspace.target, &mut files).context("listing the workspace's files")?;
    files.sort();
    let mut count = 0;
    for file in files {
        let Some(language) = Language::of(&file) else { continue };
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let shown = file.strip_prefix(&workspace.root).unwrap_or(&file);
        for TooLong { line, columns, most } in too_long(language, &text) {
            eprintln!("{}:{line}: {columns} columns, at most {most}", shown.display());
            count += 1;
        }
    }
    match count {
        0 => println!("width: no line is too long"),
        count => eprintln!("error: width: {count} lines are too long"),
    }
    Ok(if count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All files below `folder`, without hidden folders and cargo's `target`.
fn collect(folder: &Path, target: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        if kind.is_dir() && !is_hidden && path != target && entry.file_name() != "target" {
            collect(&path, target, files)?;
        } else if kind.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

fn too_long(language: Language, text: &str) -> Vec<TooLong> {
    let mut found = Vec::new();
    let mut in_fence = false;
    for (index, line) in text.lines().enumerate() {
        let prose = language.prose(line);
        let is_fence = prose.is_some_and(|prose| prose.trim_start().starts_with("```"));
        // A comment ends with its block, whether its fence was closed or not.
        in_fence = prose.is_some() && in_fence != is_fence;
        let most = match prose {
            Some(prose) if in_fence || is_fence || is_unbreakable(prose) => continue,
            Some(_) => PROSE,
            None if language == Language::Hashes => continue,
            None => CODE,
        };
        let columns = line.chars().count();
        if columns > most {
            found.push(TooLong { line: index + 1, columns, most });
        }
    }
    found
}

/// A row of a table, or a line with a link.
fn is_unbreakable(prose: &str) -> bool {
    let prose = prose.trim_start();
    prose.starts_with('|') || prose.contains("://") || prose.contains("](") || is_reference(prose)
}

/// `[name]: target`
fn is_reference(prose: &str) -> bool {
    prose.starts_with('[') && prose.contains("]: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(language: Language, text: &str) -> Vec<usize> {
        too_long(language, text).iter().map(|found| found.line).collect()
    }

    #[test]
    fn comments_have_a_hundred_columns_and_code_ten_more() {
        let comment = |columns: usize| format!("    /// {}", "é".repeat(columns - 8));
        let code = |columns: usize| format!("    {}", "x".repeat(columns - 4));
        let text = [comment(100), comment(101), code(110), code(111)].join("\n");
        assert_eq!(lines(Language::Slashes, &text), [2, 4]);
        let found = too_long(Language::Slashes, &comment(103));
        assert_eq!(found, [TooLong { line: 1, columns: 103, most: 100 }]);
        let text = format!("a = \"{}\"\n# {}\n", "x".repeat(120), "x".repeat(100));
        assert_eq!(lines(Language::Hashes, &text), [2]);
    }

    #[test]
    fn tables_links_and_fenced_blocks_are_left_out() {
        let long = "word ".repeat(30);
        let text = format!(
            "{long}\n| {long} |\n```\n{long}\n```\n{long}\n[a]: b {long}\n[x](y) {long}\nhttps://z {long}"
        );
        assert_eq!(lines(Language::Markdown, &text), [1, 6]);
        let text = format!("//! ```\n//! {long}\n//! ```\n//! {long}\n// ```\nfn f() {{}}\n// {long}");
        assert_eq!(lines(Language::Slashes, &text), [4, 7]);
    }
}
