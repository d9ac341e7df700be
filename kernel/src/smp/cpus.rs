//! The CPUs of the machine, as the boot CPU knows them: which there are, what they and all of them together can do, what
//! the command line says of them. [`bring_up`] starts and stops them.

mod bring_up;

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use arrayvec::{ArrayString, ArrayVec};
use dtoolkit::fdt::Fdt;
use linmap::features::{BbmOverride, Features, NotALevel, Overclaimed, System};
use linmap_platform::{CommandLine, CpuNode as Described, EnableMethod as Method};
use linmap_vmsa::PaRange;
use linmap_vmsa::id::{Isar0, Midr, Mmfr0, Mmfr2};
use thiserror::Error;

use crate::arch::console::Quoted;
use crate::arch::cpu::{self, ThisCpu};
use crate::arch::percpu;
use crate::boot::topology::Topology;
use crate::gic::controller::{Gic, GicError};
use crate::memory::layout::MAX_CPUS;
use crate::memory::machine::Machine;
use crate::smp::cross_call::{self, DidNotAnswer};
use crate::smp::secondary;
use crate::smp::stacks::{self, StackError};
use crate::{report, say};

pub use bring_up::{
    CpuError, Why, can_stop_all, have_left_firmware, left, send_to_pen, start_late, stop, stop_interrupts,
};

/// The word of the command line that says what all CPUs can do.
const BBM: &str = "linmap.bbm";
/// The words that say what one CPU can do begin with this, and end with its number.
const BBM_OF_CPU: &str = "linmap.bbm.cpu";

/// Why a word of the command line that is about CPUs can't be followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum CpuWordError {
    /// `linmap.cpus=` is no number.
    #[error("linmap.cpus= is the number of CPUs to use, from 1")]
    Cpus,
    /// `linmap.bbm=` or `linmap.bbm.cpuN=` is no level.
    #[error("{word}=: {source}")]
    Level {
        /// The word.
        word: ArrayString<24>,
        /// What is wrong.
        source: NotALevel,
    },
    /// It claims too much of the boot CPU.
    #[error("linmap.bbm: CPU 0: {0}")]
    Overclaimed(#[from] Overclaimed),
    /// It claims too much of another CPU.
    #[error("linmap.bbm: {0}")]
    OverclaimedLater(CpuError),
}

/// The CPUs of the machine.
#[derive(Debug)]
pub struct Cpus {
    /// All CPUs of the device tree, by number.
    list: ArrayVec<Described, MAX_CPUS>,
    /// What those that are or were online can do.
    features: ArrayVec<Option<Features>, MAX_CPUS>,
    /// What all of these can do together.
    system: System,
    /// The interrupt controller, or why there is none.
    gic: Result<Gic, GicError>,
    /// How many CPUs have stacks, or the first that has none and why.
    stacks: Result<usize, (usize, StackError)>,
}

/// What the command line says of the BBM level of the CPU `number`: of all CPUs, unless it says something of this one.
///
/// # Errors
/// [`CpuWordError::Level`].
pub fn bbm_override(line: CommandLine<'_>, number: usize) -> Result<Option<BbmOverride>, CpuWordError> {
    let mut own = ArrayString::<24>::new();
    // It fits: CPUs' numbers have three digits.
    let _ = fmt::Write::write_fmt(&mut own, format_args!("{BBM_OF_CPU}{number}"));
    for word in [own.as_str(), BBM] {
        if let Some(value) = line.get(word) {
            return level(word, value).map(Some);
        }
    }
    Ok(None)
}

/// The value of the word `word`.
fn level(word: &str, value: &str) -> Result<BbmOverride, CpuWordError> {
    value.parse().map_err(|source| {
        let word = ArrayString::from(word).unwrap_or_default();
        CpuWordError::Level { word, source }
    })
}

/// Whether a word of the command line says what one CPU can do.
pub fn is_bbm_of_cpu(word: &str) -> bool {
    word.strip_prefix(BBM_OF_CPU).is_some_and(|number| {
        let is_plain = number == "0" || !number.starts_with(['0', '+']);
        is_plain && number.parse::<usize>().is_ok_and(|number| number < MAX_CPUS)
    })
}

