//! Which file defines what a path names.

use std::cell::RefCell;

use super::code_path::{CodePath, Space, UsedPath};
use super::module_tree::{FileId, ModuleId, ModuleTree};

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A file of the same package.
    File(FileId),
    /// The library of another package, by its crate's name.
    Crate(String),
}

/// Where a part of a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Module(ModuleId),
    /// An item of a file. What follows belongs to it: variants, associated items.
    Item(FileId),
    Crate(String),
}

/// Looks names up in one package.
#[derive(Debug)]
pub struct Resolver<'t> {
    tree: &'t ModuleTree,
    /// The crates of the workspace, this package's own library among them.
    crates: &'t [String],
    /// This package's library, as other programs of it name it.
    own_crate: &'t str,
    /// The lookups that are under way, so that imports that name each other end.
    open: RefCell<Vec<(ModuleId, String, Space)>>,
}

impl<'t> Resolver<'t> {
    /// For the package with this tree, whose crate is `own_crate` in a workspace of `crates`.
    pub fn new(tree: &'t ModuleTree, crates: &'t [String], own_crate: &'t str) -> Self {
        Self { tree, crates, own_crate, open: RefCell::default() }
    }

    /// What a path in `module` names, in every space that it is looked up in; nothing for what is
    /// not of the workspace.
    pub fn targets(&self, module: ModuleId, used: &UsedPath) -> Vec<Target> {
        let mut targets = Vec::new();
        for space in used.spaces {
            for place in self.places(module, &used.path, *space) {
                let target = match place {
                    Place::Module(module) => Target::File(self.tree.modules[module].file),
                    Place::Item(file) => Target::File(file),
                    Place::Crate(name) => Target::Crate(name),
                };
                if !targets.contains(&target) {
                    targets.push(target);
                }
            }
        }
        targets
    }

    fn places(&self, module: ModuleId, path: &CodePath, space: Space) -> Vec<Place> {
        let (mut places, mut rest) = self.start(module, path, space);
        while let [segment, more @ ..] = rest {
            let wanted = if more.is_empty() { space } else { Space::Type };
            places = places.into_iter().flat_map(|place| self.step(place, segment, wanted)).collect();
            rest = more;
        }
        places
    }

    /// Where the path begins, and the segments that are left.
    fn start<'p>(&self, module: ModuleId, path: &'p CodePath, space: Space) -> (Vec<Place>, &'p [String]) {
        let Some(first) = path.segments.first() else { return (Vec::new(), &[]) };
        let mut rest = &path.segments[1..];
        let this = &self.tree.modules[module];
        match first.as_str() {
            _ if path.is_global => (self.external(first), rest),
            "crate" => (vec![Place::Module(this.root)], rest),
            "self" => (vec![Place::Module(module)], rest),
            "super" => {
                let mut parent = this.parent;
                while let [next, more @ ..] = rest
                    && next == "super"
                {
                    parent = parent.and_then(|parent| self.tree.modules[parent].parent);
                    rest = more;
                }
                (parent.map(Place::Module).into_iter().collect(), rest)
            }
            _ => {
                let wanted = if rest.is_empty() { space } else { Space::Type };
                let mut found = self.lookup(module, first, wanted);
                if found.is_empty() && wanted == Space::Macro {
                    found = self.textual_macro(module, first);
                }
                if found.is_empty() && wanted == Space::Type {
                    found = self.external(first);
                }
                (found, rest)
            }
        }
    }

    fn step(&self, place: Place, segment: &str, wanted: Space) -> Vec<Place> {
        let Place::Module(module) = place else { return vec![place] };
        let found = self.lookup(module, segment, wanted);
        let this = &self.tree.modules[module];
        // It may be there in another space, where it is looked up too, or come from a third-party
        // crate.
        let is_known = Space::ALL.iter().any(|space| !self.lookup(module, segment, *space).is_empty())
            || this.imports.iter().any(|import| import.name == segment);
        match is_known {
            true => found,
            // What a macro defines isn't seen. It belongs to the file where the macro is called.
            false => vec![Place::Item(this.file)],
        }
    }

    /// What `name` is in `module`: its own, else imported.
    fn lookup(&self, module: ModuleId, name: &str, space: Space) -> Vec<Place> {
        let key = (module, name.to_owned(), space);
        if self.open.borrow().contains(&key) {
            return Vec::new();
        }
        self.open.borrow_mut().push(key);
        let found = self.lookup_once(module, name, space);
        self.open.borrow_mut().pop();
        found
    }

    fn lookup_once(&self, id: ModuleId, name: &str, space: Space) -> Vec<Place> {
        let module = &self.tree.modules[id];
        if module.items.iter().any(|(item, of)| item == name && *of == space) {
            return vec![Place::Item(module.file)];
        }
        if space == Space::Type
            && let Some(child) = module.children.get(name)
        {
            return vec![Place::Module(*child)];
        }
        if space == Space::Macro && module.parent.is_none() {
            let exporting = |it: &&super::module_tree::Module| {
                it.root == id && it.exported_macros.iter().any(|exported| exported == name)
            };
            if let Some(exporting) = self.tree.modules.iter().find(exporting) {
                return vec![Place::Item(exporting.file)];
            }
        }
        let imports =
            module.imports.iter().filter(|import| import.name == name && import.spaces.contains(&space));
        let found: Vec<_> = imports.flat_map(|import| self.places(id, &import.path, space)).collect();
        if !found.is_empty() {
            return found;
        }
        let globs = module.globs.iter().flat_map(|path| self.places(id, path, Space::Type));
        let within = globs.filter_map(|place| match place {
            Place::Module(module) => Some(self.lookup(module, name, space)),
            Place::Item(_) | Place::Crate(_) => None,
        });
        within.flatten().collect()
    }

    /// A macro by its name alone: of this module or one around it, else of any that lets it out by
    /// `#[macro_use]`.
    fn textual_macro(&self, module: ModuleId, name: &str) -> Vec<Place> {
        let defines = |module: ModuleId| {
            let module = &self.tree.modules[module];
            module.items.iter().any(|(item, space)| item == name && *space == Space::Macro)
        };
        let around = std::iter::successors(Some(module), |module| self.tree.modules[*module].parent);
        let root = self.tree.modules[module].root;
        let anywhere = (0..self.tree.modules.len()).filter(|other| self.tree.modules[*other].root == root);
        let found = around.chain(anywhere).find(|module| defines(*module));
        found.map(|module| Place::Item(self.tree.modules[module].file)).into_iter().collect()
    }

    fn external(&self, name: &str) -> Vec<Place> {
        if name == self.own_crate {
            return self.tree.library.map(Place::Module).into_iter().collect();
        }
        let known = self.crates.iter().find(|known| *known == name);
        known.map(|name| Place::Crate(name.clone())).into_iter().collect()
    }
}
