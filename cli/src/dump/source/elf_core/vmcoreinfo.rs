//! VMCOREINFO: what a kernel says of itself to those who read its memory
//! (admin-guide/kdump/vmcoreinfo).

use std::collections::BTreeMap;

use linmap_vmsa::{Geometry, GeometryError, Granule, Pa, Va};
use thiserror::Error;

/// Where the kernel's tables are, by VMCOREINFO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KernelRoot {
    /// How they are walked.
    pub geometry: Geometry,
    /// The root table.
    pub table: Pa,
    /// The first address of the upper half.
    pub first: Va,
}

/// Why VMCOREINFO doesn't lead to the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum InfoError {
    /// A line is missing.
    #[error("VMCOREINFO has no {key}")]
    Missing {
        /// What its line begins with.
        key: &'static str,
    },
    /// A value is not a number.
    #[error("{key} of VMCOREINFO is not a number")]
    NotANumber {
        /// What its line begins with.
        key: &'static str,
    },
    /// Not 4, 16 or 64 KiB.
    #[error("PAGESIZE of VMCOREINFO is {bytes}, and arm64 has 4096, 16384 and 65536")]
    PageSize {
        /// The size.
        bytes: u64,
    },
    /// No size of virtual addresses.
    #[error("the size of virtual addresses by VMCOREINFO: {0}")]
    Size(GeometryError),
}

