//! Writable and executable, judged by physical page: a page that one mapping lets the CPU write and
//! another lets it execute is as bad as a mapping that allows both.

use linmap_vmsa::{Execute, Pa, PaRange, Va};
use thiserror::Error;

use super::expected::{Content, Expected, Validity};

/// Memory that can be written at one address and executed at the same or another one.
///
/// ```
/// use linmap_table::Leaves;
/// use linmap_table::verify::{
///     Content, Expected, Validity, WritableAndExecutable, check_writable_or_executable,
/// };
/// use linmap_vmsa::{Attributes, Pa, TablePermissions, Va};
///
/// let mapped = |va, attributes| {
///     let (validity, leaves) = (Validity::Valid, Leaves::Pages);
///     let content = Content::Leaves { pa: Pa(0x4000_0000), attributes, validity, leaves };
///     Expected { va: Va(va), len: 0x1000, content, tables: TablePermissions::UNRESTRICTED }
/// };
/// // Text of a kernel, and a writable alias of it.
/// let both = [mapped(0x1000, Attributes::KERNEL_DATA), mapped(0x9000, Attributes::KERNEL_TEXT)];
/// let found = check_writable_or_executable(|| both.into_iter());
/// let (writable, executable) = (Va(0x1000), Va(0x9000));
/// assert_eq!(found, Err(WritableAndExecutable { pa: Pa(0x4000_0000), writable, executable }));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{pa} is writable at {writable} and executable at {executable}")]
pub struct WritableAndExecutable {
    /// The first such byte.
    pub pa: Pa,
    /// Where it is writable.
    pub writable: Va,
    /// Where it is executable.
    pub executable: Va,
}

/// Checks that no memory is both writable and executable, by whichever of the valid mappings in
/// `lists`. `lists` yields the same ranges at each call: those of all trees that are in use at the
/// same time.
///
/// # Errors
/// [`WritableAndExecutable`].
pub fn check_writable_or_executable<I: Iterator<Item = Expected>>(
    lists: impl Fn() -> I,
) -> Result<(), WritableAndExecutable> {
    for (executable, memory, _) in lists().filter_map(valid).filter(|(.., allows)| allows.executable) {
        for (writable, other, _) in lists().filter_map(valid).filter(|(.., allows)| allows.writable) {
            let both = memory.intersection(other);
            if !both.is_empty() {
                return Err(WritableAndExecutable {
                    pa: both.start,
                    writable: Va(writable.0 + (both.start.0 - other.start.0)),
                    executable: Va(executable.0 + (both.start.0 - memory.start.0)),
                });
            }
        }
    }
    Ok(())
}

/// What a mapping allows.
#[derive(Clone, Copy)]
struct Allows {
    writable: bool,
    executable: bool,
}

/// Where a mapping is, which memory it is of, and what it allows; `None` if it translates nothing.
fn valid(expected: Expected) -> Option<(Va, PaRange, Allows)> {
    let Content::Leaves { pa, attributes, validity: Validity::Valid, .. } = expected.content else {
        return None;
    };
    let executable = !matches!(attributes.execute, Execute::Never);
    let allows = Allows { writable: attributes.access.writable(), executable };
    Some((expected.va, PaRange::new(pa, Pa(pa.0 + expected.len)), allows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Leaves;
    use linmap_vmsa::{Attributes, TablePermissions};

    fn mapping(va: u64, pa: u64, attributes: Attributes, validity: Validity) -> Expected {
        let content = Content::Leaves { pa: Pa(pa), attributes, validity, leaves: Leaves::Pages };
        Expected { va: Va(va), len: 0x2000, content, tables: TablePermissions::UNRESTRICTED }
    }

    #[test]
    fn two_mappings_of_one_page_are_judged_together() {
        let text = mapping(0x10_0000, 0x4000, Attributes::KERNEL_TEXT, Validity::Valid);
        let beside = mapping(0x20_0000, 0x2000, Attributes::KERNEL_DATA, Validity::Valid);
        let over = mapping(0x30_0000, 0x3000, Attributes::KERNEL_DATA, Validity::Valid);
        let invalid = mapping(0x30_0000, 0x3000, Attributes::KERNEL_DATA, Validity::Invalid);
        let judge = |list: &[Expected]| check_writable_or_executable(|| list.iter().copied());
        assert_eq!(judge(&[text, beside, invalid]), Ok(()));
        let both =
            WritableAndExecutable { pa: Pa(0x4000), writable: Va(0x30_1000), executable: Va(0x10_0000) };
        assert_eq!(judge(&[beside, text, over]), Err(both));
    }

    #[test]
    fn one_mapping_that_allows_both_is_found() {
        let both = Attributes { execute: Execute::User, ..Attributes::KERNEL_DATA };
        let list = [mapping(0x1000, 0x1000, both, Validity::Valid)];
        assert!(check_writable_or_executable(|| list.into_iter()).is_err());
    }
}
