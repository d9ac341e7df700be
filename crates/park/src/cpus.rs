//! What the rendezvous needs from the kernel about its CPUs.

/// The kernel's CPUs, as the CPU that edits sees them.
///
/// CPUs are numbers below the capacity of the [`Rendezvous`](crate::Rendezvous).
pub trait Cpus {
    /// Returns the CPUs that run on the live root and take interrupts, except the one that calls
    /// this.
    ///
    /// The iterator is a snapshot: its clones yield the same CPUs.
    fn others(&self) -> impl Iterator<Item = usize> + Clone;

    /// Returns the CPUs that are not [online](Self::others) but may still run on the live root:
    /// those that are starting, those that are leaving, and those that were lost on the way.
    ///
    /// One that has left for good, by [`Rendezvous::has_left`](crate::Rendezvous::has_left), may be
    /// among them.
    fn in_transit(&self) -> impl Iterator<Item = usize>;

    /// Interrupts `cpus`, all CPUs that park together, so that each calls
    /// [`Rendezvous::answer`](crate::Rendezvous::answer) with interrupts masked. An interrupt
    /// controller may reach many of them by one write.
    ///
    /// What the caller stored before is visible to each when it takes the interrupt.
    fn interrupt(&self, cpus: impl Iterator<Item = usize>);

    /// Waits until `parked` returns `true`, but no longer than the kernel gives its CPUs to answer.
    /// Returns whether it did.
    ///
    /// A kernel in which another CPU may panic checks for a panic here. If it gives up the wait for
    /// good, it calls [`Rendezvous::abandon`](crate::Rendezvous::abandon) first.
    fn wait_until(&self, parked: impl FnMut() -> bool) -> bool;

    /// Returns a counter of ticks that never stops: the virtual counter, for example. It may wrap.
    fn ticks(&self) -> u64;
}
