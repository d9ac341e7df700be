//! The way in: the Image header, the exception level, the early tables, MMU on. The instructions are in `entry.S`,
//! `secondary.S` and `el2_stub.S`; their constants come from here.

use core::arch::global_asm;
use core::ptr::{self, NonNull};

use linmap_platform::Affinity;
use linmap_vmsa::registers::{MAIR, tcr};
use linmap_vmsa::{Attributes, Geometry, Level, Pa, PaRange, Va, leaf_type};

use crate::memory::layout::{self, stack};
use crate::smp::secondary;

const G: Geometry = layout::GEOMETRY;

/// How the boot loader entered us, and where we run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entered {
    /// At EL1, where we stay.
    El1,
    /// At EL2 with VHE, where we stay, E2H and TGE set.
    El2Vhe,
    /// At EL2 without VHE; we run at EL1 and a stub is left at EL2.
    El2Stub,
}

impl Entered {
    /// The value that `entry.S` passes on.
    pub fn from_code(code: u64) -> Self {
        match code {
            ENTERED_EL2_VHE => Self::El2Vhe,
            ENTERED_EL2_STUB => Self::El2Stub,
            _ => Self::El1,
        }
    }

    /// The value that `entry.S` has for it.
    pub fn code(self) -> u64 {
        match self {
            Self::El1 => ENTERED_EL1,
            Self::El2Vhe => ENTERED_EL2_VHE,
            Self::El2Stub => ENTERED_EL2_STUB,
        }
    }

    /// The exception level of the entry, which the next kernel gets too.
    pub fn el(self) -> u8 {
        match self {
            Self::El1 => 1,
            Self::El2Vhe | Self::El2Stub => 2,
        }
    }
}

const ENTERED_EL1: u64 = 1;
const ENTERED_EL2_VHE: u64 = 2;
const ENTERED_EL2_STUB: u64 = 3;

/// HVC number of the EL2 stub's restart of a payload.
pub const HVC_RESTART: u64 = 0x4c4;
/// HVC number of the EL2 stub's move to another place.
pub const HVC_SET_VECTORS: u64 = 0x4c5;

/// SCTLR_EL1 with MMU and caches off: the bits that are RES1 without later features (LSMAOE, nTLSMD, SPAN, EIS, TSCXT,
/// EOS; Arm ARM D24.2).
pub const SCTLR_OFF: u64 = 1 << 29 | 1 << 28 | 1 << 23 | 1 << 22 | 1 << 20 | 1 << 11;
/// SCTLR_EL1 with M, C and I, stack alignment checks, and WXN: what is writable is never executable.
const SCTLR_ON: u64 = SCTLR_OFF | 1 | 1 << 2 | 1 << 3 | 1 << 12 | 1 << 19;
/// SCTLR_EL2 without VHE, MMU and caches off: its RES1 bits.
const SCTLR_EL2_OFF: u64 =
    1 << 29 | 1 << 28 | 1 << 23 | 1 << 22 | 1 << 18 | 1 << 16 | 1 << 11 | 1 << 5 | 1 << 4;
/// HCR_EL2: EL1 is AArch64 (RW), and pointer authentication does not trap (API, APK), should a CPU whose VHE is hidden
/// have it.
const HCR_NVHE: u64 = 1 << 31 | 1 << 41 | 1 << 40;
/// The same with E2H and TGE.
const HCR_VHE: u64 = HCR_NVHE | 1 << 34 | 1 << 27;

/// TCR without the PA size, which `entry.S` takes from the CPU.
const TCR: u64 = tcr(G, G, false) & !(0b111 << 32);

const fn page(attributes: Attributes) -> u64 {
    attributes.bits(G) | leaf_type(Level::L3)
}

