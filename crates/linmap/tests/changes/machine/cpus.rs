//! The CPUs of the machine: what each uses all the time, how it leaves a root and returns, and
//! what the others access while one of them edits.

use std::cell::RefCell;
use std::ptr::NonNull;
use std::rc::Rc;

use linmap_board::{Board, BoardCpu, BoardWindow};
use linmap_model::Event;
use linmap_model::event::{Access, Domain, Register, Tlbi, TlbiScope, Use};
use linmap_table::cpu::{self, Cpu};
use linmap_vmsa::{Descriptor, Va};

use super::random::Random;

/// Addresses that a CPU may access at any moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InUse {
    pub va: u64,
    pub len: u64,
    pub kind: Use,
}

/// What `park.S` needs: roots, and where its code and words are at VA = PA.
#[derive(Clone, Copy, Debug)]
pub struct Ways {
    pub live: u64,
    pub nothing: u64,
    pub identity: u64,
    pub code: InUse,
    pub words: InUse,
}

/// How many of a CPU's uses lie in the image.
const IMAGE: usize = 2;

/// All CPUs, with what each of them uses on the live root; what it uses on every root comes first.
#[derive(Debug)]
pub struct Cpus {
    pub ways: Ways,
    pub uses: Vec<Vec<InUse>>,
}

impl Cpus {
    pub fn count(&self) -> usize {
        self.uses.len()
    }

    pub fn starts_to_use(&mut self, board: &Board, cpu: usize, in_use: InUse) {
        let InUse { va, len, kind } = in_use;
        board.event(Event::Uses { cpu, va, len, kind });
        self.uses[cpu].push(in_use);
    }

    pub fn ends_to_use(&mut self, board: &Board, cpu: usize, in_use: InUse) {
        let InUse { va, len, kind } = in_use;
        self.uses[cpu].retain(|other| *other != in_use);
        board.event(Event::Unuses { cpu, va, len, kind });
    }

    /// What `cpu` uses on `root`: off the live root, only what lies in the image.
    fn used(&self, cpu: usize, root: u64) -> &[InUse] {
        let used = &self.uses[cpu];
        if root == self.ways.live { used } else { &used[..IMAGE] }
    }

    /// From `park` on `root` to where the CPU has nothing in TTBR1 and nothing cached.
    pub fn leave(&self, board: &Board, cpu: usize, root: u64) {
        let Ways { nothing, identity, code, words, .. } = self.ways;
        board.event(Event::Write { cpu, register: Register::Ttbr0, value: identity });
        board.event(Event::Isb { cpu });
        for InUse { va, len, kind } in [code, words] {
            board.event(Event::Uses { cpu, va, len, kind });
        }
        for InUse { va, len, kind } in self.used(cpu, root).iter().copied() {
            board.event(Event::Unuses { cpu, va, len, kind });
        }
        board.event(Event::Write { cpu, register: Register::Ttbr1, value: nothing });
        board.event(Event::Isb { cpu });
        self.forget(board, cpu);
    }

    /// From there to after `park_back`, with `root` in TTBR1.
    pub fn arrive(&self, board: &Board, cpu: usize, root: u64) {
        let Ways { nothing, code, words, .. } = self.ways;
        board.event(Event::Write { cpu, register: Register::Ttbr1, value: root });
        board.event(Event::Isb { cpu });
        for InUse { va, len, kind } in self.used(cpu, root).iter().copied() {
            board.event(Event::Uses { cpu, va, len, kind });
        }
        for InUse { va, len, kind } in [code, words] {
            board.event(Event::Unuses { cpu, va, len, kind });
        }
        board.event(Event::Write { cpu, register: Register::Ttbr0, value: nothing });
        board.event(Event::Isb { cpu });
        self.forget(board, cpu);
    }

    fn forget(&self, board: &Board, cpu: usize) {
        let tlbi = Tlbi { scope: TlbiScope::AllEl1, broadcast: false };
        board.event(Event::Tlbi { cpu, tlbi, operand: 0 });
        board.event(Event::Dsb { cpu, domain: Domain::Nsh, access: Access::All });
        board.event(Event::Isb { cpu });
    }
}

/// What other CPUs do while one edits: accesses whose outcome the edit does not change.
#[derive(Debug)]
pub struct Bystanders {
    pub accesses: Vec<Event>,
    pub random: Random,
}

/// The CPU that edits. Before each of its instructions others may access memory.
#[derive(Clone)]
pub struct EditingCpu {
    pub board: Board,
    pub cpu: BoardCpu,
    pub bystanders: Rc<RefCell<Bystanders>>,
}

impl EditingCpu {
    fn look_around(&self) {
        let mut bystanders = self.bystanders.borrow_mut();
        let Bystanders { accesses, random } = &mut *bystanders;
        if !accesses.is_empty() && random.percent(40) {
            let access = random.pick(accesses);
            self.board.event(access);
        }
    }
}

// SAFETY: hands on what the board's CPU does.
unsafe impl Cpu for EditingCpu {
    type Frames = BoardWindow;

    unsafe fn store(&mut self, entry: NonNull<u64>, descriptor: Descriptor) {
        self.look_around();
        // SAFETY: the caller's.
        unsafe { self.cpu.store(entry, descriptor) };
    }

    unsafe fn store_run(&mut self, entries: NonNull<u64>, count: usize, first: Descriptor, step: u64) {
        self.look_around();
        // SAFETY: the caller's.
        unsafe { self.cpu.store_run(entries, count, first, step) };
    }

    unsafe fn compare_exchange(
        &mut self,
        entry: NonNull<u64>,
        expected: Descriptor,
        new: Descriptor,
    ) -> Result<(), Descriptor> {
        // SAFETY: the caller's.
        unsafe { self.cpu.compare_exchange(entry, expected, new) }
    }

    unsafe fn reach(&mut self, va: Va) -> NonNull<u64> {
        // SAFETY: the caller's.
        unsafe { self.cpu.reach(va) }
    }

    unsafe fn frames_at(&mut self, offset: u64) -> BoardWindow {
        // SAFETY: the caller's.
        unsafe { self.cpu.frames_at(offset) }
    }

    fn dsb(&mut self, dsb: cpu::Dsb) {
        self.look_around();
        self.cpu.dsb(dsb);
    }

    fn isb(&mut self) {
        self.look_around();
        self.cpu.isb();
    }

    fn tlbi(&mut self, tlbi: cpu::Tlbi) {
        self.look_around();
        self.cpu.tlbi(tlbi);
    }

    unsafe fn clean_and_invalidate(&mut self, va: Va, len: u64) {
        // SAFETY: the caller's.
        unsafe { self.cpu.clean_and_invalidate(va, len) };
    }

    unsafe fn write_ttbr0(&mut self, value: u64) {
        // SAFETY: the caller's.
        unsafe { self.cpu.write_ttbr0(value) };
    }

    unsafe fn write_ttbr1(&mut self, value: u64) {
        // SAFETY: the caller's.
        unsafe { self.cpu.write_ttbr1(value) };
    }

    unsafe fn write_tcr(&mut self, value: u64) {
        // SAFETY: the caller's.
        unsafe { self.cpu.write_tcr(value) };
    }
}
