//! TLB invalidations: what each reaches.
//!
//! A TLBI has done its work only when a DSB (of reads and writes) of the CPU that issued it completes. It then reaches
//! everything that no walker could see any more when the TLBI was issued; what could still be walked then may have been
//! cached again behind it.

use crate::cached::Held;
use crate::descriptor::{Entry, cacheable, read};
use crate::event::{Tlbi, TlbiScope};
use crate::machine::{Check, Machine, Root};
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
    /// The VMID it was issued in.
    vmid: u16,
    pub broadcast: bool,
    /// The operand says nothing that this machine understands: nothing need be invalidated.
    void: bool,
}

const EL1: [bool; 4] = [true, true, false, false];
const EL2: [bool; 4] = [false, false, true, false];
const STAGE2: [bool; 4] = [false, false, false, true];

fn sign_extend(value: u64, bits: u32) -> u64 {
    ((value << (64 - bits)) as i64 >> (64 - bits)) as u64
}

impl Scope {
    /// What `tlbi` with `operand` asks for on a machine of this shape, in the VMID `vmid`.
    pub fn of(tlbi: Tlbi, operand: u64, shape: Shape, vmid: u16) -> Self {
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
            let ttl = operand >> 44 & 0xf;
            let granule = match ttl >> 2 {
                0b01 => 12,
                0b10 => 14,
                0b11 => 16,
                _ => 0,
            };
            let level = (ttl & 3) as i8;
            // Without the LPA2 form level 0 has no encoding: it says nothing, as 0 in the whole field does.
            let hinted = granule != 0 && (level != 0 || shape.ds());
            let last = address | ((1u64 << shape.granule) - 1);
            Self {
                range: Some((address & (u64::MAX << shape.granule), last)),
                hint: hinted.then_some(level),
                void: hinted && granule != shape.granule,
                ..scope
            }
        };
        let range = |scope: Self| {
            let (shift, bits) = if shape.ds() { (16, 37) } else { (shape.granule, 37) };
            let start = sign_extend(operand & 0x1f_ffff_ffff, bits) << shift;
            let (num, scale) = (operand >> 39 & 0x1f, operand >> 44 & 3);
            let bytes = ((num + 1) << (5 * scale + 1)) << shape.granule;
            let granule = match operand >> 46 & 3 {
                0b01 => 12,
                0b10 => 14,
                0b11 => 16,
                _ => 0,
            };
            let level = (operand >> 37 & 3) as i8;
            Self {
                range: Some((start, start.saturating_add(bytes - 1))),
                hint: (level != 0).then_some(level),
                void: granule != shape.granule,
                ..scope
            }
        };
        let last = |scope: Self| Self { last_level: true, ..scope };
        let of_asid = Self { id: asid, ..base };
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
            TlbiScope::AllStagesVmid => Self { spaces: STAGE2, id: Some(vmid), ..base },
            TlbiScope::Ipa => {
                // IPA[51:12] in bits 39:0.
                let start = (operand & 0xff_ffff_ffff) << 12 & (u64::MAX << shape.granule);
                let last = start | ((1u64 << shape.granule) - 1);
                point(Self { spaces: STAGE2, id: Some(vmid), stage2_alone: true, ..base }).over(start, last)
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

    fn is_of(&self, id: u16, global: bool) -> bool {
        if global { !self.spare_global } else { self.id.is_none_or(|own| own == id) }
    }
}

impl Machine {
    /// The first and last address that a TLBI reaches, when it is for addresses.
    pub(crate) fn reach_of(&self, tlbi: Tlbi, operand: u64) -> Option<(u64, u64)> {
        Scope::of(tlbi, operand, self.shapes[Space::Low.index()], 0).range
    }

    /// A TLBI issued at `since` has completed on `reached`.
    pub(crate) fn invalidate(&mut self, scope: &Scope, since: u64, reached: u64) -> Check {
        if scope.void {
            return Ok(());
        }
        for space in Space::ALL {
            if scope.spaces[space.index()] {
                self.invalidate_held(space, scope, since, reached)?;
                self.invalidate_roots(space, scope, since, reached)?;
            }
        }
        // VMALLE1 also reaches what combines both stages, of the current VMID.
        if scope.spaces == EL1 && scope.range.is_none() && scope.id.is_none() {
            self.invalidate_combined(scope.vmid, since, reached);
        }
        Ok(())
    }

