//! Ctrl-C, SIGTERM and SIGHUP: what we have started ends with us.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use crate::children;

/// The exit code of an interrupted run.
pub const EXIT_CODE: u8 = 130;

static CAME: AtomicBool = AtomicBool::new(false);
/// Someone looks at [`has_come`] all the time, and ends the run in order.
static IS_WATCHED: AtomicBool = AtomicBool::new(false);

/// From now on an interruption ends all children, and us unless someone watches for it.
pub fn handle() -> Result<()> {
    ctrlc::set_handler(|| {
        CAME.store(true, Ordering::Relaxed);
        children::end_all();
        if !IS_WATCHED.load(Ordering::Relaxed) {
            std::process::exit(EXIT_CODE.into());
        }
    })
    .context("handling Ctrl-C")
}

/// Whether one has come.
pub fn has_come() -> bool {
    CAME.load(Ordering::Relaxed)
}

/// While this lives, its owner ends the run when an interruption [`has_come`].
#[derive(Debug)]
pub struct Watching(());

impl Watching {
    /// Begins to watch.
    pub fn begin() -> Self {
        IS_WATCHED.store(true, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        IS_WATCHED.store(false, Ordering::Relaxed);
    }
}
