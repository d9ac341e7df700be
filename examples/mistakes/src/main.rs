//! Mistakes that other kernels made when they edited their tables, and the same edits done right.
//! Most of them have no effect in QEMU: `linmap record --check` sees them. The command line says
//! which edit, `64k` for pages of 64 KiB, and `updates` for leaves that hardware updates:
//! `cargo xtask example mistakes --record --append remap_by_shifted_operand,64k`.

#![no_std]
#![no_main]

mod clean;
mod edits;
mod machine;
mod map;
mod page;
mod publish;

use core::sync::atomic::{AtomicU64, Ordering};

use edits::EDITS;
use machine::{command_line, end, fail, say, start, words};
use page::{Page, content};

/// CPUs that have read the page before the edit.
static READY: AtomicU64 = AtomicU64::new(0);
/// Whether it was edited.
static IS_EDITED: AtomicU64 = AtomicU64::new(0);
/// CPUs that wait for the end.
static WAITING: AtomicU64 = AtomicU64::new(0);

/// Entered from `entry.S` with the number of the CPU, and with the MMU on.
#[unsafe(no_mangle)]
extern "C" fn enter(cpu: u64) -> ! {
    if cpu == 0 {
        edit();
    }
    // The TLB of this CPU has the page.
    content();
    READY.fetch_add(1, Ordering::Release);
    while IS_EDITED.load(Ordering::Acquire) == 0 {
        core::hint::spin_loop();
    }
    WAITING.fetch_add(1, Ordering::Release);
    loop {
        core::hint::spin_loop();
    }
}

fn edit() -> ! {
    let (text, len) = command_line();
    let mut words = words(&text[..len]);
    let named = |word: &[u8]| EDITS.iter().find(|edit| edit.name.as_bytes() == word);
    let Some(edit) = words.find_map(named) else { fail(format_args!("the command line names no edit")) };
    let page = Page::find();
    let others = (1..4).filter(|cpu| start(*cpu)).count() as u64;
    content();
    while READY.load(Ordering::Acquire) < others {
        core::hint::spin_loop();
    }
    (edit.run)(&page);
    IS_EDITED.store(1, Ordering::Release);
    while WAITING.load(Ordering::Acquire) < others {
        core::hint::spin_loop();
    }
    say(format_args!("{}: done, {} CPUs", edit.name, others + 1));
    end(0)
}
