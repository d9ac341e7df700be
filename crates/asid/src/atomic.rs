//! The atomics and the pause of a spinning CPU. `tests/interleavings` compiles the other files with
//! atomics of its own, which choose the order in which CPUs reach them.

pub(crate) use core::hint::spin_loop;
pub(crate) use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