impl KernelRoot {
    /// What `text` says.
    ///
    /// # Errors
    /// Every [`InfoError`].
    pub fn read(text: &str) -> Result<Self, InfoError> {
        let lines: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let number = |key: &'static str, radix: u32| -> Result<Option<u64>, InfoError> {
            let Some(value) = lines.get(key) else { return Ok(None) };
            let value = value.trim();
            let parsed = match value.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16),
                None => u64::from_str_radix(value, radix),
            };
            parsed.map(Some).map_err(|_| InfoError::NotANumber { key })
        };
        let needed = |key, radix| number(key, radix)?.ok_or(InfoError::Missing { key });
        let granule = match needed("PAGESIZE", 10)? {
            0x1000 => Granule::K4,
            0x4000 => Granule::K16,
            0x1_0000 => Granule::K64,
            bytes => return Err(InfoError::PageSize { bytes }),
        };
        // VA_BITS is what the kernel was built for. Since 5.8 T1SZ says what the CPU has.
        let built_for = number("NUMBER(VA_BITS)", 10)?;
        let va_bits = match number("NUMBER(TCR_EL1_T1SZ)", 16)? {
            Some(t1sz) => 64u64.saturating_sub(t1sz),
            None => built_for.ok_or(InfoError::Missing { key: "NUMBER(VA_BITS)" })?,
        };
        let va_bits = u8::try_from(va_bits).unwrap_or(u8::MAX);
        // More than 48 bits are LPA2 with 4K and 16K; 64K reaches 52 bits of PA without.
        let pa_bits = if va_bits > 48 || granule == Granule::K64 { 52 } else { 48 };
        let geometry = Geometry::new(granule, va_bits, pa_bits).map_err(InfoError::Size)?;
        let root = needed("SYMBOL(swapper_pg_dir)", 16)?;
        let table = if root >> (va_bits - 1) & 1 == 0 {
            // The lower part of the upper half is the linear map.
            let linear = root & ((1 << va_bits) - 1);
            linear.wrapping_add(needed("NUMBER(PHYS_OFFSET)", 16)?)
        } else {
            root.wrapping_sub(needed("NUMBER(kimage_voffset)", 16)?)
        };
        // A kernel of 64 KiB pages that was built for 52 bits uses the last part of its root on a
        // CPU with 48: that part has the same indices.
        let is_part = granule == Granule::K64 && built_for == Some(52) && va_bits == 48;
        let unused = if is_part { ((1 << (52 - 42)) - (1 << (48 - 42))) * 8 } else { 0 };
        Ok(Self { geometry, table: Pa(table.wrapping_add(unused)), first: Va(u64::MAX << va_bits) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Of Linux 6.12, shortened.
    const LINUX: &str = "OSRELEASE=6.12.95\nPAGESIZE=4096\nSYMBOL(init_uts_ns)=ffffb1a2c2c4d0c8\n\
        SYMBOL(swapper_pg_dir)=ffffb1a2c1f8c000\nNUMBER(VA_BITS)=48\nNUMBER(MODULES_VADDR)=0xffff8000\n\
        NUMBER(kimage_voffset)=0xffffb1a280000000\nNUMBER(PHYS_OFFSET)=0xffffd63b00000000\n\
        NUMBER(TCR_EL1_T1SZ)=0x10\nKERNELOFFSET=31a240000000\n";

    #[test]
    fn the_root_of_a_kernel_lies_where_its_image_does() {
        let root = KernelRoot::read(LINUX).unwrap();
        assert_eq!((root.geometry, root.table), (Geometry::K4_48, Pa(0x41f8_c000)));
        assert_eq!(root.first, Va(0xffff_0000_0000_0000));
    }

    #[test]
    fn the_sizes_are_those_of_the_cpu() {
        let of = |from: &str, to: &str| KernelRoot::read(&LINUX.replace(from, to));
        let wide = of("T1SZ)=0x10", "T1SZ)=0xc").unwrap().geometry;
        assert_eq!((wide.va_bits(), wide.lpa2()), (52, true));
        let old = of("NUMBER(TCR_EL1_T1SZ)=0x10\n", "").unwrap();
        assert_eq!(old.geometry, Geometry::K4_48);
        let built = LINUX.replace("VA_BITS)=48", "VA_BITS)=52").replace("=4096", "=65536");
        let k64 = KernelRoot::read(&built).unwrap();
        assert_eq!((k64.geometry.va_bits(), k64.table), (48, Pa(0x41f8_de00)));
        let k64 = KernelRoot::read(&built.replace("T1SZ)=0x10", "T1SZ)=0xc")).unwrap();
        assert_eq!((k64.geometry.va_bits(), k64.table), (52, Pa(0x41f8_c000)));
        assert!(!k64.geometry.lpa2());
    }

    #[test]
    fn a_root_in_the_linear_map_is_where_memory_begins_and_that_far_behind() {
        let text = "PAGESIZE=16384\nNUMBER(VA_BITS)=47\nNUMBER(PHYS_OFFSET)=0x40000000\n\
                    SYMBOL(swapper_pg_dir)=ffff800001234000\n";
        assert_eq!(KernelRoot::read(text).unwrap().table, Pa(0x4123_4000));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let of = |from: &str, to: &str| KernelRoot::read(&LINUX.replace(from, to)).unwrap_err();
        assert_eq!(of("PAGESIZE", "X"), InfoError::Missing { key: "PAGESIZE" });
        assert_eq!(of("4096", "8192"), InfoError::PageSize { bytes: 8192 });
        let key = "SYMBOL(swapper_pg_dir)";
        assert_eq!(of("SYMBOL(swapper_pg_dir)", "SYMBOL(x)"), InfoError::Missing { key });
        assert_eq!(of("ffffb1a2c1f8c000", "root"), InfoError::NotANumber { key });
        assert_eq!(of("T1SZ)=0x10", "T1SZ)=0x40"), InfoError::Size(GeometryError::VaBits { bits: 0 }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn any_text_ends(
            cut in 0..LINUX.len(),
            mutations in prop::collection::vec((0..LINUX.len(), "[0-9a-fx=\n\u{e9}]"), 0..12),
        ) {
            let mut text = LINUX.to_owned();
            for (at, with) in mutations {
                if text.is_char_boundary(at) && text.is_char_boundary(at + 1) && at < text.len() {
                    text.replace_range(at..=at, &with);
                }
            }
            let _ = KernelRoot::read(&text);
            let _ = KernelRoot::read(&LINUX[..cut]);
        }
    }
}
