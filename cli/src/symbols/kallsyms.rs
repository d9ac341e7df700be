//! The kallsyms tables in an Image of Linux, found by their structure.
//!
//! Symbols are sorted by address. Each name is a length and as many bytes, each of which stands for
//! a token: a string of a table of 256. The tables begin at multiples of 8, or of 4 in Linux 7:
//!
//! | table | content |
//! |---|---|
//! | number of symbols | one word of 32 bits |
//! | names | per symbol its length (one byte, or two with bit 7 set in the first) and its tokens |
//! | markers | per 256 symbols where their names begin, 32 bits each |
//! | order of names | per symbol 24 bits, only in Linux 6.2, 6.3 and late releases of 6.1 |
//! | tokens | 256 strings, each ended by a zero |
//! | token index | where each begins, 16 bits each |
//! | offsets | per symbol its distance from the base, or in Linux 7 from the offset itself, 32 bits |
//! | base | one word of 64 bits; none in Linux 7 |
//!
//! Up to Linux 6.3 offsets and base stand before the number of symbols, since then behind the token
//! index. The token index is looked for first: 256 ascending numbers, each of which is the start of
//! a string in the bytes before it. All else follows from it: the markers are the nearest numbers
//! before the tokens that ascend from 0 and tell where the names before them begin. Tables of fewer
//! than 257 symbols, which have one marker, are not found.
//!
//! The base is the link address of the first symbol, which lies in the first 2 MiB; the first byte
//! is linked at a multiple of that. An Image with relocations of the form RELA has the base in the
//! relocation of the word instead.

/// The tables.
#[derive(Debug)]
pub struct Kallsyms<'a> {
    image: &'a [u8],
    count: usize,
    names: usize,
    tokens: Vec<&'a [u8]>,
    offsets: Offsets,
}

/// What the addresses of symbols are told by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Offsets {
    /// Distances from the base, from `start` on. The base is at `base`.
    FromBase { start: usize, base: usize },
    /// Distances from the place of each, from `start` on.
    FromPlace { start: usize },
}

/// The number of tokens.
const TOKENS: usize = 256;
/// Symbols per marker.
const PER_MARKER: usize = 256;
/// The longest token table: no token is as long as a name.
const MOST_TOKEN_BYTES: usize = 1 << 14;
/// The most symbols.
const MOST_SYMBOLS: usize = 1 << 24;
/// What the link address of an Image is a multiple of.
const LINK_ALIGNMENT: u64 = 2 << 20;
/// The longest name, and the bytes of its length.
const LONGEST_NAME: usize = 1 << 11;
/// How often tables may look right at first, in a file that was made to look like many.
const MOST_TRIES: usize = 1 << 8;

fn u16_at(image: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*image.get(at..)?.first_chunk()?))
}

fn u32_at(image: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*image.get(at..)?.first_chunk()?))
}

fn u64_at(image: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*image.get(at..)?.first_chunk()?))
}

impl<'a> Kallsyms<'a> {
    /// Finds the tables in `image`.
    pub fn find(image: &'a [u8]) -> Option<Self> {
        let places = (0..=image.len().saturating_sub(2 * TOKENS)).step_by(4);
        let indices = places.filter(|index| is_index(image, *index));
        let tokens = indices.flat_map(|index| {
            [8, 4].into_iter().filter_map(move |align| {
                let (start, tokens) = tokens_before(image, index, align)?;
                Some((index, align, start, tokens))
            })
        });
        tokens.take(MOST_TRIES).find_map(|(index, align, start, tokens)| {
            let (names, count) = names(image, start, align)?;
            let offsets = Offsets::find(image, names, count, index + 2 * TOKENS, align)?;
            Some(Self { image, count, names, tokens, offsets })
        })
    }

    /// The link address of the first byte, if the Image has it.
    pub fn first(&self) -> Option<u64> {
        self.base().map(|base| base - base % LINK_ALIGNMENT)
    }

    fn base(&self) -> Option<u64> {
        let Offsets::FromBase { base, .. } = self.offsets else { return None };
        base_at(self.image, base)
    }

    /// Calls `each` with the distance from the first byte, the type and the name of every symbol.
    pub fn each(&self, mut each: impl FnMut(u64, char, &str)) {
        let first = self.base().unwrap_or(0) % LINK_ALIGNMENT;
        let mut at = self.names;
        let mut name = Vec::new();
        for nth in 0..self.count {
            let Some((length, bytes)) = name_at(self.image, at) else { return };
            let Some(offset) = self.offsets.of(self.image, nth) else { return };
            name.clear();
            for token in self.image.get(bytes..bytes + length).unwrap_or_default() {
                name.extend_from_slice(self.tokens.get(usize::from(*token)).copied().unwrap_or_default());
            }
            at = bytes + length;
            let Some((kind, rest)) = name.split_first() else { continue };
            each(first + offset, char::from(*kind), &String::from_utf8_lossy(rest));
        }
    }
}

