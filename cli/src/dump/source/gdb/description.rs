//! The description of a target: which registers it has, by name, and their numbers.

use std::collections::BTreeMap;

/// Registers by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Numbers {
    by_name: BTreeMap<String, u64>,
    next: u64,
}

impl Numbers {
    /// The number of the register with this name.
    pub fn of(&self, name: &str) -> Option<u64> {
        self.by_name.get(name).copied()
    }

    /// Adds the registers of a file of the description. A register without a number has the one
    /// after the register before it.
    pub fn add(&mut self, file: &str) {
        for tag in tags(file).filter(|tag| tag.starts_with("reg ")) {
            let number = attribute(tag, "regnum").and_then(|number| number.parse().ok()).unwrap_or(self.next);
            self.next = number.saturating_add(1);
            if let Some(name) = attribute(tag, "name") {
                self.by_name.insert(name.to_owned(), number);
            }
        }
    }
}

/// The files that a file includes, in order.
pub fn includes(file: &str) -> Vec<String> {
    let tags = tags(file).filter(|tag| tag.starts_with("xi:include "));
    tags.filter_map(|tag| attribute(tag, "href")).map(str::to_owned).collect()
}

/// What is between `<architecture>` and its end.
pub fn architecture(file: &str) -> Option<&str> {
    let (_, rest) = file.split_once("<architecture>")?;
    Some(rest.split_once('<')?.0.trim())
}

/// What is between each `<` and its `>`, apart from comments.
fn tags(file: &str) -> impl Iterator<Item = &str> {
    let mut rest = file;
    std::iter::from_fn(move || {
        loop {
            let (_, behind) = rest.split_once('<')?;
            if let Some(comment) = behind.strip_prefix("!--") {
                rest = comment.split_once("-->")?.1;
                continue;
            }
            let (tag, behind) = behind.split_once('>')?;
            rest = behind;
            return Some(tag);
        }
    })
}

/// The value of an attribute in a tag.
fn attribute<'t>(tag: &'t str, name: &str) -> Option<&'t str> {
    let mut rest = tag;
    loop {
        let (before, behind) = rest.split_once('=')?;
        let quote = behind.trim_start().chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        let (value, behind) = behind.trim_start().get(1..)?.split_once(quote)?;
        if before.trim_end().ends_with(name)
            && before
                .trim_end()
                .strip_suffix(name)
                .is_some_and(|before| before.ends_with(char::is_whitespace))
        {
            return Some(value);
        }
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn registers_are_numbered_from_the_one_before_unless_they_say_a_number() {
        let mut numbers = Numbers::default();
        numbers.add(
            r#"<feature name="core"><!-- <reg name="no"/> --><reg name="x0" bitsize="64"/><reg name='pc'/>"#,
        );
        numbers
            .add("<reg name=\"TTBR0_EL1\" bitsize=\"64\" regnum=\"93\" type=\"int\"/><reg name=\"next\"/>");
        let of = |name| numbers.of(name);
        assert_eq!([of("x0"), of("pc"), of("TTBR0_EL1")], [Some(0), Some(1), Some(93)]);
        assert_eq!([of("next"), of("no"), of("core")], [Some(94), None, None]);
    }

    #[test]
    fn included_files_and_the_architecture_are_named() {
        let file = "<?xml version=\"1.0\"?><target><architecture>aarch64</architecture>\
                    <xi:include href=\"aarch64-core.xml\"/>\
                    <xi:include href=\"system-registers.xml\"/></target>";
        assert_eq!(includes(file), ["aarch64-core.xml", "system-registers.xml"]);
        assert_eq!(architecture(file), Some("aarch64"));
    }

    proptest! {
        #[test]
        fn any_text_ends(
            text in "(<|>|reg |name|=|\"|'|regnum|99999999999999999999|!--|-->|xi:include |href|.){0,60}",
        ) {
            let mut numbers = Numbers::default();
            numbers.add(&text);
            let _ = (includes(&text), architecture(&text));
        }
    }
}
