//! All CPUs: starting them, calling them, giving them work, parking them, switching them off.

pub mod boot_cpu;
pub mod boot_page;
pub mod call;
pub mod command_line;
pub mod cpus;
pub mod cross_call;
pub mod error;
pub mod hand_over;
pub mod leave;
pub mod mailbox;
pub mod pen;
pub mod secondary;
pub mod stacks;
pub mod start;
pub mod start_all;
pub mod stop;
