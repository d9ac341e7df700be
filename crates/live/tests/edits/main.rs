//! Edits of trees in host memory. One program, since each would compile the planners anew.

mod atomic_updates;
mod changes;
mod checks;
mod foldable;
mod hardware_updates;
mod live;
mod operations;
mod parked;
mod races;
mod regimes;
mod removed_tables;
mod spaces;
mod tracked_guests;
