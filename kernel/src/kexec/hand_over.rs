//! What the user can do with payloads: load, unload and enter them.

use core::convert::Infallible;

use linmap::{MemoryChange, Protection};

use crate::arch::platform::Platform;
use crate::kexec::allocations::{Allocations, PayloadMemory, Pool};
use crate::kexec::crash::description;
use crate::kexec::crash::memory::CrashMemory;
use crate::kexec::error::KexecError;
use crate::kexec::exec;
use crate::kexec::load::Loader;
use crate::kexec::loaded::Loaded;
use crate::kexec::options::LoadOptions;
use crate::kexec::payload::Payload;
use crate::memory::live::{Fields, LiveMap};
use crate::memory::physical::Memory;
use crate::memory::preserved::PreservedMemory;
use crate::report;
use crate::smp::cpus::Cpus;

/// The payloads that are loaded, and their memory.
#[derive(Debug, Default)]
pub struct Payloads {
    /// The payload for the next hand-over.
    pub loaded: Option<Loaded>,
    /// What it has allocated.
    pub allocations: Allocations,
    /// The crash kernel.
    pub crash_kernel: Option<Loaded>,
    /// Its memory.
    pub crash_memory: CrashMemory,
}

/// The payloads, and what it takes to load and to enter them.
pub struct HandOver<'h> {
    /// The machine.
    pub platform: &'h Platform,
    /// Its memory.
    pub memory: &'h mut Memory,
    /// Its linear map.
    pub map: &'h mut LiveMap,
    /// Its CPUs.
    pub cpus: &'h Cpus,
    /// Memory that payloads leave alone.
    pub preserved: &'h PreservedMemory,
    /// The payloads.
    pub payloads: &'h mut Payloads,
}

impl HandOver<'_> {
    fn payload_memory(&mut self, pool: Pool) -> PayloadMemory<'_> {
        let Payloads { allocations, crash_memory: crash, .. } = &mut *self.payloads;
        PayloadMemory { pool, memory: &mut *self.memory, allocations, crash }
    }

    /// Loads the payload if none is loaded, and enters it. Only returns with an error.
    ///
    /// # Errors
    /// [`KexecError`].
    pub fn run(&mut self) -> Result<Infallible, KexecError> {
        if self.payloads.loaded.is_none() {
            self.cpus.check_stoppable()?;
            self.load(LoadOptions::default())?;
        }
        self.exec(false)
    }

    /// Loads the payload that the command line and the archive ask for.
    ///
    /// # Errors
    /// [`KexecError`].
    pub fn load(&mut self, options: LoadOptions) -> Result<(), KexecError> {
        match options.pool {
            Pool::Machine => {
                if self.payloads.loaded.is_some() {
                    return Err(KexecError::Loaded);
                }
                self.payloads.loaded = Some(self.load_chosen(options)?);
                Ok(())
            }
            Pool::CrashKernel => self.load_crash_kernel(options),
        }
    }

    fn load_chosen(&mut self, options: LoadOptions) -> Result<Loaded, KexecError> {
        let payload = Payload::choose(self.platform, self.memory)?;
        let payload = payload.ok_or(KexecError::NoPayload("this is the last generation"))?;
        let (platform, cpus, preserved) = (self.platform, self.cpus, self.preserved);
        let memory = self.payload_memory(options.pool);
        Loader { platform, cpus, preserved, memory, options }.load(payload)
    }

    /// Loads a crash kernel, which waits for the end of this kernel.
    fn load_crash_kernel(&mut self, options: LoadOptions) -> Result<(), KexecError> {
        if self.payloads.crash_kernel.is_some() {
            return Err(KexecError::Loaded);
        }
        if self.payloads.crash_memory.range.is_empty() {
            return Err(KexecError::NoCrashMemory);
        }
        let loaded = self.load_chosen(options)?;
        let platform = self.platform;
        let ready =
            exec::publish_crash_kernel(platform, &mut self.payload_memory(Pool::CrashKernel), &loaded)
                .and_then(|()| self.protect_crash_kernel(Protection::ReadOnly));
        match ready {
            Ok(()) => {
                self.payloads.crash_kernel = Some(loaded);
                Ok(())
            }
            Err(error) => {
                description::withdraw();
                loaded.unload(self.payload_memory(Pool::CrashKernel));
                Err(error)
            }
        }
    }

    /// Protects a crash kernel from accidental writes, or ends that.
    fn protect_crash_kernel(&mut self, protection: Protection) -> Result<(), KexecError> {
        let range = self.payloads.crash_memory.range;
        let Memory { memblock, changed: record, .. } = &mut *self.memory;
        let (map, mut editor, steps) = self.map.parts(memblock);
        let changed = record.record(range, MemoryChange::Protect(protection), || {
            map.protect(&mut editor, steps, range, protection).map_err(KexecError::from)
        })?;
        report!("crash-kernel={} {}", protection.name(), Fields(changed));
        Ok(())
    }

    /// Unloads the payload, or the crash kernel, of `pool`.
    ///
    /// # Errors
    /// [`KexecError`].
    pub fn unload(&mut self, pool: Pool) -> Result<(), KexecError> {
        let loaded = match pool {
            Pool::Machine => {
                let is_in_use = self.payloads.loaded.as_ref().is_some_and(|loaded| loaded.is_in_use);
                // The check finds CPUs that timed out and have left by now.
                if is_in_use && self.cpus.check_stoppable().is_err() {
                    return Err(KexecError::InUse);
                }
                self.payloads.loaded.take()
            }
            Pool::CrashKernel => {
                if self.payloads.crash_kernel.is_none() {
                    return Err(KexecError::NotLoaded);
                }
                self.protect_crash_kernel(Protection::ReadWrite)?;
                description::withdraw();
                self.payloads.crash_kernel.take()
            }
        };
        loaded.ok_or(KexecError::NotLoaded)?.unload(self.payload_memory(pool));
        Ok(())
    }

    /// Prints the plan of the payload, or the crash kernel, of `pool`.
    ///
    /// # Errors
    /// [`KexecError`].
    pub fn show_plan(&self, pool: Pool) -> Result<(), KexecError> {
        let loaded = match pool {
            Pool::Machine => &self.payloads.loaded,
            Pool::CrashKernel => &self.payloads.crash_kernel,
        };
        loaded.as_ref().ok_or(KexecError::NotLoaded)?.show(self.memory)
    }

    /// Prints the moves of the payload in the form of Linux's list.
    ///
    /// # Errors
    /// [`KexecError`].
    pub fn list(&mut self) -> Result<(), KexecError> {
        self.payloads.loaded.as_ref().ok_or(KexecError::NotLoaded)?.list(self.memory)
    }

    /// Enters the payload. If that fails it stays loaded, and as long as a CPU may still read its
    /// orders it can't be unloaded.
    ///
    /// # Errors
    /// [`KexecError`].
    pub fn exec(&mut self, verify: bool) -> Result<Infallible, KexecError> {
        let loaded = self.payloads.loaded.as_mut().ok_or(KexecError::NotLoaded)?;
        exec::exec(self.platform, self.memory, self.cpus, loaded, verify)
    }
}
