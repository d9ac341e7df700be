//! Whether a dump translates as the walker of QEMU does, which is not ours.

use serde_json::Value;

use crate::running_guest::RunningGuest;

/// The addresses from `va` on that a dump says something of.
struct Run {
    va: u64,
    last: u64,
    /// Where the first of them leads, for a CPU that may read it.
    pa: Option<u64>,
}

/// What a dump says of the trees that a CPU uses.
pub struct Translations {
    runs: Vec<Run>,
    /// The first address of each tree, and its bits.
    halves: Vec<(u64, u32)>,
}

/// The number that a dump writes as `0x…`.
///
/// # Panics
/// When it is none.
#[track_caller]
pub fn address(value: &Value) -> u64 {
    let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
    let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    number.unwrap_or_else(|| panic!("{value} is no address"))
}

impl Translations {
    /// Those of `dump`, for a CPU that may read memory of user space or not.
    ///
    /// # Panics
    /// When `dump` is none.
    pub fn of(dump: &Value, reads_user_memory: bool) -> Self {
        let (mut runs, mut halves) = (Vec::new(), Vec::new());
        for root in dump["roots"].as_array().expect("roots") {
            assert_eq!(root["complete"], true, "{}", root["register"]);
            let bits = root["va_bits"].as_u64().expect("bits") as u32;
            halves.push((address(&root["first"]), bits));
            for run in root["runs"].as_array().expect("runs") {
                let va = address(&run["va"]);
                let last = va + (run["bytes"].as_u64().expect("bytes") - 1);
                let access = run["attributes"]["access"].as_str().unwrap_or_default();
                let is_readable = reads_user_memory || !access.contains("USR");
                let pa = run.get("pa").filter(|_| is_readable).map(address);
                runs.push(Run { va, last, pa });
            }
        }
        runs.sort_by_key(|run| run.va);
        Self { runs, halves }
    }

    fn translate(&self, va: u64) -> Option<u64> {
        let nth = self.runs.partition_point(|run| run.va <= va).checked_sub(1)?;
        let run = self.runs.get(nth).filter(|run| va <= run.last)?;
        run.pa.map(|pa| pa + (va - run.va))
    }

    /// An address: within a run, at its edges, or anywhere.
    fn address(&self, random: &mut Random) -> u64 {
        let run = &self.runs[random.below(self.runs.len() as u64) as usize];
        match random.below(8) {
            0..4 => run.va + random.below((run.last - run.va).saturating_add(1)),
            4 => run.va.wrapping_sub(1),
            5 => run.last.wrapping_add(1),
            6 => run.last,
            _ => {
                let (first, bits) = self.halves[random.below(self.halves.len() as u64) as usize];
                let bits = u64::from(bits) - random.below(20);
                first + random.below(1 << bits)
            }
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ value >> 31) % bound.max(1)
    }
}

/// Asks QEMU for `count` addresses of a guest that is stopped at `el`, and compares each with the
/// dump of its trees.
///
/// # Panics
/// When one differs, or almost none is mapped.
#[track_caller]
pub fn agree_with_qemu(guest: &mut RunningGuest, el: u8, count: usize) {
    let dump = guest.dump_json(&["--regime", &format!("el{el}"), "--keep-stopped"]);
    let registers = guest.monitor(["info registers".to_owned()]).remove(0);
    let pstate = registers.split("PSTATE=").nth(1).and_then(|text| text.get(..8)).expect("PSTATE");
    let pstate = u32::from_str_radix(pstate, 16).expect("PSTATE");
    assert_eq!(u32::from(el), pstate >> 2 & 0b11, "{registers}");
    // PSTATE.PAN.
    let translations = Translations::of(&dump, pstate >> 22 & 1 == 0);
    let mut random = Random(count as u64);
    let addresses: Vec<_> = (0..count).map(|_| translations.address(&mut random)).collect();
    let said = guest.monitor(addresses.iter().map(|va| format!("gva2gpa {va:#x}")));
    let mut mapped = 0;
    for (&va, said) in addresses.iter().zip(&said) {
        let said = said.trim();
        let qemu = said
            .strip_prefix("gpa: ")
            .map(|digits| u64::from_str_radix(digits.trim_start_matches("0x"), 16).expect("an address"));
        assert!(qemu.is_some() || said == "Unmapped", "{va:#x}: {said:?}");
        let ours = translations.translate(va);
        assert_eq!(ours, qemu, "{va:#x}: ours {ours:x?}, QEMU's {qemu:x?}");
        mapped += usize::from(qemu.is_some());
    }
    assert!((count / 4..count).contains(&mapped), "{mapped} of {count} are mapped");
}
