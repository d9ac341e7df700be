//! TLB invalidations: what each reaches.
//!
//! A TLBI has done its work only when a DSB (of reads and writes) of the CPU that issued it completes. It then reaches
//! everything that no walker could see any more when the TLBI was issued; what could still be walked then may have been
//! cached again behind it. On the CPU that issued it, what it reached is certain to be gone only with the context
//! synchronization behind the DSB (Arm ARM D8.17, RBLDZX); on every other CPU with the DSB (RYNJCP).

use crate::cached::Held;
use crate::descriptor::{Entry, cacheable, read};
use crate::event::{Tlbi, TlbiScope};
use crate::machine::{Check, Left, Machine, Root};
use crate::space::{Shape, Space};

/// What a TLBI asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Scope {
    spaces: [bool; 4],
    /// First and last address; everything when `None`.
    range: Option<(u64, u64)>,
    /// The ASID or VMID; every one when `None`.
    id: Option<u16>,
    /// Leaf entries alone.
    pub last_level: bool,
    /// The level that all leaves in the range are said to have.
    hint: Option<i8>,
    /// Non-global entries alone (by ASID).
    spare_global: bool,
    /// Stage 2 entries alone, not what combines both stages.
    stage2_alone: bool,
    /// The VMID it was issued in, where that is certain.
    vmid: Option<u16>,
    pub broadcast: bool,
    /// The operand says nothing that this machine understands: nothing need be invalidated.
    void: bool,
}

const EL1: [bool; 4] = [true, true, false, false];
const EL2: [bool; 4] = [false, false, true, false];
const STAGE2: [bool; 4] = [false, false, false, true];

/// log2 of the granule that a TG field, the low two bits of `field`, says; 0 when it says none.
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

impl Scope {
    /// What `tlbi` with `operand` asks for on a machine of this shape, in the VMID `vmid`; without one, nothing of a VMID
    /// need be invalidated.
    pub fn of(tlbi: Tlbi, operand: u64, shape: Shape, vmid: Option<u16>) -> Self {
        let base = Self {
            spaces: EL1,
            range: None,
            id: None,
            last_level: false,
            hint: None,
            spare_global: false,
            stage2_alone: false,
            vmid,
            broadcast: tlbi.broadcast,
            void: false,
        };
        let asid = Some((operand >> 48) as u16);
        // VA[55:12] whatever the granule, sign-extended.
        let address = sign_extend(operand & 0xfff_ffff_ffff, 44) << 12;
        let point = |scope: Self| {
            let (granule, level) = (granule(operand >> 46), (operand >> 44 & 3) as i8);
            // Level 0 has an encoding with 4K alone, and without FEAT_LPA2, which a CPU may have and not use, it says
            // nothing, as 0 in the whole field does (Arm ARM D8.17.5.3).
            let hinted = granule == 12 || (granule != 0 && level != 0);
            let last = address | ((1u64 << shape.granule) - 1);
            Self {
                range: Some((address & (u64::MAX << shape.granule), last)),
                hint: hinted.then_some(level),
                void: scope.void || (hinted && granule != shape.granule),
                ..scope
            }
        };
        let range = |scope: Self| {
            let (shift, bits) = if shape.ds() { (16, 37) } else { (shape.granule, 37) };
            let start = sign_extend(operand & 0x1f_ffff_ffff, bits) << shift;
            let (num, scale) = (operand >> 39 & 0x1f, operand >> 44 & 3);
            let bytes = ((num + 1) << (5 * scale + 1)) << shape.granule;
            let level = (operand >> 37 & 3) as i8;
            // From where no leaf of the level begins, the range is UNPREDICTABLE (Arm ARM D8.17.5.2).
            let odd = level != 0 && start & ((1u64 << shape.shift(level)) - 1) != 0;
            Self {
                range: Some((start, start.saturating_add(bytes - 1))),
                hint: (level != 0).then_some(level),
                void: odd || granule(operand >> 46) != shape.granule,
                ..scope
            }
        };
        let last = |scope: Self| Self { last_level: true, ..scope };
        let of_asid = Self { id: asid, ..base };
        let of_vmid = Self { spaces: STAGE2, id: vmid, void: vmid.is_none(), ..base };
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
            TlbiScope::VaEl2 => point(Self { spaces: EL2, ..base }),
            TlbiScope::VaEl2Last => last(point(Self { spaces: EL2, ..base })),
            TlbiScope::AllStages => Self { spaces: [true, true, false, true], ..base },
            TlbiScope::AllStagesVmid => of_vmid,
            TlbiScope::Ipa => {
                // IPA[51:12] in bits 39:0.
                let start = (operand & 0xff_ffff_ffff) << 12 & (u64::MAX << shape.granule);
                let last = start | ((1u64 << shape.granule) - 1);
                point(Self { stage2_alone: true, ..of_vmid }).over(start, last)
            }
        }
    }

    fn over(self, start: u64, last: u64) -> Self {
        Self { range: Some((start, last)), ..self }
    }

    fn covers(&self, start: u64, last: u64) -> bool {
        self.range.is_none_or(|(from, to)| from <= start && last <= to)
    }

    fn touches(&self, start: u64, last: u64) -> bool {
        self.range.is_none_or(|(from, to)| from <= last && start <= to)
    }

    /// Whether it reaches what has the ASID or VMID `id` in `space`. What is not global in TTBR1's half has the ASID of
    /// TTBR0 (TCR.A1 = 0), whichever that was.
    fn is_of(&self, space: Space, id: u16, global: bool) -> bool {
        if global { !self.spare_global } else { self.id.is_none_or(|own| own == id && space != Space::High) }
    }
}

