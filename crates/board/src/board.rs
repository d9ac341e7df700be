//! The board: a machine with memory.

use std::ptr::NonNull;

use linmap_model::{Config, ConfigError, Machine, Trace, Violation};
use linmap_trace::Event;
use linmap_vmsa::Pa;

use crate::cpu::BoardCpu;
use crate::regime::BoardRegime;
use crate::state::{Shared, State};
use crate::walkers::Walkers;
use crate::window::BoardWindow;

/// A machine with memory. Clones are the same board.
#[derive(Clone, Debug)]
pub struct Board {
    pub(crate) shared: Shared,
}

impl Board {
    /// A board with the machine that `config` describes, and memory that holds garbage. With
    /// `record` the board records all events for [`trace`](Self::trace).
    ///
    /// # Errors
    /// [`ConfigError`] of an impossible machine.
    pub fn new(config: &Config, record: bool) -> Result<Self, ConfigError> {
        Ok(Self { shared: Shared::new(State::new(config, record)?) })
    }

    /// Returns CPU number `number`, for the tables of EL1&0.
    pub fn cpu(&self, number: usize) -> BoardCpu {
        self.cpu_of(number, BoardRegime::El1And0)
    }

    /// Returns CPU number `number`, for the tables of `regime`.
    pub fn cpu_of(&self, number: usize, regime: BoardRegime) -> BoardCpu {
        BoardCpu::new(self.shared.clone(), number, regime)
    }

    /// Frames as `cpu` reaches them at VA = PA + `offset`, or unchecked with `None`, as with the
    /// MMU off.
    pub fn window(&self, cpu: usize, offset: Option<u64>) -> BoardWindow {
        BoardWindow::new(self.shared.clone(), cpu, offset)
    }

    /// Lets an event happen that no code under test causes. Its stores reach memory too.
    pub fn event(&self, event: Event) {
        self.shared.state().event_in_memory(event);
    }

    /// From now on CPUs access memory through a tree between the instructions of code under test,
    /// and before it opens a table, and update leaves of the tree.
    pub fn set_walkers(&self, walkers: Walkers) {
        self.shared.state().walkers = Some(walkers);
    }

    /// Lets the walkers access memory now.
    pub fn accesses(&self) {
        self.shared.state().accesses();
    }

    /// Calls `look` with the walkers.
    ///
    /// # Panics
    /// Without [`set_walkers`](Self::set_walkers).
    pub fn with_walkers<R>(&self, look: impl FnOnce(&mut Walkers) -> R) -> R {
        let mut state = self.shared.state();
        look(state.walkers.as_mut().expect("the board has walkers"))
    }

    /// The memory of the word at `pa`, a multiple of 8.
    pub fn pointer(&self, pa: Pa) -> NonNull<u64> {
        self.shared.state().memory.word(pa.0)
    }

    /// Checks that everything so far was legal.
    ///
    /// # Errors
    /// The first [`Violation`]. Memory that was written through no open window is one.
    pub fn verdict(&self) -> Result<(), Violation> {
        self.shared.state().verdict()
    }

    /// The first violation so far among events. Unlike [`verdict`](Self::verdict), which compares all
    /// memory, this does not find memory that was written through no open window.
    pub fn violation(&self) -> Option<Violation> {
        self.shared.synced().violation
    }

    /// All events so far, if the board records them.
    pub fn trace(&self) -> Option<Trace> {
        let state = self.shared.state();
        state.events.clone().map(|events| Trace { config: state.config.clone(), events })
    }

    /// Calls `look` with the machine, which knows all stores so far.
    pub fn with_machine<R>(&self, look: impl FnOnce(&mut Machine) -> R) -> R {
        look(&mut self.shared.synced().machine)
    }
}
