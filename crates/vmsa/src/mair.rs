//! MAIR: the memory types in its eight slots.

use crate::memory_type::MemoryType;

/// A value of MAIR_ELx (Arm ARM D24.2, MAIR_EL1): the slot of each [`MemoryType`], if it has one.
///
/// [`Mair::DEFAULT`] has a slot for each. A kernel with its own MAIR value passes it to
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
    /// Three bits for each type, by its number.
    slots: u16,
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

    /// Returns the slots of the register value `value`. If several slots have a type, uses the
    /// first.
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
        Self { slots, present }
    }

    /// Returns the register value with these slots. Slots with none of the types are 0
    /// (Device-nGnRnE). A kernel whose value has other types too loads its own value.
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

    /// The slots in 24 bits.
    #[inline(always)]
    pub(crate) const fn number(self) -> u64 {
        (self.present as u64) << 16 | self.slots as u64
    }

    /// The slots with this number.
    #[inline(always)]
    pub(crate) const fn from_number(number: u64) -> Self {
        Self { slots: number as u16, present: (number >> 16) as u8 }
    }

    /// Returns whether every type has a slot.
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
        (self.slots >> (3 * memory.number()) & 0b111) as u64
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
