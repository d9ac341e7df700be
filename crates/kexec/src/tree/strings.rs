//! Strings that a device tree can hold.

use super::tree_error::TreeError;

/// Checks that `text` can be the value of `property`.
pub(super) fn check_string(property: &'static str, text: &str) -> Result<(), TreeError> {
    match text.bytes().position(|byte| byte == 0) {
        Some(at) => Err(TreeError::Nul { property, at }),
        None => Ok(()),
    }
}
