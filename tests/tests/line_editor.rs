//! The shell's line editor, on the host: keys in, and what a terminal shows.

use std::fmt::Write;

#[path = "../../kernel/src/shell/line_editor.rs"]
mod line_editor;

use line_editor::{LINE_MAX, LineEditor, Typed};
use proptest::prelude::*;

const PROMPT: &str = "> ";

/// A terminal that knows characters, backspaces and line ends: its last line and the cursor.
#[derive(Default)]
struct Terminal {
    line: Vec<char>,
    cursor: usize,
    lines: Vec<String>,
}

impl Write for Terminal {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for c in text.chars() {
            match c {
                '\n' => {
                    self.lines.push(self.shown());
                    self.line.clear();
                    self.cursor = 0;
                }
                '\x08' => self.cursor = self.cursor.checked_sub(1).expect("never left of the line"),
                _ => {
                    self.line.resize(self.line.len().max(self.cursor + 1), ' ');
                    self.line[self.cursor] = c;
                    self.cursor += 1;
                }
            }
        }
        Ok(())
    }
}

impl Terminal {
    fn shown(&self) -> String {
        self.line.iter().collect::<String>().trim_end().to_owned()
    }
}

fn words(context: &str, found: &mut dyn FnMut(&'static str)) {
    let all: &[&'static str] = match context {
        "" => &["map", "mask", "mem", "memory", "verify"],
        "memory" => &["add", "remove"],
        _ => &[],
    };
    all.iter().for_each(|word| found(word));
}

struct Session {
    editor: LineEditor,
    terminal: Terminal,
    typed: Vec<String>,
    ended: bool,
}

impl Session {
    fn new() -> Self {
        let mut session = Self {
            editor: LineEditor::new(PROMPT),
            terminal: Terminal::default(),
            typed: Vec::new(),
            ended: false,
        };
        session.editor.prompt(&mut session.terminal).unwrap();
        session
    }

    fn press(&mut self, keys: &[u8]) -> &mut Self {
        for &key in keys {
            match self.editor.take(key, &mut self.terminal, words).unwrap() {
                Typed::More => {}
                Typed::End => self.ended = true,
                Typed::Line(line) => {
                    self.typed.push(line.to_string());
                    self.editor.prompt(&mut self.terminal).unwrap();
                }
            }
        }
        self
    }
}

/// The line that these keys make, with Enter at their end; checks that the terminal showed it.
#[track_caller]
fn line(keys: &[u8]) -> String {
    let mut session = Session::new();
    session.press(keys);
    let shown = session.terminal.shown();
    session.press(b"\r");
    let line = session.typed.pop().expect("a line");
    assert_eq!(shown, format!("{PROMPT}{line}").trim_end());
    line
}

#[test]
fn what_is_typed_at_the_end_is_echoed_as_it_is() {
    let mut session = Session::new();
    session.press(b"fold 0x40000000 2M\r");
    assert_eq!(session.terminal.lines, ["> fold 0x40000000 2M"]);
    assert_eq!(session.typed, ["fold 0x40000000 2M"]);
}

#[test]
fn the_line_is_edited_at_the_cursor() {
    assert_eq!(line(b"mp\x1b[Da"), "map");
    assert_eq!(line(b"ap\x1b[Hm\x1b[F!"), "map!");
    assert_eq!(line(b"ap\x1bOHm\x05!"), "map!");
    assert_eq!(line(b"mapp\x7f"), "map");
    assert_eq!(line(b"mxap\x01\x06\x1b[3~"), "map");
    assert_eq!(line(b"mxap\x02\x02\x02\x04"), "map");
    assert_eq!(line(b"free 1 2\x17\x1733 4"), "free 33 4");
    assert_eq!(line(b"junk map\x02\x02\x02\x15"), "map");
    assert_eq!(line(b"map junk\x02\x02\x02\x02\x02\x0b"), "map");
    assert_eq!(line(b"\x08\x1b[D\x1b[C\x1b[3~map"), "map");
}

#[test]
fn the_arrows_show_the_history_and_come_back_to_the_draft() {
    let mut session = Session::new();
    session.press(b"first\rsecond\rsecond\r\r  \rdra\x1b[A\x1b[A\x1b[A");
    assert_eq!(session.terminal.shown(), "> first");
    session.press(b"\x1b[B");
    assert_eq!(session.terminal.shown(), "> second");
    session.press(b"\x1b[B\x1b[Bft\r\x10!\r");
    assert_eq!(session.typed[5..], ["draft", "draft!"]);
}

#[test]
fn the_history_keeps_the_newest_lines() {
    let mut session = Session::new();
    (0..40).for_each(|number| _ = session.press(format!("line {number}\r").as_bytes()));
    session.press(&b"\x1b[A".repeat(100));
    assert_eq!(session.terminal.shown(), "> line 24");
}

#[test]
fn tab_completes_commands_and_their_first_words() {
    assert_eq!(line(b"v\t"), "verify ");
    assert_eq!(line(b"ma\t"), "ma");
    assert_eq!(line(b"me\t"), "mem");
    assert_eq!(line(b"memo\ta\t0"), "memory add 0");
    assert_eq!(line(b"x\t"), "x");
    assert_eq!(line(b"memory add \t"), "memory add ");
    let mut session = Session::new();
    session.press(b"mem\t");
    assert_eq!(session.terminal.lines, ["> mem", "  mem  memory"]);
    assert_eq!(session.terminal.shown(), "> mem");
}

#[test]
fn the_input_ends_with_control_d_on_an_empty_line_only() {
    let mut session = Session::new();
    session.press(b"ab\x04");
    assert!(!session.ended);
    session.press(b"\x03\x04");
    assert!(session.ended && session.typed.is_empty());
}

#[test]
fn unknown_keys_leave_no_trace() {
    assert_eq!(line(b"m\x1b[15~a\x1b[1;5Zp\x1bx\x00\xff\xc3"), "map");
}

#[test]
fn a_line_that_is_too_long_is_cut_off() {
    assert_eq!(line(&[b'x'; 2 * LINE_MAX]).len(), LINE_MAX);
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    let known: [&[u8]; 12] = [
        b"\x1b[A", b"\x1b[B", b"\x1b[C", b"\x1b[D", b"\x1b[3~", b"\x1b[H", b"\x7f", b"\x15", b"\x0b",
        b"\x17", b"\t", b"\r",
    ];
    prop_oneof![
        4 => (b' '..=b'~').prop_map(|byte| vec![byte]),
        4 => proptest::sample::select(known.to_vec()).prop_map(<[u8]>::to_vec),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ]
}

proptest! {
    #[test]
    fn after_any_keys_the_terminal_shows_the_line_that_enter_gives(
        keys in prop::collection::vec(key(), 0..200)
    ) {
        let mut session = Session::new();
        session.press(&keys.concat());
        // A sequence that was cut off.
        session.press(b"~");
        let shown = session.terminal.shown();
        let before = session.typed.len();
        session.press(b"\r");
        let line = &session.typed[before];
        let expected = format!("{PROMPT}{line}");
        prop_assert_eq!(shown, expected.trim_end());
    }
}