/// Whether 256 ascending numbers from 0 are at `index`.
fn is_index(image: &[u8], index: usize) -> bool {
    let Some(bytes) = image.get(index..index + 2 * TOKENS) else { return false };
    let mut last = None;
    bytes.chunks_exact(2).all(|pair| {
        let number = u16::from_le_bytes([pair[0], pair[1]]);
        let ascends =
            last.map_or(number == 0, |last| number > last && usize::from(number) < MOST_TOKEN_BYTES);
        last = Some(number);
        ascends
    })
}

/// The tokens whose index is at `index`, and where they start.
fn tokens_before(image: &[u8], index: usize, align: usize) -> Option<(usize, Vec<&[u8]>)> {
    let last = usize::from(u16_at(image, index + 2 * (TOKENS - 1))?);
    // The last string ends less than `align` bytes before the index.
    let before = index.checked_sub(last + 1)?;
    let starts = (0..=before).rev().filter(|start| start % align == 0).take(LONGEST_NAME / align);
    starts.into_iter().find_map(|start| Some((start, tokens(image, start, index, align)?)))
}

/// The tokens from `start` on, whose index is at `index`.
fn tokens(image: &[u8], start: usize, index: usize, align: usize) -> Option<Vec<&[u8]>> {
    let mut tokens = Vec::with_capacity(TOKENS);
    let mut end = start;
    for nth in 0..TOKENS {
        let at = start + usize::from(u16_at(image, index + 2 * nth)?);
        if at != end {
            return None;
        }
        let bytes = image.get(at..index)?;
        let length = bytes.iter().take(LONGEST_NAME).position(|byte| *byte == 0)?;
        tokens.push(bytes.get(..length)?);
        end = at + length + 1;
    }
    (end.next_multiple_of(align) == index).then_some(tokens)
}

/// The length of the name at `at` in tokens, and where they begin.
fn name_at(image: &[u8], at: usize) -> Option<(usize, usize)> {
    let first = usize::from(*image.get(at)?);
    if first & 0x80 == 0 {
        return Some((first, at + 1));
    }
    let more = usize::from(*image.get(at + 1)?);
    Some(((first & 0x7f) | (more << 7), at + 2))
}

/// The names whose markers are before `end`, and their number. The order of names may be between.
fn names(image: &[u8], end: usize, align: usize) -> Option<(usize, usize)> {
    let farthest = end.saturating_sub(4 * MOST_SYMBOLS);
    let places = (farthest..end).rev().filter(|markers| markers % align == 0);
    let markers = places.map(|markers| (markers, ascending(image, markers)));
    markers.filter(|(_, groups)| *groups > 1).take(MOST_TRIES).find_map(|(markers, most)| {
        // The order of names may begin with numbers that could be markers.
        let groups = (2..=most).rev().take(4);
        groups.into_iter().find_map(|groups| names_of(image, markers, groups, align))
    })
}

/// The names of which the markers of `groups` groups are at `markers`, and their number.
fn names_of(image: &[u8], markers: usize, groups: usize, align: usize) -> Option<(usize, usize)> {
    let last = u32_at(image, markers + 4 * (groups - 1))? as usize;
    // The last group has up to 256 names.
    let most = markers.checked_sub(last)?;
    let least = most.saturating_sub(PER_MARKER * LONGEST_NAME);
    (least..=most).rev().filter(|names| names % align == 0).find_map(|names| {
        let count = u32_at(image, names.checked_sub(align)?)? as usize;
        let fits = count > (groups - 1) * PER_MARKER && count <= groups * PER_MARKER;
        let is_padded = align == 4 || u32_at(image, names - 4)? == 0;
        (fits && is_padded && are_names(image, (names, count), markers, align)).then_some((names, count))
    })
}

/// How many numbers from `markers` on could be markers: they ascend from 0 by the bytes of 256
/// names.
fn ascending(image: &[u8], markers: usize) -> usize {
    let numbers = (markers..).step_by(4).map_while(|at| u32_at(image, at)).map(|marker| marker as usize);
    // A name takes two bytes or more.
    let steps = 2 * PER_MARKER..=PER_MARKER * LONGEST_NAME;
    let mut last = None;
    numbers
        .take_while(|marker| {
            let ascends = match last {
                None => *marker == 0,
                Some(last) => marker.checked_sub(last).is_some_and(|step| steps.contains(&step)),
            };
            last = Some(*marker);
            ascends && *marker <= markers
        })
        .count()
}

