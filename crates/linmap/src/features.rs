//! The CPU features that the linear map relies on: of each CPU, and of the system.
//!
//! The system has a BBM level and invalidation by range only if every CPU has them: any CPU may
//! walk what is edited, and must carry out what is broadcast. A CPU that is present at boot lowers
//! what the system has. A CPU that starts later must have it.

use linmap_vmsa::id::{BbmLevel, Isar0, Midr, Mmfr0, Mmfr2};
use thiserror::Error;

/// The features of one CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// The CPU's model.
    pub midr: Midr,
    /// Granules and PA size.
    pub mmfr0: Mmfr0,
    /// The BBM level by its registers and by the list of CPUs without conflict aborts.
    pub reported: BbmLevel,
    /// The BBM level to rely on: `reported`, unless it is overridden.
    pub bbm: BbmLevel,
    /// Whether it has invalidation by range (FEAT_TLBIRANGE).
    pub tlbi_range: bool,
}

impl Features {
    /// Returns the features that the ID registers of a CPU report.
    pub fn new(midr: Midr, mmfr0: Mmfr0, mmfr2: Mmfr2, isar0: Isar0) -> Self {
        let reported = midr.bbm(mmfr2.bbm());
        Self { midr, mmfr0, reported, bbm: reported, tlbi_range: isar0.tlbi_range() }
    }

    /// Returns how many bits of physical address the CPU has.
    pub fn pa_bits(&self) -> u8 {
        self.mmfr0.pa_bits()
    }

    /// Returns the same CPU with its BBM level overridden.
    ///
    /// # Errors
    /// [`Overclaimed`] when the CPU reports less and the override is not forced.
    pub fn with_bbm(self, wanted: BbmOverride) -> Result<Self, Overclaimed> {
        if wanted.level > self.reported && !wanted.force {
            return Err(Overclaimed { wanted: wanted.level, midr: self.midr, reported: self.reported });
        }
        Ok(Self { bbm: wanted.level, ..self })
    }
}

/// A BBM level to assume in place of the reported one. Less than a CPU has is always safe.
///
/// Parses from `N` and `N,force`.
///
/// ```
/// use linmap::features::BbmOverride;
/// use linmap_vmsa::id::BbmLevel;
///
/// let forced: BbmOverride = "2,force".parse()?;
/// assert_eq!((forced.level, forced.force), (BbmLevel::L2, true));
/// # Ok::<(), linmap::features::NotALevel>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BbmOverride {
    /// The level.
    pub level: BbmLevel,
    /// Whether it overrides CPUs that report less.
    pub force: bool,
}

/// The text is not a BBM level to assume.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("a BBM level is 0, 1, 2 or 3, or one of these with ,force")]
pub struct NotALevel;

impl core::str::FromStr for BbmOverride {
    type Err = NotALevel;

    fn from_str(value: &str) -> Result<Self, NotALevel> {
        let (number, force) = match value.strip_suffix(",force") {
            Some(number) => (number, true),
            None => (value, false),
        };
        let level = match number {
            "0" => BbmLevel::L0,
            "1" => BbmLevel::L1,
            "2" => BbmLevel::L2,
            "3" => BbmLevel::L3,
            _ => return Err(NotALevel),
        };
        Ok(Self { level, force })
    }
}

/// An override claims a BBM level that the CPU does not report.
///
/// ```
/// use linmap::features::{BbmOverride, Features, Overclaimed};
/// use linmap_vmsa::id::{BbmLevel, Isar0, Midr, Mmfr0, Mmfr2};
///
/// let cpu = Features::new(Midr(0), Mmfr0(0b0101), Mmfr2(0), Isar0(0));
/// let claim = BbmOverride { level: BbmLevel::L3, force: false };
/// let Overclaimed { wanted, reported, .. } = cpu.with_bbm(claim).unwrap_err();
/// assert_eq!((wanted, reported), (BbmLevel::L3, BbmLevel::L0));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error(
    "BBM level {} is asked for, but the CPU (MIDR_EL1 {:#x}) reports level {} \
     (ID_AA64MMFR2_EL1.BBM, or its model): to assume it anyway, force it",
    wanted.number(), midr.0, reported.number()
)]
pub struct Overclaimed {
    /// The level asked for.
    pub wanted: BbmLevel,
    /// The CPU's model.
    pub midr: Midr,
    /// The level that it reports.
    pub reported: BbmLevel,
}