global_asm!(
    include_str!("entry.S"),
    // In the same piece, because it uses the macros and `enter_el` of the first.
    include_str!("../smp/secondary.S"),
    // 4K pages (bits 2:1 = 1), placement anywhere (bit 3).
    image_flags = const 0b1010,
    tcr = const TCR,
    mair = const MAIR,
    sctlr_on = const SCTLR_ON,
    sctlr_off = const SCTLR_OFF,
    sctlr_el2_off = const SCTLR_EL2_OFF,
    hcr_vhe = const HCR_VHE,
    hcr_nvhe = const HCR_NVHE,
    text_page = const page(Attributes::KERNEL_TEXT),
    rodata_page = const page(Attributes::KERNEL_RODATA),
    data_page = const page(Attributes::KERNEL_DATA),
    image_index_0 = const G.index(layout::IMAGE, Level::L0),
    image_index_1 = const G.index(layout::IMAGE, Level::L1),
    image_index_2 = const G.index(layout::IMAGE, Level::L2),
    fixmap_index_2 = const G.index(layout::FIXMAP, Level::L2),
    entered_el1 = const ENTERED_EL1,
    entered_el2_vhe = const ENTERED_EL2_VHE,
    entered_el2_stub = const ENTERED_EL2_STUB,
    affinity_mask = const Affinity::MASK,
    boot_entered = const secondary::BOOT_ENTERED,
    boot_pa_range = const secondary::BOOT_PA_RANGE,
    boot_conduit = const secondary::BOOT_CONDUIT,
    boot_called = const secondary::BOOT_CALLED,
    boot_asked = const secondary::BOOT_ASKED,
    boot_answer = const secondary::BOOT_ANSWER,
    boot_pen = const secondary::BOOT_PEN,
    boot_mark = const secondary::BOOT_MARK,
    asked_number_at = const secondary::ASKED_NUMBER_AT,
    coming = const secondary::COMING,
    boot_status = const secondary::BOOT_STATUS,
    refused_level = const secondary::REFUSED_LEVEL,
    refused_granule = const secondary::REFUSED_GRANULE,
    refused_pa_range = const secondary::REFUSED_PA_RANGE,
    conduit_hvc = const secondary::CONDUIT_HVC,
    conduit_smc = const secondary::CONDUIT_SMC,
    conduit_wait = const secondary::CONDUIT_WAIT,
    hvc_restart = const HVC_RESTART,
    stacks = const layout::STACKS.0,
    stack_slot = const stack::SLOT,
    stack_top = const stack::MAIN + stack::MAIN_LEN,
    exception_stack_top = const stack::EXCEPTION + stack::EXCEPTION_LEN,
);

global_asm!(
    include_str!("el2_stub.S"),
    hvc_restart = const HVC_RESTART,
    hvc_set_vectors = const HVC_SET_VECTORS
);

unsafe extern "C" {
    static el2_stub_vectors: u8;
    static __image_start: u8;
    static __image_end: u8;
    static __rodata_end: u8;
    static __idmap_tables: u8;
    static __swapper: u8;
    static __reserved_table: u8;
    static __stack_guard: u8;
    static __exception_stack_guard: u8;
}

/// Where the image lies: physical addresses of its parts.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    start: Pa,
}

impl Image {
    /// The image that was loaded at `start`.
    pub fn at(start: Pa) -> Self {
        assert_eq!(&raw const __image_start as u64, layout::IMAGE.0, "linker script and layout disagree");
        Self { start }
    }

    /// Where an address of the image is in memory.
    pub fn physical(self, symbol: *const u8) -> Pa {
        Pa(symbol as u64 - layout::IMAGE.0 + self.start.0)
    }

    /// All of the image, the zeroed part included; whole pages.
    pub fn range(self) -> PaRange {
        PaRange::new(self.start, self.physical(&raw const __image_end))
    }

    /// The root table of the kernel's half.
    pub fn swapper(self) -> Pa {
        self.physical(&raw const __swapper)
    }

    /// Text and read-only data, whole pages.
    pub fn read_only(self) -> PaRange {
        PaRange::new(self.start, self.physical(&raw const __rodata_end))
    }

    /// The root table of the early identity map, of the code that switches tables and little else.
    pub fn identity_map(self) -> Pa {
        self.physical(&raw const __idmap_tables)
    }

    /// An empty table for a TTBR that is to translate nothing.
    pub fn reserved_table(self) -> Pa {
        self.physical(&raw const __reserved_table)
    }
}

/// The address of a table in the image, `frames` frames after the symbol `first`. The tables are memory of the linker
/// script, of which Rust knows a symbol and no size, so the address is all that is taken from it.
fn table(first: *const u8, frames: usize) -> NonNull<u64> {
    let address = first.expose_provenance() + frames * G.granule().bytes() as usize;
    // SAFETY: the image is linked into the upper half of the address space, far from address 0.
    unsafe { NonNull::new_unchecked(ptr::with_exposed_provenance_mut(address)) }
}

/// The entry of the live level-2 table that `va`, an address in the 1 GiB of the image, goes through.
pub fn level_2_entry(va: Va) -> NonNull<u64> {
    // SAFETY: an index is below the number of entries of the table.
    unsafe { table(&raw const __swapper, 2).add(G.index(va, Level::L2)) }
}

/// The entry of the identity map's table of pages for `va`, an address in the 2 MiB of the image.
pub fn identity_page(va: Va) -> NonNull<u64> {
    // SAFETY: an index is below the number of entries of the table.
    unsafe { table(&raw const __idmap_tables, 3).add(G.index(va, Level::L3)) }
}

/// The fixmap's live table of pages.
pub fn fixmap_table() -> NonNull<u64> {
    table(&raw const __swapper, 4)
}

/// The pages that are mapped nowhere in the image, below each of the boot CPU's stacks.
pub fn guards() -> [Va; 2] {
    [&raw const __stack_guard, &raw const __exception_stack_guard]
        .map(|guard| Va(guard.expose_provenance() as u64))
}

/// The EL2 stub's vectors, position independent.
pub fn el2_stub() -> &'static [u8] {
    // SAFETY: sixteen vectors of 128 bytes of the image's text, which is readable.
    unsafe { core::slice::from_raw_parts(&raw const el2_stub_vectors, 0x800) }
}
