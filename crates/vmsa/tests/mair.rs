//! The memory types of leaves by a kernel's own MAIR.

use linmap_vmsa::registers::{MAIR, Registers};
use linmap_vmsa::{
    AttributeError, Attributes, Descriptor, Geometry, Level, Mair, MemoryType, Pa, Regime, Stage2,
};

#[test]
fn the_default_is_the_value_of_the_register() {
    assert_eq!(Mair::DEFAULT, Mair::new(MAIR));
    assert_eq!(Mair::DEFAULT.value(), MAIR);
    for (slot, memory) in (0..).zip(MemoryType::EVERY) {
        assert_eq!(Mair::DEFAULT.slot(memory), Some(slot));
        let page = Descriptor::page(Geometry::K4_48, Pa(0), Attributes { memory, ..Attributes::KERNEL_DATA });
        assert_eq!(page.0 >> 2 & 0b111, slot);
    }
    assert_eq!(size_of::<Geometry>(), 8);
}

#[test]
fn leaves_have_the_slots_of_the_kernels_own_mair() {
    // Linux's order: normal, tagged, non-cacheable, nGnRnE, nGnRE; then a type that is no other.
    let value = 0x0000_bb04_0044_f0ff;
    let own = Geometry::K4_48.with_mair(Mair::new(value));
    for (memory, slot) in [
        (MemoryType::Normal, 0),
        (MemoryType::NormalTagged, 1),
        (MemoryType::NormalNonCacheable, 2),
        (MemoryType::DeviceNgnrne, 3),
        (MemoryType::DeviceNgnre, 4),
    ] {
        let attributes = Attributes { memory, ..Attributes::KERNEL_DATA };
        assert_eq!(attributes.check_in(own), Ok(()));
        for regime in [Regime::El1And0, Regime::El2] {
            let own = own.in_regime(regime);
            let leaf = Descriptor::leaf(own, Level::L2, Pa(0x4020_0000), attributes).unwrap();
            assert_eq!(leaf.0 >> 2 & 0b111, slot, "{memory:?} at {regime}");
            assert_eq!(leaf.attributes(own, Level::L2), Some(attributes));
        }
    }
    let unknown = Descriptor::page(own, Pa(0x1000), Attributes::KERNEL_DATA).0 | 5 << 2;
    assert_eq!(Descriptor(unknown).attributes(own, Level::L3), None);
    assert_eq!(Registers::of_lower_half(own, Pa(0x1000)).unwrap().mair, value & !(0xbb << 40));
    // Stage 2 has types of its own.
    let guest = own.in_regime(Regime::Stage2(Stage2::Base));
    assert_eq!(Attributes::GUEST_DEVICE.bits(guest) >> 2 & 0b1111, 1);
}

#[test]
fn a_type_that_is_in_no_slot_is_refused_by_name() {
    let own = Geometry::K4_48.with_mair(Mair::new(0x4444_4444_4444_44ff));
    for memory in MemoryType::EVERY {
        let attributes = Attributes { memory, ..Attributes::KERNEL_DATA };
        let has = matches!(memory, MemoryType::Normal | MemoryType::NormalNonCacheable);
        assert_eq!(attributes.check_in(own).is_ok(), has, "{memory:?}");
        assert_eq!(Descriptor::leaf(own, Level::L3, Pa(0x1000), attributes).is_ok(), has);
        if !has {
            assert_eq!(attributes.check_in(own), Err(AttributeError::NoSlot { memory }));
        }
    }
    // The regime is checked as well.
    let user = Attributes::USER_DATA.check_in(own.in_regime(Regime::El3));
    assert_eq!(user, Err(AttributeError::UserAccess { regime: Regime::El3 }));
}
