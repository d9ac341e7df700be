//! Memory that the user has reserved to try changes on.

use arrayvec::ArrayVec;
use linmap_vmsa::PaRange;
use thiserror::Error;

/// How many ranges the user can reserve.
pub const RESERVATIONS: usize = 32;

/// All reservations are in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("there are {RESERVATIONS} reservations already: `free` one")]
pub struct TooManyReservations;

/// The ranges that the user has reserved.
#[derive(Clone, Debug, Default)]
pub struct Reservations(ArrayVec<PaRange, RESERVATIONS>);

impl Reservations {
    /// All ranges, in the order of their reservation.
    pub fn ranges(&self) -> &[PaRange] {
        &self.0
    }

    /// How many more ranges there is room for.
    pub fn remaining(&self) -> usize {
        self.0.remaining_capacity()
    }

    /// Adds `range`.
    ///
    /// # Errors
    /// [`TooManyReservations`].
    pub fn add(&mut self, range: PaRange) -> Result<(), TooManyReservations> {
        self.0.try_push(range).map_err(|_| TooManyReservations)
    }

    /// Whether `range` as a whole is one of the reservations.
    pub fn contains(&self, range: PaRange) -> bool {
        self.0.contains(&range)
    }

    /// Whether one of the reservations covers `range`.
    pub fn covers(&self, range: PaRange) -> bool {
        self.0.iter().any(|reserved| reserved.covers(range))
    }

    /// Removes `range`.
    pub fn remove(&mut self, range: PaRange) {
        if let Some(at) = self.0.iter().position(|reserved| *reserved == range) {
            self.0.remove(at);
        }
    }
}
