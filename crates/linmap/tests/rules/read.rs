//! Reading tables by their bits.

use linmap_vmsa::{Geometry, Granule, Pa};

use super::expected::Leaf;
use super::frames::Frames;

/// log2 of what an entry covers, from the root to pages.
fn sizes_of_tables(geometry: Geometry) -> Vec<u32> {
    let page = geometry.granule().bytes().trailing_zeros();
    let all = (0..).map(|level| page + level * (page - 3));
    let mut shifts: Vec<u32> = all.take_while(|shift| *shift < u32::from(geometry.va_bits())).collect();
    shifts.reverse();
    shifts
}

/// Reads the leaves of a tree whose first address is `base`, in ascending order.
pub fn read(frames: Frames, geometry: Geometry, root: Pa, base: u64) -> Result<Vec<Leaf>, String> {
    let shifts = sizes_of_tables(geometry);
    let bits = u32::from(geometry.va_bits()) - shifts[0];
    let mut found = Vec::new();
    table(frames, geometry, root, &shifts, bits, base, &mut found)?;
    Ok(found)
}

/// Reads the leaves below a table of 2^`index_bits` entries (Arm ARM D8.3, the VMSAv8-64 descriptor
/// formats).
fn table(
    frames: Frames,
    geometry: Geometry,
    at: Pa,
    shifts: &[u32],
    index_bits: u32,
    base: u64,
    found: &mut Vec<Leaf>,
) -> Result<(), String> {
    let [shift, below @ ..] = shifts else { return Err("a table below pages".into()) };
    let (granule, va_bits) = (geometry.granule(), u32::from(geometry.va_bits()));
    let page = granule.bytes().trailing_zeros();
    let is_wide = va_bits > 48 || geometry.pa_bits() > 48;
    let lpa2 = is_wide && granule != Granule::K64;
    let lpa = geometry.pa_bits() == 52 && granule == Granule::K64;
    // SAFETY: the map is built; nothing changes it.
    for (index, &bits) in unsafe { frames.entries(at, 1 << index_bits) }.iter().enumerate() {
        if bits & 1 == 0 {
            if bits != 0 {
                return Err(format!("the invalid entry {index} of {at} is {bits:#x}"));
            }
            continue;
        }
        let va = base + ((index as u64) << shift);
        let low = bits & ((1 << 48) - 1) & !((1 << page) - 1);
        let pa = match (lpa2, lpa) {
            (true, _) => bits & ((1 << 50) - 1) & !((1 << page) - 1) | (bits >> 8 & 3) << 50,
            (_, true) => low | (bits >> 12 & 0xf) << 48,
            _ => low,
        };
        let is_table_or_page = bits & 2 != 0;
        if is_table_or_page && !below.is_empty() {
            table(frames, geometry, Pa(pa), below, page - 3, va, found)?;
            continue;
        }
        if is_table_or_page != below.is_empty() {
            return Err(format!("{va:#x} is {bits:#x}, no page and no block"));
        }
        // AttrIndx 0, AP[1] clear, SH inner (a field of TCR with LPA2), AF set, nG clear, no DBM,
        // PXN and UXN set, everything software could use clear.
        let shareable = if lpa2 { 0 } else { 3 << 8 };
        let ignored = 3 | 1 << 7 | 1 << 52 | if lpa2 { 3 << 8 } else { 0 };
        let address = if lpa2 { (1 << 50) - 1 } else { (1 << 48) - 1 } & !((1u64 << page) - 1);
        let address = if lpa { address | 0xf << 12 } else { address };
        if bits & !ignored & !address != 1 << 10 | 3 << 53 | shareable {
            return Err(format!("{va:#x} is {bits:#x}: other attributes"));
        }
        let (contiguous, read_only) = (bits >> 52 & 1 == 1, bits >> 7 & 1 == 1);
        found.push(Leaf { va, pa, shift: *shift, contiguous, read_only });
    }
    Ok(())
}
