//! The same edits in every regime: which registers hold the root, and what attributes become there.

use linmap_board::{Board, BoardRegime};
use linmap_live::{Change, Half};
use linmap_model::event::Register;
use linmap_model::{Event, Space};
use linmap_vmsa::registers::ttbr;
use linmap_vmsa::{Access, Attributes, Execute, Geometry, MemoryType, Pa, Regime, Stage2Registers, VmidSize};

use super::{Op, Setting};

impl Setting {
    /// Whether CPUs of the board access what the tree maps.
    pub fn is_el1(&self) -> bool {
        matches!(self.geometry.regime(), Regime::El1And0)
    }

    pub fn board_regime(&self) -> BoardRegime {
        match self.geometry.regime() {
            Regime::El2 => BoardRegime::El2,
            Regime::El3 => BoardRegime::El3,
            Regime::Stage2(_) => BoardRegime::Stage2,
            Regime::El1And0 | Regime::El2And0 => BoardRegime::El1And0,
        }
    }

    pub fn register(&self) -> Register {
        match (self.geometry.regime(), self.half) {
            (Regime::El2, _) => Register::Ttbr0El2,
            (Regime::El3, _) => Register::Ttbr0El3,
            (Regime::Stage2(_), _) => Register::Vttbr,
            (_, Half::Low) => Register::Ttbr0,
            (_, Half::High) => Register::Ttbr1,
        }
    }

    pub fn space(&self) -> Space {
        match (self.geometry.regime(), self.half) {
            (Regime::El2, _) => Space::El2,
            (Regime::El3, _) => Space::El3,
            (Regime::Stage2(_), _) => Space::Stage2,
            (_, Half::Low) => Space::Low,
            (_, Half::High) => Space::High,
        }
    }

    /// Lets `cpu` walk the tree at `root`.
    pub fn enter(&self, board: &Board, cpu: usize, root: Pa) {
        let register = self.register();
        let value = match self.geometry.regime() {
            Regime::Stage2(_) => {
                let values = Stage2Registers::new(self.geometry, root, 5, VmidSize::Bits8).expect("a root");
                board.event(Event::Write {
                    cpu,
                    register: Register::Vtcr,
                    value: values.vtcr | self.updates.tcr(self.geometry.regime()),
                });
                board.event(Event::Isb { cpu });
                values.vttbr
            }
            Regime::El1And0 if self.updates.is_on() => {
                board.event(Event::Write { cpu, register: Register::Tcr, value: self.tcr() });
                board.event(Event::Isb { cpu });
                ttbr(self.geometry, root, self.asid.unwrap_or(0)).expect("a frame")
            }
            _ => ttbr(self.geometry, root, self.asid.unwrap_or(0)).expect("a frame"),
        };
        board.event(Event::Write { cpu, register, value });
        board.event(Event::Isb { cpu });
    }

    /// What the regime makes of attributes of EL1&0.
    pub fn fitting(&self, attributes: Attributes) -> Attributes {
        let Attributes { access, execute, .. } = attributes;
        match self.geometry.regime() {
            Regime::Stage2(_) => Attributes {
                access: guest(access),
                execute: if execute == Execute::Never { execute } else { Execute::Both },
                global: true,
                ..attributes
            },
            Regime::El2 | Regime::El3 => Attributes { global: true, ..attributes },
            _ if self.asid.is_some() => Attributes { global: false, ..attributes },
            _ => attributes,
        }
    }

    fn fitting_change(&self, change: Change) -> Change {
        if !self.geometry.regime().is_stage_2() {
            return change;
        }
        let execute = change.execute.map(|execute| match execute {
            Execute::Never => execute,
            _ => Execute::Both,
        });
        Change { access: change.access.map(guest), execute, ..change }
    }

