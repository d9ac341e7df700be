//! A UART whose registers are mapped: sending, receiving, and finding out whether it is there.

use core::{ops, ptr};

use linmap_platform::{Identity, RegisterWidth, Uart};
use linmap_vmsa::Va;
use thiserror::Error;

use crate::arch::cpu;
use crate::arch::probe;
use crate::arch::uart_model::{MODELS, Model, index};

/// How long a UART may take to send what is in its FIFO, in milliseconds. 256 bytes take 270 ms at
/// 9600 baud.
const PATIENCE: u64 = 1000;
/// How often a UART is asked at most, for machines whose counter stands still. That many reads of a
/// device take a second or longer.
pub const MOST_POLLS: u32 = 1 << 24;

/// The identification registers of a PrimeCell, a byte in each of eight words, at the end of its
/// page (PL011 TRM, 3.3.15 and 3.3.16): UARTPeriphID0 to 3 and UARTPCellID0 to 3.
const IDENTIFICATION: ops::Range<u32> = 0xfe0..0x1000;
/// The part number and the designer, Arm, of a PL011. The bits above are its revision.
const PL011_ID: u32 = 0x4_1011;
const PL011_ID_MASK: u32 = 0xf_ffff;
const PRIME_CELL_ID: u32 = 0xb105_f00d;

/// Why a UART can't be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum AbsentUart {
    /// The machine has nothing there.
    #[error("reading its register at offset {offset:#x} aborts (ESR {esr:#x})")]
    Aborts {
        /// The offset of the register.
        offset: u32,
        /// The syndrome.
        esr: u64,
    },
    /// The identification registers are not a PL011's.
    #[error("it is not a PL011: its identification registers are {peripheral:#x} and {component:#x}")]
    OtherIdentity {
        /// UARTPeriphID.
        peripheral: u32,
        /// UARTPCellID.
        component: u32,
    },
    /// The status is one that no UART of its kind has.
    #[error("its status {status:#x} is not a UART's")]
    Contradiction {
        /// The status register.
        status: u32,
    },
    /// The bytes in its FIFO are never sent.
    #[error("its transmitter was not empty within {PATIENCE} ms; its status is {status:#x}")]
    NeverDrains {
        /// The status register.
        status: u32,
    },
}

/// A UART whose registers are mapped.
#[derive(Clone, Copy, Debug)]
pub struct MappedUart {
    base: usize,
    shift: u8,
    width: RegisterWidth,
    /// The place of its model in [`MODELS`].
    model: usize,
}

impl MappedUart {
    /// The length in bytes of the registers of `uart`, up to the last that is used.
    pub fn registers_len(uart: Uart) -> u64 {
        (u64::from(MODELS[index(uart.kind)].last) << uart.shift) + u64::from(uart.width.bytes())
    }

    /// The UART `uart`, whose registers are mapped at `registers`.
    ///
    /// # Safety
    /// As long as the value is used, the [`registers_len`](Self::registers_len) bytes are mapped
    /// there as device memory, aligned to the width, and for an [`Identity::InRegisters`] the whole
    /// page.
    pub unsafe fn new(registers: ptr::NonNull<u64>, uart: Uart) -> Self {
        let base = registers.as_ptr().expose_provenance();
        Self { base, shift: uart.shift, width: uart.width, model: index(uart.kind) }
    }

    /// The value as two words, for atomic variables. The first, the address, is never 0.
    pub fn to_words(self) -> (usize, usize) {
        (self.base, self.model << 16 | usize::from(self.width.log2()) << 8 | usize::from(self.shift))
    }

    /// The value from its words.
    ///
    /// # Safety
    /// They are those of a value that may still be used.
    pub unsafe fn from_words((base, form): (usize, usize)) -> Self {
        let width = match form >> 8 & 0xff {
            0 => RegisterWidth::Byte,
            1 => RegisterWidth::HalfWord,
            _ => RegisterWidth::Word,
        };
        Self { base, shift: form as u8, width, model: form >> 16 }
    }

