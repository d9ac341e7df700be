//! CPUs that leave a tree while it is edited.

use linmap_board::Board;
use linmap_model::Event;
use linmap_model::event::{Access as Barrier, Domain, Tlbi, TlbiScope};
use linmap_vmsa::Pa;
use linmap_vmsa::registers::ttbr;

use super::{RESERVED, Setting};

/// How CPUs leave a tree and come back to it.
pub struct Parking<'w> {
    pub board: &'w Board,
    pub setting: Setting,
    pub root: Pa,
}

impl Parking<'_> {
    /// `cpu` leaves the tree for the reserved table, with nothing of it in its TLB.
    pub fn leave(&self, cpu: usize) {
        let (register, value) = (self.setting.register(), self.value(Pa(RESERVED)));
        let tlbi = Tlbi { scope: TlbiScope::AllEl1, broadcast: false };
        for event in [
            Event::Write { cpu, register, value },
            Event::Isb { cpu },
            Event::Tlbi { cpu, tlbi, operand: 0 },
            Event::Dsb { cpu, domain: Domain::Nsh, access: Barrier::All },
            Event::Isb { cpu },
        ] {
            self.board.event(event);
        }
    }

    /// The TTBR value for a root.
    fn value(&self, root: Pa) -> u64 {
        ttbr(self.setting.geometry, root, 0).expect("a frame")
    }

    /// `cpu` returns to the tree.
    pub fn come_back(&self, cpu: usize) {
        let (register, value) = (self.setting.register(), self.value(self.root));
        self.board.event(Event::Write { cpu, register, value });
        self.board.event(Event::Isb { cpu });
    }
}
