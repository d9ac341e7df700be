//! What a tree has to translate, as a plain list.

use std::collections::BTreeMap;

use linmap_vmsa::Attributes;

/// What a stretch of the area translates to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    pub len: u64,
    pub pa: u64,
    pub attributes: Attributes,
    pub valid: bool,
}

/// The area as a list of parts by offset, none overlapping.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plain(pub BTreeMap<u64, Part>);

impl Plain {
    fn cut(&mut self, at: u64) {
        let Some((&start, &part)) = self.0.range(..at).next_back() else { return };
        if at - start < part.len {
            let done = at - start;
            self.0.insert(start, Part { len: done, ..part });
            self.0.insert(at, Part { len: part.len - done, pa: part.pa + done, ..part });
        }
    }

    pub fn parts(&mut self, start: u64, len: u64) -> Vec<(u64, Part)> {
        self.cut(start);
        self.cut(start + len);
        self.0.range(start..start + len).map(|(at, part)| (*at, *part)).collect()
    }

    /// Whether some byte of the range has no translation, not even an invalidated one.
    pub fn has_hole(&mut self, start: u64, len: u64) -> bool {
        self.parts(start, len).iter().map(|(_, part)| part.len).sum::<u64>() < len
    }

    /// What is valid; neighbours that continue each other are joined.
    pub fn valid(&self) -> Vec<(u64, Part)> {
        let mut joined: Vec<(u64, Part)> = Vec::new();
        for (&at, part) in self.0.iter().filter(|(_, part)| part.valid) {
            join(&mut joined, at, *part);
        }
        joined
    }
}

pub fn join(joined: &mut Vec<(u64, Part)>, at: u64, part: Part) {
    match joined.last_mut() {
        Some((before, last))
            if *before + last.len == at
                && last.pa + last.len == part.pa
                && last.attributes == part.attributes =>
        {
            last.len += part.len;
        }
        _ => joined.push((at, part)),
    }
}
