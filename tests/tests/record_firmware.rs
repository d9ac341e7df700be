//! `linmap record` of a guest that runs in flash, as firmware does: a root in flash that is smaller
//! than a page, tables that a device writes, and devices that change the map of memory.

use std::fs;
use std::process::Output;

use linmap_tests::tool;

/// Where things lie: the root in flash, the other tables and what the device is told in RAM.
const ROOT: u64 = 0x2200;
const LEVEL2: u64 = 0x4010_0000;
const LEVEL3: u64 = 0x4010_1000;
const REQUEST: u64 = 0x4010_2000;

/// A block or page of Normal memory, with the access flag.
const LEAF: u64 = 0x701;

/// Code of a guest.
#[derive(Default)]
struct Code(Vec<u32>);

impl Code {
    /// MOVZ and MOVK.
    fn set(&mut self, register: u32, value: u64) -> &mut Self {
        for half in 0..4 {
            let first = if half == 0 { 0xd280_0000 } else { 0xf280_0000 };
            let bits = (value >> (16 * half) & 0xffff) as u32;
            self.0.push(first | half << 21 | bits << 5 | register);
        }
        self
    }

    /// Stores a word.
    fn store(&mut self, at: u64, value: u64) -> &mut Self {
        // STR x1, [x2].
        self.set(1, value).set(2, at).raw(0xf900_0041)
    }

    /// MSR of a register that is S3_0_Cn_Cm_op2.
    fn msr(&mut self, [crn, crm, op2]: [u32; 3], value: u64) -> &mut Self {
        self.set(1, value).raw(0xd518_0001 | crn << 12 | crm << 8 | op2 << 5)
    }

    /// DSB SY, DSB ISHST, ISB.
    fn dsb(&mut self) -> &mut Self {
        self.raw(0xd503_3f9f)
    }

    fn published(&mut self) -> &mut Self {
        self.raw(0xd503_3a9f).raw(0xd503_3fdf)
    }

    fn raw(&mut self, word: u32) -> &mut Self {
        self.0.push(word);
        self
    }

    /// Tables of 36 bits in pages of 4 KiB, whose root is in flash, and the MMU on.
    fn mmu_on(&mut self) -> &mut Self {
        // T0SZ, IRGN0, ORGN0, SH0; T1SZ, EPD1, TG1; IPS: 40 bits.
        let tcr = 28 | 1 << 8 | 1 << 10 | 3 << 12 | 28 << 16 | 1 << 23 | 2 << 30 | 2 << 32;
        self.store(LEVEL2, 0x4000_0000 | LEAF).dsb();
        self.msr([10, 2, 0], 0xff).msr([2, 0, 2], tcr).msr([2, 0, 0], ROOT).raw(0xd503_3fdf);
        self.msr([1, 0, 0], 0x30d0_1805).raw(0xd503_3fdf)
    }

    /// Has fw_cfg store 4 KiB of what it has as the kernel (QEMU's docs/specs/fw_cfg).
    fn dma(&mut self, is_first: bool, to: u64) -> &mut Self {
        let control: u32 = if is_first { 0x11 << 16 | 0b1010 } else { 0b0010 };
        let words = u64::from(control.to_be()) | u64::from(0x1000_u32.to_be()) << 32;
        self.store(REQUEST, words).store(REQUEST + 8, to.to_be()).dsb();
        self.store(0x0902_0010, REQUEST.to_be()).dsb()
    }

    /// SYSTEM_RESET of PSCI, but not the second time.
    fn reset_once(&mut self) -> &mut Self {
        const IS_RESET: u64 = 0x4010_3000;
        let mut reset = Self::default();
        reset.store(IS_RESET, 1).set(0, 0x8400_0009).raw(0xd400_0002);
        // LDR x1, [x2]; CBNZ x1, behind all that.
        self.set(2, IS_RESET).raw(0xf940_0041).raw(0xb500_0001 | (reset.0.len() as u32 + 1) << 5);
        self.0.extend(reset.0);
        self
    }

    /// SYSTEM_OFF of PSCI.
    fn off(&mut self) -> &mut Self {
        self.set(0, 0x8400_0008).raw(0xd400_0002).raw(0x1400_0000)
    }

