//! What happens once the linear map is live: a script, the shell, or the payload; and the commands
//! of the shell.

pub mod command;
pub mod commands;
pub mod cpu_commands;
pub mod crash_commands;
pub mod edit_commands;
pub mod error;
pub mod flip_command;
pub mod help;
pub mod interactive;
pub mod kexec_commands;
pub mod line_editor;
pub mod map_commands;
pub mod memory_commands;
pub mod owners;
pub mod script;
pub mod session;
pub mod stress_command;
pub mod words;
