//! How the other kernel parks its CPUs, which are host threads: they poll a request and acknowledge
//! it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct Rendezvous {
    is_requested: AtomicBool,
    parked: AtomicUsize,
    is_off: AtomicBool,
}

impl Rendezvous {
    /// The loop that a CPU runs until it is switched off.
    pub fn poll(&self) {
        while !self.is_off.load(SeqCst) {
            if self.is_requested.load(SeqCst) {
                self.parked.fetch_add(1, SeqCst);
                while self.is_requested.load(SeqCst) {
                    thread::yield_now();
                }
                self.parked.fetch_sub(1, SeqCst);
            }
            thread::yield_now();
        }
    }

    /// Asks `others` CPUs to park. Returns whether all did in time.
    pub fn park(&self, others: usize) -> bool {
        self.is_requested.store(true, SeqCst);
        self.wait_for(others)
    }

    /// Releases the CPUs.
    pub fn release(&self) {
        self.is_requested.store(false, SeqCst);
        self.wait_for(0);
    }

    /// Switches the CPUs off.
    pub fn turn_off(&self) {
        self.is_off.store(true, SeqCst);
    }

    fn wait_for(&self, parked: usize) -> bool {
        let started = Instant::now();
        while self.parked.load(SeqCst) != parked {
            if started.elapsed() > PATIENCE {
                return false;
            }
            thread::yield_now();
        }
        true
    }
}
