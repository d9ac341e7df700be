//! Entries that the kernel refuses before anything is set up: the boot loader ignored the boot
//! protocol, or the CPU can't run the kernel. The instructions are in `refuse.S`.

use core::arch::global_asm;
use core::mem::{offset_of, size_of};

use linmap_platform::UartKind;

use crate::arch::layout::GRANULE;
use crate::arch::uart::MOST_POLLS;
use crate::arch::uart_model::{Bits, MODELS, Model, Setting, index};
use crate::boot::command_line::{BUILT_IN_COMMAND_LINE, TEXT_AT};

const _: () = assert!(MOST_POLLS.is_power_of_two(), "one MOV holds the number");

global_asm!(
    include_str!("refuse.S"),
    page_shift = const GRANULE.shift(),
    line = sym BUILT_IN_COMMAND_LINE,
    line_text = const TEXT_AT,
    models = sym MODELS,
    model_len = const size_of::<Model>(),
    status = const offset_of!(Model, status),
    full_mask = const offset_of!(Model, full) + offset_of!(Bits, mask),
    full_value = const offset_of!(Model, full) + offset_of!(Bits, value),
    transmit = const offset_of!(Model, transmit),
    control = const offset_of!(Model, control),
    enabled_mask = const offset_of!(Model, enabled) + offset_of!(Bits, mask),
    enabled_value = const offset_of!(Model, enabled) + offset_of!(Bits, value),
    settings = const offset_of!(Model, settings),
    setting_count = const Model::SETTINGS,
    setting_len = const size_of::<Setting>(),
    setting_register = const offset_of!(Setting, register),
    setting_clear = const offset_of!(Setting, clear),
    setting_set = const offset_of!(Setting, set),
    most_polls = const MOST_POLLS,
    pl011 = const index(UartKind::Pl011),
    ns16550 = const index(UartKind::Ns16550),
    cadence = const index(UartKind::Cadence),
    imx = const index(UartKind::Imx),
);
