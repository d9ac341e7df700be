//! Pages that are this process's own, with what each has to hold.

use core::ops::Range;

use crate::system::{self, Access, Advice, Child, File, Pages, Refused, Result};

/// A range of pages, unmapped when it is dropped.
#[derive(Debug)]
pub struct Area {
    at: usize,
    len: usize,
    page: usize,
    /// Where it was mapped, from the first byte to the end: an aligned part of it is used.
    mapped: Range<usize>,
}

/// What a page holds that was never written.
pub const ZERO: u64 = 0;

impl Area {
    /// `count` pages of `page` bytes, the first of which is aligned to `align`.
    pub fn new(count: usize, page: usize, align: usize, pages: Pages) -> Result<Self> {
        let len = count * page;
        let mapped = system::map(len + align, pages)?;
        let at = mapped.next_multiple_of(align);
        Ok(Self { at, len, page, mapped: mapped..mapped + len + align })
    }

    /// `count` pages of `page` bytes of a file.
    pub fn of(file: File, count: usize, page: usize) -> Result<Self> {
        let len = count * page;
        let at = system::map(len, Pages::Of(file))?;
        Ok(Self { at, len, page, mapped: at..at + len })
    }

    /// The bytes of a page.
    pub fn page(&self) -> usize {
        self.page
    }

    /// The number of its pages.
    pub fn count(&self) -> usize {
        self.len / self.page
    }

    /// The address behind the last page.
    pub fn end(&self) -> usize {
        self.at + self.len
    }

    fn word(&self, nth: usize) -> *mut u64 {
        // Not the same line of a cache in each.
        (self.at + nth * self.page + nth % 8 * 64) as *mut u64
    }

    /// Writes to each of these pages a word that tells it from others of the same `seed`.
    pub fn fill(&self, pages: Range<usize>, seed: u64) {
        for nth in pages {
            // SAFETY: the page is this area's, and may be written.
            unsafe { self.word(nth).write_volatile(seed ^ nth as u64) };
        }
    }

    /// Whether each of these pages has what [`Self::fill`] wrote.
    pub fn check(&self, pages: Range<usize>, seed: u64) -> Result<()> {
        for nth in pages {
            // SAFETY: the page is this area's, and may be read.
            let found = unsafe { self.word(nth).read_volatile() };
            let wanted = if seed == ZERO { ZERO } else { seed ^ nth as u64 };
            if found != wanted {
                system::say(format_args!("workload: page {nth} holds {found:#x}, not {wanted:#x}\n"));
                return Err(Refused { what: "a page", errno: 0 });
            }
        }
        Ok(())
    }

    /// mprotect of some of its pages. They are used only as `access` allows until it is changed
    /// again: who breaks that is killed.
    pub fn protect(&self, pages: Range<usize>, access: Access) -> Result<()> {
        // SAFETY: nothing but `fill` and `check` uses them.
        unsafe { system::protect(self.at + pages.start * self.page, pages.len() * self.page, access) }
    }

    /// madvise of some of its pages.
    pub fn advise(&self, pages: Range<usize>, advice: Advice) -> Result<()> {
        // SAFETY: nothing but `fill` and `check` uses them.
        unsafe { system::advise(self.at + pages.start * self.page, pages.len() * self.page, advice) }
    }

    /// munmap of some of its pages, which are not used again.
    pub fn unmap(&self, pages: Range<usize>) -> Result<()> {
        // SAFETY: nothing but `fill` and `check` uses them.
        unsafe { system::unmap(self.at + pages.start * self.page, pages.len() * self.page) }
    }

    /// Moves all pages to where those of `other` were.
    pub fn move_to(self, other: Self) -> Result<Self> {
        // SAFETY: nothing but `fill` and `check` uses either.
        unsafe { system::remap(self.at, self.len, other.at) }?;
        Ok(other)
    }

    /// Writes what was written to these pages to their file.
    pub fn sync(&self) -> Result<()> {
        system::sync(self.at, self.len)
    }

    /// A child reads what this process wrote, writes its own, and sees only that. So does this
    /// process at the same time.
    pub fn fork(&self, pages: Range<usize>, seed: u64) -> Result<()> {
        let child = Child::copy(|| {
            self.check(pages.clone(), seed)?;
            self.fill(pages.clone(), !seed);
            self.check(pages.clone(), !seed)
        })?;
        self.check(pages.clone(), seed)?;
        let half = pages.start..pages.start + pages.len() / 2;
        self.fill(half, seed);
        child.wait()?;
        self.fill(pages.clone(), seed);
        self.check(pages, seed)
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: nothing uses it any more. What is gone already is no error.
        let _ = unsafe { system::unmap(self.mapped.start, self.mapped.len()) };
    }
}
