//! The symbols of a kernel by their addresses.

use std::fmt;

use super::code::Code;
use super::instruction::Instruction;
use crate::failure::Failure;

/// The most bytes of a file with symbols, packed and unpacked. Kernels with all their debugging
/// information stay below.
pub const LIMIT: u64 = 2 << 30;

/// The symbols of a kernel.
#[derive(Debug)]
pub struct Symbols {
    /// The address of each symbol, how it is to be preferred to others of the same, and where its
    /// name is in `names`, in ascending order.
    symbols: Vec<(u64, Rank, u32)>,
    /// The names, each with a line feed behind it.
    names: String,
    /// The link address of the kernel's first byte.
    first: u64,
    /// Whether the file has its link address. Else `first` is 0.
    pub is_linked: bool,
    /// The kernel's instructions, if the file has them.
    pub code: Code,
    /// Where the first byte is when the kernel runs.
    places: Vec<u64>,
}

/// Which of several symbols of one address is the function's own name, best first: an alias is
/// seen by other files, and labels that bound sections are not functions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rank {
    /// A function of one file.
    Local,
    /// A function that all files see.
    Global,
    /// A function that another may replace.
    Weak,
    /// Anything else.
    Other,
}

impl Rank {
    /// The rank of a symbol with this letter, as nm prints it.
    pub fn of(kind: char) -> Self {
        match kind {
            't' => Self::Local,
            'T' => Self::Global,
            'w' | 'W' => Self::Weak,
            _ => Self::Other,
        }
    }
}

/// What a trace tells of where a kernel ran.
#[derive(Debug, Default)]
pub struct Ran {
    /// The address of each instruction, once.
    pub instructions: Vec<(u64, Instruction)>,
    /// Where CPUs' vectors lay, if a recorder said so.
    pub vectors: Vec<u64>,
}

/// The symbol of the kernel's first byte.
const FIRST: &str = "_text";
/// The symbol of Linux's exception vectors, which VBAR_EL1 or VBAR_EL2 has.
const VECTORS: &str = "vectors";
/// How far Linux's modules lie from its image at most: a branch by way of a PLT entry reaches them.
const MODULES: u64 = 2 << 30;

impl Default for Symbols {
    fn default() -> Self {
        Self {
            symbols: Vec::new(),
            names: String::new(),
            first: 0,
            is_linked: true,
            code: Code::default(),
            places: Vec::new(),
        }
    }
}

impl Symbols {
    /// Says that the kernel's first byte is at any of `places`, tried in this order, or where what
    /// ran shows it: by its instructions, or if the file has none by its `vectors`. Where nothing
    /// shows it, it is where it is linked. If the file does not say where, nothing is named.
    pub fn run_at(mut self, places: &[u64], ran: Ran) -> Self {
        self.places = places.to_vec();
        let last = self.symbols.last().map_or(self.first, |&(address, ..)| address);
        let distances = self.code.distances(ran.instructions, self.first, last);
        self.places.extend(distances.iter().map(|distance| distance.wrapping_add(self.first)));
        if distances.is_empty() {
            let linked = self.address(VECTORS).into_iter();
            let own = linked.flat_map(|linked| ran.vectors.iter().map(move |run| run.wrapping_sub(linked)));
            self.places.extend(own.map(|distance| distance.wrapping_add(self.first)));
        }
        if self.is_linked && distances.is_empty() {
            self.places.push(self.first);
        }
        // The instructions were needed for this alone.
        self.code = Code::default();
        self
    }

    /// Adds a symbol. Names of several lines and empty ones are left out, and those that an
    /// assembler marks code and data with.
    pub fn add(&mut self, address: u64, rank: Rank, name: &str) {
        let Ok(at) = u32::try_from(self.names.len()) else { return };
        if name.is_empty() || name.contains('\n') || is_mapping(name) {
            return;
        }
        self.names.push_str(name);
        self.names.push('\n');
        self.symbols.push((address, rank, at));
    }

    /// Sorts what was added. `first` is the link address of the first byte, if no symbol has it.
    pub fn finish(mut self, first: Option<u64>) -> Result<Self, Failure> {
        // Symbols of one address and rank in the order in which they were found.
        self.symbols.sort_by_key(|&(address, rank, _)| (address, rank));
        let lowest = self.symbols.first().map(|&(address, ..)| address);
        match self.address(FIRST).or(first).or(lowest) {
            Some(first) => Ok(Self { first, ..self }),
            None => Err(Failure::new("no symbols")),
        }
    }

    fn name(&self, at: u32) -> &str {
        let rest = self.names.get(at as usize..).unwrap_or_default();
        rest.split('\n').next().unwrap_or_default()
    }

    /// The link address of the symbol called `name`.
    pub fn address(&self, name: &str) -> Option<u64> {
        self.symbols.iter().find(|(.., at)| self.name(*at) == name).map(|(address, ..)| *address)
    }

    /// The number of symbols.
    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Where the kernel's first byte is when it runs.
    pub fn places(&self) -> &[u64] {
        &self.places
    }

