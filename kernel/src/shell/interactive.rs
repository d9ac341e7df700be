//! The shell on the console.

use crate::arch::console::Console;
use crate::arch::psci::power_off;
use crate::shell::commands::{Next, execute, following};
use crate::shell::line_editor::{Line, LineEditor, Typed};
use crate::shell::owners::Owners;
use crate::{report, say};

/// Reads and runs commands until the input ends or a command leaves the kernel.
pub fn run(owners: &mut Owners) -> ! {
    report!("shell=ready");
    say!("linmap's shell; `help` lists the commands");
    let mut editor = LineEditor::new("linmap> ");
    while let Some(line) = read_line(&mut editor) {
        let line = line.trim();
        if !line.is_empty() && matches!(execute(owners, line), Ok(Next::PowerOff)) {
            break;
        }
    }
    power_off(owners.platform.psci)
}

/// The next line; `None` at the end of the input.
fn read_line(editor: &mut LineEditor) -> Option<Line> {
    // The console can't fail.
    let _ = editor.prompt(&mut Console);
    loop {
        match editor.take(Console::receive()?, &mut Console, following) {
            Ok(Typed::More) | Err(_) => {}
            Ok(Typed::Line(line)) => return Some(line),
            Ok(Typed::End) => return None,
        }
    }
}
