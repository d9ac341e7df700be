//! The user's command line of QEMU, and what is added to it.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::failure::Failure;

/// The name of the memory backend.
pub const MEMORY: &str = "linmap-record";

/// The user's command line.
pub struct CommandLine {
    /// QEMU's program.
    pub program: OsString,
    /// Whether the user wants the guest stopped at its start.
    pub is_stopped: bool,
    arguments: Vec<OsString>,
    memory: String,
    /// Whether the accelerator is named.
    has_accelerator: bool,
}

impl CommandLine {
    /// Reads the command line.
    ///
    /// # Errors
    /// It has what can't be recorded: another accelerator than TCG, or memory of its own.
    pub fn of(words: &[OsString]) -> Result<Self, Failure> {
        let Some((program, arguments)) = words.split_first() else {
            return Err(Failure::new("no QEMU is named"));
        };
        let mut line = Self {
            program: program.clone(),
            is_stopped: false,
            arguments: arguments.to_vec(),
            memory: "128M".to_owned(),
            has_accelerator: false,
        };
        for nth in 0..line.arguments.len() {
            // Options that are not UTF-8 are files.
            let Some(option) = line.arguments[nth].to_str() else { continue };
            let value = line.arguments.get(nth + 1).and_then(|value| value.to_str()).unwrap_or("");
            match option.strip_prefix("--").or(option.strip_prefix('-')).unwrap_or("") {
                "S" => line.is_stopped = true,
                "m" => line.memory = memory(value)?,
                "accel" => {
                    let value = accelerator(value)?;
                    line.has_accelerator = true;
                    line.arguments[nth + 1] = value.into();
                }
                "machine" | "M" if value.split(',').any(|part| part.starts_with("accel=")) => {
                    return Err(Failure::new("the accelerator is named with the machine")
                        .hint("leave accel= out: the recorder needs TCG"));
                }
                "enable-kvm" => return Err(not_tcg("kvm")),
                "machine" | "M" if value.contains("memory-backend=") => return Err(own_memory()),
                "numa" | "mem-path" => return Err(own_memory()),
                _ => {}
            }
        }
        Ok(line)
    }

    /// The arguments, with those of the recorder, whose files are in `folder`.
    pub fn with(&self, plugin: &Path, folder: &Path) -> Vec<OsString> {
        let file = |before: &str, name: &str, behind: &str| {
            let mut text = OsString::from(before);
            text.push(folder.join(name));
            text.push(behind);
            text
        };
        let memory = format!(",size={}", self.memory);
        let mut loaded = plugin.as_os_str().to_owned();
        for (option, name) in [(",to=", "trace"), (",memory=", "memory"), (",layout=", "layout")] {
            loaded.push(file(option, name, ""));
        }
        let mut all = self.arguments.clone();
        let mut add = |option: &str, value: &OsStr| all.extend([option.into(), value.to_owned()]);
        add(
            "-object",
            &file(&format!("memory-backend-file,id={MEMORY},share=on,mem-path="), "memory", &memory),
        );
        add("-machine", format!("memory-backend={MEMORY}").as_ref());
        add("-plugin", &loaded);
        add("-qmp", &file("unix:", "control", ",server=on,wait=off"));
        if !self.has_accelerator {
            add("-accel", "tcg,thread=single".as_ref());
        }
        if !self.is_stopped {
            all.push("-S".into());
        }
        all
    }
}

fn own_memory() -> Failure {
    Failure::new("QEMU is given memory of its own").hint("the recorder gives it a shared file: leave it out")
}

fn not_tcg(name: &str) -> Failure {
    Failure::new(format_args!("the accelerator is {name}")).hint("the recorder needs -accel tcg, or none")
}

/// `-accel`'s value, with one thread for all CPUs.
fn accelerator(value: &str) -> Result<String, Failure> {
    let mut parts = value.split(',');
    let name = parts.next().unwrap_or("");
    if name != "tcg" {
        return Err(not_tcg(name));
    }
    match parts.find_map(|part| part.strip_prefix("thread=")) {
        None => Ok(format!("{value},thread=single")),
        Some("single") => Ok(value.to_owned()),
        Some(_) => Err(Failure::new("CPUs in several threads have no common order")
            .hint("leave thread= out: the recorder needs thread=single")),
    }
}

/// The size that `-m` gives, as a backend takes it: without a unit it is in MiB.
fn memory(value: &str) -> Result<String, Failure> {
    if value.contains("maxmem=") {
        return Err(Failure::new("-m with maxmem").hint("memory that is plugged in later is not recorded"));
    }
    let size = value.split(',').find_map(|part| match part.split_once('=') {
        Some(("size", size)) => Some(size),
        Some(_) => None,
        None => Some(part),
    });
    match size {
        Some(size) if size.bytes().all(|byte| byte.is_ascii_digit()) && !size.is_empty() => {
            Ok(format!("{size}M"))
        }
        Some(size) => Ok(size.to_owned()),
        None => Ok("128M".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &str) -> Result<String, String> {
        let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        let line = CommandLine::of(&words).map_err(|failure| failure.to_string())?;
        let all = line.with(Path::new("/p.so"), Path::new("/d"));
        Ok(all.join(OsStr::new(" ")).into_string().unwrap())
    }

    #[test]
    fn what_the_recorder_needs_is_added() {
        let added = "-object memory-backend-file,id=linmap-record,share=on,mem-path=/d/memory,size=";
        let rest = "-machine memory-backend=linmap-record \
            -plugin /p.so,to=/d/trace,memory=/d/memory,layout=/d/layout \
            -qmp unix:/d/control,server=on,wait=off";
        let (accel, stop) = ("-accel tcg,thread=single", "-S");
        assert_eq!(line("q -M virt").unwrap(), format!("-M virt {added}128M {rest} {accel} {stop}"));
        assert_eq!(line("q -m 512").unwrap(), format!("-m 512 {added}512M {rest} {accel} {stop}"));
        assert_eq!(line("q -m size=2G -S").unwrap(), format!("-m size=2G -S {added}2G {rest} {accel}"));
        let given = line("q -accel tcg,tb-size=64").unwrap();
        assert!(given.starts_with("-accel tcg,tb-size=64,thread=single -object"), "{given}");
    }

    #[test]
    fn what_cannot_be_recorded_is_refused() {
        for (words, why) in [
            ("q -accel kvm", "the accelerator is kvm"),
            ("q -enable-kvm", "the accelerator is kvm"),
            ("q -accel tcg,thread=multi", "several threads"),
            ("q -M virt,memory-backend=m", "memory of its own"),
            ("q -m 1G,maxmem=2G", "maxmem"),
        ] {
            let failure = line(words).unwrap_err();
            assert!(failure.contains(why), "{failure}");
        }
    }
}
