#![doc = include_str!("../README.md")]

mod cpu;
mod executed;
mod followed;
mod instruction;
mod memory;
mod qemu;
mod recorder;
mod regime;
mod registers;
mod shape;
mod stream;
mod tree;

mod plugin;
