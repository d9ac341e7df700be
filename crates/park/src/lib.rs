#![doc = include_str!("../README.md")]
#![no_std]

mod cpus;
#[cfg(target_arch = "aarch64")]
mod identity_switch;
mod parking_editor;
mod rendezvous;
mod root_switch;
mod surgery_root;
mod surgery_window;

pub use cpus::Cpus;
#[cfg(target_arch = "aarch64")]
pub use identity_switch::{IdentitySwitch, SwitchValues, WayOff, vectors};
pub use parking_editor::ParkingEditor;
pub use rendezvous::Rendezvous;
pub use root_switch::RootSwitch;
pub use surgery_root::{SurgeryError, SurgeryLayout, SurgeryRoot};
pub use surgery_window::SurgeryWindow;
