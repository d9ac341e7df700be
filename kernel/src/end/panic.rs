//! A panic of Rust code.

use core::panic::PanicInfo;

use crate::arch::frame::Frame;
use crate::arch::per_cpu;
use crate::arch::print::Quoted;
use crate::end::fatal;
use crate::{report, say};

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let frame = Frame::here();
    fatal::begin(&frame);
    let cpu = per_cpu::this_cpu();
    say!("CPU {cpu}: {info}");
    report!("error=panic cpu={cpu} what={}", Quoted(info.message()));
    fatal::stop(&frame)
}
