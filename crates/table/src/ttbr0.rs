//! TTBR0 on and off: a temporary map in the lower half of the address space, with a VA size of its
//! own.
//!
//! Two registers change, and both decide what a walk through TTBR0 finds: TTBR0 names the root,
//! TCR.T0SZ says at which level a walk starts and how long the root is. A walk that met one map's
//! root under the other's T0SZ would read it as a table of another level. So T0SZ changes only
//! while TTBR0 leads to the [`Reserved`] table, which is empty at every level, and while nothing
//! that was walked through TTBR0 is cached, since a TLB may cache T0SZ with its entries (Arm ARM
//! D24.2, TCR_EL1.T0SZ; D8.16, TLB maintenance).

use linmap_vmsa::registers::{RegisterError, tcr_with_t0sz, ttbr};

use crate::cpu::{Cpu, Dsb, Tlbi};
use crate::detached::DetachedTree;

/// The values of TTBR0 and TCR while the lower half of the address space translates nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reserved {
    /// A TTBR0 value that leads to an empty table: one granule of invalid entries that are never
    /// written, so that every walk faults at its start level, whatever T0SZ says.
    pub ttbr0: u64,
    /// The kernel's TCR value. Only its T0SZ field ever changes.
    pub tcr: u64,
}

/// A tree in TTBR0. Hardware walks it until [`remove`](Self::remove).
///
/// ```
/// use linmap_table::cpu::Cpu;
/// use linmap_table::{DetachedTree, Installed, Reserved};
/// use linmap_vmsa::registers::RegisterError;
///
/// /// Runs `work` with `tree` in TTBR0.
/// ///
/// /// # Safety
/// /// As [`Reserved::install`].
/// unsafe fn during<C: Cpu>(
///     tree: DetachedTree,
///     reserved: Reserved,
///     cpu: &mut C,
///     work: impl FnOnce(&mut C),
/// ) -> Result<DetachedTree, (DetachedTree, RegisterError)> {
///     // SAFETY: the caller's.
///     let installed: Installed = unsafe { reserved.install(tree, cpu)? };
///     work(cpu);
///     Ok(installed.remove(cpu))
/// }
/// ```
#[must_use = "TTBR0 keeps translating until the map is removed"]
#[derive(Debug)]
pub struct Installed {
    tree: DetachedTree,
    reserved: Reserved,
}

impl Reserved {
    /// Installs `tree` in TTBR0, with the T0SZ of its own VA size: TCR, ISB, TTBR0, ISB.
    ///
    /// 1. TCR, while TTBR0 leads to the empty table: whichever T0SZ a walk sees, it faults, and
    ///    nothing is cached.
    /// 2. ISB: no walk uses the old T0SZ from here on. Without it the CPU could take the two
    ///    register writes in either order and walk the new root by the old size.
    /// 3. TTBR0. No invalidation is needed: a TLB never holds an invalid entry (Arm ARM D8.16.1,
    ///    RWHZWS).
    /// 4. ISB: what follows is translated through the new root.
    ///
    /// # Safety
    /// - TTBR0 and TCR of this CPU hold what `self` says, and no TLB of it holds a translation of
    ///   TTBR0.
    /// - A DSB ISHST, or a stronger one, stands between the last store to the tree's tables and
    ///   this call.
    /// - What the tree maps may be accessed as its attributes say, by speculation too.
    ///
    /// # Errors
    /// [`RegisterError`] and the tree, when TCR has another granule or another descriptor format.
    /// Nothing was written then.
    // Inlined, since a call would copy the tree twice for four instructions.
    #[inline(always)]
    pub unsafe fn install<C: Cpu>(
        self,
        tree: DetachedTree,
        cpu: &mut C,
    ) -> Result<Installed, (DetachedTree, RegisterError)> {
        let tcr = tcr_with_t0sz(self.tcr, tree.geometry());
        match (tcr, ttbr(tree.geometry(), tree.root(), 0)) {
            (Ok(tcr), Ok(ttbr0)) => {
                // SAFETY: TTBR0 leads to a table that is empty for any T0SZ, then to a root of the
                // new size; the rest is the caller's.
                unsafe {
                    cpu.write_tcr(tcr);
                    cpu.isb();
                    cpu.write_ttbr0(ttbr0);
                }
                cpu.isb();
                Ok(Installed { tree, reserved: self })
            }
            (Err(error), _) | (_, Err(error)) => Err((tree, error)),
        }
    }

