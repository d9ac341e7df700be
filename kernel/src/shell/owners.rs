//! The owners of all state that commands work on.

use crate::arch::platform::Platform;
use crate::kexec::hand_over::{HandOver, Payloads};
use crate::memory::live::LiveMap;
use crate::memory::physical::Memory;
use crate::memory::preserved::PreservedMemory;
use crate::memory::reservations::Reservations;
use crate::smp::cpus::Cpus;

/// The owners of all state, one for each wing. Each command gets those that it needs.
pub struct Owners {
    /// Facts about the machine.
    pub platform: Platform,
    /// Its memory.
    pub memory: Memory,
    /// Its linear map.
    pub map: LiveMap,
    /// Its CPUs.
    pub cpus: Cpus,
    /// Memory that the user has reserved.
    pub reservations: Reservations,
    /// Preserved memory.
    pub preserved: PreservedMemory,
    /// Payloads that are loaded.
    pub payloads: Payloads,
}

impl Owners {
    /// What it takes to load and to enter payloads.
    pub fn hand_over(&mut self) -> HandOver<'_> {
        let Self { platform, memory, map, cpus, preserved, payloads, .. } = self;
        HandOver { platform, memory, map, cpus, preserved, payloads }
    }
}
