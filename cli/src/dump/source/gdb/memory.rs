//! Physical memory, read through the stub.

use std::ops::Range;

use super::packet::from_hex;
use super::session::Session;
use crate::dump::guest::GuestMemory;
use crate::failure::Failure;

/// How many requests are under way at once. Their answers would fill what lies between QEMU and us
/// before the last request is written, if there were many more.
const AT_ONCE: usize = 32;

/// The guest's memory. The guest is put back as it was found when this is dropped.
pub struct StubMemory {
    session: Session,
    ranges: Vec<Range<u64>>,
}

impl StubMemory {
    /// The memory at `ranges`, which ascend and are disjoint.
    pub fn new(session: Session, ranges: Vec<Range<u64>>) -> Self {
        Self { session, ranges }
    }
}

impl GuestMemory for StubMemory {
    fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    fn read(&mut self, pa: u64, bytes: &mut [u8]) -> Result<(), Failure> {
        let step = self.session.longest_read();
        let mut found = Vec::with_capacity(step);
        let mut at = pa;
        for part in bytes.chunks_mut(step * AT_ONCE) {
            let mut requests = Vec::with_capacity(AT_ONCE);
            for piece in part.chunks(step) {
                requests.push(format!("m{at:x},{:x}", piece.len()).into_bytes());
                at = at.saturating_add(piece.len() as u64);
            }
            self.session.send(&requests)?;
            for piece in part.chunks_mut(step) {
                let answer = self.session.answer()?;
                found.clear();
                if from_hex(&answer, &mut found).is_none() || found.len() != piece.len() {
                    let what = format_args!("reading memory near {pa:#x}: the stub says {:?}", said(&answer));
                    return Err(self.session.failure(what));
                }
                piece.copy_from_slice(&found);
            }
        }
        Ok(())
    }
}

/// The start of an answer, for people.
fn said(answer: &[u8]) -> String {
    String::from_utf8_lossy(answer.get(..40).unwrap_or(answer)).into_owned()
}
