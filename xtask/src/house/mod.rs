//! `cargo xtask house`: imports run downward only.
//!
//! Reads the sources of all packages and fails on two files of a package that import each other, at
//! any depth, and on an import that runs up: from a package to one that stands above it, and from a
//! wing of a package to one above it. An import is any path in code: a `use`, a path inline, a
//! macro. It counts from the file that has it to the file that defines the item, whatever
//! re-exports lie between. `mod` and `pub use` declarations and `#[cfg(test)]` do not count.

mod circles;
mod code_path;
mod imports;
mod module_tree;
mod order;
mod package;
mod report;
mod resolve;
mod rooms;
mod tested_only;
mod token_paths;
mod use_tree;
mod used_paths;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use crate::workspace::Workspace;
use order::Order;

/// `cargo xtask house`.
pub fn run(workspace: &Workspace) -> Result<ExitCode> {
    let faults = faults(&workspace.root, &workspace.metadata()?, Order::HOUSE)?;
    faults.iter().for_each(|fault| eprintln!("{fault}"));
    match faults.len() {
        0 => println!("house: imports run downward, and no two files import each other"),
        count => eprintln!("error: house: {count} circles and imports that run up"),
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is wrong in the packages of `metadata`, in words.
fn faults(root: &Path, metadata: &serde_json::Value, order: Order) -> Result<Vec<String>> {
    let packages = package::read(root, metadata)?;
    check(root, &packages, order)
}

fn check(root: &Path, packages: &[package::Package], order: Order) -> Result<Vec<String>> {
    let libraries = packages.iter().filter(|package| package.library.is_some());
    let crates: Vec<_> = libraries.map(package::Package::crate_name).collect();
    let mut faults = Vec::new();
    for package in packages {
        let imports = imports::Imports::read(package, &crates)?;
        let circles = circles::of(&imports);
        faults.extend(circles.iter().map(|circle| report::circle(root, package, &imports, circle)));
        faults.extend(order.rising_crates(package, packages, &imports).map(|rise| report::rise(root, &rise)));
        faults.extend(
            order.unlisted(package, &imports).into_iter().map(|part| report::unlisted(package, part)),
        );
        faults.extend(order.rising_wings(root, package, &imports).map(|rise| report::rise(root, &rise)));
    }
    Ok(faults)
}
