//! Runs CPUs as threads of which one at a time goes on, in every order with a bounded number of
//! preemptions.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// A point at which another CPU may go on.
#[derive(Clone, Copy, Debug)]
struct Choice {
    taken: usize,
    of: usize,
}

#[derive(Debug, Default)]
struct State {
    turn: usize,
    ended: Vec<bool>,
    /// The choices to make first; behind them, and everywhere else, the first is taken.
    script: Vec<usize>,
    made: Vec<Choice>,
    preemptions_left: usize,
    failed: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    torn: bool,
}

thread_local! {
    static CPU: RefCell<Option<(Arc<Shared>, usize)>> = const { RefCell::new(None) };
}

/// Whether a swap is a load and a store.
pub fn is_torn() -> bool {
    CPU.with_borrow(|cpu| cpu.as_ref().is_some_and(|(shared, _)| shared.torn))
}

/// Another CPU may go on here.
pub fn step() {
    CPU.with_borrow(|cpu| {
        if let Some((shared, me)) = cpu {
            shared.step(*me);
        }
    });
}

/// Another CPU goes on here.
pub fn pause() {
    CPU.with_borrow(|cpu| {
        if let Some((shared, me)) = cpu {
            shared.hand_over(*me);
        }
    });
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self, me: usize) {
        let mut state = self.state();
        if state.preemptions_left == 0 || state.failed {
            return;
        }
        let others = state.others(me);
        let choice = state.choose(1 + others.len());
        if choice > 0 {
            state.preemptions_left -= 1;
            state.turn = others[choice - 1];
            self.wait(state, me);
        }
    }

    fn hand_over(&self, me: usize) {
        let mut state = self.state();
        let others = state.others(me);
        if others.is_empty() || state.failed {
            assert!(state.failed, "CPU {me} spins alone");
            return;
        }
        let choice = state.choose(others.len());
        state.turn = others[choice];
        self.wait(state, me);
    }

    fn wait(&self, state: MutexGuard<'_, State>, me: usize) {
        self.changed.notify_all();
        let waits = |state: &mut State| state.turn != me && !state.failed;
        drop(self.changed.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner));
    }

    fn end(&self, me: usize, failed: bool) {
        let mut state = self.state();
        state.ended[me] = true;
        state.failed |= failed;
        let others = state.others(me);
        if !others.is_empty() && !state.failed {
            let choice = state.choose(others.len());
            state.turn = others[choice];
        }
        self.changed.notify_all();
    }
}

impl State {
    fn others(&self, me: usize) -> Vec<usize> {
        (0..self.ended.len()).filter(|cpu| *cpu != me && !self.ended[*cpu]).collect()
    }

    fn choose(&mut self, of: usize) -> usize {
        let taken = self.script.get(self.made.len()).copied().unwrap_or(0);
        self.made.push(Choice { taken, of });
        taken
    }
}

/// Runs `cpus` CPUs in every order with at most `preemptions` preemptions. `make` makes what they
/// share, `run` is what each does with it. Returns how many orders there are.
///
/// # Panics
/// What the first order in which a CPU panics panics with.
pub fn explore<S: Send + Sync>(
    cpus: usize,
    preemptions: usize,
    torn: bool,
    make: impl Fn() -> S,
    run: impl Fn(&S, usize) + Sync,
) -> usize {
    let mut script = Vec::new();
    for orders in 1.. {
        let state = State {
            ended: vec![false; cpus],
            script: std::mem::take(&mut script),
            preemptions_left: preemptions,
            ..State::default()
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), torn });
        let made = make();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..cpus)
                .map(|me| {
                    let (shared, made, run) = (shared.clone(), &made, &run);
                    scope.spawn(move || {
                        shared.wait(shared.state(), me);
                        CPU.set(Some((shared.clone(), me)));
                        let done = catch_unwind(AssertUnwindSafe(|| run(made, me)));
                        CPU.set(None);
                        shared.end(me, done.is_err());
                        done
                    })
                })
                .collect();
            for thread in threads {
                if let Err(panic) = thread.join().and_then(|done| done) {
                    resume_unwind(panic);
                }
            }
        });
        // The next order: the last choice that has another one left takes it.
        let mut made = std::mem::take(&mut shared.state().made);
        while made.pop_if(|choice| choice.taken + 1 == choice.of).is_some() {}
        let Some(last) = made.last_mut() else { return orders };
        last.taken += 1;
        script = made.iter().map(|choice| choice.taken).collect();
    }
    unreachable!("the orders end")
}
