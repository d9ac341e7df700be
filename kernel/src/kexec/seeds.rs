//! Random numbers for the next kernel. Those of our own device tree are not passed on: this kernel
//! may have used them.

use linmap::KaslrSeed;
use linmap_fdt::Fdt;
use linmap_kexec::Seeds;
use linmap_relocate::{BLOCK, Digest, Sha256};

use crate::arch::cpu;

/// How many blocks each seed is made of: two for the tree's seeds, one for the CPU's random
/// numbers, one for the time.
const BLOCKS: usize = 4;

#[repr(C, align(16))]
struct Pool([u8; BLOCKS * BLOCK as usize]);

/// Makes new seeds from those in the tree, from `used`, which was in the tree until this kernel
/// overwrote it, from the CPU's random numbers (FEAT_RNG) and from the time. If neither the tree
/// nor the CPU has any, the result would be predictable, so there are no seeds.
pub fn new(fdt: Fdt<'_>, used: Option<KaslrSeed>) -> Seeds {
    let mut pool = Pool([0; BLOCKS * BLOCK as usize]);
    let (from_tree, rest) = pool.0.split_at_mut(2 * BLOCK as usize);
    let mut known = false;
    if let Some(chosen) = fdt.chosen() {
        let (kaslr, rng) = from_tree.split_at_mut(8);
        for (name, place) in [("kaslr-seed", kaslr), ("rng-seed", rng)] {
            if let Some(value) = chosen.property(name) {
                let len = value.len().min(place.len());
                place[..len].copy_from_slice(&value[..len]);
                known |= value.iter().any(|byte| *byte != 0);
            }
        }
    }
    if let Some(used) = used {
        from_tree[..8].copy_from_slice(&used.bits().to_le_bytes());
        known = true;
    }
    let (from_cpu, time) = rest.split_at_mut(BLOCK as usize);
    for word in from_cpu.as_chunks_mut::<8>().0 {
        if let Some(random) = cpu::random() {
            *word = random.to_le_bytes();
            known = true;
        }
    }
    if !known {
        return Seeds::Removed;
    }
    time[..8].copy_from_slice(&cpu::counter().to_le_bytes());
    // Two seeds; neither reveals the other.
    let mut seed = |which: u8| -> Digest {
        pool.0[BLOCKS * BLOCK as usize - 1] = which;
        let mut digest = Sha256::new();
        digest.update(&pool.0);
        digest.finish()
    };
    let (kaslr, rng) = (seed(1), seed(2));
    Seeds::New { kaslr: u64::from_le_bytes(*kaslr.0.first_chunk().unwrap_or(&[1; 8])), rng: rng.0 }
}
