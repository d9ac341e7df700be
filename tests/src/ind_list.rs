//! Linux's list of pages as `kexec list` prints it, carried out.

use std::collections::{BTreeMap, BTreeSet};

const PAGE: u64 = 0x1000;

/// What a printed list does.
#[derive(Debug, Default)]
pub struct CarriedOut {
    /// By page that was written to: which page's first content is there by the end.
    pub content: BTreeMap<u64, u64>,
    /// The pages that the list itself is in.
    pub pages: BTreeSet<u64>,
    /// The page of zeros.
    pub zeros: u64,
}

impl CarriedOut {
    /// Carries out the list in `console`, as Linux's relocation code does with the words in memory.
    ///
    /// # Panics
    /// When the list does not end, has a word that no list has, or overwrites itself.
    pub fn read(console: &str) -> Self {
        let hex = |text: &str| u64::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok();
        let (_, after) = console.split_once("kexec=list zeros=").expect("a list");
        let zeros = after.split(' ').next().and_then(hex).expect("the page of zeros");
        let words: Vec<u64> = console.lines().filter_map(hex).collect();
        let mut done = Self { zeros, ..Self::default() };
        let mut destination = None;
        for (nth, &word) in words.iter().enumerate() {
            let (pa, last) = (word & !(PAGE - 1), nth + 1 == words.len());
            // The head comes alone; then come pages of 512 words.
            assert_eq!(word & 2 != 0, nth % 512 == 0 && !last, "word {nth}: {word:#x}");
            match word & (PAGE - 1) {
                1 => destination = Some(pa),
                2 => assert!(done.pages.insert(pa), "the list is in {pa:#x} twice"),
                4 => assert!(last && pa == 0, "word {nth}: {word:#x}"),
                8 => {
                    let to = destination.as_mut().expect("a destination comes first");
                    let content = done.content.get(&pa).copied().unwrap_or(pa);
                    done.content.insert(*to, content);
                    *to += PAGE;
                }
                flags => panic!("flags {flags:#x}"),
            }
        }
        assert_eq!(words.last(), Some(&4), "the list ends");
        let written = |page: &u64| done.content.contains_key(page);
        assert!(!done.pages.iter().any(written) && !written(&zeros), "the list overwrites itself");
        assert!(!done.pages.contains(&zeros) && zeros != 0);
        done
    }

    /// How many of the pages from `start` to `end` are written, and how many of them with zeros.
    pub fn count(&self, start: u64, end: u64) -> (u64, u64) {
        let written = self.content.range(start..end);
        let zeros = written.clone().filter(|(_, content)| **content == self.zeros);
        (written.count() as u64, zeros.count() as u64)
    }
}
