//! A boot without `cargo xtask`: QEMU started by hand, with an archive as it comes, as any boot loader might.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::boot::image;

/// Longest that a machine may take before it has to have switched itself off.
const PATIENCE: Duration = Duration::from_secs(60);

/// A machine to be started with this initrd and command line.
#[derive(Debug)]
pub struct RawBoot<'a> {
    /// The initrd, which should be an archive.
    pub initrd: &'a [u8],
    /// The command line.
    pub command_line: &'a str,
}

impl RawBoot<'_> {
    /// The console of the machine until it switches itself off.
    ///
    /// # Panics
    /// When it does not.
    pub fn run(&self) -> String {
        let mut archive = tempfile::NamedTempFile::new().expect("a temporary file");
        std::io::Write::write_all(&mut archive, self.initrd).expect("room for the archive");
        let mut qemu = Command::new("qemu-system-aarch64")
            .args(["-M", "virt,dtb-randomness=off", "-cpu", "max", "-m", "1G", "-nographic", "-nic", "none"])
            .arg("-kernel")
            .arg(image())
            .arg("-initrd")
            .arg(archive.path())
            .args(["-append", self.command_line])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("QEMU starts");
        let mut stdout = qemu.stdout.take().expect("a pipe");
        let (sender, receiver) = mpsc::channel();
        let reader = thread::spawn(move || {
            let mut console = Vec::new();
            // An error ends the console as the end of the machine does.
            let _ = stdout.read_to_end(&mut console);
            let _ = sender.send(());
            String::from_utf8_lossy(&console).into_owned()
        });
        let ended = receiver.recv_timeout(PATIENCE);
        // It has ended, or has to.
        let _ = qemu.kill();
        let _ = qemu.wait();
        let console = reader.join().expect("the reader does not panic");
        assert!(ended.is_ok(), "the machine did not switch itself off: {console}");
        console
    }
}

/// A newc cpio archive.
pub fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, data) in members.iter().copied().chain([("TRAILER!!!", &[][..])]) {
        let mut header = String::from("070701");
        let fields = [1, 0o100_644, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}
