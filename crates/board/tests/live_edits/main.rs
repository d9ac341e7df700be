//! Edits of live trees on the machine model. One program, since each would compile the editing
//! crates anew.

mod mutations;
mod out_of_frames;
mod parked;
mod parts;
mod random;
mod recorded;
mod regressions;
mod runs_of_gigabytes;
mod spaces;
mod world;