    fn invalidate_held(&mut self, space: Space, scope: &Scope, since: u64, reached: u64) -> Check {
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
            self.invalidate_one(space, scope, reached, held)?;
        }
        Ok(())
    }

    /// What is left of `held`, which was taken out, is put back.
    fn invalidate_one(&mut self, space: Space, scope: &Scope, reached: u64, held: Held) -> Check {
        let root = self.roots[held.root as usize];
        let shape = root.shape;
        let last = held.va + ((1u64 << shape.shift(held.level)) - 1);
        let keep = |machine: &mut Self, held: Held| -> Check {
            if held.cpus == 0 {
                return machine.release(held.root, held.level, held.va, held.value);
            }
            if machine.cached.of_mut(space).add(held) {
                machine.release(held.root, held.level, held.va, held.value)?;
            }
            Ok(())
        };
        match read(shape, space, held.level, held.value) {
            Entry::Invalid => Ok(()),
            Entry::Leaf(leaf) => {
                let hinted = scope.hint.is_none_or(|hint| hint == held.level);
                if !hinted || !scope.is_of(held.id, leaf.global) {
                    return keep(self, held);
                }
                if scope.stage2_alone {
                    let whole = scope.touches(held.va, last) && held.cpus & !reached == 0;
                    let (combined, since) =
                        if whole { (true, self.now) } else { (held.combined, held.since) };
                    return keep(self, Held { combined, since, ..held });
                }
                if held.combined && scope.range.is_some() {
                    return keep(self, held);
                }
                if scope.touches(held.va, last) {
                    keep(self, Held { cpus: held.cpus & !reached, runs: held.runs & !reached, ..held })
                } else {
                    // A neighbour in its contiguous run: what one entry for the run would have held is gone, its own
                    // entry is not.
                    keep(self, Held { runs: held.runs & !reached, ..held })
                }
            }
            Entry::Table(table) => {
                let hinted = scope.hint.is_none_or(|hint| hint > held.level);
                if scope.last_level || scope.stage2_alone || !hinted || !scope.is_of(held.id, false) {
                    return keep(self, held);
                }
                let gone = held.cpus & reached;
                let whole = scope.covers(held.va, last) && scope.hint.is_none() && !scope.spare_global;
                if !whole {
                    // The pointer is gone, what was found through it is not.
                    self.scatter(scope, gone, &held, table)?;
                }
                keep(self, Held { cpus: held.cpus & !reached, ..held })
            }
        }
    }

    /// Notes what CPUs that lost the pointer `held` may still hold of the table behind it.
    fn scatter(&mut self, scope: &Scope, cpus: u64, held: &Held, table: u64) -> Check {
        let Root { shape, space, .. } = self.roots[held.root as usize];
        let level = held.level + 1;
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
                let part = Held { level, va, value, cpus, runs, ..*held };
                let last = va + ((1u64 << shape.shift(level)) - 1);
                if scope.touches(va, last) || runs != 0 {
                    self.invalidate_one(space, scope, cpus, part)?;
                } else if self.cached.of_mut(space).add(part) {
                    self.release(held.root, level, va, value)?;
                }
            }
        }
        Ok(())
    }

    fn invalidate_roots(&mut self, space: Space, scope: &Scope, since: u64, reached: u64) -> Check {
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
            for (root, from) in left {
                let id = self.roots[root as usize].id;
                let gone = from <= since
                    && scope.is_of(id, false)
                    && !(scope.spare_global && self.has_global(root)?);
                if gone { self.leave(cpu, root)? } else { kept.push((root, from)) }
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

    fn invalidate_combined(&mut self, vmid: u16, since: u64, reached: u64) {
        let shape = self.shapes[Space::Stage2.index()];
        self.cached.of_mut(Space::Stage2).take(shape, 0, u64::MAX, |held| {
            held.combined && held.since <= since && held.cpus & !reached == 0 && held.id == vmid
        });
    }
}
