//! A run of `cargo xtask judge`.

use std::collections::BTreeSet;

use crate::boot::xtask;
use crate::mutant::{Mistake, OVERDUE};
use crate::tool::tool;

/// A guest that was judged.
#[derive(Debug)]
pub struct Judged {
    /// The exit code: 0 if every edit is legal and the guest did its work.
    pub code: Option<i32>,
    /// The verdict.
    pub verdict: String,
    /// The guest's console, and what else was said.
    pub console: String,
}

impl Judged {
    /// The mistakes, of which the verdict has a line `COUNT RULE PLACE` each behind the summary.
    pub fn mistakes(&self) -> BTreeSet<Mistake> {
        let (_, end) = self.verdict.split_once("\nsummary:\n").unwrap_or_default();
        let lines = end.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let counts = lines.filter(|words| words.len() == 3 && words[0].parse::<u64>().is_ok());
        let function = |place: &str| place.split('+').next().unwrap_or_default().to_owned();
        let mistakes = counts.map(|words| (words[1].to_owned(), function(words[2])));
        mistakes.chain(self.overdue()).collect()
    }

    /// What the summary has of access that was taken back and cached for too long: lines
    /// `COUNT of COUNT FUNCTION`.
    fn overdue(&self) -> Vec<Mistake> {
        let (_, end) = self.verdict.split_once("\nAccess taken back").unwrap_or_default();
        let rows = end.lines().skip(1).take_while(|line| line.starts_with("   "));
        let functions = rows.filter_map(|row| row.split_whitespace().nth(3).map(str::to_owned));
        functions.map(|function| (OVERDUE.to_owned(), function)).collect()
    }
}

/// Judges `guest` with these options, separated by white space, by the tool that the tests use.
///
/// # Panics
/// When xtask does not run.
pub fn judge(guest: &str, options: &str) -> Judged {
    let mut command = xtask();
    command.args(["judge", guest, "--linmap"]).arg(tool().get_program());
    let output = command.args(options.split_whitespace()).output().expect("xtask runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\r', "");
    Judged { code: output.status.code(), verdict: text(&output.stdout), console: text(&output.stderr) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told_from_the_events_before_them() {
        let verdict = "the guest: illegal: 2 mistakes (9 events)\n          7  ret_to_user  isb\n\
             summary:\n  events  9\nAccess taken back and still cached at its return: 5 of 7\n\
             \u{20}         5 of 6          change_page_range  first event 7, of 0x1000\n     \
             2  size  split_pmd+0x14c\nnote: recorded: 9 events\n";
        let judged = Judged { code: Some(1), verdict: verdict.to_owned(), console: String::new() };
        let expected = [("size", "split_pmd"), (OVERDUE, "change_page_range")];
        let expected = expected.map(|(rule, function)| (rule.to_owned(), function.to_owned()));
        assert_eq!(judged.mistakes(), BTreeSet::from(expected));
    }
}
