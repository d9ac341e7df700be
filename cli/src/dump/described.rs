//! Leaves in words: the same in the listing, in JSON and in what differs between two dumps.

use std::fmt;

use linmap::listing::Size;
use linmap_vmsa::{Access, Execute, Shareability};
use serde::{Deserialize, Serialize};

use crate::dump::meaning::{
    ACCESSED, DIRTY_MODIFIER, GUARDED, Meaning, NO_TRANSLATION, NOT_GLOBAL, NOT_SECURE, Sharing,
};

/// A leaf in words.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Described {
    /// Its level.
    pub level: i8,
    /// The bytes that it maps.
    pub leaf: u64,
    /// The contiguous bit.
    pub contiguous: bool,
    /// Who may read and write: `RW`, `ro`, with ` USR` for user space too; `RW GST` at stage 2.
    pub access: String,
    /// Who may execute: `NX`, `x`, `UX`, `xUX`.
    pub execute: String,
    /// `ISH`, `OSH`, `NSH`, the reserved `SH=01`, or `SH=TCR` where TCR has it and is not known.
    pub shareability: String,
    /// nG is clear.
    pub global: bool,
    /// AF is set.
    pub accessed: bool,
    /// The memory type.
    pub memory: String,
    /// Someone may write and someone may execute.
    #[serde(default, skip_serializing_if = "is_default")]
    pub writable_and_executable: bool,
    /// What the tables on the way take away.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tables: String,
    /// Access and execution of the leaf alone, if the tables, EL0's right to write or WXN took
    /// something away.
    #[serde(default, skip_serializing_if = "is_default")]
    pub own: String,
    /// Other bits by name: `DBM`, `GP`, `nT`, `NS`, `FnXS`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub flags: Vec<String>,
    /// Bits 58:55, which belong to software.
    #[serde(default, skip_serializing_if = "is_default")]
    pub software: u64,
    /// Bits 62:59.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pbha: u64,
    /// Bits that are RES0 and set.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reserved: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Described {
    /// A leaf with this meaning.
    pub fn of(meaning: &Meaning) -> Self {
        let (own_access, own_execute) = meaning.own;
        let takes = meaning.own != (meaning.access, meaning.execute);
        let own = match takes {
            true => format!("{} {}", access(own_access), execute(own_execute)),
            false => String::new(),
        };
        let tables = match meaning.tables.is_all() {
            true => String::new(),
            false => meaning.tables.to_string(),
        };
        let reserved = match meaning.reserved {
            0 => String::new(),
            bits => format!("{bits:#x}"),
        };
        Self {
            level: meaning.level.number(),
            leaf: meaning.leaf_bytes,
            contiguous: meaning.is_contiguous(),
            access: access(meaning.access).to_owned(),
            execute: execute(meaning.execute).to_owned(),
            shareability: match meaning.sharing {
                Sharing::Known(Shareability::Inner) => "ISH",
                Sharing::Known(Shareability::Outer) => "OSH",
                Sharing::Known(Shareability::Non) => "NSH",
                Sharing::Reserved => "SH=01",
                Sharing::InTcr => "SH=TCR",
            }
            .to_owned(),
            global: meaning.is_global,
            accessed: meaning.bits & ACCESSED != 0,
            memory: meaning.memory.to_string(),
            writable_and_executable: meaning.is_writable_and_executable(),
            tables,
            own,
            flags: flags(meaning).map(str::to_owned).collect(),
            software: meaning.software(),
            pbha: meaning.pbha(),
            reserved,
        }
    }

    /// What is not equal in `self` and `other`, by name and as both have it.
    pub fn differences(&self, other: &Self) -> Vec<(&'static str, String, String)> {
        let yes_no = |value: bool| if value { "yes" } else { "no" }.to_owned();
        let fields = |of: &Self| {
            [
                ("level", of.level.to_string()),
                ("leaf", Size(of.leaf).to_string()),
                ("contiguous", yes_no(of.contiguous)),
                ("access", of.access.clone()),
                ("execute", of.execute.clone()),
                ("shareability", of.shareability.clone()),
                ("global", yes_no(of.global)),
                ("accessed", yes_no(of.accessed)),
                ("memory", of.memory.clone()),
                ("tables", of.tables.clone()),
                ("own", of.own.clone()),
                ("flags", of.flags.join(",")),
                ("software", format!("{:#x}", of.software)),
                ("pbha", format!("{:#x}", of.pbha)),
                ("reserved", of.reserved.clone()),
            ]
        };
        let both = fields(self).into_iter().zip(fields(other));
        both.filter(|(a, b)| a != b).map(|((name, a), (_, b))| (name, a, b)).collect()
    }
}

fn access(access: Access) -> &'static str {
    match access {
        Access::KernelReadWrite | Access::KernelReadWriteDirty => "RW",
        Access::KernelReadOnly | Access::KernelReadWriteClean => "ro",
        Access::UserReadWrite | Access::UserReadWriteDirty => "RW USR",
        Access::UserReadOnly | Access::UserReadWriteClean => "ro USR",
        Access::GuestNone => "-- GST",
        Access::GuestReadOnly | Access::GuestReadWriteClean => "ro GST",
        Access::GuestWriteOnly => "WO GST",
        Access::GuestReadWrite | Access::GuestReadWriteDirty => "RW GST",
    }
}

fn execute(execute: Execute) -> &'static str {
    match execute {
        Execute::Never => "NX",
        Execute::Kernel => "x",
        Execute::User => "UX",
        Execute::Both => "xUX",
    }
}

fn flags(meaning: &Meaning) -> impl Iterator<Item = &'static str> {
    let has = |bit: u64, name| (meaning.bits & bit & !meaning.reserved != 0).then_some(name);
    let no_translation = if meaning.level.number() == 3 { None } else { has(NO_TRANSLATION, "nT") };
    let (secure, xs) = match meaning.is_stage_2 {
        true => (None, has(NOT_GLOBAL, "FnXS")),
        false => (has(NOT_SECURE, "NS"), None),
    };
    [has(DIRTY_MODIFIER, "DBM"), has(GUARDED, "GP"), no_translation, secure, xs].into_iter().flatten()
}

impl fmt::Display for Described {
    /// The columns of a listing, from the level on. They begin like those of linmap's own kernel.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let contiguous = if self.contiguous { "CON" } else { "   " };
        write!(f, "L{} {:>4} {contiguous} {} ", self.level, Size(self.leaf), self.access)?;
        let global = if self.global { "G " } else { "nG" };
        let accessed = if self.accessed { "AF" } else { "  " };
        let Self { execute, shareability, memory, .. } = self;
        write!(f, "{execute:<3} {shareability} {global} {accessed} {memory}")?;
        if self.writable_and_executable {
            f.write_str(" W+X")?;
        }
        match (self.tables.is_empty(), self.own.is_empty()) {
            (false, true) => write!(f, " (tables: {})", self.tables)?,
            (false, false) => write!(f, " (tables: {}; leaf: {})", self.tables, self.own)?,
            (true, false) => write!(f, " (leaf: {})", self.own)?,
            (true, true) => {}
        }
        for flag in &self.flags {
            write!(f, " {flag}")?;
        }
        for (name, value) in [("SW", self.software), ("PBHA", self.pbha)] {
            if value != 0 {
                write!(f, " {name}={value:#x}")?;
            }
        }
        if !self.reserved.is_empty() {
            write!(f, " RES0={}", self.reserved)?;
        }
        Ok(())
    }
}
