//! The paths among the tokens that a macro is given or consists of.
//!
//! What a macro makes of its tokens is unknown. So every run of names with `::` between them is a
//! path, and so is a single name unless a dot stands before it.

use proc_macro2::{Ident, Spacing, TokenStream, TokenTree};

use super::code_path::{CodePath, Space, UsedPath, name};

/// The paths in `tokens`, those in brackets included.
pub fn of(tokens: &TokenStream) -> Vec<UsedPath> {
    let mut found = Vec::new();
    collect(tokens, &mut found);
    found
}

fn collect(tokens: &TokenStream, found: &mut Vec<UsedPath>) {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Group(group) => {
                collect(&group.stream(), found);
                at += 1;
            }
            TokenTree::Ident(first) if !is_member(&tokens[..at]) => at = path(&tokens, at, first, found),
            _ => at += 1,
        }
    }
}

/// Adds the path that begins at `start` and returns where it ends.
fn path(tokens: &[TokenTree], start: usize, first: &Ident, found: &mut Vec<UsedPath>) -> usize {
    let mut segments = vec![name(first)];
    let mut end = start + 1;
    while is_separator(tokens, end)
        && let Some(TokenTree::Ident(next)) = tokens.get(end + 2)
    {
        segments.push(name(next));
        end += 3;
    }
    let is_call = is_punctuation(tokens.get(end), '!') && is_macro_call(&tokens[end..]);
    // A single name may also be a variable or an item of the same module; then it names no other
    // file.
    let spaces: &[Space] = match (is_call, segments.len()) {
        (true, _) => &[Space::Macro],
        (false, 1) => &[Space::Value, Space::Type],
        (false, _) => &Space::ALL,
    };
    let is_module = segments.len() == 1 && ["crate", "self", "super", "Self"].contains(&segments[0].as_str());
    if !is_module {
        let is_global = start >= 2
            && is_separator(tokens, start - 2)
            && !matches!(tokens.get(start.wrapping_sub(3)), Some(TokenTree::Ident(_)));
        let line = first.span().start().line;
        found.push(UsedPath { path: CodePath { is_global, segments, line }, spaces });
    }
    end
}

/// Whether `::` stands at `at`.
fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    let is_joint = matches!(tokens.get(at), Some(TokenTree::Punct(sign)) if sign.spacing() == Spacing::Joint);
    is_joint && is_punctuation(tokens.get(at), ':') && is_punctuation(tokens.get(at + 1), ':')
}

/// Whether the `!` at the beginning is a call and not the first half of `!=`.
fn is_macro_call(tokens: &[TokenTree]) -> bool {
    matches!(tokens.get(1), Some(TokenTree::Group(_) | TokenTree::Ident(_)))
}

/// Whether what follows `before` is a field, a method or a lifetime. After `..` it is an
/// expression.
fn is_member(before: &[TokenTree]) -> bool {
    match before {
        [.., first, last] if is_punctuation(Some(last), '.') => !is_punctuation(Some(first), '.'),
        [.., last] => is_punctuation(Some(last), '.') || is_punctuation(Some(last), '\''),
        [] => false,
    }
}

fn is_punctuation(token: Option<&TokenTree>, sign: char) -> bool {
    matches!(token, Some(TokenTree::Punct(found)) if found.as_char() == sign)
}