impl Machine {
    /// The first and last address that a TLBI reaches, when it is for addresses.
    pub(crate) fn reach_of(&self, tlbi: Tlbi, operand: u64) -> Option<(u64, u64)> {
        Scope::of(tlbi, operand, self.shapes[Space::Low.index()], None).range
    }

    /// A TLBI that `by` issued at `since` has completed on `reached`.
    pub(crate) fn invalidate(&mut self, by: usize, scope: &Scope, since: u64, reached: u64) -> Check {
        if scope.void {
            return Ok(());
        }
        for space in Space::ALL {
            if scope.spaces[space.index()] {
                self.invalidate_held(space, by, scope, since, reached)?;
                self.invalidate_roots(space, by, scope, since, reached)?;
            }
        }
        // VMALLE1 also reaches what combines both stages, of the current VMID.
        if scope.spaces == EL1 && scope.range.is_none() && scope.id.is_none() {
            self.invalidate_combined(scope.vmid, since, reached)?;
        }
        Ok(())
    }

    fn invalidate_held(&mut self, space: Space, by: usize, scope: &Scope, since: u64, reached: u64) -> Check {
        if self.cached.of(space).is_empty() {
            return Ok(());
        }
        let shape = self.shapes[space.index()];
        let (start, last) = scope.range.unwrap_or((0, u64::MAX));
        let taken = self
            .cached
            .of_mut(space)
            .take(shape, start, last, |held| held.since <= since && held.cpus & reached != 0);
        for held in taken {
            self.invalidate_one(space, by, scope, reached, held)?;
        }
        Ok(())
    }

    /// What is left of `held`, which was taken out, is put back.
    fn invalidate_one(&mut self, space: Space, by: usize, scope: &Scope, reached: u64, held: Held) -> Check {
        let root = self.roots[held.root as usize];
        let shape = root.shape;
        let last = held.va + ((1u64 << shape.shift(held.level)) - 1);
        let touched = scope.touches(held.va, last);
        let left = Held { cpus: held.cpus & !reached, runs: held.runs & !reached, ..held };
        // Only translations that combine both stages are left, if no CPU kept more.
        let alone = match held.cpus & !reached {
            0 if !held.combined => Held { combined: true, since: self.now, ..held },
            _ => held,
        };
        let kept = match read(shape, space, held.level, held.value) {
            Entry::Invalid => return Ok(()),
            Entry::Leaf(leaf) => {
                let hinted = scope.hint.is_none_or(|hint| hint == held.level);
                if !hinted || !scope.is_of(space, held.id, leaf.global) {
                    held
                } else if scope.stage2_alone {
                    if touched { alone } else { held }
                } else if held.combined && scope.range.is_some() {
                    held
                } else if touched {
                    left
                } else {
                    // A neighbour in its contiguous run: what one entry for the run would have held is gone, its own
                    // entry is not.
                    Held { runs: left.runs, ..held }
                }
            }
            Entry::Table(table) => {
                let hinted = scope.hint.is_none_or(|hint| hint > held.level);
                if scope.last_level || !hinted || !scope.is_of(space, held.id, false) {
                    held
                } else {
                    let whole = scope.covers(held.va, last) && scope.hint.is_none() && !scope.spare_global;
                    if !whole {
                        // The pointer is gone, what was found through it is not.
                        self.scatter(by, scope, held.cpus & reached, &held, table)?;
                    }
                    if scope.stage2_alone { alone } else { left }
                }
            }
        };
        if held.cpus & !kept.cpus & 1 << by != 0 {
            self.cpus[by].invalidated.push(held);
        }
        if kept.cpus == 0 || self.cached.of_mut(space).add(kept) {
            self.release(held.root, held.level, held.va, held.value)?;
        }
        Ok(())
    }

