//! The shell and its commands.

pub mod changes;
pub mod commands;
