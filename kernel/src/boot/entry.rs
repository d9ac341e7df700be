//! The entry: the Image header, the exception level, the early tables, MMU on. The instructions are
//! in `entry.S` and `secondary.S`, which get their constants here.

use core::arch::global_asm;

use linmap_platform::Affinity;
use linmap_vmsa::registers::{MAIR, tcr};
use linmap_vmsa::{Attributes, Granule, Level, leaf_type};

use crate::arch::el2_stub::HVC_RESTART;
use crate::arch::entered::Entered;
use crate::arch::layout::{
    DEFAULT, DTB_LEVEL, DTB_WINDOW, FIXMAP, GRANULE, IDENTITY, IMAGE, STACKS, WIDEST, frame, stack,
};
use crate::arch::psci;
use crate::arch::sctlr::{SCTLR_EL2_OFF, SCTLR_OFF, SCTLR_ON};
use crate::smp::boot_page;

/// HCR_EL2: EL1 is AArch64 (RW), and pointer authentication does not trap (API, APK): a CPU may
/// have it although its VHE is hidden.
const HCR_NVHE: u64 = 1 << 31 | 1 << 41 | 1 << 40;
/// The same with E2H and TGE.
const HCR_VHE: u64 = HCR_NVHE | 1 << 34 | 1 << 27;

/// TCR unless the command line asks for another VA size. `entry.S` lowers the PA size to the CPU's.
const TCR: u64 = match tcr(IDENTITY, DEFAULT, false) {
    Ok(tcr) => tcr,
    Err(_) => panic!("both halves have one granule and one PA size"),
};

/// The page size in the words of the Image header (booting.rst), the lowest bit of the granule's
/// field in ID_AA64MMFR0_EL1, and its least value with LPA2, which 64K does not have.
const PAGE_SIZE_AND_TGRAN: (u64, u32, u32) = match GRANULE {
    Granule::K4 => (1, 28, 1),
    Granule::K16 => (2, 20, 2),
    Granule::K64 => (3, 24, 0),
};

const fn page(attributes: Attributes) -> u64 {
    attributes.bits(DEFAULT) | leaf_type(Level::L3)
}

global_asm!(
    include_str!("entry.S"),
    // In the same module, because it uses the macros and `enter_el` of `entry.S`.
    include_str!("../smp/secondary.S"),
    // The page size (bits 2:1), placement anywhere (bit 3).
    image_flags = const PAGE_SIZE_AND_TGRAN.0 << 1 | 1 << 3,
    tgran_at = const PAGE_SIZE_AND_TGRAN.1,
    tgran_with_lpa2 = const PAGE_SIZE_AND_TGRAN.2,
    page = const GRANULE.bytes(),
    page_shift = const GRANULE.shift(),
    index_bits = const GRANULE.index_bits(),
    index_mask = const GRANULE.entries() - 1,
    deepest_shift = const WIDEST.shift(WIDEST.start_level()),
    identity_shift = const IDENTITY.shift(IDENTITY.start_level()),
    image = const IMAGE.0,
    fixmap = const FIXMAP.0,
    shift_1 = const WIDEST.shift(Level::L1),
    index_mask_1 = const WIDEST.entries(Level::L1) - 1,
    shift_2 = const WIDEST.shift(Level::L2),
    index_mask_2 = const WIDEST.entries(Level::L2) - 1,
    level_1_frame = const frame::LEVEL_1,
    image_has_level_2 = const frame::IMAGE_HAS_LEVEL_2 as u32,
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
    dtb_index_2 = const WIDEST.index(DTB_WINDOW, Level::L2),
    dtb_has_table = const (DTB_LEVEL.number() == Level::L3.number()) as u32,
    entered_el1 = const Entered::EL1,
    entered_el2_vhe = const Entered::EL2_VHE,
    entered_el2_stub = const Entered::EL2_STUB,
    affinity_mask = const Affinity::MASK,
    boot_entered = const boot_page::ENTERED,
    boot_pa_range = const boot_page::PA_RANGE,
    boot_tcr = const boot_page::TCR,
    boot_mte = const boot_page::MTE,
    boot_conduit = const boot_page::CONDUIT,
    boot_called = const boot_page::CALLED,
    boot_asked = const boot_page::ASKED,
    boot_answer = const boot_page::ANSWER,
    boot_image_offset = const boot_page::IMAGE_OFFSET,
    boot_pen = const boot_page::PEN,
    boot_mark = const boot_page::MARK,
    asked_number_at = const boot_page::ASKED_NUMBER_AT,
    coming = const boot_page::COMING,
    boot_status = const boot_page::STATUS,
    refused_level = const boot_page::REFUSED_LEVEL,
    refused_granule = const boot_page::REFUSED_GRANULE,
    refused_va_size = const boot_page::REFUSED_VA_SIZE,
    refused_mte = const boot_page::REFUSED_MTE,
    refused_pa_range = const boot_page::REFUSED_PA_RANGE,
    conduit_hvc = const psci::CONDUIT_HVC,
    conduit_smc = const psci::CONDUIT_SMC,
    conduit_wait = const psci::CONDUIT_WAIT,
    hvc_restart = const HVC_RESTART,
    stacks = const STACKS.0,
    stack_slot = const stack::SLOT,
    stack_top = const stack::MAIN + stack::MAIN_LEN,
    exception_stack_top = const stack::EXCEPTION + stack::EXCEPTION_LEN,
);
