//! The CPUs of the machine, as the boot CPU knows them.

use arrayvec::ArrayVec;
use linmap::features::{Features, System};
use linmap_platform::gic::V2;
use linmap_platform::{CpuNode, Psci};

use crate::arch::affinities;
use crate::arch::layout::MAX_CPUS;
use crate::arch::topology::Topology;
use crate::gic::controller::Gic;
use crate::gic::error::GicError;
use crate::smp::error::{CpuError, Why};
use crate::smp::stacks::{StackError, StackMemory};

/// The CPUs of the machine.
#[derive(Debug)]
pub struct Cpus {
    /// All CPUs of the device tree, by number.
    pub list: ArrayVec<CpuNode, MAX_CPUS>,
    /// How PSCI is called.
    pub psci: Option<Psci>,
    /// The features of the CPUs that are or were online.
    pub(super) features: ArrayVec<Option<Features>, MAX_CPUS>,
    /// What all of these can do together.
    pub(super) system: System,
    /// The interrupt controller, or why there is none.
    pub(super) gic: Result<Gic, GicError>,
    /// The number of CPUs that have stacks, or the first without stacks and why.
    pub(super) stacks: Result<usize, (usize, StackError)>,
    /// The stacks that are mapped.
    pub(super) stack_memory: StackMemory,
}

impl Cpus {
    /// The CPUs of `topology` while only the boot CPU runs. All physical addresses in use have at
    /// most `pa_bits` bits.
    pub fn new(topology: &Topology, psci: Option<Psci>, boot: Features, pa_bits: u8) -> Self {
        let mut features: ArrayVec<_, MAX_CPUS> = topology.cpus.iter().map(|_| None).collect();
        features[0] = Some(boot);
        for (number, cpu) in topology.cpus.iter().enumerate() {
            affinities::assign(number, cpu.affinity);
        }
        Self {
            list: topology.cpus.clone(),
            psci,
            features,
            system: System::of_boot_cpu(&boot, pa_bits),
            gic: Err(GicError::Unknown),
            stacks: Ok(1),
            stack_memory: StackMemory::default(),
        }
    }

    /// The features of the CPU `number`, if it is or was online.
    pub fn features(&self, number: usize) -> Option<Features> {
        self.features.get(number).copied().flatten()
    }

    /// What all CPUs that are or were online can do together. Edits of the map rely on this alone.
    pub fn system(&self) -> System {
        self.system
    }

    /// The first number of a CPU that has no stacks.
    pub fn with_stacks(&self) -> usize {
        match self.stacks {
            Ok(count) => count,
            Err((first, _)) => first,
        }
    }

    /// The stacks of all CPUs but the boot CPU.
    pub fn stack_memory(&self) -> &StackMemory {
        &self.stack_memory
    }

    /// The registers of the interrupt controller that stay mapped.
    pub fn mapped_gic(&self) -> Option<V2> {
        self.gic.as_ref().ok().and_then(Gic::mapped)
    }

    /// The CPU `number` as the device tree describes it.
    ///
    /// # Errors
    /// [`Why::Nobody`].
    pub fn described(&self, number: usize) -> Result<CpuNode, CpuError> {
        let found = self.list.get(number).copied();
        found.ok_or(CpuError { number, why: Why::Nobody })
    }
}
