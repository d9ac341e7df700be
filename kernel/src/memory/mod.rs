//! The linear map of this machine: built, changed, verified.

pub mod kept;
pub mod layout;
pub mod linear_map;
pub mod live;
pub mod machine;
pub mod surgery;
pub mod verify;