    /// Returns TTBR0 to the empty table, from any map, and removes everything cached of that map:
    /// TTBR0, ISB, TLBI VMALLE1, DSB NSH, ISB, TCR, ISB.
    ///
    /// 1. TTBR0, while T0SZ is still the map's: a walk that sees either root reads it by a size
    ///    that fits it.
    /// 2. ISB: no walk starts from the old root from here on, so nothing is cached after the
    ///    invalidation.
    /// 3. TLBI of everything on this CPU. Only this CPU ever walked the map, so it is not
    ///    broadcast.
    /// 4. DSB NSH completes it: no walk and no TLB uses the map's tables any more, and they may be
    ///    freed.
    /// 5. ISB: only from here on is this CPU itself sure to have no such entries (RBLDZX).
    /// 6. TCR last, since T0SZ may be cached with the translations, which must be removed first.
    /// 7. ISB: later accesses are translated by the new register values.
    ///
    /// # Safety
    /// The values are what [`Reserved`] says. Nothing relies on what TTBR0 translates, and the
    /// walks of TTBR1 fit the TCR value.
    #[inline]
    pub unsafe fn restore<C: Cpu>(self, cpu: &mut C) {
        // SAFETY: the caller's; the empty table fits any T0SZ.
        unsafe { cpu.write_ttbr0(self.ttbr0) };
        cpu.isb();
        cpu.tlbi(Tlbi::AllLocal);
        cpu.dsb(Dsb::Nsh);
        cpu.isb();
        // SAFETY: as above.
        unsafe { cpu.write_tcr(self.tcr) };
        cpu.isb();
    }
}

impl Installed {
    /// Removes the tree from TTBR0 by [`Reserved::restore`]. It is detached again.
    #[inline]
    pub fn remove<C: Cpu>(self, cpu: &mut C) -> DetachedTree {
        // SAFETY: by the promise of `install` the values were in the registers before, and nothing
        // but the map's user relies on TTBR0.
        unsafe { self.reserved.restore(cpu) };
        self.tree
    }
}

#[cfg(test)]
mod tests {
    use core::ptr::NonNull;
    use std::boxed::Box;
    use std::vec::Vec;

    use linmap_vmsa::{Attributes, Descriptor, Geometry, Granule, Pa, Va};

    use super::*;
    use crate::{FrameSource, Leaves, Mapping, Mappings, OffsetWindow, OutOfFrames, ReachableFrames};

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Did {
        Ttbr0(u64),
        Tcr(u64),
        Isb,
        Dsb(Dsb),
        Tlbi(Tlbi),
    }

    #[derive(Default)]
    struct Recorder(Vec<Did>);

    // SAFETY: it does nothing, and nothing relies on it.
    unsafe impl Cpu for Recorder {
        type Frames = OffsetWindow;

        unsafe fn store(&mut self, _entry: NonNull<u64>, _descriptor: Descriptor) {
            unreachable!("no live table changes");
        }
        unsafe fn compare_exchange(
            &mut self,
            _entry: NonNull<u64>,
            _expected: Descriptor,
            _new: Descriptor,
        ) -> Result<(), Descriptor> {
            unreachable!("no live table changes");
        }
        unsafe fn reach(&mut self, _va: Va) -> NonNull<u64> {
            unreachable!("nothing is accessed");
        }
        unsafe fn frames_at(&mut self, _offset: u64) -> OffsetWindow {
            unreachable!("nothing is accessed");
        }
        fn dsb(&mut self, dsb: Dsb) {
            self.0.push(Did::Dsb(dsb));
        }
        fn isb(&mut self) {
            self.0.push(Did::Isb);
        }
        fn tlbi(&mut self, tlbi: Tlbi) {
            self.0.push(Did::Tlbi(tlbi));
        }
        unsafe fn clean_and_invalidate(&mut self, _va: Va, _len: u64) {
            unreachable!("no memory type changes");
        }
        unsafe fn write_ttbr0(&mut self, value: u64) {
            self.0.push(Did::Ttbr0(value));
        }
        unsafe fn write_ttbr1(&mut self, _value: u64) {
            unreachable!("the upper half stays");
        }
        unsafe fn write_tcr(&mut self, value: u64) {
            self.0.push(Did::Tcr(value));
        }
    }

