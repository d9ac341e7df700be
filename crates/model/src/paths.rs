//! The ways on which a walk may reach an entry, and what the tables on them take away.

use crate::descriptor::{Entry, read};
use crate::limits::Limits;
use crate::machine::{Check, EntryPlace, Machine, Root};

impl Machine {
    /// What a walk that reaches `place`, from the root or from a pointer in a walk cache, may have
    /// had taken away. Without hierarchical permissions anywhere, which is almost always, no walk
    /// is made.
    pub(crate) fn limits_at(&mut self, place: EntryPlace) -> Check<Limits> {
        if !self.hierarchical {
            return Ok(Limits::NONE);
        }
        let Root { shape, space, table, .. } = self.roots[place.root as usize];
        let mut found = self.limits_below(place, table, shape.start, shape.base(space), Limits::NONE)?;
        for held in self.cached.of(space).touching(shape, place.va, place.va) {
            if held.root == place.root
                && held.level < place.level
                && let Entry::Table(table) = read(shape, space, held.level, held.value)
            {
                let limits = held.limits.below(shape, held.value);
                found = found.or(self.limits_below(place, table, held.level + 1, held.va, limits)?);
            }
        }
        // The place counts as walkable, so if no way was found one was missed.
        Ok(if found.is_empty() { Limits::ANY } else { found })
    }

    /// The same for walks from the table at `table` on, which have had `limits` taken away.
    fn limits_below(
        &mut self,
        place: EntryPlace,
        table: u64,
        level: i8,
        base: u64,
        limits: Limits,
    ) -> Check<Limits> {
        self.spend()?;
        let Root { shape, space, .. } = self.roots[place.root as usize];
        let shift = shape.shift(level);
        let index = (place.va - base) >> shift;
        let pa = table + 8 * index;
        if level >= place.level {
            return Ok(if pa == place.pa { limits } else { Limits::EMPTY });
        }
        let mut pointers = Vec::new();
        self.memory.seen(pa, |value| {
            if let Some(value) = value
                && let Entry::Table(next) = read(shape, space, level, value)
            {
                pointers.push((next, limits.below(shape, value)));
            }
        });
        let mut found = Limits::EMPTY;
        for (next, limits) in pointers {
            let below = self.limits_below(place, next, level + 1, base + (index << shift), limits)?;
            found = found.or(below);
        }
        Ok(found)
    }
}
