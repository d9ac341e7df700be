//! The paths in a module's code: in `use` declarations, in types, expressions and patterns, and in
//! what macros are given.
//!
//! `pub use` and `mod` declarations, attributes and what is compiled for tests alone are left out.

use syn::visit::{self, Visit};
use syn::{Block, Item, Stmt, Visibility};

use super::code_path::{CodePath, Space, UsedPath, name};
use super::tested_only::{attributes, is_for_tests};
use super::{token_paths, use_tree};

/// The paths in these items, those of inline modules apart.
pub fn of(items: &[&Item]) -> Vec<UsedPath> {
    let mut collector = Collector::default();
    items.iter().filter(|item| !matches!(item, Item::Mod(_))).for_each(|item| collector.visit_item(item));
    collector.found
}

#[derive(Default)]
struct Collector {
    found: Vec<UsedPath>,
    /// The names that the open blocks import, and what they stand for; `None` for those that they
    /// define.
    blocks: Vec<Vec<(String, Option<CodePath>)>>,
}

impl Collector {
    fn add(&mut self, path: CodePath, spaces: &'static [Space]) {
        let local = self.blocks.iter().rev().flatten().find(|(name, _)| Some(name) == path.segments.first());
        let path = match local {
            Some((_, None)) if !path.is_global => return,
            Some((_, Some(import))) if !path.is_global => {
                let segments = import.segments.iter().chain(&path.segments[1..]).cloned().collect();
                CodePath { is_global: import.is_global, segments, line: path.line }
            }
            _ => path,
        };
        self.found.push(UsedPath { path, spaces });
    }

    fn tokens(&mut self, tokens: &proc_macro2::TokenStream) {
        for found in token_paths::of(tokens) {
            self.add(found.path, found.spaces);
        }
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_for_tests(attributes(item)) {
            return;
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        let attributes = match item {
            syn::ImplItem::Const(item) => &item.attrs,
            syn::ImplItem::Fn(item) => &item.attrs,
            syn::ImplItem::Type(item) => &item.attrs,
            syn::ImplItem::Macro(item) => &item.attrs,
            _ => return,
        };
        if !is_for_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        let attributes: &[syn::Attribute] = match statement {
            Stmt::Local(local) => &local.attrs,
            Stmt::Macro(call) => &call.attrs,
            _ => &[],
        };
        if !is_for_tests(attributes) {
            visit::visit_stmt(self, statement);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if matches!(item.vis, Visibility::Inherited) {
            for import in use_tree::imports(item) {
                // A name that a block imports is among its own names already, and would stand for
                // itself.
                self.found.push(UsedPath { path: import.path, spaces: import.spaces });
            }
        }
    }

    fn visit_block(&mut self, block: &'ast Block) {
        self.blocks.push(names(block));
        visit::visit_block(self, block);
        self.blocks.pop();
    }

    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        if item.ident.is_none() {
            self.add(CodePath::of(&item.mac.path), &[Space::Macro]);
        }
        self.tokens(&item.mac.tokens);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.add(CodePath::of(&call.path), &[Space::Macro]);
        self.tokens(&call.tokens);
    }

    fn visit_expr_path(&mut self, expression: &'ast syn::ExprPath) {
        self.qualified(expression.qself.as_ref(), &expression.path, &[Space::Value]);
    }

    fn visit_type_path(&mut self, path: &'ast syn::TypePath) {
        self.qualified(path.qself.as_ref(), &path.path, &[Space::Type]);
    }

    fn visit_expr_struct(&mut self, expression: &'ast syn::ExprStruct) {
        self.qualified(expression.qself.as_ref(), &expression.path, &[Space::Type]);
        expression.fields.iter().for_each(|field| self.visit_field_value(field));
        expression.rest.iter().for_each(|rest| self.visit_expr(rest));
    }

    fn visit_pat_ident(&mut self, pattern: &'ast syn::PatIdent) {
        // A name in small letters is bound here; one in capitals is a constant.
        if pattern.ident.to_string().starts_with(char::is_uppercase) {
            let line = pattern.ident.span().start().line;
            let path = CodePath { is_global: false, segments: vec![name(&pattern.ident)], line };
            self.add(path, &[Space::Value]);
        }
        visit::visit_pat_ident(self, pattern);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add(CodePath::of(path), &[Space::Type, Space::Value]);
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

impl Collector {
    /// `path`, or with a `type` before it `<type as …>::…`. The parts after the trait do not name
    /// modules.
    fn qualified(&mut self, of: Option<&syn::QSelf>, path: &syn::Path, spaces: &'static [Space]) {
        match of {
            Some(of) => {
                self.visit_type(&of.ty);
                let mut path_of_trait = CodePath::of(path);
                path_of_trait.segments.truncate(of.position);
                if !path_of_trait.segments.is_empty() {
                    self.add(path_of_trait, &[Space::Type]);
                }
            }
            None => self.add(CodePath::of(path), spaces),
        }
        // The generic arguments.
        visit::visit_path(self, path);
    }
}

/// The names that a block's own declarations import or define.
fn names(block: &Block) -> Vec<(String, Option<CodePath>)> {
    let mut names = Vec::new();
    for statement in &block.stmts {
        let Stmt::Item(item) = statement else { continue };
        match item {
            Item::Use(item) => {
                let imports = use_tree::imports(item).into_iter();
                names.extend(imports.filter_map(|import| Some((import.name?, Some(import.path)))));
            }
            Item::Const(item) => names.push((name(&item.ident), None)),
            Item::Static(item) => names.push((name(&item.ident), None)),
            Item::Fn(item) => names.push((name(&item.sig.ident), None)),
            Item::Struct(item) => names.push((name(&item.ident), None)),
            Item::Enum(item) => names.push((name(&item.ident), None)),
            _ => {}
        }
    }
    names
}
