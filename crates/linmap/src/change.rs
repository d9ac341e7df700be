//! Changes of the linear map while the machine runs on it: protections, leaf sizes, memory that is
//! added and removed.
//!
//! Every change is planned for a map in use first. Where the CPUs' BBM level forbids that, the same
//! change is planned for parked CPUs, and applied while no CPU has the tree in a TTBR.
//!
//! A call that returns an error has changed nothing, with two exceptions: `fold` and `repaint` of a
//! range that needs several plans may have applied some of them. The map translates the same either
//! way.

mod apply;
mod change_error;
mod changed;
mod editor;
mod expected;
mod fold;
mod global;
mod hotplug;
mod linear_map;
mod mappable;
mod protect;
mod region;
mod repaint;
mod request;
mod run;
mod split;

pub use change_error::ChangeError;
pub use changed::Changed;
pub use editor::{Editor, ParkError, Pause};
pub use hotplug::MemoryError;
pub use linear_map::LinearMap;
pub use protect::Protection;
pub use repaint::Repaint;
