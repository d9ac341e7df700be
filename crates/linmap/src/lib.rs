//! The arm64 kernel linear map.
//!
//! [`layout`] places everything in the address space, [`policy`] decides what leaves it is made of, [`ranges`] turns
//! memblock into a list of mappings, and a [`build::Builder`] turns that into tables: [`identity`] by default, or one of
//! the published steps of [`fixmap_build`]. [`listing`] reads the tables back for people.

#![no_std]

#[cfg(test)]
extern crate std;

pub mod builder;
pub mod change;
pub mod features;
pub mod fixmap_build;
pub mod frame_pool;
pub mod identity_build;
pub mod layout;
pub mod leaf_policy;
pub mod listing;
pub mod mapping_list;
pub mod slots;