    /// Flash with this code and the root.
    fn flash(&self) -> Vec<u8> {
        let mut flash: Vec<u8> = self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert!(flash.len() < ROOT as usize);
        flash.resize(0x4000, 0);
        let root = [LEAF, LEVEL2 | 0b11].map(u64::to_le_bytes);
        flash[ROOT as usize..][..16].copy_from_slice(root.as_flattened());
        flash
    }

    /// A run under the recorder.
    fn record(&self, kernel: &[u8]) -> (Option<i32>, String) {
        self.record_on("virt", kernel)
    }

    /// A run on this machine.
    fn record_on(&self, machine: &str, kernel: &[u8]) -> (Option<i32>, String) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, content).expect("a file");
            path
        };
        let mut command = tool();
        command.args(["record", "--check", "--all", "--", "qemu-system-aarch64", "-display", "none"]);
        command.args("-monitor none -serial null -nic none -cpu cortex-a72 -machine".split(' '));
        command.args(machine.split(' '));
        command.arg("-bios").arg(file("flash", &self.flash()));
        command.arg("-kernel").arg(file("kernel", kernel));
        let Output { status, stdout, stderr } = command.output().expect("linmap runs");
        (status.code(), [stdout, stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat())
    }
}

#[test]
fn a_root_in_flash_that_is_smaller_than_a_page_is_followed() {
    let block = |nth: u64| (0x4000_0000 + (nth << 21)) | LEAF;
    let mut code = Code::default();
    code.mmu_on().store(LEVEL2 + 16, block(1)).published();
    let (status, said) = Code(code.0.clone()).off().record(&[]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("the guest: legal"), "{said}");
    assert!(!said.contains("not followed"), "{said}");
    assert!(said.contains("at most 2 frames") && said.contains(" 0 stores missed"), "{said}");
    // Another block where one is.
    let (status, said) = code.store(LEVEL2 + 16, block(2)).published().off().record(&[]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("output-address"), "{said}");
}

#[test]
fn what_a_device_writes_is_read_when_it_is_linked_and_is_no_missed_store() {
    // A table of pages, and then one of nothing.
    let pages = (0..512_u64).map(|nth| (0x4000_0000 + (nth << 12)) | LEAF | 0b10);
    let content: Vec<u8> = pages.chain([0; 512]).flat_map(u64::to_le_bytes).collect();
    let mut code = Code::default();
    code.mmu_on().dma(true, LEVEL3).store(LEVEL2 + 8, LEVEL3 | 0b11).published();
    let (status, said) = Code(code.0.clone()).off().record(&content);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("the guest: legal"), "{said}");
    assert!(said.contains("at most 3 frames") && said.contains(" 0 stores missed"), "{said}");
    let (status, said) = code.dma(false, LEVEL3).off().record(&content);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("a device wrote 4096 bytes at 0x40101000, which is a table"), "{said}");
    assert!(said.contains(" 0 stores missed"), "{said}");
}

#[test]
fn a_guest_that_resets_starts_anew_and_is_judged_on() {
    let block = |nth: u64| (0x4000_0000 + (nth << 21)) | LEAF;
    // The first time ends with another block than the second begins with.
    let mut code = Code::default();
    code.store(LEVEL2 + 16, block(2)).mmu_on().store(LEVEL2 + 16, 0).dsb();
    // TLBI VMALLE1.
    code.raw(0xd508_871f).dsb().store(LEVEL2 + 16, block(1)).published().reset_once();
    let (status, said) = Code(code.0.clone()).off().record(&[]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("note: the guest was reset"), "{said}");
    assert!(said.contains(" 0 stores missed"), "{said}");
    let (status, said) = code.store(LEVEL2 + 16, block(2)).published().off().record(&[]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("output-address"), "{said}");
}

#[test]
fn a_store_by_which_a_device_leaves_the_map_of_memory_is_not_looked_up() {
    // Function 0 of device 1 of bus 0, whose second BAR is of memory.
    const CONFIGURATION: u64 = 0x3f00_8000;
    const BARS: u64 = CONFIGURATION + 0x10;
    /// The command, behind the identity.
    const DECODES_MEMORY: u64 = 2 << 32;
    let mut code = Code::default();
    code.mmu_on().store(BARS, 0x1000_0000 << 32).store(CONFIGURATION, DECODES_MEMORY);
    code.store(CONFIGURATION, 0).off();
    let machine = "virt,highmem=off -device virtio-rng-pci,addr=1";
    let (status, said) = code.record_on(machine, &[]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains(" 0 stores missed"), "{said}");
}
