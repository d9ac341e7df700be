//! What all contenders build for.

use linmap_vmsa::Geometry;

/// 4K granule, 48 bits: what every peer supports.
pub const GEOMETRY: Geometry = Geometry::K4_48;
