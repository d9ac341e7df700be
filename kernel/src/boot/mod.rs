//! The boot: from the boot loader's entry to the shell.

pub mod command_line;
pub mod console;
pub mod dtb;
pub mod early;
pub mod entry;
pub mod kaslr;
pub mod kernel_main;
pub mod memory;
pub mod memory_words;
pub mod pass;
pub mod reach;
pub mod refuse;
pub mod reserved_outside;
