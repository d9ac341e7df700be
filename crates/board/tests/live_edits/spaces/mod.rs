//! User spaces with identifiers of `linmap-asid` on the machine model.

mod afar;
mod asids;
mod edits;
mod kernel;
mod mistakes;
mod pages;
mod vmids;
