#![doc = include_str!("../README.md")]

mod cpu;
mod current;
mod executed;
mod followed;
mod idle;
mod instruction;
mod linked;
mod log;
mod memory;
mod order;
mod qemu;
mod recorder;
mod regime;
mod registers;
mod reset;
mod shape;
mod stream;
mod translate;
mod trees;
mod unseen;

mod plugin;
