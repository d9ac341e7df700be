//! The modules of a package, read from its files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use syn::{Item, ItemMod};

use super::code_path::{CodePath, Space, UsedPath, name};
use super::package::Package;
use super::tested_only::{attributes, is_for_tests};
use super::{use_tree, used_paths};

/// A module, by its place in [`ModuleTree::modules`].
pub type ModuleId = usize;
/// A file, by its place in [`ModuleTree::files`].
pub type FileId = usize;

/// All modules of a package: a tree for each of its roots.
#[derive(Debug, Default)]
pub struct ModuleTree {
    /// The source files.
    pub files: Vec<PathBuf>,
    /// The modules, each after its parent.
    pub modules: Vec<Module>,
    /// The root of the package's library.
    pub library: Option<ModuleId>,
}

/// A module: what it is called, what it holds and what its code uses.
#[derive(Debug)]
pub struct Module {
    /// The file that its items stand in.
    pub file: FileId,
    /// The root of its tree.
    pub root: ModuleId,
    /// The module that declares it.
    pub parent: Option<ModuleId>,
    /// The modules that it declares.
    pub children: HashMap<String, ModuleId>,
    /// The items that it defines.
    pub items: Vec<(String, Space)>,
    /// The macros that `#[macro_export]` moves to the root.
    pub exported_macros: Vec<String>,
    /// The names that it imports or re-exports.
    pub imports: Vec<Named>,
    /// The modules and enums that it imports or re-exports by `*`.
    pub globs: Vec<CodePath>,
    /// The paths in its code, `pub use` apart.
    pub uses: Vec<UsedPath>,
}

/// A name that a module imports or re-exports.
#[derive(Debug)]
pub struct Named {
    /// The name that it has here.
    pub name: String,
    /// What it is.
    pub path: CodePath,
    /// The kinds of names that are imported.
    pub spaces: &'static [Space],
}

/// Where the files of a module's children lie.
#[derive(Debug, Clone)]
struct Place {
    /// The file with the declarations.
    file: FileId,
    /// The folder of that file, from which `#[path]` counts.
    folder: PathBuf,
    /// The folder of its children.
    children: PathBuf,
    /// Whether the declarations stand in a `mod name { … }` of that file.
    is_inline: bool,
}

impl ModuleTree {
    /// Reads all files of a package.
    pub fn read(package: &Package) -> Result<Self> {
        let mut tree = Self::default();
        for root in package.roots() {
            let module = tree.file(root, None, true)?;
            if package.library.as_ref() == Some(root) {
                tree.library = Some(module);
            }
        }
        Ok(tree)
    }

    fn file(&mut self, path: &Path, parent: Option<ModuleId>, owns_folder: bool) -> Result<ModuleId> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let parsed = syn::parse_file(&text).map_err(|error| {
            let at = error.span().start();
            anyhow::anyhow!("{}:{}:{}: {error}", path.display(), at.line, at.column + 1)
        })?;
        let file = self.files.iter().position(|known| known == path).unwrap_or_else(|| {
            self.files.push(path.to_owned());
            self.files.len() - 1
        });
        let folder = path.parent().context("a file has a folder")?.to_owned();
        let children = match path.file_stem() {
            Some(stem) if !owns_folder => folder.join(stem),
            _ => folder.clone(),
        };
        self.module(&parsed.items, &Place { file, folder, children, is_inline: false }, parent)
    }

    fn module(&mut self, items: &[Item], place: &Place, parent: Option<ModuleId>) -> Result<ModuleId> {
        let id = self.modules.len();
        let root = parent.map_or(id, |parent| self.modules[parent].root);
        let mut module = Module {
            file: place.file,
            root,
            parent,
            children: HashMap::new(),
            items: Vec::new(),
            exported_macros: Vec::new(),
            imports: Vec::new(),
            globs: Vec::new(),
            uses: Vec::new(),
        };
        let kept: Vec<_> = items.iter().filter(|item| !is_for_tests(attributes(item))).collect();
        kept.iter().for_each(|item| module.define(item));
        module.uses = used_paths::of(&kept);
        self.modules.push(module);
        for item in kept {
            if let Item::Mod(declared) = item {
                let child = self.child(declared, place, id)?;
                self.modules[id].children.insert(name(&declared.ident), child);
            }
        }
        Ok(id)
    }

    fn child(&mut self, declared: &ItemMod, place: &Place, parent: ModuleId) -> Result<ModuleId> {
        let name = name(&declared.ident);
        let path = path_attribute(declared);
        if let Some((_, items)) = &declared.content {
            let children = match path {
                Some(path) => place.folder.join(path),
                None => place.children.join(&name),
            };
            return self.module(items, &Place { children, is_inline: true, ..place.clone() }, Some(parent));
        }
        if let Some(path) = path {
            let from = if place.is_inline { &place.children } else { &place.folder };
            return self.file(&plain(&from.join(path)), Some(parent), true);
        }
        let beside = place.children.join(format!("{name}.rs"));
        if beside.exists() {
            return self.file(&beside, Some(parent), false);
        }
        let within = place.children.join(&name).join("mod.rs");
        if within.exists() {
            return self.file(&within, Some(parent), true);
        }
        bail!("{}: no file for `mod {name}`", self.files[place.file].display())
    }
}

impl Module {
    fn define(&mut self, item: &Item) {
        use Space::{Macro, Type, Value};
        let mut add = |ident: &syn::Ident, spaces: &[Space]| {
            self.items.extend(spaces.iter().map(|space| (name(ident), *space)));
        };
        match item {
            Item::Const(item) => add(&item.ident, &[Value]),
            Item::Static(item) => add(&item.ident, &[Value]),
            Item::Fn(item) => add(&item.sig.ident, &[Value]),
            Item::Enum(item) => add(&item.ident, &[Type]),
            Item::Trait(item) => add(&item.ident, &[Type]),
            Item::TraitAlias(item) => add(&item.ident, &[Type]),
            Item::Type(item) => add(&item.ident, &[Type]),
            Item::Union(item) => add(&item.ident, &[Type]),
            Item::Struct(item) => match item.fields {
                syn::Fields::Named(_) => add(&item.ident, &[Type]),
                _ => add(&item.ident, &[Type, Value]),
            },
            Item::ForeignMod(block) => {
                for item in &block.items {
                    match item {
                        syn::ForeignItem::Fn(item) => add(&item.sig.ident, &[Value]),
                        syn::ForeignItem::Static(item) => add(&item.ident, &[Value]),
                        syn::ForeignItem::Type(item) => add(&item.ident, &[Type]),
                        _ => {}
                    }
                }
            }
            Item::Macro(item) => {
                let Some(ident) = &item.ident else { return };
                add(ident, &[Macro]);
                if item.attrs.iter().any(|attribute| attribute.path().is_ident("macro_export")) {
                    self.exported_macros.push(name(ident));
                }
            }
            Item::Use(item) => {
                for import in use_tree::imports(item) {
                    match import.name {
                        Some(name) => {
                            self.imports.push(Named { name, path: import.path, spaces: import.spaces });
                        }
                        None => self.globs.push(import.path),
                    }
                }
            }
            _ => {}
        }
    }
}

/// What `#[path = "…"]` says.
fn path_attribute(declared: &ItemMod) -> Option<String> {
    declared.attrs.iter().find_map(|attribute| match &attribute.meta {
        syn::Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    })
}

/// The path without `..`, so that each file has one name.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}
