//! The registers of each kind of UART, as data: `refuse.S` reads them before there is a stack, and
//! from any address, so they contain no pointers.

use linmap_platform::UartKind;

/// What bits of a register hold: `register & mask == value`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Bits {
    /// Which bits.
    pub mask: u32,
    /// Their value.
    pub value: u32,
}

impl Bits {
    /// Whether these bits of `register` have the value.
    pub fn are_in(self, register: u32) -> bool {
        register & self.mask == self.value
    }
}

/// A change of a register.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Setting {
    /// Which register.
    pub register: u32,
    /// The bits that become 0.
    pub clear: u32,
    /// The bits that become 1.
    pub set: u32,
}

/// The registers of a kind of UART, by number: what a polled transmitter and receiver use. All but
/// the 16550's are numbered by their offsets in bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Model {
    /// The register that the next four fields are about.
    pub status: u32,
    /// The transmitter takes no byte now.
    pub full: Bits,
    /// All bytes have left the FIFO.
    pub drained: Bits,
    /// No byte has been received.
    pub nothing_received: Bits,
    /// Bits that no UART of this kind has all set at the same time.
    pub contradictions: [u32; 2],
    /// Takes the byte to send.
    pub transmit: u32,
    /// Holds the byte received.
    pub receive: u32,
    /// The register that says whether the transmitter is on.
    pub control: u32,
    /// The transmitter is on. Always so where there is no switch.
    pub enabled: Bits,
    /// What turns the transmitter and the receiver on, in this order.
    pub settings: [Setting; Self::SETTINGS],
    /// The highest register above.
    pub last: u32,
}

impl Model {
    /// How many settings there are. One that sets no bits is ignored.
    pub const SETTINGS: usize = 2;
}

const fn set(mask: u32) -> Bits {
    Bits { mask, value: mask }
}

const fn clear(mask: u32) -> Bits {
    Bits { mask, value: 0 }
}

const NO_SETTINGS: [Setting; Model::SETTINGS] = [Setting { register: 0, clear: 0, set: 0 }; Model::SETTINGS];

/// PrimeCell UART PL011 TRM, chapter 3.
const PL011: Model = Model {
    status: 0x18,                  // UARTFR
    full: set(1 << 5),             // TXFF
    drained: set(1 << 7),          // TXFE
    nothing_received: set(1 << 4), // RXFE
    contradictions: [0b1010 << 4, 0b0101 << 4],
    transmit: 0,
    receive: 0,
    control: 0x30,   // UARTCR
    enabled: set(1), // UARTEN
    settings: [
        // UARTLCR_H: eight bits a character (WLEN), FIFOs on (FEN).
        Setting { register: 0x2c, clear: 0, set: 0b11 << 5 | 1 << 4 },
        // RXE, TXE, UARTEN.
        Setting { register: 0x30, clear: 0, set: 0b11 << 8 | 1 },
    ],
    last: 0x30,
};

/// Arm Base System Architecture, generic UART: of a PL011, the registers that move data.
const SBSA: Model = Model { control: 0x18, enabled: clear(0), settings: NO_SETTINGS, last: 0x18, ..PL011 };

/// PC16550D data sheet, section 8.
const NS16550: Model = Model {
    status: 5,           // LSR
    full: clear(1 << 5), // THRE: with FIFOs the whole FIFO is empty
    drained: set(1 << 5),
    nothing_received: clear(1), // DR
    // What a bus without a device reads as.
    contradictions: [0xff, 0xff],
    transmit: 0,
    receive: 0,
    control: 5,
    enabled: clear(0),
    settings: NO_SETTINGS,
    last: 5,
};

/// Zynq UltraScale+ registers (UG1087), module UART.
const CADENCE: Model = Model {
    status: 0x2c,                  // Channel_sts
    full: set(1 << 4),             // TFUL
    drained: set(1 << 3),          // TEMPTY
    nothing_received: set(1 << 1), // REMPTY
    contradictions: [0b11 << 3, 0b11 << 1],
    transmit: 0x30,
    receive: 0x30,
    control: 0,                                       // Control
    enabled: Bits { mask: 0b11 << 4, value: 1 << 4 }, // TXEN without TXDIS
    settings: [Setting { register: 0, clear: 1 << 5 | 1 << 3, set: 1 << 4 | 1 << 2 }, NO_SETTINGS[0]],
    last: 0x30,
};

/// i.MX 8M Plus reference manual, chapter UART.
const IMX: Model = Model {
    status: 0xb4,                  // UTS
    full: set(1 << 4),             // TXFULL
    drained: set(1 << 6),          // TXEMPTY
    nothing_received: set(1 << 5), // RXEMPTY
    contradictions: [0b101 << 4, 0b101 << 3],
    transmit: 0x40,       // UTXD
    receive: 0,           // URXD
    control: 0x84,        // UCR2
    enabled: set(1 << 2), // TXEN
    settings: [
        // UCR1: UARTEN.
        Setting { register: 0x80, clear: 0, set: 1 },
        // UCR2: RTS ignored (IRTS), eight bits a character (WS), TXEN, RXEN, no reset (SRST).
        Setting { register: 0x84, clear: 0, set: 1 << 14 | 1 << 5 | 0b111 },
    ],
    last: 0xb4,
};

/// The models. Near the entry, so that PC-relative addressing reaches them.
#[unsafe(link_section = ".head.rodata")]
pub static MODELS: [Model; 5] = [PL011, SBSA, NS16550, CADENCE, IMX];

/// The place of a kind's model in [`MODELS`].
pub const fn index(kind: UartKind) -> usize {
    match kind {
        UartKind::Pl011 => 0,
        UartKind::Sbsa => 1,
        UartKind::Ns16550 => 2,
        UartKind::Cadence => 3,
        UartKind::Imx => 4,
    }
}
