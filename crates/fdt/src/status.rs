//! What a node's `status` says (Devicetree Specification v0.4, section 2.3.4).

use crate::values::first_string;

/// What a node's `status` says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It can be used: the node has no `status`, or `okay`, or its old form `ok`.
    Okay,
    /// It is not in use now, and may be later. A CPU is quiescent then, and can be started.
    Disabled,
    /// It has an error, and is not likely to work: `fail` or `fail-` and a reason.
    Failed,
    /// It must not be used: `reserved`, or a value that the specification does not have.
    Reserved,
}

impl Status {
    /// Returns what the value of a `status` says.
    pub fn of_value(value: Option<&[u8]>) -> Self {
        match value.map(first_string) {
            None | Some(b"okay" | b"ok") => Self::Okay,
            Some(b"disabled") => Self::Disabled,
            Some(b"fail") => Self::Failed,
            Some(other) if other.starts_with(b"fail-") => Self::Failed,
            Some(_) => Self::Reserved,
        }
    }

    /// Returns whether a device with it is used.
    pub fn is_okay(self) -> bool {
        self == Self::Okay
    }
}
