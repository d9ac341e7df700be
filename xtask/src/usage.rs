//! What the user asked for cannot be done as asked: exit code 2, like clap's own errors.

/// A command line that is wrong in a way clap cannot see. The message says which option and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);