    #[repr(align(4096))]
    struct Frame([u64; 512]);

    struct OneFrame(Pa);

    // SAFETY: the test below makes one tree of one table, so the frame is handed out once.
    unsafe impl FrameSource for OneFrame {
        fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
            Ok(self.0)
        }
        unsafe fn free(&mut self, _frame: Pa) {}
    }

    #[test]
    fn t0sz_changes_only_while_ttbr0_is_on_the_reserved_table_and_nothing_is_cached() {
        let shape = Geometry::new(Granule::K4, 31, 48).unwrap();
        let mut frame = Box::new(Frame([0; 512]));
        let root = Pa(frame.0.as_mut_ptr().expose_provenance() as u64);
        let gib = Mapping {
            va: Va(1 << 30),
            pa: Pa(1 << 30),
            len: 1 << 30,
            attributes: Attributes::KERNEL_DATA,
            leaves: Leaves::ContiguousBlocks,
        };
        let list = [gib];
        let mappings = Mappings::new(shape, &list).unwrap();
        // SAFETY: the one frame is at its own address.
        let mut window = unsafe { OffsetWindow::new(0) };
        let mut frames = OneFrame(root);
        // SAFETY: as above.
        let mut memory = unsafe { ReachableFrames::new(&mut window, &mut frames) };
        let tree = DetachedTree::build(&mappings, &mut memory).unwrap();

        let reserved = Reserved { ttbr0: 0x4000_0000, tcr: 16 | 16 << 16 };
        let mut cpu = Recorder::default();
        // SAFETY: the recorder has no TTBR0 and walks nothing.
        let installed = unsafe { reserved.install(tree, &mut cpu) }.unwrap();
        assert_eq!(cpu.0, [Did::Tcr(33 | 16 << 16), Did::Isb, Did::Ttbr0(root.0), Did::Isb]);

        cpu.0.clear();
        installed.remove(&mut cpu).release(&mut memory);
        assert_eq!(
            cpu.0,
            [
                Did::Ttbr0(reserved.ttbr0),
                Did::Isb,
                Did::Tlbi(Tlbi::AllLocal),
                Did::Dsb(Dsb::Nsh),
                Did::Isb,
                Did::Tcr(reserved.tcr),
                Did::Isb
            ]
        );
    }

    #[test]
    fn a_tree_of_another_granule_is_not_installed() {
        let geometry = Geometry::new(Granule::K16, 36, 48).unwrap();
        let mut frame = Box::new([0u64; 4096]);
        let first = frame.as_mut_ptr().expose_provenance() as u64;
        let mut frames = OneFrame(Pa(first.next_multiple_of(0x4000)));
        let mappings = Mappings::new(geometry, &[]).unwrap();
        // SAFETY: the one frame is at its own address.
        let mut window = unsafe { OffsetWindow::new(0) };
        // SAFETY: as above.
        let mut memory = unsafe { ReachableFrames::new(&mut window, &mut frames) };
        let tree = DetachedTree::build(&mappings, &mut memory).unwrap();
        let mut cpu = Recorder::default();
        let reserved = Reserved { ttbr0: 0x4000_0000, tcr: 16 | 16 << 16 };
        // SAFETY: the recorder has no TTBR0 and walks nothing.
        let (tree, error) = unsafe { reserved.install(tree, &mut cpu) }.unwrap_err();
        assert!(matches!(error, RegisterError::OtherFormat { .. }), "{error}");
        assert_eq!(cpu.0, []);
        tree.release(&mut memory);
    }
}