    /// The symbol that the instruction at `pc` belongs to, and its distance.
    pub fn resolve(&self, pc: u64) -> Option<(&str, u64)> {
        let last = self.symbols.last()?.0;
        self.places.iter().find_map(|place| {
            let linked = pc.wrapping_sub(*place).wrapping_add(self.first);
            if linked < self.first || linked > last {
                return None;
            }
            let after = self.symbols.partition_point(|&(address, ..)| address <= linked);
            let &(address, ..) = self.symbols.get(after.checked_sub(1)?)?;
            // The first of several names of one address.
            let nth = self.symbols.partition_point(|&(other, ..)| other < address);
            let &(.., at) = self.symbols.get(nth)?;
            Some((self.name(at), linked - address))
        })
    }

    /// Whether `pc`, which has no symbol, is where Linux loads modules.
    pub fn is_near(&self, pc: u64) -> bool {
        self.address(VECTORS).is_some()
            && self.places.iter().any(|place| place >> 63 == 1 && place.abs_diff(pc) < MODULES)
    }

    /// The instruction at `pc` by its symbol, or by its address if it has none.
    pub fn place(&self, pc: u64) -> Place<'_> {
        match self.resolve(pc) {
            Some((name, distance)) => Place::In { name, distance },
            None => Place::At { pc, is_near: self.is_near(pc) },
        }
    }
}

/// Where an instruction is.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// Within a function.
    In {
        /// The function's name.
        name: &'a str,
        /// The distance from its first byte.
        distance: u64,
    },
    /// At an address without a symbol.
    At {
        /// The address.
        pc: u64,
        /// Whether Linux's modules are there.
        is_near: bool,
    },
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::In { name, distance: 0 } => f.write_str(name),
            Self::In { name, distance } => write!(f, "{name}+{distance:#x}"),
            Self::At { pc, is_near: false } => write!(f, "{pc:#x}"),
            Self::At { pc, is_near: true } => write!(f, "{pc:#x} (module text)"),
        }
    }
}

/// Whether `name` marks code or data for tools (AAELF64, mapping symbols): `$x`, `$d`, or with more
/// behind a full stop. Linux puts a prefix before the names of code that runs 1:1, as `__pi_`.
fn is_mapping(name: &str) -> bool {
    let Some((before, mark)) = name.rsplit_once('$') else { return false };
    (before.is_empty() || before.ends_with('_'))
        && matches!(mark.split('.').next(), Some("x" | "d" | "t" | "a"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols() -> Symbols {
        let mut symbols = Symbols::default();
        for (address, name) in
            [(0x8_1000, "late"), (0x8_0000, "_text"), (0x8_0000, "stext"), (0x8_0800, "map")]
        {
            symbols.add(address, Rank::Global, name);
        }
        symbols.finish(None).unwrap()
    }

    #[test]
    fn the_vectors_say_where_the_kernel_runs() {
        let mut symbols = symbols();
        symbols.add(0x8_0c00, Rank::Global, "vectors");
        let ran = Ran { vectors: vec![0xffff_0c00], ..Ran::default() };
        let symbols = symbols.finish(None).unwrap().run_at(&[0x4020_0000], ran);
        assert_eq!(symbols.place(0xffff_0804).to_string(), "map+0x4");
        assert_eq!(symbols.place(0x4020_0804).to_string(), "map+0x4");
    }

    #[test]
    fn an_address_is_named_wherever_the_kernel_runs() {
        let symbols = Symbols { places: vec![0x4020_0000, 0xffff_0000, 0x8_0000], ..symbols() };
        assert_eq!(symbols.place(0x8_0804).to_string(), "map+0x4");
        assert_eq!(symbols.place(0x4020_0000).to_string(), "_text");
        assert_eq!(symbols.place(0xffff_0fff).to_string(), "map+0x7ff");
        for outside in [0, 0x7_ffff, 0x4020_1001, u64::MAX] {
            assert_eq!(symbols.place(outside).to_string(), format!("{outside:#x}"));
        }
    }

    #[test]
    fn marks_of_code_and_data_are_no_functions() {
        for mark in ["$x", "$d", "$x.12", "__pi_$x", "__pi_$d.3", "__kvm_nvhe_$x"] {
            assert!(is_mapping(mark), "{mark}");
        }
        for name in ["map_range", "__pi_map_range", "a$b", "core::ops::$x_like", "x$xyz"] {
            assert!(!is_mapping(name), "{name}");
        }
        let mut symbols = symbols();
        symbols.add(0x8_0810, Rank::Global, "__pi_$x");
        let symbols = symbols.finish(None).unwrap().run_at(&[], Ran::default());
        assert_eq!(symbols.place(0x8_0814).to_string(), "map+0x14");
    }

    #[test]
    fn a_function_has_its_own_name_before_its_aliases() {
        let mut symbols = symbols();
        symbols.add(0x8_0800, Rank::Local, "map_locked");
        symbols.add(0x8_0800, Rank::Weak, "weak");
        let symbols = symbols.finish(None).unwrap().run_at(&[], Ran::default());
        assert_eq!(symbols.place(0x8_0804).to_string(), "map_locked+0x4");
    }

    #[test]
    fn modules_lie_near_the_kernel() {
        let mut symbols = symbols();
        symbols.add(0x8_0c00, Rank::Global, "vectors");
        let ran = Ran { vectors: vec![0xffff_8000_8000_0c00], ..Ran::default() };
        let symbols = symbols.finish(None).unwrap().run_at(&[], ran);
        assert_eq!(symbols.place(0xffff_8000_7a00_0010).to_string(), "0xffff80007a000010 (module text)");
        assert_eq!(symbols.place(0x7a00_0010).to_string(), "0x7a000010");
    }
}