/// A feature that a CPU lacks and the system relies on.
///
/// ```
/// use linmap::features::{Features, Lacks, System};
/// use linmap_vmsa::id::{BbmLevel, Isar0, Midr, Mmfr0, Mmfr2};
///
/// // 48 bits of PA, and the BBM level in ID_AA64MMFR2_EL1.
/// let cpu = |bbm: u64| Features::new(Midr(0), Mmfr0(0b0101), Mmfr2(bbm << 52), Isar0(0));
/// let system = System::of_boot_cpu(&cpu(3), 48);
/// let lacks = system.admits(&cpu(0)).unwrap_err();
/// assert_eq!(lacks, Lacks::Bbm { has: BbmLevel::L0, needs: BbmLevel::L3 });
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Lacks {
    /// Its BBM level is below the system's.
    #[error(
        "ID_AA64MMFR2_EL1.BBM: BBM level {}, and the system relies on level {}",
        has.number(), needs.number()
    )]
    Bbm {
        /// The CPU's level.
        has: BbmLevel,
        /// The system's.
        needs: BbmLevel,
    },
    /// It has no invalidation by range.
    #[error("ID_AA64ISAR0_EL1.TLB: no invalidation by range, which the system uses")]
    TlbiRange,
    /// Its physical addresses are too short.
    #[error("ID_AA64MMFR0_EL1.PARange: {has} bits of physical address, and {needs} are in use")]
    PaBits {
        /// The CPU's bits.
        has: u8,
        /// The bits of the highest address in use.
        needs: u8,
    },
}

/// The features that all CPUs have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct System {
    /// The least BBM level.
    pub bbm: BbmLevel,
    /// Whether all have invalidation by range.
    pub tlbi_range: bool,
    /// Bits of the highest physical address in use, by memory or mapped devices.
    pub pa_bits: u8,
}

impl System {
    /// Returns the system of the boot CPU alone.
    pub fn of_boot_cpu(boot: &Features, pa_bits: u8) -> Self {
        Self { bbm: boot.bbm, tlbi_range: boot.tlbi_range, pa_bits }
    }

    /// Adds a CPU while the kernel boots: what it lacks, the system lacks from now on.
    ///
    /// # Errors
    /// [`Lacks::PaBits`], which no CPU may lack. The system is as before.
    pub fn take_in(&mut self, cpu: &Features) -> Result<(), Lacks> {
        self.check_reach(cpu)?;
        self.bbm = self.bbm.min(cpu.bbm);
        self.tlbi_range &= cpu.tlbi_range;
        Ok(())
    }

    /// Checks that a CPU that starts later has all that the system relies on.
    ///
    /// # Errors
    /// [`Lacks`] for the first feature that it lacks.
    pub fn admits(&self, late: &Features) -> Result<(), Lacks> {
        self.check_reach(late)?;
        if late.bbm < self.bbm {
            return Err(Lacks::Bbm { has: late.bbm, needs: self.bbm });
        }
        if self.tlbi_range && !late.tlbi_range {
            return Err(Lacks::TlbiRange);
        }
        Ok(())
    }

