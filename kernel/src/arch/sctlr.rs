//! Values of the system control registers.

/// SCTLR_EL1 with MMU and caches off: the bits that are RES1 without later features (LSMAOE,
/// nTLSMD, SPAN, EIS, TSCXT, EOS; Arm ARM D24.2).
pub const SCTLR_OFF: u64 = 1 << 29 | 1 << 28 | 1 << 23 | 1 << 22 | 1 << 20 | 1 << 11;
/// SCTLR_EL1 with M, C and I, stack alignment checks, and WXN: writable memory is never executable.
pub const SCTLR_ON: u64 = SCTLR_OFF | 1 | 1 << 2 | 1 << 3 | 1 << 12 | 1 << 19;
/// SCTLR_EL2 without VHE, MMU and caches off: its RES1 bits.
pub const SCTLR_EL2_OFF: u64 =
    1 << 29 | 1 << 28 | 1 << 23 | 1 << 22 | 1 << 18 | 1 << 16 | 1 << 11 | 1 << 5 | 1 << 4;