    pub fn fitted(&self, op: Op) -> Op {
        match op {
            Op::Map { at, len, shift, attributes, leaves } => {
                Op::Map { at, len, shift, attributes: self.fitting(attributes), leaves }
            }
            Op::Protect { at, len, change } => Op::Protect { at, len, change: self.fitting_change(change) },
            Op::Remap { at, len, shift, change } => {
                Op::Remap { at, len, shift, change: self.fitting_change(change) }
            }
            // A guest's tags are stage 1's.
            Op::MemoryType { at, len, memory: MemoryType::NormalTagged }
                if self.geometry.regime().is_stage_2() =>
            {
                Op::MemoryType { at, len, memory: MemoryType::Normal }
            }
            op => op,
        }
    }
}

fn guest(access: Access) -> Access {
    match access {
        Access::KernelReadWriteClean | Access::GuestReadWriteClean => Access::GuestReadWriteClean,
        Access::KernelReadWriteDirty => Access::GuestReadWriteDirty,
        _ if access.writable() => Access::GuestReadWrite,
        _ => Access::GuestReadOnly,
    }
}

/// What a leaf's bits say, read here by the layout of the architecture and not by the crate under
/// test.
pub fn attributes_of(value: u64, geometry: Geometry) -> Attributes {
    assert!(geometry.lpa2() || value >> 8 & 3 == 3, "inner shareable");
    assert_eq!(value >> 10 & 1, 1, "accessed");
    let tracked = value >> 51 & 1 == 1;
    let (access, execute) = match geometry.regime() {
        Regime::Stage2(_) => {
            assert_eq!((value >> 11 & 1, value >> 53 & 1), (0, 0), "FnXS and XN[0] are unused");
            (
                match value >> 6 & 3 {
                    0b11 if tracked => Access::GuestReadWriteDirty,
                    0b01 if tracked => Access::GuestReadWriteClean,
                    0b11 => Access::GuestReadWrite,
                    0b01 => Access::GuestReadOnly,
                    other => panic!("S2AP={other}"),
                },
                if value >> 54 & 1 == 1 { Execute::Never } else { Execute::Both },
            )
        }
        Regime::El2 | Regime::El3 => {
            assert_eq!((value >> 6 & 1, value >> 11 & 1, value >> 53 & 1), (1, 0, 0), "RES1 and RES0");
            (
                match (value >> 7 & 1, tracked) {
                    (1, true) => Access::KernelReadWriteClean,
                    (_, true) => Access::KernelReadWriteDirty,
                    (1, false) => Access::KernelReadOnly,
                    _ => Access::KernelReadWrite,
                },
                if value >> 54 & 1 == 1 { Execute::Never } else { Execute::Kernel },
            )
        }
        _ => (
            match value >> 6 & 3 {
                0b00 if tracked => Access::KernelReadWriteDirty,
                0b10 if tracked => Access::KernelReadWriteClean,
                0b01 if tracked => Access::UserReadWriteDirty,
                0b11 if tracked => Access::UserReadWriteClean,
                0b00 => Access::KernelReadWrite,
                0b01 => Access::UserReadWrite,
                0b10 => Access::KernelReadOnly,
                _ => Access::UserReadOnly,
            },
            match value >> 53 & 3 {
                0b00 => Execute::Both,
                0b01 => Execute::User,
                0b10 => Execute::Kernel,
                _ => Execute::Never,
            },
        ),
    };
    let global = value >> 11 & 1 == 0;
    Attributes { access, execute, global, memory: memory_of(value, geometry), ..Attributes::KERNEL_DATA }
}

/// The memory type of a leaf: at stage 1 by its slot of MAIR, at stage 2 by MemAttr itself.
fn memory_of(value: u64, geometry: Geometry) -> MemoryType {
    match (matches!(geometry.regime(), Regime::Stage2(_)), value >> 2 & 15) {
        (true, 0b1111) => MemoryType::Normal,
        (true, 0b0101) => MemoryType::NormalNonCacheable,
        (true, 0b0001) => MemoryType::DeviceNgnre,
        (true, 0b0000) => MemoryType::DeviceNgnrne,
        (true, other) => panic!("MemAttr={other:#b}"),
        (false, bits) => MemoryType::EVERY[(bits & 7) as usize],
    }
}
