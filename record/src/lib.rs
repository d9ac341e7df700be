#![doc = include_str!("../README.md")]

mod cpu;
mod current;
mod executed;
mod followed;
mod idle;
mod instruction;
mod memory;
mod own;
mod place;
mod qemu;
mod recorder;
mod regime;
mod registers;
mod shape;
mod stream;
mod tree;
mod trees;

mod plugin;
