//! The symbols of a kernel by their addresses.

use crate::failure::Failure;

/// The most bytes of a file with symbols, packed and unpacked. Kernels with all their debugging
/// information stay below.
pub const LIMIT: u64 = 2 << 30;

/// The symbols of a kernel.
#[derive(Debug)]
pub struct Symbols {
    /// The address of each symbol and where its name is in `names`, in ascending order.
    symbols: Vec<(u64, u32)>,
    /// The names, each with a line feed behind it.
    names: String,
    /// The link address of the kernel's first byte.
    first: u64,
    /// Whether the file has its link address. Else `first` is 0.
    pub is_linked: bool,
    /// Where the first byte is when the kernel runs.
    places: Vec<u64>,
}

/// The symbol of the kernel's first byte.
const FIRST: &str = "_text";
/// The symbol of Linux's exception vectors, which VBAR_EL1 or VBAR_EL2 has.
const VECTORS: &str = "vectors";

impl Default for Symbols {
    fn default() -> Self {
        Self { symbols: Vec::new(), names: String::new(), first: 0, is_linked: true, places: Vec::new() }
    }
}

impl Symbols {
    /// Says that the kernel's first byte is at any of `places`, tried in this order, or where its
    /// `vectors` being at this address puts it, or last where it is linked.
    ///
    /// # Errors
    /// There is no place, and the file does not say where the kernel is linked.
    pub fn run_at(mut self, places: &[u64], vectors: Option<u64>) -> Result<Self, Failure> {
        self.places = places.to_vec();
        let own = vectors.zip(self.address(VECTORS));
        self.places.extend(own.map(|(run, linked)| run.wrapping_sub(linked).wrapping_add(self.first)));
        if self.is_linked {
            self.places.push(self.first);
        } else if self.places.is_empty() {
            return Err(Failure::new("does not say where the kernel is linked")
                .hint("give --symbols-base, the address of _text when it runs"));
        }
        Ok(self)
    }

    /// Adds a symbol. Names of several lines and empty ones are left out.
    pub fn add(&mut self, address: u64, name: &str) {
        let Ok(at) = u32::try_from(self.names.len()) else { return };
        if name.is_empty() || name.contains('\n') {
            return;
        }
        self.names.push_str(name);
        self.names.push('\n');
        self.symbols.push((address, at));
    }

    /// Sorts what was added. `first` is the link address of the first byte, if no symbol has it.
    pub fn finish(mut self, first: Option<u64>) -> Result<Self, Failure> {
        // Symbols of one address in the order in which they were found.
        self.symbols.sort_by_key(|&(address, _)| address);
        let lowest = self.symbols.first().map(|&(address, _)| address);
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
        self.symbols.iter().find(|(_, at)| self.name(*at) == name).map(|(address, _)| *address)
    }

    /// The number of symbols.
    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    /// The symbol that the instruction at `pc` belongs to, and its distance.
    pub fn resolve(&self, pc: u64) -> Option<(&str, u64)> {
        let last = self.symbols.last()?.0;
        self.places.iter().find_map(|place| {
            let linked = pc.wrapping_sub(*place).wrapping_add(self.first);
            if linked < self.first || linked > last {
                return None;
            }
            let after = self.symbols.partition_point(|&(address, _)| address <= linked);
            let &(address, _) = self.symbols.get(after.checked_sub(1)?)?;
            // The first of several names of one address.
            let nth = self.symbols.partition_point(|&(other, _)| other < address);
            let &(_, at) = self.symbols.get(nth)?;
            Some((self.name(at), linked - address))
        })
    }

    /// The instruction at `pc` by its symbol, or by its address if it has none.
    pub fn place(&self, pc: u64) -> String {
        match self.resolve(pc) {
            Some((name, 0)) => name.to_owned(),
            Some((name, distance)) => format!("{name}+{distance:#x}"),
            None => format!("{pc:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols() -> Symbols {
        let mut symbols = Symbols::default();
        for (address, name) in
            [(0x8_1000, "late"), (0x8_0000, "_text"), (0x8_0000, "stext"), (0x8_0800, "map")]
        {
            symbols.add(address, name);
        }
        symbols.finish(None).unwrap()
    }

    #[test]
    fn the_vectors_say_where_the_kernel_runs() {
        let mut symbols = symbols();
        symbols.add(0x8_0c00, "vectors");
        let symbols = symbols.finish(None).unwrap().run_at(&[0x4020_0000], Some(0xffff_0c00)).unwrap();
        assert_eq!(symbols.place(0xffff_0804), "map+0x4");
        assert_eq!(symbols.place(0x4020_0804), "map+0x4");
    }

    #[test]
    fn an_address_is_named_wherever_the_kernel_runs() {
        let symbols = Symbols { places: vec![0x4020_0000, 0xffff_0000, 0x8_0000], ..symbols() };
        assert_eq!(symbols.place(0x8_0804), "map+0x4");
        assert_eq!(symbols.place(0x4020_0000), "_text");
        assert_eq!(symbols.place(0xffff_0fff), "map+0x7ff");
        for outside in [0, 0x7_ffff, 0x4020_1001, u64::MAX] {
            assert_eq!(symbols.place(outside), format!("{outside:#x}"));
        }
    }
}
