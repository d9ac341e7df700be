//! The trees of which a part can't be used, and why.

/// A case: the start of the trees' names, what is found, and why.
pub struct Case {
    pub trees: &'static str,
    /// What a part of the finding says.
    pub found: &'static str,
    pub why: &'static str,
}

const fn case(trees: &'static str, found: &'static str, why: &'static str) -> Case {
    Case { trees, found, why }
}

pub const CASES: [Case; 6] = [
    case(
        "apm/apm-",
        "cpu-release-addr 0x10000fff8 lies in memory that the device tree does not reserve",
        "Linux's booting.rst asks for a reserved mailbox; a boot loader that starts CPUs reserves it",
    ),
    case(
        "broadcom/bcm2837-",
        "no GIC, but brcm,bcm2836-l1-intc",
        "its interrupt controller is Broadcom's own; linmap can't interrupt the other CPUs",
    ),
    case(
        "exynos/exynos2200-g0s.dtb",
        "has status \"fail\": it is never started",
        "the tree says that these CPUs don't work",
    ),
    case(
        "exynos/exynosautov920-sadk.dtb",
        "memory regions overlap and are merged",
        "two entries of its memory node share 1978 MiB",
    ),
    case(
        "qcom/msm8939-sony-xperia-kanuti-tulip.dtb",
        "the console's node serial@78b0000 is not enabled",
        "stdout-path names a UART that is disabled; as in Linux, the status isn't read there",
    ),
    case(
        "qcom/msm8992-lg-h815.dtb",
        "cpu-release-addr 0x0 lies in memory that the device tree does not reserve",
        "the boot loader replaces the address",
    ),
];

impl Case {
    /// The number of the case of what was found in a tree.
    pub fn number(tree: &str, found: &str) -> Option<usize> {
        CASES.iter().position(|case| tree.starts_with(case.trees) && found.contains(case.found))
    }
}