    fn model(self) -> &'static Model {
        &MODELS[self.model]
    }

    /// Checks, by loads alone, that the machine has the UART. A store to another device could do
    /// harm, and where nothing is it may cause an asynchronous abort.
    ///
    /// # Errors
    /// [`AbsentUart`].
    pub fn probe(self, identity: Identity) -> Result<(), AbsentUart> {
        if identity == Identity::InRegisters {
            self.identify()?;
        }
        let status = self.probe_status()?;
        if self.model().contradictions.iter().any(|bits| status & bits == *bits) {
            return Err(AbsentUart::Contradiction { status });
        }
        // Where bits read as zeros, it is here that the UART turns out to be absent.
        if poll(|| self.model().drained.are_in(self.read(self.model().status))) {
            Ok(())
        } else {
            Err(AbsentUart::NeverDrains { status: self.read(self.model().status) })
        }
    }

    fn probe_status(self) -> Result<u32, AbsentUart> {
        self.probe_register(self.model().status)
    }

    fn probe_register(self, register: u32) -> Result<u32, AbsentUart> {
        let offset = register << self.shift;
        let va = Va((self.base + offset as usize) as u64);
        // SAFETY: the promise of `new`'s caller. No model has a register that a load changes,
        // besides the errors of received bytes in a 16550's status.
        unsafe { probe::load_register(va, self.width) }
            .map_err(|fault| AbsentUart::Aborts { offset, esr: fault.esr })
    }

    fn identify(self) -> Result<(), AbsentUart> {
        let mut bytes = [0; 8];
        for (byte, offset) in bytes.iter_mut().zip(IDENTIFICATION.step_by(4)) {
            *byte = self.probe_register(offset)? as u8;
        }
        let [p0, p1, p2, p3, c0, c1, c2, c3] = bytes;
        let peripheral = u32::from_le_bytes([p0, p1, p2, p3]);
        let component = u32::from_le_bytes([c0, c1, c2, c3]);
        if peripheral & PL011_ID_MASK == PL011_ID && component == PRIME_CELL_ID {
            Ok(())
        } else {
            Err(AbsentUart::OtherIdentity { peripheral, component })
        }
    }

    /// Turns the transmitter and the receiver on if the firmware has not. The line's speed stays as
    /// it was.
    pub fn turn_on(self) {
        if self.model().enabled.are_in(self.read(self.model().control)) {
            return;
        }
        for setting in self.model().settings.iter().filter(|setting| setting.set != 0) {
            self.write(setting.register, self.read(setting.register) & !setting.clear | setting.set);
        }
    }

    /// Waits until the transmitter takes a byte. Returns whether it does.
    pub fn wait_for_room(self) -> bool {
        poll(|| self.has_room())
    }

    /// Whether the transmitter takes a byte.
    pub fn has_room(self) -> bool {
        !self.model().full.are_in(self.read(self.model().status))
    }

    /// Sends a byte. The transmitter has to have room.
    pub fn send(self, byte: u8) {
        self.write(self.model().transmit, byte.into());
    }

    /// The next byte that was received.
    pub fn received(self) -> Option<u8> {
        let nothing = self.model().nothing_received.are_in(self.read(self.model().status));
        (!nothing).then(|| self.read(self.model().receive) as u8)
    }

    fn register<T>(self, number: u32) -> *mut T {
        ptr::with_exposed_provenance_mut(self.base + ((number as usize) << self.shift))
    }

    fn read(self, number: u32) -> u32 {
        // SAFETY: the promise of `new`'s caller.
        unsafe {
            match self.width {
                RegisterWidth::Byte => self.register::<u8>(number).read_volatile().into(),
                RegisterWidth::HalfWord => self.register::<u16>(number).read_volatile().into(),
                RegisterWidth::Word => self.register::<u32>(number).read_volatile(),
            }
        }
    }

    fn write(self, number: u32, value: u32) {
        // SAFETY: the promise of `new`'s caller.
        unsafe {
            match self.width {
                RegisterWidth::Byte => self.register::<u8>(number).write_volatile(value as u8),
                RegisterWidth::HalfWord => self.register::<u16>(number).write_volatile(value as u16),
                RegisterWidth::Word => self.register::<u32>(number).write_volatile(value),
            }
        }
    }
}

/// Waits until `done`, for a limited time. Returns whether it was done.
fn poll(mut done: impl FnMut() -> bool) -> bool {
    if done() {
        return true;
    }
    let started = cpu::counter();
    let patience = cpu::ticks_of_milliseconds(PATIENCE);
    for _ in 0..MOST_POLLS {
        if done() {
            return true;
        }
        if cpu::ticks_since(started) > patience {
            break;
        }
    }
    done()
}
