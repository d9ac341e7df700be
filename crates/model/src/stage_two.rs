//! VTCR_EL2: how stage 2 is read, and where its walks start.
//!
//! SL0 and SL2 choose the level of the root. If the input addresses need more entries than a table
//! of that level has, up to 16 consecutive tables are one root (Arm ARM D8.2.2).

use crate::machine::{Check, Machine};
use crate::rules::Rule;
use crate::space::{Shape, Space};
use crate::tcr::OUTPUT_BITS;
use crate::violation::Violation;

const VS: u64 = 1 << 19;
const HA: u64 = 1 << 21;
const HD: u64 = 1 << 22;

/// The level of the root by SL2 and SL0.
fn start(granule: u32, sl2: u64, sl0: u64) -> Option<i8> {
    match (granule, sl2, sl0) {
        (12, 1, 0) => Some(-1),
        (12, 0, 0..=2) => Some(2 - sl0 as i8),
        (12, 0, 3) => Some(3),
        (14, 0, 0..=3) | (16, 0, 0..=2) => Some(3 - sl0 as i8),
        _ => None,
    }
}

impl Machine {
    /// Writes VTCR_EL2.
    pub(crate) fn write_vtcr(&mut self, cpu: usize, value: u64) -> Check {
        let space = Space::Stage2;
        let before = self.cpus[cpu].vtcr;
        let violation =
            |rule| Violation::new(rule).on_cpu(cpu).with_values(before.unwrap_or_default(), value);
        let present = self.shapes[space.index()];
        let granule = match value >> 14 & 3 {
            0b00 => 12,
            0b01 => 16,
            0b10 => 14,
            _ => 0,
        };
        let va_bits = 64 - (value & 0x3f) as u32;
        let root = start(granule, value >> 33 & 1, value >> 6 & 3);
        let ps = OUTPUT_BITS[(value >> 16 & 7) as usize];
        let Some(root) = root.filter(|_| granule == present.granule) else {
            return Err(violation(Rule::Unmodelled));
        };
        let ds = value >> 32 & 1 == 1;
        let shape = Shape { va_bits, start: root, has_ds: ds && granule < 16, ..present };
        let shape = shape.with_updates(value & HA != 0, value & HD != 0).with_output(ps);
        let shape = shape.ok_or(violation(Rule::Unmodelled))?;
        let is_too_large = granule < 16 && va_bits > 48 && !ds;
        if !(25..=52).contains(&va_bits) || !shape.has_root() || is_too_large {
            return Err(violation(Rule::Unmodelled));
        }
        let changed = |bits: u64| before.is_some_and(|before| (before ^ value) & bits != 0);
        // Under DS the shareability of every leaf is here.
        let shared = ds && changed(0b11 << 12);
        if (shared || changed(VS)) && !self.has_nothing_in(cpu, space) {
            return Err(violation(Rule::TranslationControl));
        }
        self.cpus[cpu].control_pending[space.index()] |= shared;
        self.cpus[cpu].vtcr = Some(value);
        self.set_shape(cpu, space, shape, value)
    }

    /// The VMID that VTTBR_EL2 with `field` in bits 63:48 names; `None` if that depends on a
    /// register that was not written.
    pub(crate) fn vmid(&self, cpu: usize, field: u16) -> Option<u16> {
        match self.cpus[cpu].vtcr {
            Some(vtcr) if vtcr & VS == 0 => Some(field & 0xff),
            Some(_) => Some(field),
            None => (field <= 0xff).then_some(field),
        }
    }
}
