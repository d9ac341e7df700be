//! A payload of four instructions, which ends the machine as soon as it is entered.

/// How the payload ends the machine: a function of PSCI (DEN0022).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum PsciEnd {
    /// SYSTEM_OFF.
    Off = 0x8400_0008,
    /// SYSTEM_RESET.
    Reset = 0x8400_0009,
}

/// An arm64 Image that calls PSCI by HVC, which is the conduit of QEMU's `virt` at EL1.
pub fn tiny_payload(end: PsciEnd) -> Vec<u8> {
    let function = end as u32;
    let code = [
        0x5280_0000 | (function & 0xffff) << 5, // mov w0, #lower half
        0x72a0_0000 | (function >> 16) << 5,    // movk w0, #upper half, lsl #16
        0xd400_0002,                            // hvc #0
        0x1400_0000,                            // b .
    ];
    // The header that booting.rst describes: a branch behind it, 4 KiB in memory, anywhere.
    let mut image = vec![0; 64];
    image[..4].copy_from_slice(&0x1400_0010_u32.to_le_bytes());
    image[16..24].copy_from_slice(&0x1000_u64.to_le_bytes());
    image[24..32].copy_from_slice(&0b1010_u64.to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    image.extend(code.iter().flat_map(|instruction: &u32| instruction.to_le_bytes()));
    image
}
