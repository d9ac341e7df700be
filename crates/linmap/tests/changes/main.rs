//! Changes of the linear map on the machine model. One program, since each would compile the crates
//! under test anew.

mod failures;
mod machine;
mod mutations;
mod random_changes;
mod traces;
mod verified;
