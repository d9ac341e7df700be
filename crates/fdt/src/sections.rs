//! Where the children of the root begin that every kernel reads. The check visits every node, so it
//! notes them.

/// The offsets in the structure block at which these nodes begin. Of two with the same name the
/// first counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sections {
    at: [Option<u32>; NAMES.len()],
}

const NAMES: [&str; 4] = ["chosen", "aliases", "cpus", "reserved-memory"];

impl Sections {
    /// Notes the child of the root `name`, which begins at offset `at`.
    pub fn note(&mut self, name: &[u8], at: usize) {
        let path_leads_to = |part: &str| {
            let rest = name.strip_prefix(part.as_bytes());
            rest.is_some_and(|rest| rest.first().is_none_or(|byte| *byte == b'@'))
        };
        if let Some(nth) = NAMES.iter().position(|part| path_leads_to(part))
            && let Some(place @ None) = self.at.get_mut(nth)
        {
            *place = u32::try_from(at).ok();
        }
    }

    pub fn chosen(self) -> Option<u32> {
        self.at[0]
    }

    pub fn aliases(self) -> Option<u32> {
        self.at[1]
    }

    pub fn cpus(self) -> Option<u32> {
        self.at[2]
    }

    pub fn reserved_memory(self) -> Option<u32> {
        self.at[3]
    }
}
