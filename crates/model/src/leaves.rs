//! The leaves and tables of a tree as they are now.

use std::ops::ControlFlow;

use crate::descriptor::{Entry, read};
use crate::machine::{Machine, NO_TABLE, Root};
use crate::space::Space;

impl Machine {
    /// Every leaf of the tree that `cpu` walks in `space` now, in ascending order, as (first
    /// address, first output address, log2 of its bytes, descriptor, level). Stops when `each`
    /// breaks.
    pub fn leaves<B>(
        &self,
        cpu: usize,
        space: Space,
        mut each: impl FnMut(u64, u64, u32, u64, i8) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let Some(&root) = self.cpus.get(cpu).and_then(|cpu| cpu.walks[space.index()].last()) else {
            return ControlFlow::Continue(());
        };
        let Root { shape, table, .. } = self.roots[root as usize];
        self.leaves_below(root, table, shape.start, shape.base(space), &mut each)
    }

    /// The number of tables of the tree that `cpu` walks in `space` now, including the root.
    pub fn tables(&self, cpu: usize, space: Space) -> u64 {
        let Some(&root) = self.cpus.get(cpu).and_then(|cpu| cpu.walks[space.index()].last()) else {
            return 0;
        };
        let Root { shape, table, .. } = self.roots[root as usize];
        if table == NO_TABLE {
            return 0;
        }
        self.tables_below(root, table, shape.start)
    }

    fn tables_below(&self, root: u32, table: u64, level: i8) -> u64 {
        let Root { shape, space, .. } = self.roots[root as usize];
        if level == 3 {
            return 1;
        }
        let entries = self.memory.known(table, shape.entries(level));
        let below = entries.map(|(_, value)| match read(shape, space, level, value) {
            Entry::Table(next) => self.tables_below(root, next, level + 1),
            Entry::Invalid | Entry::Leaf(_) => 0,
        });
        1 + below.sum::<u64>()
    }

    fn leaves_below<B>(
        &self,
        root: u32,
        table: u64,
        level: i8,
        va: u64,
        each: &mut impl FnMut(u64, u64, u32, u64, i8) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let Root { shape, space, .. } = self.roots[root as usize];
        for (index, value) in self.memory.known(table, shape.entries(level)) {
            let va = va + (index << shape.shift(level));
            match read(shape, space, level, value) {
                Entry::Invalid => {}
                Entry::Table(next) => self.leaves_below(root, next, level + 1, va, each)?,
                Entry::Leaf(leaf) => each(va, leaf.pa, leaf.shift, value, level)?,
            }
        }
        ControlFlow::Continue(())
    }
}
