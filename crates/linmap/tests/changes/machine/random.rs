//! Random numbers from a seed, so that a sequence that failed can be run again.

/// Weyl steps, mixed (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// True in `part` of 100 cases.
    pub fn percent(&mut self, part: u64) -> bool {
        self.below(100) < part
    }

    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}

/// How many random sequences a test runs: `LINMAP_SEQUENCES`, or `soak` with `LINMAP_SOAK`, or
/// `default`.
pub fn sequences(default: u64, soak: u64) -> u64 {
    let is_soak = std::env::var_os("LINMAP_SOAK").is_some_and(|value| !value.is_empty() && value != "0");
    let unset = if is_soak { soak } else { default };
    let given = std::env::var("LINMAP_SEQUENCES").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(unset)
}

/// Where random numbers begin: `LINMAP_SEED`, or the time.
pub fn seed() -> u64 {
    let given = std::env::var("LINMAP_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |now| now.as_nanos() as u64)
    })
}
