//! Starting one of the other CPUs, as the boot CPU does it.

use linmap::features::{Features, Lacks, System};
use linmap_platform::{CpuNode, EnableMethod};

use crate::arch::cpu::ThisCpu;
use crate::arch::geometry::geometry;
use crate::arch::per_cpu::{self, State};
use crate::arch::platform::Platform;
use crate::arch::psci;
use crate::memory::physical::Memory;
use crate::smp::call::Call;
use crate::smp::command_line::bbm_override;
use crate::smp::cpus::Cpus;
use crate::smp::error::{CpuError, Why};
use crate::smp::mailbox;
use crate::smp::secondary;

/// Returns the features of the system after a CPU with these features joins.
type Admit = fn(&System, &Features) -> Result<System, Lacks>;

impl Cpus {
    /// Starts the CPU `number` now that the system is in use: the CPU has to have all that the
    /// system relies on.
    ///
    /// # Errors
    /// [`CpuError`]. The CPU is off again, or lost.
    pub fn start_late(
        &mut self,
        platform: &Platform,
        memory: &mut Memory,
        number: usize,
    ) -> Result<(), CpuError> {
        self.start(platform, memory, number, |system, cpu| system.admits(cpu).map(|()| *system))
    }

    /// Starts the CPU `number` during boot: what it lacks, the system lacks from now on.
    ///
    /// # Errors
    /// [`CpuError`]. The CPU is off again, or lost.
    pub fn start_early(
        &mut self,
        platform: &Platform,
        memory: &mut Memory,
        number: usize,
    ) -> Result<(), CpuError> {
        self.start(platform, memory, number, |system, cpu| {
            let mut system = *system;
            system.take_in(cpu)?;
            Ok(system)
        })
    }

    fn start(
        &mut self,
        platform: &Platform,
        memory: &mut Memory,
        number: usize,
        admit: Admit,
    ) -> Result<(), CpuError> {
        let fail = |why| CpuError { number, why };
        let described = self.described(number)?;
        self.check_startable(number).map_err(fail)?;
        let call = Call::new(number, described.affinity, psci::way_off(described.method, self.psci));
        if let Err(why) = self.send_here(platform, memory, described) {
            call.withdraw();
            return Err(fail(why));
        }
        let online = call.finish(|features| self.judge(platform, memory, number, features, admit));
        match online {
            Ok((features, system)) => {
                self.features[number] = Some(features);
                self.system = system;
                Ok(())
            }
            Err(ended) => {
                if ended.is_leaving() {
                    self.wait_until_off(number);
                }
                Err(fail(ended.why()))
            }
        }
    }

    /// Checks that the CPU `number` can be called.
    fn check_startable(&self, number: usize) -> Result<(), Why> {
        if number == 0 {
            return Err(Why::BootCpu);
        }
        match per_cpu::of(number).state() {
            State::Off | State::Uncalled => {}
            State::Online => return Err(Why::Online),
            _ => return Err(Why::Lost),
        }
        if let Err(error) = self.gic {
            return Err(Why::NoInterrupts(error));
        }
        match self.stacks {
            Err((first, error)) if number >= first => Err(Why::NoStacks(error)),
            _ => Ok(()),
        }
    }

    /// Has the firmware, or the loop in which it left the CPU, send the CPU here.
    fn send_here(&self, platform: &Platform, memory: &mut Memory, described: CpuNode) -> Result<(), Why> {
        let entry = secondary::entry(platform.image);
        match described.method {
            EnableMethod::Psci => {
                let psci = self.psci.ok_or(Why::NoPsci)?;
                psci::cpu_on(psci, described.affinity, entry).map_err(Why::Firmware)
            }
            EnableMethod::SpinTable { release } => {
                mailbox::write(memory, release, entry, geometry().pa_bits())?;
                // All CPUs that watch this mailbox leave it.
                for (number, other) in self.list.iter().enumerate() {
                    if other.method == described.method {
                        per_cpu::of(number).change_state(State::Off, State::Uncalled);
                    }
                }
                Ok(())
            }
            EnableMethod::Unknown => Err(Why::NoMethod),
        }
    }

    /// Decides by its `features` whether the CPU `number`, which has arrived, may stay. Returns its
    /// features as the command line limits them, and what the system is with it.
    fn judge(
        &self,
        platform: &Platform,
        memory: &mut Memory,
        number: usize,
        features: Features,
        admit: Admit,
    ) -> Result<(Features, System), Why> {
        // All words were checked before the linear map was built.
        let limit = bbm_override(platform.command_line, number).ok().flatten();
        let features = match limit {
            Some(limit) => features.with_bbm(limit).map_err(Why::Overclaimed)?,
            None => features,
        };
        let system = admit(&self.system, &features).map_err(Why::Lacks)?;
        match &self.gic {
            Ok(gic) if gic.prepare(number, &mut memory.fixmap, &mut ThisCpu) => Ok((features, system)),
            Ok(_) => Err(Why::NoRedistributor),
            Err(error) => Err(Why::NoInterrupts(*error)),
        }
    }
}
