//! The description of the crash kernel that waits.
//!
//! The CPU that ends the kernel can't use the owners of the kernel's state, and memory may be
//! corrupt. One pointer leads it to the description, in the crash kernel's own memory, whose digest
//! it checks first.

use core::ptr;
use core::slice;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use arrayvec::ArrayVec;
use linmap_kexec::{CoreNotes, CpuRegisters, VmcoreInfo};
use linmap_relocate::Departure;
use linmap_relocate::{Digest, Sha256};
use linmap_vmsa::{Pa, PaRange};

use crate::arch::per_cpu;
use crate::arch::print::Quoted;
use crate::report;

/// Whole pages whose content may not change.
#[derive(Clone, Copy, Debug)]
pub struct Checked {
    /// What they are.
    pub what: &'static str,
    /// Where they are.
    pub range: PaRange,
    /// Their digest.
    pub digest: Digest,
}

/// How many parts are checked at most: those of a crash kernel, and the code and orders that enter
/// it.
pub const MAX_CHECKED: usize = 5;

/// How the crash kernel is entered, and what is checked before.
#[derive(Debug)]
pub struct Description {
    /// How it is entered.
    pub departure: Departure,
    /// What may not have changed since it was loaded.
    pub checked: ArrayVec<Checked, MAX_CHECKED>,
    /// Where the notes of the core file go.
    pub notes: PaRange,
    /// What they say about this kernel.
    pub info: VmcoreInfo<'static>,
    /// VA − PA of the linear map.
    pub offset: u64,
    /// Its entry point.
    pub entry: Pa,
    /// Its device tree.
    pub dtb: Pa,
    /// The exception level at which it is entered.
    pub el: u8,
}

/// 4 KiB with the description.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Page {
    /// The description. The rest is zero.
    pub description: Description,
}

const _: () = assert!(size_of::<Page>() == 4096);

static PUBLISHED: AtomicPtr<Page> = AtomicPtr::new(ptr::null_mut());

/// The digest of that page, which decides what else is checked.
static PAGE_DIGEST: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

/// What has changed since the crash kernel was loaded.
pub struct Changed(pub &'static str);

/// From here on the crash kernel that `page` describes is entered when this kernel ends. What the
/// page describes stays unchanged until [`withdraw`].
pub fn publish(page: &'static Page) {
    for (word, value) in PAGE_DIGEST.iter().zip(page.digest()) {
        word.store(value, Ordering::Relaxed);
    }
    PUBLISHED.store(ptr::from_ref(page).cast_mut(), Ordering::Release);
}

/// From here on no crash kernel is entered.
pub fn withdraw() {
    PUBLISHED.store(ptr::null_mut(), Ordering::Release);
}

/// Whether a crash kernel waits.
pub fn waits() -> bool {
    !PUBLISHED.load(Ordering::Acquire).is_null()
}

/// The published description, if there is one.
///
/// # Errors
/// [`Changed`]: its page has changed.
pub fn published() -> Result<Option<&'static Description>, Changed> {
    let page = PUBLISHED.load(Ordering::Acquire);
    // SAFETY: a published page stays mapped and unchanged.
    let Some(page) = (unsafe { page.as_ref() }) else { return Ok(None) };
    if page.digest().iter().zip(&PAGE_DIGEST).any(|(found, meant)| *found != meant.load(Ordering::Relaxed)) {
        return Err(Changed("description"));
    }
    Ok(Some(&page.description))
}

impl Page {
    fn digest(&self) -> [u64; 4] {
        let mut digest = Sha256::new();
        // SAFETY: the page was zeroed before the description was written, so that all of its bytes
        // are initialised.
        digest.update(unsafe { slice::from_raw_parts(ptr::from_ref(self).cast(), size_of::<Self>()) });
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(digest.finish().0.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        words
    }
}

impl Description {
    /// The bytes of `range` in the linear map.
    ///
    /// # Safety
    /// The linear map has all of it, and nothing writes to it as long as the bytes are used.
    unsafe fn bytes(&self, range: PaRange) -> &[u8] {
        let start = range.start.0.wrapping_add(self.offset) as usize;
        // SAFETY: the caller's promise.
        unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(start), range.len() as usize) }
    }

    /// Checks that nothing has changed since the crash kernel was loaded.
    ///
    /// # Errors
    /// [`Changed`], with the first part that has.
    pub fn check(&self) -> Result<(), Changed> {
        let changed = self.checked.iter().find(|checked| {
            let mut digest = Sha256::new();
            // SAFETY: memory of the crash kernel, which the linear map has and nothing writes to.
            digest.update(unsafe { self.bytes(checked.range) });
            digest.finish() != checked.digest
        });
        changed.map_or(Ok(()), |checked| Err(Changed(checked.what)))
    }

    /// Writes the registers of every CPU that has stopped to the notes of the core file.
    pub fn write_notes(&self) {
        let start = self.notes.start.0.wrapping_add(self.offset) as usize;
        // SAFETY: memory that was allocated for the notes, mapped there. All other CPUs have
        // stopped, or never refer to it.
        let buffer = unsafe {
            slice::from_raw_parts_mut(
                ptr::with_exposed_provenance_mut::<u8>(start),
                self.notes.len() as usize,
            )
        };
        let stopped = per_cpu::known().filter_map(|(number, cpu)| {
            let frame = cpu.stopped.load(Ordering::Acquire);
            // SAFETY: the registers are on the CPU's own stack, which it never leaves once it has
            // stored the pointer.
            let frame = unsafe { frame.as_ref() }?;
            Some(CpuRegisters { cpu: number as u32, ..frame.registers() })
        });
        if let Err(error) = (CoreNotes { info: self.info }).write(stopped, buffer) {
            report!("warning=crash-notes what={}", Quoted(&error));
        }
    }
}
