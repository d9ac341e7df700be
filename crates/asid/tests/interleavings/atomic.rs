//! Atomics that let another CPU run before each access. They stand for those of the crate.

use std::sync::atomic;

pub use std::sync::atomic::Ordering;

use crate::scheduler::{is_torn, pause, step};

/// A spinning CPU: another one goes on.
pub fn spin_loop() {
    pause();
}

#[derive(Debug, Default)]
pub struct AtomicU64(atomic::AtomicU64);

impl AtomicU64 {
    pub const fn new(value: u64) -> Self {
        Self(atomic::AtomicU64::new(value))
    }

    pub fn load(&self, order: Ordering) -> u64 {
        step();
        self.0.load(order)
    }

    pub fn store(&self, value: u64, order: Ordering) {
        step();
        self.0.store(value, order);
    }

    pub fn swap(&self, value: u64, order: Ordering) -> u64 {
        if is_torn() {
            let before = self.load(Ordering::Relaxed);
            self.store(value, Ordering::Relaxed);
            return before;
        }
        step();
        self.0.swap(value, order)
    }

    pub fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        step();
        self.0.compare_exchange(current, new, success, failure)
    }
}

/// Only changed under the lock: nobody else can see in between.
#[derive(Debug, Default)]
pub struct AtomicU32(atomic::AtomicU32);

impl AtomicU32 {
    pub const fn new(value: u32) -> Self {
        Self(atomic::AtomicU32::new(value))
    }

    pub fn load(&self, order: Ordering) -> u32 {
        self.0.load(order)
    }

    pub fn store(&self, value: u32, order: Ordering) {
        self.0.store(value, order);
    }
}

#[derive(Debug, Default)]
pub struct AtomicBool(atomic::AtomicBool);

impl AtomicBool {
    pub const fn new(value: bool) -> Self {
        Self(atomic::AtomicBool::new(value))
    }

    pub fn load(&self, order: Ordering) -> bool {
        step();
        self.0.load(order)
    }

    pub fn store(&self, value: bool, order: Ordering) {
        step();
        self.0.store(value, order);
    }

    pub fn swap(&self, value: bool, order: Ordering) -> bool {
        step();
        self.0.swap(value, order)
    }
}
