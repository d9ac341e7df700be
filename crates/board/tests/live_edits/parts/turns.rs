//! Editors in threads of their own, of which one runs at a time: before each step on the board it
//! may be the turn of another, as the seed says.

use std::ptr::NonNull;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use linmap_table::cpu::{Cpu, Dsb, Tlbi};
use linmap_table::{FrameSource, OutOfFrames, TableWindow};
use linmap_vmsa::{Descriptor, Level, Pa, Va};

/// How many editors there are.
pub const EDITORS: usize = 2;

/// Whose turn it is.
#[derive(Debug)]
pub struct Turns {
    state: Mutex<State>,
    passed: Condvar,
}

#[derive(Debug)]
struct State {
    turn: usize,
    ended: [bool; EDITORS],
    random: u64,
}

impl Turns {
    pub fn new(seed: u64) -> Self {
        let random = seed | 1;
        Self { state: Mutex::new(State { turn: 0, ended: [false; EDITORS], random }), passed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, state: MutexGuard<'_, State>, editor: usize) {
        drop(self.passed.wait_while(state, |state| state.turn != editor));
    }

    /// Begins as `editor`, when it is its turn.
    pub fn begin(&self, editor: usize) -> Turn<'_> {
        self.wait(self.state(), editor);
        Turn { turns: self, editor }
    }

    fn pass(&self, editor: usize) {
        let mut state = self.state();
        // xorshift64
        state.random ^= state.random << 13;
        state.random ^= state.random >> 7;
        state.random ^= state.random << 17;
        let next = (state.random >> 33) as usize % EDITORS;
        if next != editor && !state.ended[next] {
            state.turn = next;
            self.passed.notify_all();
            self.wait(state, editor);
        }
    }
}

/// An editor that has begun. It ends when this is dropped.
pub struct Turn<'t> {
    turns: &'t Turns,
    editor: usize,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        state.ended[self.editor] = true;
        if let Some(next) = state.ended.iter().position(|ended| !ended) {
            state.turn = next;
        }
        self.turns.passed.notify_all();
    }
}

/// What an editor takes to its thread.
pub struct Carried<T>(T);

// SAFETY: threads that share the board run by turns, and a mutex passes the turn on.
unsafe impl<T> Send for Carried<T> {}

impl<T> Carried<T> {
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// Hands the value over, in the thread whose turn it is.
    pub fn take(self) -> T {
        self.0
    }
}

/// A tool of an editor, each use of which may pass the turn on first.
pub struct ByTurns<'t, T> {
    tool: T,
    turn: &'t Turn<'t>,
}

impl<'t, T> ByTurns<'t, T> {
    pub fn new(tool: T, turn: &'t Turn<'t>) -> Self {
        Self { tool, turn }
    }

    fn pass(&self) {
        self.turn.turns.pass(self.turn.editor);
    }
}

// SAFETY: passes on what the window does.
unsafe impl<T: TableWindow> TableWindow for ByTurns<'_, T> {
    unsafe fn open(&mut self, level: Level, table: Pa) -> NonNull<u64> {
        self.pass();
        // SAFETY: the caller's.
        unsafe { self.tool.open(level, table) }
    }

    fn close(&mut self, level: Level) {
        self.tool.close(level);
    }
}

// SAFETY: passes on what the source does.
unsafe impl<T: FrameSource> FrameSource for ByTurns<'_, T> {
    fn alloc(&mut self) -> Result<Pa, OutOfFrames> {
        self.pass();
        self.tool.alloc()
    }

    unsafe fn free(&mut self, frame: Pa) {
        self.pass();
        // SAFETY: the caller's.
        unsafe { self.tool.free(frame) };
    }
}

// SAFETY: passes on what the CPU does.
unsafe impl<T: Cpu> Cpu for ByTurns<'_, T> {
    type Frames = T::Frames;

    unsafe fn store(&mut self, entry: NonNull<u64>, descriptor: Descriptor) {
        self.pass();
        // SAFETY: the caller's.
        unsafe { self.tool.store(entry, descriptor) };
    }

    unsafe fn store_run(&mut self, entries: NonNull<u64>, count: usize, first: Descriptor, step: u64) {
        self.pass();
        // SAFETY: the caller's.
        unsafe { self.tool.store_run(entries, count, first, step) };
    }

    unsafe fn compare_exchange(
        &mut self,
        entry: NonNull<u64>,
        expected: Descriptor,
        new: Descriptor,
    ) -> Result<(), Descriptor> {
        self.pass();
        // SAFETY: the caller's.
        unsafe { self.tool.compare_exchange(entry, expected, new) }
    }

    unsafe fn reach(&mut self, va: Va) -> NonNull<u64> {
        // SAFETY: the caller's.
        unsafe { self.tool.reach(va) }
    }

    unsafe fn frames_at(&mut self, offset: u64) -> T::Frames {
        // SAFETY: the caller's.
        unsafe { self.tool.frames_at(offset) }
    }

    fn dsb(&mut self, dsb: Dsb) {
        self.pass();
        self.tool.dsb(dsb);
    }

    fn isb(&mut self) {
        self.pass();
        self.tool.isb();
    }

    fn tlbi(&mut self, tlbi: Tlbi) {
        self.pass();
        self.tool.tlbi(tlbi);
    }

    unsafe fn clean_and_invalidate(&mut self, va: Va, len: u64) {
        // SAFETY: the caller's.
        unsafe { self.tool.clean_and_invalidate(va, len) };
    }

    unsafe fn write_ttbr0(&mut self, value: u64) {
        // SAFETY: the caller's.
        unsafe { self.tool.write_ttbr0(value) };
    }

    unsafe fn write_ttbr1(&mut self, value: u64) {
        // SAFETY: the caller's.
        unsafe { self.tool.write_ttbr1(value) };
    }

    unsafe fn write_tcr(&mut self, value: u64) {
        // SAFETY: the caller's.
        unsafe { self.tool.write_tcr(value) };
    }
}
