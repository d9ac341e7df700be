//! The scope of a TLBI: what its name and operand invalidate.

use linmap_trace::{Tlbi, TlbiScope};

use crate::space::{SPACES, Shape, Space};

/// What a TLBI invalidates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Scope {
    /// A set, by their numbers.
    spaces: u8,
    /// First and last address; everything when `None`.
    pub range: Option<(u64, u64)>,
    /// The ASID or, at stage 2, VMID; every one when `None`.
    pub id: Option<u16>,
    /// Leaf entries alone.
    pub last_level: bool,
    /// The level hint: the level of all leaves in the range.
    pub hint: Option<i8>,
    /// Non-global entries alone (by ASID).
    pub spare_global: bool,
    /// Stage 2 entries alone, without those that combine both stages.
    pub stage2_alone: bool,
    /// The VMID it was issued in, where that is certain.
    pub vmid: Option<u16>,
    /// It reaches every VMID.
    pub all_vmids: bool,
    pub broadcast: bool,
    /// Why nothing need be invalidated, if so: the operand has no meaning on this machine.
    pub void: Option<Void>,
}

/// What the CPU that issues a TLBI was doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Context {
    /// HCR_EL2.{E2H, TGE} = {1, 1}: EL1's forms by address, ASID or for all are for EL2&0.
    pub is_host: bool,
    /// The current VMID, where that is certain.
    pub vmid: Option<u16>,
}

/// Why an operand has no meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Void {
    /// TG names another granule.
    Granule,
    /// A range with a level begins where no leaf of that level may.
    Start,
    /// The current VMID is not certain.
    Vmid,
}

const EL1: u8 = 1 << Space::Low.index() | 1 << Space::High.index();
const EL2: u8 = 1 << Space::El2.index() | 1 << Space::El2High.index();
const EL3: u8 = 1 << Space::El3.index();
const STAGE2: u8 = 1 << Space::Stage2.index();

/// log2 of the granule of a TG field, the low two bits of `field`; 0 if it has none.
fn granule(field: u64) -> u32 {
    match field & 3 {
        0b01 => 12,
        0b10 => 14,
        0b11 => 16,
        _ => 0,
    }
}

fn sign_extend(value: u64, bits: u32) -> u64 {
    ((value << (64 - bits)) as i64 >> (64 - bits)) as u64
}

/// The first space of the regime that a TLBI is for.
fn regime(scope: TlbiScope) -> Space {
    match scope {
        TlbiScope::AllEl2
        | TlbiScope::VaEl2
        | TlbiScope::VaEl2Last
        | TlbiScope::RangeEl2
        | TlbiScope::RangeEl2Last => Space::El2,
        TlbiScope::AllEl3
        | TlbiScope::VaEl3
        | TlbiScope::VaEl3Last
        | TlbiScope::RangeEl3
        | TlbiScope::RangeEl3Last => Space::El3,
        TlbiScope::AllStagesVmid
        | TlbiScope::Ipa
        | TlbiScope::IpaLast
        | TlbiScope::IpaRange
        | TlbiScope::IpaRangeLast => Space::Stage2,
        _ => Space::Low,
    }
}