/// Bits of physical address that the boot CPU's tables reach: its own, at most 48.
pub fn boot_pa_bits() -> u8 {
    Mmfr0(cpu::mmfr0()).pa_bits().min(48)
}

/// What the boot CPU can do, as far as the command line lets it.
///
/// # Errors
/// [`CpuWordError`], for what the command line says of any CPU.
pub fn boot_features(line: CommandLine<'_>) -> Result<Features, CpuWordError> {
    // Those of other CPUs are read now too, so that a wrong word is an error before anything is built.
    for word in line.words() {
        if word.key() == BBM || is_bbm_of_cpu(word.key()) {
            level(word.key(), word.value())?;
        }
    }
    let features =
        Features::new(Midr(cpu::midr()), Mmfr0(cpu::mmfr0()), Mmfr2(cpu::mmfr2()), Isar0(cpu::isar0()));
    Ok(match bbm_override(line, 0)? {
        Some(wanted) => features.with_bbm(wanted)?,
        None => features,
    })
}

/// Bits of physical address that it takes to reach the last byte of each of `ranges`.
pub fn bits_to_reach(ranges: impl IntoIterator<Item = PaRange>) -> u8 {
    let last = ranges.into_iter().map(|range| range.end.0.saturating_sub(1)).max().unwrap_or(0);
    (u64::BITS - last.leading_zeros()) as u8
}

impl Cpus {
    /// The CPUs of `topology`, of which only the boot CPU runs, with all physical addresses in use within `pa_bits`.
    pub fn new(topology: &Topology, boot: Features, pa_bits: u8) -> Self {
        let mut features: ArrayVec<_, MAX_CPUS> = topology.cpus.iter().map(|_| None).collect();
        features[0] = Some(boot);
        for (number, cpu) in topology.cpus.iter().enumerate() {
            secondary::name(number, cpu.affinity);
        }
        Self {
            list: topology.cpus.clone(),
            features,
            system: System::of_boot_cpu(&boot, pa_bits),
            gic: Err(GicError::Unknown),
            stacks: Ok(1),
        }
    }

    /// What the CPU `number` can do, once it was online.
    pub fn features(&self, number: usize) -> Option<Features> {
        self.features.get(number).copied().flatten()
    }

    /// What all CPUs that are or were online can do together. For edits this is what counts, and not what one CPU can do.
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
}

/// How many CPUs the command line wants; `None` when it does not say.
fn wanted(line: CommandLine<'_>) -> Result<Option<usize>, CpuWordError> {
    match line.get("linmap.cpus") {
        None => Ok(None),
        Some(value) => match value.parse() {
            Ok(0) | Err(_) => Err(CpuWordError::Cpus),
            Ok(count) => Ok(Some(count)),
        },
    }
}

