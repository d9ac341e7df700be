#![doc = include_str!("../README.md")]

mod cpu;
mod current;
mod executed;
mod followed;
mod idle;
mod instruction;
mod invalidated;
mod linked;
mod log;
mod memory;
mod order;
mod own;
mod place;
mod qemu;
mod readable;
mod recorder;
mod regime;
mod registers;
mod reset;
mod shape;
mod sites;
mod slice;
mod stream;
mod threads;
mod translate;
mod tree;
mod trees;
mod unseen;
mod waiting;

mod plugin;