impl Scope {
    /// The scope of `tlbi` with `operand` on a machine with spaces of these shapes. Without a
    /// VMID, entries of one need not be invalidated.
    pub fn of(tlbi: Tlbi, operand: u64, shapes: &[Shape; SPACES], context: Context) -> Self {
        let Context { is_host, vmid } = context;
        let shape = shapes[match regime(tlbi.scope) {
            Space::Low if is_host => Space::El2,
            other => other,
        }
        .index()];
        let base = Self {
            spaces: if is_host { EL2 } else { EL1 },
            range: None,
            id: None,
            last_level: false,
            hint: None,
            spare_global: false,
            stage2_alone: false,
            vmid,
            all_vmids: false,
            broadcast: tlbi.broadcast,
            void: None,
        };
        let asid = Some((operand >> 48) as u16);
        // VA[55:12] whatever the granule, sign-extended.
        let address = sign_extend(operand & 0xfff_ffff_ffff, 44) << 12;
        let point = |scope: Self| {
            let (granule, level) = (granule(operand >> 46), (operand >> 44 & 3) as i8);
            // With 4K, a CPU with FEAT_LPA2 takes level 0 as a hint, even if LPA2 is not in use.
            // Other CPUs take it as no hint. Nor is it one with other granules, or where the whole
            // field is 0 (Arm ARM D8.17.5.3).
            let hinted = granule == 12 || (granule != 0 && level != 0);
            let last = address | ((1u64 << shape.granule) - 1);
            Self {
                range: Some((address & (u64::MAX << shape.granule), last)),
                hint: hinted.then_some(level),
                void: scope.void.or((hinted && granule != shape.granule).then_some(Void::Granule)),
                ..scope
            }
        };
        let range = |scope: Self| {
            let (shift, bits) = if shape.has_ds { (16, 37) } else { (shape.granule, 37) };
            let start = operand & 0x1f_ffff_ffff;
            // Intermediate physical addresses are not extended.
            let start = if scope.spaces == STAGE2 { start } else { sign_extend(start, bits) } << shift;
            let (num, scale) = (operand >> 39 & 0x1f, operand >> 44 & 3);
            let bytes = ((num + 1) << (5 * scale + 1)) << shape.granule;
            let level = (operand >> 37 & 3) as i8;
            // A range with a hint is UNPREDICTABLE if no leaf of the hinted level begins at its
            // start (Arm ARM D8.17.5.2).
            let odd = level != 0 && start & ((1u64 << shape.shift(level)) - 1) != 0;
            Self {
                range: Some((start, start.saturating_add(bytes - 1))),
                hint: (level != 0).then_some(level),
                void: if granule(operand >> 46) != shape.granule {
                    Some(Void::Granule)
                } else {
                    odd.then_some(Void::Start)
                },
                ..scope
            }
        };
        let last = |scope: Self| Self { last_level: true, ..scope };
        let of_asid = Self { id: asid, ..base };
        // Without E2H the field is RES0.
        let of_el2 = Self { spaces: EL2, id: asid.filter(|_| shape.has_el0), ..base };
        let of_el3 = Self { spaces: EL3, ..base };
        let of_vmid = Self {
            spaces: STAGE2,
            id: vmid,
            void: if vmid.is_none() { Some(Void::Vmid) } else { None },
            ..base
        };
        let stage_2 = Self { stage2_alone: true, ..of_vmid };
        let ipa = |scope: Self| {
            // IPA[51:12] in bits 39:0.
            let start = (operand & 0xff_ffff_ffff) << 12 & (u64::MAX << shape.granule);
            let end = start | ((1u64 << shape.granule) - 1);
            point(scope).over(start, end)
        };
        match tlbi.scope {
            TlbiScope::AllEl1 => base,
            TlbiScope::Asid => Self { spare_global: true, ..of_asid },
            TlbiScope::Va => point(of_asid),
            TlbiScope::VaLast => last(point(of_asid)),
            TlbiScope::VaAnyAsid => point(base),
            TlbiScope::VaAnyAsidLast => last(point(base)),
            TlbiScope::Range => range(of_asid),
            TlbiScope::RangeLast => last(range(of_asid)),
            TlbiScope::RangeAnyAsid => range(base),
            TlbiScope::RangeAnyAsidLast => last(range(base)),
            TlbiScope::AllEl2 => Self { spaces: EL2, ..base },
            TlbiScope::VaEl2 => point(of_el2),
            TlbiScope::VaEl2Last => last(point(of_el2)),
            TlbiScope::RangeEl2 => range(of_el2),
            TlbiScope::RangeEl2Last => last(range(of_el2)),
            TlbiScope::AllEl3 => of_el3,
            TlbiScope::VaEl3 => point(of_el3),
            TlbiScope::VaEl3Last => last(point(of_el3)),
            TlbiScope::RangeEl3 => range(of_el3),
            TlbiScope::RangeEl3Last => last(range(of_el3)),
            TlbiScope::AllStages => Self { spaces: EL1 | STAGE2, all_vmids: true, ..base },
            TlbiScope::AllStagesVmid => Self { spaces: EL1 | STAGE2, ..of_vmid },
            TlbiScope::Ipa => ipa(stage_2),
            TlbiScope::IpaLast => last(ipa(stage_2)),
            TlbiScope::IpaRange => range(stage_2),
            TlbiScope::IpaRangeLast => last(range(stage_2)),
        }
    }

    fn over(self, start: u64, last: u64) -> Self {
        Self { range: Some((start, last)), ..self }
    }

    /// Whether it invalidates entries of `space`.
    pub fn reaches(&self, space: Space) -> bool {
        self.spaces >> space.index() & 1 == 1
    }

    /// Whether it invalidates all of EL1&0 on the CPUs that it reaches.
    pub fn is_all_of_el1(&self) -> bool {
        self.spaces == EL1 && self.range.is_none() && self.id.is_none()
    }

    /// Whether it invalidates all of EL2 on the CPUs that it reaches.
    pub fn is_all_of_el2(&self) -> bool {
        self.spaces == EL2 && self.range.is_none() && self.id.is_none()
    }

    /// Whether all of `start..=last` is in its range.
    pub fn covers(&self, start: u64, last: u64) -> bool {
        self.range.is_none_or(|(from, to)| from <= start && last <= to)
    }

    /// Whether any of `start..=last` is in its range.
    pub fn touches(&self, start: u64, last: u64) -> bool {
        self.range.is_none_or(|(from, to)| from <= last && start <= to)
    }

    /// Whether it reaches what has the ASID or VMID `id` in `space`. What is not global in the
    /// upper half has the ASID of either base register, whichever that was.
    pub fn is_of(&self, space: Space, id: u16, global: bool) -> bool {
        if global {
            return !self.spare_global;
        }
        // With both stages the identifier is a VMID, that of all of EL1.
        let both = self.spaces == EL1 | STAGE2 && space != Space::Stage2;
        both || self.id.is_none_or(|own| own == id && !space.is_upper())
    }
}
