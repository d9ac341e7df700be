//! `--append`: the user's words of the command line.

use std::str::FromStr;

use linmap_platform::CommandLine;

/// Words that `boot` or linmap itself sets, and what sets them.
const RESERVED: [(&str, &str); 5] = [
    ("linmap.payload", "--payload sets it"),
    ("linmap.shell", "--shell sets it"),
    ("linmap.icount", "--icount sets it"),
    ("linmap.va_bits", "--va-bits sets it"),
    ("linmap.generation", "a linmap that enters itself counts in it; linmap.generations= says how often"),
];

/// Words for the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Append(String);

/// A word that is not the user's to give.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the word {word} is reserved: {why}")]
pub struct Reserved {
    word: String,
    why: &'static str,
}

impl Append {
    /// The words as they were typed.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl FromStr for Append {
    type Err = Reserved;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        for word in CommandLine::new(text).words() {
            if let Some((name, why)) = RESERVED.iter().find(|(name, _)| *name == word.key()) {
                return Err(Reserved { word: (*name).to_owned(), why });
            }
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_words_are_refused_by_name_however_they_are_quoted() {
        for (name, _) in RESERVED {
            for text in [name.to_owned(), format!("quiet {name}=5 x"), format!("\"{name}=5\"")] {
                let refused = text.parse::<Append>().unwrap_err();
                assert!(refused.to_string().contains(&format!("{name} is reserved")), "{refused}");
            }
        }
        for text in ["", "linmap.generations=2", "a=\"linmap.shell x\"", "xlinmap.shell"] {
            assert_eq!(text.parse::<Append>().unwrap().text(), text);
        }
    }
}