/// Whether `count` names from `names` on are where the markers say, and end before `markers`.
fn are_names(image: &[u8], (names, count): (usize, usize), markers: usize, align: usize) -> bool {
    let mut at = names;
    for nth in 0..count {
        if nth % PER_MARKER == 0
            && u32_at(image, markers + 4 * (nth / PER_MARKER)).map(|marker| names + marker as usize)
                != Some(at)
        {
            return false;
        }
        match name_at(image, at) {
            Some((length, bytes)) if length > 0 && bytes + length <= markers => at = bytes + length,
            _ => return false,
        }
    }
    at.next_multiple_of(align) == markers
}

impl Offsets {
    /// The offsets of `count` symbols: before the number of symbols, which is before `names`, or
    /// from `behind` on.
    fn find(image: &[u8], names: usize, count: usize, behind: usize, align: usize) -> Option<Self> {
        let bytes = (4 * count).next_multiple_of(align);
        let behind = behind.next_multiple_of(align);
        let before = names.checked_sub(16).and_then(|base| Some((base.checked_sub(bytes)?, base)));
        let before = before.map(|(start, base)| Self::FromBase { start, base });
        let from_base = Self::FromBase { start: behind, base: behind + bytes };
        let found = [before, Some(from_base), Some(Self::FromPlace { start: behind })];
        found.into_iter().flatten().find(|offsets| {
            let all = (0..count).map(|nth| offsets.of(image, nth));
            let has_base = match *offsets {
                Self::FromBase { base, .. } => base_at(image, base).is_some(),
                Self::FromPlace { .. } => true,
            };
            has_base && all.clone().all(|offset| offset.is_some()) && all.is_sorted()
        })
    }

    /// The distance of symbol `nth` from the first byte.
    fn of(self, image: &[u8], nth: usize) -> Option<u64> {
        match self {
            Self::FromBase { start, .. } => Some(u64::from(u32_at(image, start + 4 * nth)?)),
            Self::FromPlace { start } => {
                let at = start + 4 * nth;
                let distance = u32_at(image, at)? as i32;
                (at as u64).checked_add_signed(i64::from(distance))
            }
        }
    }
}

/// The base at `at`, an address of the kernel's half.
fn base_at(image: &[u8], at: usize) -> Option<u64> {
    let base = match u64_at(image, at)? {
        0 => relocated(image, at),
        base => Some(base),
    };
    base.filter(|base| base >> 63 == 1)
}

