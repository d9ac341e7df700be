//! Reading the machine's console: splits bytes into lines, and stores the last lines for the
//! message of a failed boot.

use std::collections::VecDeque;

const KEPT_LINES: usize = 25;
/// A longer line is cut into lines, so that a kernel that prints without end can't fill our memory.
const LONGEST_LINE: usize = 16 << 10;

/// Splits console output into lines.
#[derive(Debug, Default)]
pub struct Console {
    partial: Vec<u8>,
    last: VecDeque<String>,
}

impl Console {
    /// Takes the next piece of output and gives the lines it completes, without their line ends.
    pub fn receive(&mut self, piece: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in piece {
            if byte != b'\n' {
                self.partial.push(byte);
            }
            if byte == b'\n' || self.partial.len() == LONGEST_LINE {
                lines.push(self.complete());
            }
        }
        lines
    }

    /// The last lines, oldest first, with one that was never ended.
    pub fn last_lines(&self) -> Vec<String> {
        let partial = (!self.partial.is_empty()).then(|| text(&self.partial));
        self.last.iter().cloned().chain(partial).collect()
    }

    fn complete(&mut self) -> String {
        let line = text(&self.partial);
        self.partial.clear();
        if self.last.len() == KEPT_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line.clone());
        line
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\r').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_from_pieces() {
        let mut console = Console::default();
        assert!(console.receive(b"linmap: a").is_empty());
        assert_eq!(console.receive(b"=1\r\n\r\nlinmap-user"), ["linmap: a=1", ""]);
        assert_eq!(console.receive(b"space: ok\n"), ["linmap-userspace: ok"]);
    }

    #[test]
    fn the_last_lines_are_kept_with_the_unfinished_one() {
        let mut console = Console::default();
        for number in 0..100 {
            console.receive(format!("{number}\n").as_bytes());
        }
        console.receive(b"half");
        let last = console.last_lines();
        assert_eq!(last.len(), KEPT_LINES + 1);
        assert_eq!((last[0].as_str(), last[KEPT_LINES].as_str()), ("75", "half"));
    }

    #[test]
    fn bytes_that_are_no_text_and_endless_lines_do_no_harm() {
        let mut console = Console::default();
        assert_eq!(console.receive(b"\xff\xfe\n"), ["\u{fffd}\u{fffd}"]);
        assert_eq!(console.receive(&vec![b'x'; LONGEST_LINE * 2 + 1]).len(), 2);
    }
}
