//! A node of a checked tree, its properties, and the nodes below it.

use crate::cells::{ADDRESS_CELLS, Cells, RegEntries, RegLength, SIZE_CELLS};
use crate::status::Status;
use crate::structure::{Position, Step, text};
use crate::values::{first_string, number, strings};

/// The values of N properties, in the order in which they were named. `None` for one that is
/// missing.
pub type Values<'a, const N: usize> = [Option<&'a [u8]>; N];

/// A node of a checked device tree.
#[derive(Clone, Copy, Debug)]
pub struct FdtNode<'a> {
    /// Its name with the NULs behind it.
    padded_name: &'a [u8],
    /// At the first property.
    properties: Position<'a>,
}

impl<'a> FdtNode<'a> {
    /// Returns the node that begins at `at`, before its name, and moves `at` to its properties.
    pub(crate) fn begin(at: &mut Position<'a>) -> Self {
        Self { padded_name: at.padded_name(), properties: *at }
    }

    /// Returns the name with its unit address. The root's is empty.
    pub fn name(self) -> &'a str {
        text(first_string(self.padded_name))
    }

    /// Returns the name up to the unit address.
    pub fn name_without_address(self) -> &'a str {
        let mut parts = self.padded_name.split(|byte| matches!(byte, b'@' | 0));
        text(parts.next().unwrap_or_default())
    }

    /// Returns whether a path that has the part `part` leads here: the name, or the name without
    /// its unit address.
    pub fn is_called(self, part: &str) -> bool {
        let rest = self.padded_name.strip_prefix(part.as_bytes());
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'@' | 0)))
    }

    /// Returns names and values of the properties in their order.
    pub fn properties(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let mut at = self.properties;
        core::iter::from_fn(move || match at.step() {
            Step::Property { name, value } => Some((at.name_at(name), value)),
            _ => None,
        })
    }

    /// Returns the value of the property `name`.
    pub fn property(self, name: &str) -> Option<&'a [u8]> {
        let [value] = self.values([name]);
        value
    }

    /// Returns the values of several properties, which are looked for in one walk.
    pub fn values<const N: usize>(self, names: [&str; N]) -> Values<'a, N> {
        let mut at = self.properties;
        at.values(names)
    }

    /// Returns the strings of `compatible`, the most specific first. Those that are not UTF-8 are
    /// left out.
    pub fn compatible(self) -> impl Iterator<Item = &'a str> {
        strings(self.property("compatible").unwrap_or_default())
    }

    /// Returns what `status` says.
    pub fn status(self) -> Status {
        Status::of_value(self.property("status"))
    }

    /// Returns how the nodes below write addresses and sizes: `#address-cells` and `#size-cells`,
    /// or their defaults 2 and 1 (Devicetree Specification v0.4, section 2.3.5). A value that is
    /// not one cell counts as the most that there is, which no address has.
    pub fn cells(self) -> Cells {
        let [address, size] = self
            .values([ADDRESS_CELLS, SIZE_CELLS])
            .map(|value| value.map(|value| value.try_into().map_or(u32::MAX, u32::from_be_bytes)));
        Cells { address: address.unwrap_or(2), size: size.unwrap_or(1) }
    }

    /// Returns the entries of `reg`, written in the parent's `cells`; none if the node has no
    /// `reg`.
    ///
    /// # Errors
    /// [`RegLength`]: the value is not whole entries.
    pub fn reg(self, cells: Cells) -> Result<RegEntries<'a>, RegLength> {
        RegEntries::new(self.property("reg").unwrap_or_default(), cells)
    }

    /// Returns the number in the property `name`, of one or two cells.
    pub fn number(self, name: &str) -> Option<u64> {
        number(self.property(name)?)
    }

    /// Returns the nodes right below in their order.
    pub fn children(self) -> impl Iterator<Item = FdtNode<'a>> {
        self.children_with([]).map(|(node, [])| node)
    }

    /// Returns the nodes right below in their order, each with the values of several properties.
    /// That takes one walk over their properties instead of two.
    pub fn children_with<'n, const N: usize>(
        self,
        names: [&'n str; N],
    ) -> impl Iterator<Item = (FdtNode<'a>, Values<'a, N>)> + use<'a, 'n, N> {
        let mut at = self.properties;
        let mut in_child = false;
        core::iter::from_fn(move || {
            if in_child {
                at.skip_node();
            }
            in_child = true;
            loop {
                match at.step() {
                    Step::Property { .. } => {}
                    Step::BeginNode => {
                        let node = FdtNode::begin(&mut at);
                        let values = if N == 0 { [None; N] } else { at.values(names) };
                        return Some((node, values));
                    }
                    Step::EndNode | Step::End => {
                        // What follows belongs to the parent.
                        at = Position::default();
                        return None;
                    }
                }
            }
        })
    }

    /// Returns the first node right below to which the part `part` of a path leads.
    pub fn child(self, part: &str) -> Option<FdtNode<'a>> {
        self.children().find(|node| node.is_called(part))
    }

    /// Returns all nodes below, each before those below it.
    pub fn descendants(self) -> Descendants<'a> {
        Descendants { at: self.properties, depth: 0 }
    }
}

/// The nodes below a node, each before those below it: see [`FdtNode::descendants`].
#[derive(Clone, Debug)]
pub struct Descendants<'a> {
    at: Position<'a>,
    /// The number of nodes that have begun and not ended.
    depth: usize,
}

impl<'a> Descendants<'a> {
    /// Returns the next node with its depth, and the values of several of its properties.
    pub fn next_with<const N: usize>(
        &mut self,
        names: [&str; N],
    ) -> Option<(usize, FdtNode<'a>, Values<'a, N>)> {
        let (depth, node) = self.next()?;
        let values = self.at.values(names);
        Some((depth, node, values))
    }

    /// Leaves out what lies below the last node.
    pub fn skip_below(&mut self) {
        if let Some(depth) = self.depth.checked_sub(1) {
            self.at.skip_node();
            self.depth = depth;
        }
    }
}

impl<'a> Iterator for Descendants<'a> {
    /// A node with its depth: 1 for those right below.
    type Item = (usize, FdtNode<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.at.step() {
                Step::Property { .. } => {}
                Step::BeginNode => {
                    self.depth += 1;
                    return Some((self.depth, FdtNode::begin(&mut self.at)));
                }
                Step::EndNode => match self.depth.checked_sub(1) {
                    Some(depth) => self.depth = depth,
                    None => {
                        self.at = Position::default();
                        return None;
                    }
                },
                Step::End => return None,
            }
        }
    }
}
