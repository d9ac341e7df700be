//! Registers that the user gives.

use linmap_vmsa::registers::SCTLR_MMU_AND_CACHES;

use super::registers::{Registers, WantedRegime};
use crate::dump::guest::RootRegister;
use crate::failure::Failure;

/// Registers that the user gives, for a source that holds none or in place of its own.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Registers")]
pub struct GivenRegisters {
    /// Show this regime [default: all in use; for registers that are given el1]
    #[arg(long, value_enum, value_name = "REGIME")]
    pub regime: Vec<WantedRegime>,
    /// TTBR0_ELx of the regime
    #[arg(long, value_name = "VALUE", value_parser = number)]
    ttbr0: Option<u64>,
    /// TTBR1_ELx of the regime
    #[arg(long, value_name = "VALUE", value_parser = number)]
    ttbr1: Option<u64>,
    /// TCR_ELx of the regime
    #[arg(long, value_name = "VALUE", value_parser = number)]
    tcr: Option<u64>,
    /// MAIR_ELx of the regime; without it attributes are shown by index
    #[arg(long, value_name = "VALUE", value_parser = number)]
    mair: Option<u64>,
    /// VTTBR_EL2
    #[arg(long, value_name = "VALUE", value_parser = number)]
    vttbr: Option<u64>,
    /// VTCR_EL2
    #[arg(long, value_name = "VALUE", value_parser = number)]
    vtcr: Option<u64>,
    /// HCR_EL2: E2H gives EL2 the registers of a kernel, FWB stage 2 its own memory types
    #[arg(long, value_name = "VALUE", value_parser = number)]
    hcr: Option<u64>,
}

impl GivenRegisters {
    /// Whether a root is given.
    pub fn has_root(&self) -> bool {
        self.ttbr0.is_some() || self.ttbr1.is_some() || self.vttbr.is_some()
    }

    /// TCR, if it is given.
    pub fn tcr(&self) -> Option<u64> {
        self.tcr
    }

    /// MAIR, if it is given.
    pub fn mair(&self) -> Option<u64> {
        self.mair
    }

    /// Sets what is given in `registers`, and returns which roots are: none means that those of the
    /// guest are meant.
    ///
    /// # Errors
    /// Registers that don't go together.
    pub fn apply(&self, registers: &mut Registers) -> Result<Vec<RootRegister>, Failure> {
        let mut roots = Vec::new();
        let el = self.el()?;
        let of_el: [&'static str; 5] = match el {
            1 => ["TTBR0_EL1", "TTBR1_EL1", "TCR_EL1", "MAIR_EL1", "SCTLR_EL1"],
            2 => ["TTBR0_EL2", "TTBR1_EL2", "TCR_EL2", "MAIR_EL2", "SCTLR_EL2"],
            _ => ["TTBR0_EL3", "TTBR1_EL3", "TCR_EL3", "MAIR_EL3", "SCTLR_EL3"],
        };
        let values = [self.ttbr0, self.ttbr1, self.tcr, self.mair];
        for (name, value) in of_el.into_iter().zip(values) {
            if let Some(value) = value {
                registers.set(name, value);
            }
        }
        if let Some(hcr) = self.hcr {
            registers.set("HCR_EL2", hcr);
        }
        if self.ttbr0.is_some() || self.ttbr1.is_some() {
            registers.set(of_el[4], registers.get(of_el[4]).unwrap_or(0) | SCTLR_MMU_AND_CACHES);
            let both = match el {
                1 => [Some(RootRegister::Ttbr0El1), Some(RootRegister::Ttbr1El1)],
                2 => [Some(RootRegister::Ttbr0El2), Some(RootRegister::Ttbr1El2)],
                _ => [Some(RootRegister::Ttbr0El3), None],
            };
            let given = [self.ttbr0.is_some(), self.ttbr1.is_some()];
            roots.extend(both.into_iter().zip(given).filter_map(|(root, given)| root.filter(|_| given)));
            if registers.get(of_el[2]).is_none() {
                return Err(Failure::new("a TTBR needs its TCR").hint("give it with --tcr VALUE"));
            }
            // An upper half at EL2 is there under E2H alone.
            if el == 2 && self.ttbr1.is_some() {
                registers.set("HCR_EL2", registers.get("HCR_EL2").unwrap_or(0) | 1 << 34);
            }
            // A register of the lower half that EL2 and EL3 are told to have by.
            if el != 1 && registers.get(of_el[0]).is_none() {
                registers.set(of_el[0], 0);
            }
        }
        if let Some(vtcr) = self.vtcr {
            registers.set("VTCR_EL2", vtcr);
        }
        if let Some(vttbr) = self.vttbr {
            registers.set("VTTBR_EL2", vttbr);
            if registers.get("VTCR_EL2").is_none() {
                return Err(Failure::new("VTTBR needs VTCR").hint("give it with --vtcr VALUE"));
            }
            registers.set("HCR_EL2", registers.get("HCR_EL2").unwrap_or(0) & !(1 << 27) | 1);
            roots.push(RootRegister::VttbrEl2);
        }
        Ok(roots)
    }

    /// The exception level that the TTBRs are of.
    fn el(&self) -> Result<u8, Failure> {
        let levels: Vec<u8> = self
            .regime
            .iter()
            .filter_map(|regime| match regime {
                WantedRegime::El1 => Some(1),
                WantedRegime::El2 => Some(2),
                WantedRegime::El3 => Some(3),
                WantedRegime::Stage2 => None,
            })
            .collect();
        let is_given = [self.ttbr0, self.ttbr1, self.tcr, self.mair].iter().any(Option::is_some);
        match levels[..] {
            [] if is_given && !self.regime.is_empty() => {
                Err(Failure::new("the registers of stage 2 are others")
                    .hint("give them with --vttbr VALUE --vtcr VALUE"))
            }
            [] => Ok(1),
            [el] => Ok(el),
            _ if !is_given => Ok(1),
            _ => Err(Failure::new("registers that are given are those of one regime")
                .hint("name one with --regime")),
        }
    }
}

/// A number as registers are written: hexadecimal with 0x, or decimal.
pub fn number(text: &str) -> Result<u64, String> {
    let digits: String = text.chars().filter(|&character| character != '_').collect();
    let parsed = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16),
        None => digits.parse(),
    };
    parsed.map_err(|_| "not a number of 64 bits; hexadecimal ones begin with 0x".to_owned())
}
