#![doc = include_str!("../README.md")]

mod cpu;
mod executed;
mod executing;
mod followed;
mod instruction;
mod memory;
mod qemu;
mod recorder;
mod shape;
mod stream;

mod plugin;
