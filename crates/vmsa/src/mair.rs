//! MAIR: which memory types a kernel's eight slots hold.

use crate::memory_type::MemoryType;

/// The memory types in a value of MAIR_ELx (Arm ARM D24.2, MAIR_EL1): in which slot each
/// [`MemoryType`] is, if it is in one.
///
/// [`Mair::DEFAULT`] has them all. A kernel with an order of its own gives a tree its slots with
/// [`Geometry::with_mair`](crate::Geometry::with_mair).
///
/// ```
/// use linmap_vmsa::{AttributeError, Attributes, Descriptor, Geometry, Mair, MemoryType, Pa};
///
/// // Slot 0 is device memory, slot 1 write-back memory, and there is nothing else.
/// let own = Geometry::K4_48.with_mair(Mair::new(0x0404_0404_0404_ff04));
/// let page = Descriptor::page(own, Pa(0x4000_0000), Attributes::KERNEL_DATA);
/// assert_eq!(page.0 >> 2 & 0b111, 1);
/// let buffer = Attributes { memory: MemoryType::NormalNonCacheable, ..Attributes::KERNEL_DATA };
/// let error = AttributeError::NoSlot { memory: MemoryType::NormalNonCacheable };
/// assert_eq!(buffer.check_in(own), Err(error));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mair {
    /// Three bits for each type, by its number. Bytes, so that a geometry stays one word.
    slots: [u8; 2],
    /// A bit for each type that is in a slot.
    present: u8,
}

impl Mair {
    /// Slots 0 to 4: normal memory, normal memory with tags, non-cacheable memory, Device-nGnRE and
    /// Device-nGnRnE.
    pub const DEFAULT: Self = {
        let (mut value, mut slot) = (0, 0);
        while slot < MemoryType::EVERY.len() {
            value |= MemoryType::EVERY[slot].encoding() << (8 * slot);
            slot += 1;
        }
        Self::new(value)
    };

    /// Returns the slots of the register value `value`. A type that several slots have is used from
    /// the first of them.
    pub const fn new(value: u64) -> Self {
        let (mut slots, mut present) = (0u16, 0);
        let mut nth = 0;
        while nth < MemoryType::EVERY.len() {
            let memory = MemoryType::EVERY[nth];
            let mut slot = 0;
            while slot < 8 && value >> (8 * slot) & 0xff != memory.encoding() {
                slot += 1;
            }
            if slot < 8 {
                slots |= (slot as u16) << (3 * memory.number());
                present |= 1 << memory.number();
            }
            nth += 1;
        }
        Self { slots: slots.to_le_bytes(), present }
    }

    /// Returns the register value with these slots. A slot that has none of the types is that of
    /// Device-nGnRnE, 0: a kernel whose own value has more in it loads that one.
    pub const fn value(self) -> u64 {
        let mut value = 0;
        let mut nth = 0;
        while nth < MemoryType::EVERY.len() {
            let memory = MemoryType::EVERY[nth];
            if let Some(slot) = self.slot(memory) {
                value |= memory.encoding() << (8 * slot);
            }
            nth += 1;
        }
        value
    }

    /// Returns whether every type is in a slot.
    #[inline(always)]
    pub const fn has_every(self) -> bool {
        self.present == (1 << MemoryType::EVERY.len()) - 1
    }

    /// Returns the slot of `memory`, `AttrIndx[2:0]` of a leaf.
    pub const fn slot(self, memory: MemoryType) -> Option<u64> {
        if self.present >> memory.number() & 1 != 0 { Some(self.index(memory)) } else { None }
    }

    /// [`slot`](Self::slot), and 0 for a type that is in none.
    #[inline(always)]
    pub(crate) const fn index(self, memory: MemoryType) -> u64 {
        (u16::from_le_bytes(self.slots) >> (3 * memory.number()) & 0b111) as u64
    }

    /// Returns the type in `slot`, if it is one that linmap writes.
    #[inline(always)]
    pub(crate) const fn memory(self, slot: u64) -> Option<MemoryType> {
        let mut nth = 0;
        while nth < MemoryType::EVERY.len() {
            let memory = MemoryType::EVERY[nth];
            if self.present >> nth & 1 != 0 && self.index(memory) == slot {
                return Some(memory);
            }
            nth += 1;
        }
        None
    }
}
