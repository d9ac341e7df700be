//! Memory: which there is, how it is reached, its linear map and how that is changed and verified.

pub mod linear_map;
pub mod live;
pub mod owned_bytes;
pub mod parking;
pub mod physical;
pub mod preserved;
pub mod reservations;
pub mod surgery;
pub mod verify;