    /// Notes what CPUs that lost the pointer `held` may still hold of the table behind it.
    fn scatter(&mut self, by: usize, scope: &Scope, cpus: u64, held: &Held, table: u64) -> Check {
        let Root { shape, space, .. } = self.roots[held.root as usize];
        let level = held.level + 1;
        // Where another CPU has invalidated leaves alone and not waited, they may have come back by the pointer since.
        let leaves_pend = self.cpus.iter().any(|cpu| cpu.tlbis.iter().any(|(scope, _)| scope.last_level));
        let since = if leaves_pend { self.now } else { held.since };
        for index in 0..shape.entries(level) as u64 {
            self.spend()?;
            let mut values = Vec::new();
            self.memory.seen(table + 8 * index, |value| values.extend(value));
            values.retain(|value| cacheable(shape, space, level, *value));
            for value in values {
                let va = held.va + (index << shape.shift(level));
                if let Entry::Table(next) = read(shape, space, level, value) {
                    self.link(held.root, next, level + 1, va)?;
                }
                let run = self.leaf(held.root, level, value).is_some_and(|leaf| leaf.contiguous);
                let runs = if run && shape.run(level) > 0 { cpus } else { 0 };
                let part = Held { level, va, value, since, cpus, runs, ..*held };
                let last = va + ((1u64 << shape.shift(level)) - 1);
                if scope.touches(va, last) || runs != 0 {
                    self.invalidate_one(space, by, scope, cpus, part)?;
                } else if self.cached.of_mut(space).add(part) {
                    self.release(held.root, level, va, value)?;
                }
            }
        }
        Ok(())
    }

    fn invalidate_roots(
        &mut self,
        space: Space,
        by: usize,
        scope: &Scope,
        since: u64,
        reached: u64,
    ) -> Check {
        if scope.range.is_some() || scope.stage2_alone {
            // A part of a tree that was left: the rest may still be held, so the tree may.
            return Ok(());
        }
        for cpu in 0..self.cpus.len() {
            if reached >> cpu & 1 == 0 {
                continue;
            }
            let left = std::mem::take(&mut self.cpus[cpu].left[space.index()]);
            let mut kept = Vec::new();
            for left in left {
                let id = self.roots[left.root as usize].id;
                let gone = left.since <= since
                    && scope.is_of(space, id, false)
                    && !(scope.spare_global && self.has_global(left.root)?);
                if gone && cpu != by {
                    self.leave(cpu, left.root)?;
                } else {
                    kept.push(Left { invalidated: left.invalidated || gone, ..left });
                }
            }
            self.cpus[cpu].left[space.index()] = kept;
        }
        Ok(())
    }

    fn has_global(&mut self, root: u32) -> Check<bool> {
        let Root { shape, table, .. } = self.roots[root as usize];
        self.has_global_below(root, table, shape.start())
    }

    fn has_global_below(&mut self, root: u32, table: u64, level: i8) -> Check<bool> {
        let Root { shape, space, .. } = self.roots[root as usize];
        for index in 0..shape.entries(level) as u64 {
            self.spend()?;
            let found = match read(shape, space, level, self.memory.newest(table + 8 * index).unwrap_or(0)) {
                Entry::Invalid => false,
                Entry::Leaf(leaf) => leaf.global,
                Entry::Table(next) => self.has_global_below(root, next, level + 1)?,
            };
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn invalidate_combined(&mut self, vmid: Option<u16>, since: u64, reached: u64) -> Check {
        let shape = self.shapes[Space::Stage2.index()];
        let gone = self.cached.of_mut(Space::Stage2).take(shape, 0, u64::MAX, |held| {
            held.combined && held.since <= since && held.cpus & !reached == 0 && Some(held.id) == vmid
        });
        for held in gone {
            self.release(held.root, held.level, held.va, held.value)?;
        }
        Ok(())
    }
}
