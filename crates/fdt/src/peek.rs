//! Reading a little of a tree that was not checked.

use crate::dtb::DeviceTree;
use crate::node::FdtNode;
use crate::structure::{Position, Step};

impl<'a> DeviceTree<'a> {
    /// Returns the values of several properties of `child`, a node right below the root, without
    /// checking the tree: for a kernel that needs them before it can report an error. In a tree
    /// that is not well-formed they may be missing or wrong, but they lie in the blob.
    pub fn peek<const N: usize>(&self, child: &str, names: [&str; N]) -> [Option<&'a [u8]>; N] {
        let mut at = Position::new(self.structure(), self.strings);
        if matches!(at.step(), Step::BeginNode) {
            at.skip_name();
            loop {
                match at.step() {
                    Step::Property { .. } => {}
                    Step::BeginNode => {
                        let node = FdtNode::begin(&mut at);
                        if node.is_called(child) {
                            return node.values(names);
                        }
                        at.skip_node();
                    }
                    Step::EndNode | Step::End => break,
                }
            }
        }
        [None; N]
    }
}
