//! Memory: which memory exists, how the kernel reaches it, and how its linear map is built, changed
//! and verified.

pub mod expected;
pub mod linear_map;
pub mod live;
pub mod long_lists;
pub mod owned_bytes;
pub mod parking;
pub mod physical;
pub mod preserved;
pub mod reservations;
pub mod surgery;
pub mod table_memory;
pub mod table_slots;
pub mod table_window;
pub mod verify;
