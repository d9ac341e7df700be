//! The geometries in which maps are built.

use linmap_vmsa::{Geometry, Granule};

/// Of each granule the address sizes that kernels use.
pub const GEOMETRIES: [Geometry; 14] = [
    geometry(Granule::K4, 39, 48),
    geometry(Granule::K4, 48, 48),
    geometry(Granule::K4, 48, 52),
    geometry(Granule::K4, 52, 52),
    geometry(Granule::K16, 36, 48),
    geometry(Granule::K16, 47, 48),
    geometry(Granule::K16, 48, 48),
    geometry(Granule::K16, 47, 52),
    geometry(Granule::K16, 52, 52),
    geometry(Granule::K64, 42, 48),
    geometry(Granule::K64, 48, 48),
    geometry(Granule::K64, 42, 52),
    geometry(Granule::K64, 48, 52),
    geometry(Granule::K64, 52, 52),
];

const fn geometry(granule: Granule, va_bits: u8, pa_bits: u8) -> Geometry {
    match Geometry::new(granule, va_bits, pa_bits) {
        Ok(geometry) => geometry,
        Err(_) => panic!("no such geometry"),
    }
}
