//! Which payload to load, and what it starts with.

use linmap_kexec::Archive;
use linmap_platform::{COMMAND_LINE_MAX, CommandLine};
use linmap_vmsa::{Pa, PaRange};

use crate::arch::platform::Platform;
use crate::kexec::allocations::Pool;
use crate::kexec::archive;
use crate::kexec::command_line::last_generation;
use crate::kexec::error::KexecError;
use crate::kexec::next_line;
use crate::memory::physical::Memory;

/// What to hand over to.
#[derive(Clone, Copy, Debug)]
pub enum Payload {
    /// The kernel of the archive.
    Linux,
    /// linmap again with the same archive, as the generation with this number.
    Myself(u64),
}

/// Bytes that lie somewhere in memory.
#[derive(Clone, Copy)]
pub struct InMemory {
    /// The bytes.
    pub bytes: &'static [u8],
    /// Where they are.
    pub at: PaRange,
}

/// What a payload starts with.
#[derive(Clone, Copy)]
pub struct Input<'t> {
    /// Its command line.
    pub bootargs: &'t str,
    /// Its initrd.
    pub initrd: Option<InMemory>,
}

impl InMemory {
    /// `bytes` of the archive, which are reached through the linear map of `memory`.
    pub fn of_archive(memory: &Memory, bytes: &'static [u8]) -> Self {
        let start = Pa(bytes.as_ptr().expose_provenance() as u64 - memory.layout.offset());
        Self { bytes, at: PaRange::new(start, Pa(start.0 + bytes.len() as u64)) }
    }
}

impl Payload {
    /// The payload that the command line and the archive ask for. `None` if the boot ends here.
    ///
    /// # Errors
    /// [`KexecError`].
    pub fn choose(platform: &Platform, memory: &Memory) -> Result<Option<Self>, KexecError> {
        let line = platform.command_line;
        let generation = platform.generation;
        let last = last_generation(line)?;
        match line.get("linmap.payload") {
            Some("none") => Ok(None),
            Some("self") => Ok((generation < last).then(|| Self::Myself(generation + 1))),
            Some("linux") | None => Ok(archive::open(platform, memory)?.map(|_| Self::Linux)),
            Some(_) => Err(KexecError::UnknownPayload),
        }
    }

    /// Command line and initrd of the payload, which is loaded to `pool`. `text` has room for the
    /// command line.
    ///
    /// # Errors
    /// [`KexecError::NotText`], [`KexecError::CommandLine`].
    pub fn input<'t>(
        self,
        platform: &Platform,
        memory: &Memory,
        archive: &Archive<'static>,
        pool: Pool,
        text: &'t mut [u8; COMMAND_LINE_MAX - 1],
    ) -> Result<Input<'t>, KexecError> {
        let own = platform.command_line;
        match self {
            Self::Linux => {
                let theirs = CommandLine::new(member_text(archive, "cmdline")?);
                let data = archive.find("initrd").map(|member| member.data).filter(|data| !data.is_empty());
                let bootargs = next_line::for_payload(own, theirs, pool, text)?;
                Ok(Input { bootargs, initrd: data.map(|bytes| InMemory::of_archive(memory, bytes)) })
            }
            Self::Myself(next) => {
                let initrd = platform.initrd.map(|at| {
                    // SAFETY: the archive was opened, so that the range is mapped; nothing writes
                    // to it.
                    InMemory { bytes: unsafe { memory.constant_bytes(at) }, at }
                });
                let bootargs = next_line::for_generation(own, next, pool, text)?;
                Ok(Input { bootargs, initrd })
            }
        }
    }
}

/// The text of a member of the archive, empty if there is none.
fn member_text<'a>(archive: &Archive<'a>, name: &'static str) -> Result<&'a str, KexecError> {
    let Some(member) = archive.find(name) else { return Ok("") };
    let text = core::str::from_utf8(member.data)
        .map_err(|error| KexecError::NotText { name, at: error.valid_up_to() })?;
    Ok(text.trim_end_matches('\0').trim())
}
