//! Which thread of the guest edits, and its return to EL0.
//!
//! A kernel that takes access back may be preempted before it invalidates, and the CPU returns to
//! EL0 for another thread. So an edit is considered complete when its own thread returns. Threads
//! are told apart by their stacks in the kernel: one that returns to EL0 leaves its stack empty, so
//! SP is the stack's top then. A kernel with one stack for each CPU has one thread on each.

use linmap_trace::Event;

use crate::place::Place;
use crate::readable::Readable;
use crate::recorder::{CurrentCpu, Recorder};

/// How far below its top a stack is in use: Linux's has 16K, and as much is between two.
const STACK: u64 = 0x4000;

/// The most threads of which edits are known that have not returned.
const MOST: usize = 1 << 12;

impl Recorder {
    /// The CPU that acts has stored `now` over `before`. An entry of the kernel's that becomes
    /// invalid takes nothing back that anybody would use.
    pub(crate) fn note_edit(&mut self, before: u64, now: u64) {
        const UNPRIVILEGED: u64 = 1 << 6;
        const UXN: u64 = 1 << 54;
        let is_user = before & UNPRIVILEGED != 0 || before & UXN == 0;
        let is_edit = before & 1 == 1 && (now & 1 == 1 || is_user);
        if let Some(cpu) = self.cpus.get_mut(self.actor) {
            cpu.has_edits |= is_edit;
        }
    }

    /// The CPU executes on the stack of the thread of its last edits: a kernel switches threads
    /// behind a DSB, and interrupts have vectors.
    pub(crate) fn note_thread(&mut self, cpu: usize, own: &dyn CurrentCpu) {
        if !std::mem::take(&mut self.cpus[cpu].has_edits) {
            return;
        }
        let Some(sp) = own.system(Readable::Sp) else { return };
        let near = self.editing.range(sp.saturating_sub(STACK / 2)..sp.saturating_add(STACK / 2));
        let thread = near.copied().next().unwrap_or(sp);
        if self.editing.len() == MOST && !self.editing.contains(&thread) {
            self.editing.pop_first();
        }
        self.editing.insert(thread);
        self.put(Event::Thread { cpu, thread }, None);
    }

    /// The CPU executes an ERET to EL0 at `pc`.
    pub(crate) fn thread_returns(&mut self, cpu: usize, pc: u64, own: &dyn CurrentCpu) {
        if self.editing.is_empty() && !self.cpus[cpu].has_edits {
            return;
        }
        // A hypervisor's stack says nothing of its guest's threads.
        let place = Place::of(own);
        if place.el != 1 && !place.is_host() {
            return;
        }
        let Some(top) = own.system(Readable::Sp) else { return };
        let own_edits = std::mem::take(&mut self.cpus[cpu].has_edits);
        let mut threads: Vec<u64> = self.editing.range(top.saturating_sub(STACK)..=top).copied().collect();
        if threads.is_empty() && own_edits {
            threads.push(top);
        }
        for thread in threads {
            self.editing.remove(&thread);
            self.put(Event::User { cpu, thread }, Some(pc));
            self.cpus[cpu].synchronized = self.events;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A CPU at EL1, with this SP.
    struct OnStack(u64);

    impl CurrentCpu for OnStack {
        fn x(&self, _: u8) -> u64 {
            0
        }

        fn system(&self, register: Readable) -> Option<u64> {
            match register {
                Readable::Pstate => Some(1 << 2),
                Readable::Sp => Some(self.0),
                _ => None,
            }
        }
    }

    const TOP: u64 = 0xffff_8000_1000_4000;
    const OTHER: u64 = TOP + 0x8000;
    const USER_PAGE: u64 = 0x0060_0000_4000_0f43;

    impl Recorder {
        fn edit(&mut self, cpu: usize) {
            self.actor = cpu;
            self.note_edit(USER_PAGE, 0);
        }

        /// How many events the return of a thread makes.
        fn returning(&mut self, cpu: usize, top: u64) -> u64 {
            let before = self.events;
            self.thread_returns(cpu, 0x1000, &OnStack(top));
            self.events - before
        }
    }

    #[test]
    fn a_thread_that_was_switched_returns_by_its_own_stack_on_any_cpu() {
        let mut recorder = Recorder::unread(2);
        recorder.edit(0);
        recorder.note_thread(0, &OnStack(TOP - 0x300));
        recorder.edit(0);
        recorder.note_thread(0, &OnStack(TOP - 0x500));
        assert_eq!(recorder.editing.len(), 1, "both are of one stack");
        assert_eq!(recorder.returning(0, OTHER), 0);
        recorder.edit(0);
        recorder.note_thread(0, &OnStack(OTHER - 0x300));
        assert_eq!(recorder.returning(1, TOP), 1);
        assert_eq!((recorder.returning(0, TOP), recorder.returning(0, OTHER)), (0, 1));
        assert!(recorder.editing.is_empty());
    }

    #[test]
    fn what_was_edited_since_the_last_dsb_is_of_the_thread_that_returns() {
        let mut recorder = Recorder::unread(2);
        recorder.edit(0);
        assert_eq!((recorder.returning(0, TOP), recorder.returning(0, TOP)), (1, 0));
        // Nobody edited.
        recorder.note_thread(0, &OnStack(TOP - 0x300));
        assert_eq!((recorder.events, recorder.returning(0, TOP)), (1, 0));
    }

    #[test]
    fn edits_that_take_nothing_back_are_of_no_thread() {
        const KERNEL_PAGE: u64 = 0x0068_0000_4000_0f03;
        let mut recorder = Recorder::unread(2);
        for (before, now, takes) in [
            (USER_PAGE, 0, true),
            (USER_PAGE, USER_PAGE | 1 << 7, true),
            (KERNEL_PAGE, KERNEL_PAGE | 1 << 7, true),
            (KERNEL_PAGE, 0, false),
            (0, USER_PAGE, false),
        ] {
            recorder.note_edit(before, now);
            let had = std::mem::take(&mut recorder.cpus[0].has_edits);
            assert_eq!(had, takes, "{before:#x} {now:#x}");
        }
    }

    #[test]
    fn threads_that_never_return_are_bounded() {
        let mut recorder = Recorder::unread(2);
        for nth in 0..2 * MOST as u64 {
            recorder.edit(0);
            recorder.note_thread(0, &OnStack(TOP + 0x8000 * nth));
        }
        assert_eq!(recorder.editing.len(), MOST);
    }
}