/// What a relocation of the word at `at` makes of it: an entry of .rela.dyn with the link address
/// of the word, R_AARCH64_RELATIVE, and the value.
fn relocated(image: &[u8], at: usize) -> Option<u64> {
    const RELATIVE: u64 = 0x403;
    let places = (0..=image.len().saturating_sub(24)).step_by(8);
    places.filter(|place| u64_at(image, place + 8) == Some(RELATIVE)).find_map(|place| {
        let (word, value) = (u64_at(image, place)?, u64_at(image, place + 16)?);
        let first = value - value % LINK_ALIGNMENT;
        (value != 0 && word.checked_sub(first) == Some(at as u64)).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// What differs between the tables of the releases of Linux.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Form {
        OffsetsFirst { has_order: bool, is_relocated: bool },
        OffsetsLast,
        FromPlace,
    }

    const FORMS: [Form; 6] = [
        Form::OffsetsFirst { has_order: false, is_relocated: false },
        Form::OffsetsFirst { has_order: false, is_relocated: true },
        Form::OffsetsFirst { has_order: true, is_relocated: false },
        Form::OffsetsFirst { has_order: true, is_relocated: true },
        Form::OffsetsLast,
        Form::FromPlace,
    ];

    const FIRST: u64 = 0xffff_8000_0800_0000;
    const BEFORE: usize = 1 << 20;

    /// An Image with a symbol at each of `offsets` from the first, and `head` before the tables.
    fn image(form: Form, offsets: &[u32], head: &[u8]) -> Vec<u8> {
        let align = if form == Form::FromPlace { 4 } else { 8 };
        let mut image = vec![0; BEFORE];
        image[..head.len()].copy_from_slice(head);
        let pad = |image: &mut Vec<u8>| image.resize(image.len().next_multiple_of(align), 0);
        let mut base_at = 0;
        let base = |image: &mut Vec<u8>, is_relocated: bool| {
            let at = image.len();
            image.extend(if is_relocated { 0 } else { FIRST + 0x1_0000 }.to_le_bytes());
            at
        };
        if let Form::OffsetsFirst { is_relocated, .. } = form {
            offsets.iter().for_each(|offset| image.extend(offset.to_le_bytes()));
            pad(&mut image);
            base_at = base(&mut image, is_relocated);
        }
        image.extend((offsets.len() as u32).to_le_bytes());
        pad(&mut image);
        let (names, mut markers) = (image.len(), Vec::new());
        for (nth, offset) in offsets.iter().enumerate() {
            if nth.is_multiple_of(PER_MARKER) {
                markers.push((image.len() - names) as u32);
            }
            let name = name(nth, *offset);
            if let (0, more) = (name.len() & 0x80, name.len()) {
                image.push(more as u8);
            } else {
                image.extend([name.len() as u8 | 0x80, (name.len() >> 7) as u8]);
            }
            image.extend(name.bytes());
        }
        pad(&mut image);
        markers.iter().for_each(|marker| image.extend(marker.to_le_bytes()));
        pad(&mut image);
        if let Form::OffsetsFirst { has_order: true, .. } = form {
            (0..offsets.len() as u32).rev().for_each(|nth| image.extend(&nth.to_be_bytes()[1..]));
            pad(&mut image);
        }
        let (tokens, mut index) = (image.len(), Vec::new());
        for token in 0..=255_u8 {
            index.push((image.len() - tokens) as u16);
            image.extend(match token {
                0 => b"_long\0".to_vec(),
                token => vec![token, 0],
            });
        }
        pad(&mut image);
        index.iter().for_each(|at| image.extend(at.to_le_bytes()));
        if let Form::OffsetsLast | Form::FromPlace = form {
            for offset in offsets {
                let place = if form == Form::FromPlace { image.len() as u32 } else { 0 };
                let first = if form == Form::FromPlace { 0x1_0000 } else { 0 };
                image.extend((offset + first).wrapping_sub(place).to_le_bytes());
            }
            pad(&mut image);
        }
        if form == Form::OffsetsLast {
            base_at = base(&mut image, false);
        }
        if let Form::OffsetsFirst { is_relocated: true, .. } = form {
            for (word, value) in [(BEFORE, FIRST + 0x42), (base_at, FIRST + 0x1_0000)] {
                image.extend((FIRST + word as u64).to_le_bytes());
                image.extend(0x403_u64.to_le_bytes());
                image.extend(value.to_le_bytes());
            }
        }
        image
    }

    /// The tokens of symbol `nth` at `offset`: its type, and a name which is long at times.
    fn name(nth: usize, offset: u32) -> String {
        let more = if nth % 100 == 99 { 150 } else { 0 };
        format!("T\0{nth}_{offset:x}{:.<more$}", "")
    }

    type Found = (Option<u64>, Vec<(u64, String)>);

    fn found(image: &[u8]) -> Option<Found> {
        let kallsyms = Kallsyms::find(image)?;
        let mut symbols = Vec::new();
        kallsyms.each(|offset, kind, name| symbols.push((offset, format!("{kind}{name}"))));
        Some((kallsyms.first(), symbols))
    }

    proptest! {
        #[test]
        fn the_tables_of_every_release_are_found(
            form in proptest::sample::select(&FORMS),
            steps in vec(0_u32..1000, 257..2000),
            head in vec(any::<u8>(), 0..BEFORE / 8),
        ) {
            let offsets: Vec<u32> = steps.iter().scan(0, |at, step| {
                *at += step;
                Some(*at)
            }).collect();
            let symbols = offsets.iter().enumerate().map(|(nth, offset)| {
                (0x1_0000 + u64::from(*offset), name(nth, *offset).replace('\0', "_long"))
            });
            let first = (form != Form::FromPlace).then_some(FIRST);
            prop_assert_eq!(found(&image(form, &offsets, &head)), Some((first, symbols.collect())));
        }

        #[test]
        fn damaged_tables_are_no_panic(
            form in proptest::sample::select(&FORMS),
            flips in vec((BEFORE..BEFORE + 12_000, any::<u8>()), 0..20),
            length in BEFORE..BEFORE + 20_000,
        ) {
            let offsets: Vec<u32> = (0..600).collect();
            let mut image = image(form, &offsets, &[]);
            for (at, byte) in flips {
                if let Some(flipped) = image.get_mut(at) {
                    *flipped = byte;
                }
            }
            image.truncate(length);
            found(&image);
        }
    }
}
