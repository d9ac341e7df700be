//! Properties of a node that is walked token by token, and what values mean.

use crate::tokens::{Piece, Token};

/// Returns names and values of a node's properties. `pieces` are those after the node's beginning.
pub fn properties<'a>(pieces: impl Iterator<Item = Piece<'a>>) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    pieces.take_while(|piece| matches!(piece.token, Token::Property { .. } | Token::Nop)).filter_map(
        |piece| match piece.token {
            Token::Property { name, value } => Some((name, value)),
            _ => None,
        },
    )
}

/// Returns the value of a node's property `name`. `pieces` are those after the node's beginning.
pub fn property<'a>(pieces: impl Iterator<Item = Piece<'a>>, name: &str) -> Option<&'a [u8]> {
    properties(pieces).find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// Returns the number in a value of one or two cells.
pub fn number(value: &[u8]) -> Option<u64> {
    let wide = value.try_into().map(u64::from_be_bytes);
    wide.ok().or_else(|| value.try_into().map(u32::from_be_bytes).map(u64::from).ok())
}

/// Returns whether the value of a `compatible` property has the string `name`.
pub fn is_compatible(value: &[u8], name: &str) -> bool {
    value.split(|&byte| byte == 0).any(|found| found == name.as_bytes())
}
