//! Progress of whatever takes longer than a second: a spinner on a terminal, a plain line
//! elsewhere, nothing when it is quick. Always on standard error.

use std::io::IsTerminal;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const QUIET_FOR: Duration = Duration::from_secs(1);

/// Does `work` and shows `what` while it runs, once it has taken a second.
pub fn during<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (finished, waiting) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if waiting.recv_timeout(QUIET_FOR) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let started = Instant::now();
            if std::io::stderr().is_terminal() {
                let spinner = ProgressBar::new_spinner().with_elapsed(QUIET_FOR);
                if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                    spinner.set_style(style);
                }
                spinner.set_message(what.to_owned());
                spinner.enable_steady_tick(Duration::from_millis(120));
                // Ends when the work drops its end of the channel.
                let _ = waiting.recv();
                spinner.finish_and_clear();
            } else {
                eprintln!("{what} …");
                let _ = waiting.recv();
                eprintln!("{what}: {:.1} s", (started.elapsed() + QUIET_FOR).as_secs_f64());
            }
        });
        let _finished = finished;
        work()
    })
}
