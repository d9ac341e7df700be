//! The software-generated interrupts (SGIs) that CPUs send each other, and their priority.

/// What one CPU tells another, by the number of the SGI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Sgi {
    /// Run the function of a call.
    Call,
    /// Look for work. The interrupt only ends the wait for it.
    Work,
    /// Leave the live tables until the edit is done.
    Park,
    /// Stop for good, because a CPU ends the kernel.
    Stop,
    /// Leave: the machine is handed over, or the user switched this CPU off.
    Off,
}

impl Sgi {
    const ALL: [Self; 5] = [Self::Call, Self::Work, Self::Park, Self::Stop, Self::Off];

    /// A bit for each SGI in use, by its number.
    pub const MASK: u32 = (1 << Self::ALL.len()) - 1;

    /// The SGI with the number `number`, if it is in use.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }
}

// `from_number` looks the number up.
const _: () = {
    let mut i = 0;
    while i < Sgi::ALL.len() {
        assert!(Sgi::ALL[i] as usize == i);
        i += 1;
    }
};

/// The priorities of four SGIs. They are identical: above what [`PRIORITY_MASK`] masks, in the
/// Secure and in the Non-secure view.
pub const SGI_PRIORITIES: u32 = 0xa0a0_a0a0;
/// The lowest priority that a CPU interface lets through: above all that is used, on
/// implementations with few bits too.
pub const PRIORITY_MASK: u32 = 0xf0;
