//! The arm64 kernel linear map.
//!
//! [`layout`] places everything in the address space, [`policy`] decides what leaves it is made of, [`ranges`] turns
//! memblock into a list of mappings, and a [`build::Builder`] turns that into tables: [`identity`] by default, or one of
//! the published steps of [`fixmap_build`]. [`listing`] reads the tables back for people.

#![no_std]

#[cfg(test)]
extern crate std;

pub mod build;
pub mod features;
pub mod fixmap_build;
pub mod frames;
pub mod identity;
pub mod layout;
pub mod listing;
pub mod live;
pub mod policy;
pub mod ranges;
pub mod slots;
