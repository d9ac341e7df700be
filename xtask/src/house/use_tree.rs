//! `use` declarations, taken apart into one path for each name.

use syn::UseTree;

use super::code_path::{CodePath, Space, name};

/// One path of a declaration.
#[derive(Debug, Clone)]
pub struct Import {
    /// The name that it gets; `None` for a glob, whose path is what stands before the `*`.
    pub name: Option<String>,
    /// What is imported.
    pub path: CodePath,
    /// The kinds of names that are imported.
    pub spaces: &'static [Space],
}

/// All paths of a declaration.
pub fn imports(item: &syn::ItemUse) -> Vec<Import> {
    let mut found = Vec::new();
    collect(&item.tree, item.leading_colon.is_some(), &mut Vec::new(), &mut found);
    found
}

fn collect(tree: &UseTree, is_global: bool, before: &mut Vec<String>, found: &mut Vec<Import>) {
    let mut add = |last: Option<&syn::Ident>, name_here: Option<String>, line: usize| {
        // `a::{self}` is `a`, and a module or a type alone.
        let is_self = last.is_some_and(|last| last == "self") && !before.is_empty();
        let spaces: &[Space] = if is_self || last.is_none() { &[Space::Type] } else { &Space::ALL };
        let mut segments = before.clone();
        segments.extend(last.filter(|_| !is_self).map(name));
        let name = name_here.or_else(|| last.and(segments.last().cloned()));
        found.push(Import { name, path: CodePath { is_global, segments, line }, spaces });
    };
    let line = |ident: &syn::Ident| ident.span().start().line;
    match tree {
        UseTree::Path(part) => {
            before.push(name(&part.ident));
            collect(&part.tree, is_global, before, found);
            before.pop();
        }
        UseTree::Name(last) => add(Some(&last.ident), None, line(&last.ident)),
        UseTree::Rename(last) => add(Some(&last.ident), Some(name(&last.rename)), line(&last.ident)),
        UseTree::Glob(glob) => add(None, None, glob.star_token.spans[0].start().line),
        UseTree::Group(group) => {
            group.items.iter().for_each(|tree| collect(tree, is_global, before, found));
        }
    }
}