/// Starts the CPUs that the command line wants, all if it does not say, and reports the phase. A CPU that can't be started,
/// or does not come, is named and left out.
///
/// # Errors
/// [`CpuWordError`].
pub fn start_at_boot(
    machine: &mut Machine<'_>,
    fdt: Fdt<'_>,
    topology: &Topology,
) -> Result<(), CpuWordError> {
    let started = cpu::counter();
    for unusable in &topology.unusable {
        warn(unusable);
    }
    if topology.unusable_count > topology.unusable.len() {
        warn(&format_args!("{} nodes of /cpus can't be used in all", topology.unusable_count));
    }
    let line = CommandLine(machine.command_line);
    let wanted = wanted(line)?;
    let present = machine.cpus.list.len();
    let described = crate::gic::controller::describe(fdt);
    if present > 1 {
        let registers = described.iter().flat_map(|(_, device)| device.registers.iter().copied());
        let pa_bits = machine.features.pa_bits();
        let device_bits = bits_to_reach(registers);
        let in_memory = described
            .iter()
            .flat_map(|(_, device)| &device.registers)
            .find(|registers| machine.memblock.regions().any(|region| region.range.overlaps(**registers)));
        let started = match in_memory {
            Some(registers) => Err(GicError::InMemory { registers: *registers }),
            None => Gic::start(described.as_ref(), topology, pa_bits, machine.fixmap, &mut ThisCpu),
        };
        if started.is_ok() {
            machine.cpus.system.pa_bits = machine.cpus.system.pa_bits.max(device_bits.min(pa_bits));
        }
        machine.cpus.gic = started;
        machine.cpus.stacks = stacks::map(machine, present).map(|()| present);
        let pa_range = Mmfr0::least_pa_range(machine.cpus.system.pa_bits);
        secondary::publish(machine.entered, pa_range, machine.reserved.ttbr0);
        // It goes off when another CPU meets its end and a crash kernel waits.
        let way_off = secondary::way_off(machine.cpus.list[0].method, machine.psci);
        percpu::of(0).conduit.store(way_off, Ordering::Release);
    }
    let count = wanted.unwrap_or(present).min(present);
    if let (2.., Err(error)) = (count, &machine.cpus.gic) {
        warn(&format_args!("the other {} CPUs stay off: {error}", present - 1));
    } else {
        for number in 1..count {
            match bring_up::start_early(machine, number) {
                Ok(()) => {}
                Err(error @ CpuError { why: Why::Overclaimed(_), .. }) => {
                    return Err(CpuWordError::OverclaimedLater(error));
                }
                Err(error) => warn(&error),
            }
        }
    }
    let system = machine.cpus.system;
    report!(
        "phase=cpus ticks={} online={} present={present} method={} gic={} bbm={} tlbi_range={}",
        cpu::ticks_since(started),
        percpu::online().len(),
        Methods(&machine.cpus.list[1..]),
        described.map_or(0, |(version, _)| version.number()),
        system.bbm.number(),
        u8::from(system.tlbi_range)
    );
    Ok(())
}

fn warn(what: &dyn fmt::Display) {
    say!("{what}");
    report!("warning=cpu what={}", Quoted(what));
}

/// How the secondary CPUs are started, in one word.
struct Methods<'a>(&'a [Described]);

impl fmt::Display for Methods<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let same = |a: &Method, b: &Method| core::mem::discriminant(a) == core::mem::discriminant(b);
        match self.0 {
            [] => f.write_str("none"),
            [first, rest @ ..] if rest.iter().all(|cpu| same(&cpu.method, &first.method)) => {
                first.method.fmt(f)
            }
            _ => f.write_str("mixed"),
        }
    }
}

/// Shows all CPUs, and has all that are online answer a call.
///
/// # Errors
/// [`DidNotAnswer`], after all was shown.
pub fn show(machine: &Machine<'_>) -> Result<(), DidNotAnswer> {
    static ANSWERS: AtomicU64 = AtomicU64::new(0);
    ANSWERS.store(0, Ordering::Relaxed);
    let asked = percpu::others();
    let started = cpu::counter();
    let answered = cross_call::call(asked, |_| _ = ANSWERS.fetch_add(1, Ordering::Relaxed), 0);
    let ticks = cpu::ticks_since(started);

    say!("  cpu  mpidr         method      state     model          bbm: reported  relied on");
    for (number, described) in machine.cpus.list.iter().enumerate() {
        let Described { affinity, method } = *described;
        let state = percpu::of(number).state().name();
        let Some(features) = machine.cpus.features(number) else {
            say!("  {number:<3}  {affinity:<12}  {method:<10}  {state}");
            report!("cpu={number} mpidr={affinity} method={method} state={state}");
            continue;
        };
        let midr = features.midr;
        let (reported, bbm) = (features.reported.number(), features.bbm.number());
        say!(
            "  {number:<3}  {affinity:<12}  {method:<10}  {state:<8}  {:<13}  {reported:<13}  {bbm}",
            Model(midr)
        );
        report!(
            "cpu={number} mpidr={affinity} method={method} state={state} midr={:#x} bbm_reported={reported} bbm={bbm}",
            midr.0
        );
    }
    let verdict = if answered.is_ok() { "ok" } else { "late" };
    report!(
        "call={verdict} asked={} answered={} ticks={ticks}",
        asked.len(),
        ANSWERS.load(Ordering::Relaxed)
    );
    answered
}

/// A CPU's name, or what stands for it.
struct Model(Midr);

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.name() {
            Some(name) => f.pad(name),
            None => write!(f, "{:#x}", self.0.0),
        }
    }
}