    fn check_reach(&self, cpu: &Features) -> Result<(), Lacks> {
        let has = cpu.pa_bits();
        if has < self.pa_bits { Err(Lacks::PaBits { has, needs: self.pa_bits }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    /// A CPU with `bbm` in its register, 44 bits of physical address, and invalidation by range or
    /// not.
    fn cpu(bbm: u64, tlbi_range: bool) -> Features {
        let isar0 = if tlbi_range { 2 << 56 } else { 1 << 56 };
        Features::new(Midr(0x410f_d0c1), Mmfr0(4), Mmfr2(bbm << 52), Isar0(isar0))
    }

    fn wanted(value: &str) -> BbmOverride {
        value.parse().unwrap()
    }

    #[test]
    fn the_system_has_the_least_bbm_level_and_what_all_cpus_have() {
        let mut system = System::of_boot_cpu(&cpu(3, true), 40);
        assert_eq!((system.bbm, system.tlbi_range), (BbmLevel::L3, true));
        system.take_in(&cpu(2, true)).unwrap();
        assert_eq!((system.bbm, system.tlbi_range), (BbmLevel::L2, true));
        system.take_in(&cpu(3, false)).unwrap();
        assert_eq!((system.bbm, system.tlbi_range), (BbmLevel::L2, false));
    }

    #[test]
    fn a_late_cpu_needs_what_the_system_has_and_may_have_more() {
        let system = System::of_boot_cpu(&cpu(2, true), 40);
        assert_eq!(system.admits(&cpu(3, true)), Ok(()));
        let lacks = Lacks::Bbm { has: BbmLevel::L1, needs: BbmLevel::L2 };
        assert_eq!(system.admits(&cpu(1, true)), Err(lacks));
        assert!(lacks.to_string().contains("ID_AA64MMFR2_EL1.BBM"), "{lacks}");
        assert_eq!(system.admits(&cpu(2, false)), Err(Lacks::TlbiRange));
        assert_eq!(System::of_boot_cpu(&cpu(0, false), 40).admits(&cpu(0, false)), Ok(()));
    }

    #[test]
    fn a_cpu_that_does_not_reach_all_addresses_in_use_is_refused_at_any_time() {
        let mut system = System::of_boot_cpu(&cpu(2, true), 45);
        let lacks = Err(Lacks::PaBits { has: 44, needs: 45 });
        assert_eq!(system.admits(&cpu(3, true)), lacks);
        let before = system;
        assert_eq!(system.take_in(&cpu(0, false)), lacks);
        assert_eq!(system, before);
    }

    #[test]
    fn an_override_may_lower_and_is_refused_where_it_claims_too_much() {
        assert_eq!(cpu(2, true).with_bbm(wanted("0")).unwrap().bbm, BbmLevel::L0);
        assert_eq!(cpu(2, true).with_bbm(wanted("2")).unwrap().bbm, BbmLevel::L2);
        let refused = cpu(2, true).with_bbm(wanted("3")).unwrap_err();
        assert_eq!((refused.wanted, refused.reported), (BbmLevel::L3, BbmLevel::L2));
        assert!(refused.to_string().contains("0x410fd0c1"), "{refused}");
        let forced = cpu(2, true).with_bbm(wanted("3,force")).unwrap();
        assert_eq!((forced.bbm, forced.reported), (BbmLevel::L3, BbmLevel::L2));
        // The list of CPUs counts as a report.
        let listed = Features::new(Midr(0x410f_d842), Mmfr0(4), Mmfr2(2 << 52), Isar0(0));
        assert_eq!(listed.with_bbm(wanted("3")).unwrap().bbm, BbmLevel::L3);
    }

    #[test]
    fn an_override_is_a_level_or_a_level_and_force() {
        assert_eq!("1".parse(), Ok(BbmOverride { level: BbmLevel::L1, force: false }));
        assert_eq!("3,force".parse(), Ok(BbmOverride { level: BbmLevel::L3, force: true }));
        for wrong in ["", "4", "-1", "3 ", "03", "3,", "3,forced", ",force", "force", "3,force,force"] {
            assert_eq!(wrong.parse::<BbmOverride>(), Err(NotALevel), "{wrong:?}");
        }
    }
}
