//! Physical memory, read through the stub.

use std::ops::Range;

use super::packet::from_hex;
use super::session::Session;
use crate::dump::guest::GuestMemory;
use crate::failure::Failure;

/// How many requests are under way at once. Their answers would fill what lies between QEMU and us
/// before the last request is written, if there were many more.
const AT_ONCE: usize = 32;

/// Most bytes that are read before they are asked for.
const AHEAD: u64 = 128 << 10;

/// The guest's memory. The guest is put back as it was found when this is dropped.
///
/// Kernels allocate tables one after the other, upward or downward. Where a reader goes on beside
/// what was read last, more is read in that direction: twice as much as the last time, so that at
/// most half of what is read is not needed.
pub struct StubMemory {
    session: Session,
    ranges: Vec<Range<u64>>,
    /// What was read last, and where it begins.
    read: Vec<u8>,
    start: u64,
    /// What was asked for last.
    asked: Range<u64>,
}

impl StubMemory {
    /// The memory at `ranges`, which ascend and are disjoint.
    pub fn new(session: Session, ranges: Vec<Range<u64>>) -> Self {
        Self { session, ranges, read: Vec::new(), start: 0, asked: 0..0 }
    }

    /// Reads all of `window`.
    fn fill(&mut self, window: &Range<u64>) -> Result<(), Failure> {
        let step = self.session.longest_read();
        self.read.clear();
        self.start = window.start;
        let mut pieces = Vec::with_capacity(AT_ONCE);
        let mut at = window.start;
        while at < window.end {
            pieces.clear();
            while at < window.end && pieces.len() < AT_ONCE {
                let len = step.min(usize::try_from(window.end - at).unwrap_or(step));
                pieces.push((at, len));
                at += len as u64;
            }
            let requests: Vec<_> =
                pieces.iter().map(|(at, len)| format!("m{at:x},{len:x}").into_bytes()).collect();
            self.session.send(&requests)?;
            for &(at, len) in &pieces {
                let answer = self.session.answer()?;
                let before = self.read.len();
                if from_hex(&answer, &mut self.read).is_none() || self.read.len() != before + len {
                    self.read.clear();
                    let what = format_args!("reading memory at {at:#x}: the stub says {:?}", said(&answer));
                    return Err(self.session.failure(what));
                }
            }
        }
        Ok(())
    }
}

impl GuestMemory for StubMemory {
    fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    fn read(&mut self, pa: u64, bytes: &mut [u8]) -> Result<(), Failure> {
        let wanted = pa..pa.saturating_add(bytes.len() as u64);
        let end = self.start.saturating_add(self.read.len() as u64);
        if wanted.start < self.start || wanted.end > end {
            let window = window(&self.ranges, &self.asked, self.read.len() as u64, &wanted);
            self.fill(&window)?;
        }
        self.asked = wanted;
        let from = usize::try_from(pa - self.start).ok().and_then(|from| self.read.get(from..));
        match from.and_then(|from| from.get(..bytes.len())) {
            Some(found) => bytes.copy_from_slice(found),
            None => return Err(self.session.failure(format_args!("memory at {pa:#x} ends"))),
        }
        Ok(())
    }
}

/// What to read when `wanted` is asked for after `asked`, of which `len` bytes were read.
fn window(ranges: &[Range<u64>], asked: &Range<u64>, len: u64, wanted: &Range<u64>) -> Range<u64> {
    let more = (2 * len).min(AHEAD);
    let range = ranges.iter().find(|range| range.contains(&wanted.start));
    match range {
        Some(range) if wanted.start == asked.end => {
            wanted.start..wanted.end.max(wanted.start.saturating_add(more).min(range.end))
        }
        Some(range) if wanted.end == asked.start => {
            wanted.start.min(wanted.end.saturating_sub(more).max(range.start))..wanted.end
        }
        _ => wanted.clone(),
    }
}

/// The start of an answer, for people.
fn said(answer: &[u8]) -> String {
    String::from_utf8_lossy(answer.get(..40).unwrap_or(answer)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_on_beside_what_was_read_gets_more_and_never_beyond_memory() {
        let ranges = [0x1_0000..0x2_0000, 0x10_0000..0x40_0000];
        let of = |asked, len, wanted| window(&ranges, &asked, len, &wanted);
        assert_eq!(of(0..0, 0, 0x1_8000..0x1_9000), 0x1_8000..0x1_9000);
        assert_eq!(of(0x1_8000..0x1_9000, 0x1000, 0x1_9000..0x1_a000), 0x1_9000..0x1_b000);
        assert_eq!(of(0x1_8000..0x1_9000, 0x1000, 0x1_7000..0x1_8000), 0x1_6000..0x1_8000);
        assert_eq!(of(0x1_8000..0x1_9000, 0x1000, 0x1_a000..0x1_b000), 0x1_a000..0x1_b000);
        assert_eq!(of(0x1_e000..0x1_f000, 0x8000, 0x1_f000..0x2_0000), 0x1_f000..0x2_0000);
        assert_eq!(of(0x1_1000..0x1_2000, 0x8000, 0x1_0000..0x1_1000), 0x1_0000..0x1_1000);
        assert_eq!(of(0x20_0000..0x20_1000, AHEAD, 0x20_1000..0x20_2000), 0x20_1000..0x20_1000 + AHEAD);
    }
}
