#![doc = include_str!("../README.md")]

mod cpu;
mod current;
mod executed;
mod followed;
mod idle;
mod instruction;
mod memory;
mod qemu;
mod recorder;
mod shape;
mod stream;
mod trees;

mod plugin;
