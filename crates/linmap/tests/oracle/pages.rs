//! The oracle: what every page of a map is, as a list of stretches of equal pages.

/// What a page is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State {
    pub valid: bool,
    pub writable: bool,
    pub executable: bool,
    pub global: bool,
    /// The output address less the virtual address, wrapping.
    pub offset: u64,
}

/// A stretch of pages of one state. The last address is inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stretch {
    pub first: u64,
    pub last: u64,
    pub state: State,
}

/// All pages that a map has, valid or invalidated, in ascending order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pages {
    stretches: Vec<Stretch>,
}

impl Pages {
    /// Adds a stretch behind all others.
    pub fn push(&mut self, next: Stretch) {
        if let Some(last) = self.stretches.last_mut() {
            assert!(last.last < next.first, "{next:x?} is not behind {last:x?}");
            if last.last + 1 == next.first && last.state == next.state {
                last.last = next.last;
                return;
            }
        }
        self.stretches.push(next);
    }

    /// Makes the last stretch `bytes` longer.
    pub fn extend(&mut self, bytes: u64) {
        if let Some(last) = self.stretches.last_mut() {
            last.last += bytes;
        }
    }

    pub fn stretches(&self) -> &[Stretch] {
        &self.stretches
    }

    /// The stretches in `first..=last`, cut to it.
    pub fn within(&self, first: u64, last: u64) -> Vec<Stretch> {
        let inside = self.stretches.iter().filter(|stretch| stretch.first <= last && first <= stretch.last);
        inside
            .map(|stretch| Stretch {
                first: stretch.first.max(first),
                last: stretch.last.min(last),
                ..*stretch
            })
            .collect()
    }

    /// Whether every page in `first..=last` is there.
    pub fn covers(&self, first: u64, last: u64) -> bool {
        let inside = self.within(first, last);
        inside.iter().map(|stretch| stretch.last - stretch.first + 1).sum::<u64>() == last - first + 1
    }

    /// Replaces what is in `first..=last` by `what`.
    fn replace(&mut self, first: u64, last: u64, what: Vec<Stretch>) {
        let mut replaced = Self::default();
        let below = if first == 0 { Vec::new() } else { self.within(0, first - 1) };
        let above = if last == u64::MAX { Vec::new() } else { self.within(last + 1, u64::MAX) };
        below.into_iter().chain(what).chain(above).for_each(|stretch| replaced.push(stretch));
        *self = replaced;
    }

    /// Changes every page in `first..=last`.
    pub fn change(&mut self, first: u64, last: u64, change: impl Fn(State) -> State) {
        let changed = self
            .within(first, last)
            .into_iter()
            .map(|stretch| Stretch { state: change(stretch.state), ..stretch });
        self.replace(first, last, changed.collect());
    }

    pub fn map(&mut self, first: u64, last: u64, state: State) {
        self.replace(first, last, vec![Stretch { first, last, state }]);
    }

    pub fn unmap(&mut self, first: u64, last: u64) {
        self.replace(first, last, Vec::new());
    }
}
