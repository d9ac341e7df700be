//! A conversation with a gdb stub, over TCP or a Unix socket.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::packet::{Decoder, Received, encode};
use crate::failure::Failure;

/// How long to wait for a connection, and for an answer. A stub serves one debugger; a second
/// connects and waits.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many more acknowledgements than packets are taken: those that a debugger before this one has
/// left behind.
const LEFT_BEHIND: usize = 64;
/// How long to wait for the answers to the last packets.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often an interruption is looked for.
const MOMENT: Duration = Duration::from_millis(100);

/// A connection to a stub.
pub struct Link {
    stream: Box<dyn Stream>,
    decoder: Decoder,
    /// Where the stub is, for errors.
    place: String,
    interrupted: Arc<AtomicBool>,
    /// How many more acknowledgements may come.
    acknowledgements: usize,
    /// How long to wait for an answer.
    patience: Duration,
}

trait Stream: Read + Write {}

impl Stream for TcpStream {}
impl Stream for UnixStream {}

impl Link {
    /// Connects to a stub at `place`: the path of a Unix socket, or `HOST:PORT`. Without a host it
    /// is this one.
    ///
    /// # Errors
    /// There is no such place, or nobody listens.
    pub fn connect(place: &str) -> Result<Self, Failure> {
        let of = |failure: Failure| {
            failure
                .of(place)
                .hint("QEMU listens if it runs with -gdb tcp::PORT or -gdb unix:PATH,server,wait=off")
        };
        let stream: Box<dyn Stream> = if is_path(place) {
            let stream = UnixStream::connect(place).map_err(|error| of(error.into()))?;
            stream.set_read_timeout(Some(MOMENT))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Box::new(stream)
        } else {
            let stream = tcp(place).map_err(of)?;
            stream.set_read_timeout(Some(MOMENT))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            // Requests are small, and each waits for its answer.
            stream.set_nodelay(true)?;
            Box::new(stream)
        };
        Ok(Self {
            stream,
            decoder: Decoder::default(),
            place: place.to_owned(),
            interrupted: interruption(),
            acknowledgements: LEFT_BEHIND,
            patience: PATIENCE,
        })
    }

    /// Sends `packet` and returns the answer.
    ///
    /// # Errors
    /// The stub has gone away, doesn't answer, or says what is not of the protocol.
    pub fn ask(&mut self, packet: &[u8]) -> Result<Vec<u8>, Failure> {
        self.send(&[packet.to_vec()])?;
        self.answer()
    }

    /// Sends `packets` at once. There are as many [answers](Self::answer).
    ///
    /// # Errors
    /// The stub has gone away.
    pub fn send(&mut self, packets: &[Vec<u8>]) -> Result<(), Failure> {
        let bytes: Vec<u8> = packets.iter().flat_map(|packet| encode(packet)).collect();
        self.acknowledgements = self.acknowledgements.saturating_add(packets.len());
        self.write(&bytes)
    }

    /// The next packet.
    ///
    /// # Errors
    /// As of [`ask`](Self::ask).
    pub fn answer(&mut self) -> Result<Vec<u8>, Failure> {
        let started = Instant::now();
        let mut buffer = [0; 1 << 14];
        loop {
            match self.decoder.next() {
                Ok(Some(Received::Packet(packet))) => {
                    self.write(b"+")?;
                    return Ok(packet);
                }
                Ok(Some(Received::Acknowledged)) => {
                    let left = self.acknowledgements.checked_sub(1);
                    let none = || self.other_protocol("it acknowledges what was not sent");
                    self.acknowledgements = left.ok_or_else(none)?;
                    continue;
                }
                // On a connection that loses nothing this is another protocol.
                Ok(Some(Received::Refused)) => return Err(self.other_protocol("it refuses a packet")),
                Ok(None) => {}
                Err(error) => return Err(self.other_protocol(&error.to_string())),
            }
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(Failure::new("interrupted").of(&self.place));
            }
            // Patience ends without a whole packet, however many bytes come.
            if started.elapsed() > self.patience {
                let what = format!("no answer within {} seconds", self.patience.as_secs());
                let failure = Failure::new(what).of(&self.place);
                return Err(failure.hint("is another debugger connected, or is it not a gdb stub?"));
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(self.gone()),
                Ok(len) => self.decoder.push(&buffer[..len]),
                Err(error) if is_wait(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(self.gone()),
                Err(error) => return Err(Failure::from(error).of(&self.place)),
            }
        }
    }

    /// Sends `packet` as one of the last, and waits for a moment until the stub has answered it.
    /// Returns whether it refuses the packet for its form (EINVAL): nothing else can be helped.
    pub fn farewell(&mut self, packet: &[u8]) -> bool {
        if self.send(&[packet.to_vec()]).is_err() {
            return false;
        }
        let started = Instant::now();
        let mut buffer = [0; 1 << 14];
        while started.elapsed() < FAREWELL {
            match self.decoder.next() {
                Ok(Some(Received::Packet(packet))) if packet == b"OK" => return false,
                Ok(Some(Received::Packet(packet))) if packet == b"E22" => return true,
                // Answers to what was asked before.
                Ok(Some(_)) | Err(_) => {}
                Ok(None) => match self.stream.read(&mut buffer) {
                    Ok(len @ 1..) => self.decoder.push(&buffer[..len]),
                    Err(error) if is_wait(&error) => {}
                    Ok(_) | Err(_) => return false,
                },
            }
        }
        false
    }

    /// A failure about the stub.
    pub fn failure(&self, what: impl std::fmt::Display) -> Failure {
        Failure::new(what).of(&self.place)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self.stream.write_all(bytes) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(self.gone()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(self.gone()),
            Err(error) => Err(Failure::from(error).of(&self.place)),
        }
    }

    fn gone(&self) -> Failure {
        self.failure("the guest has gone away").hint("QEMU ended, or another debugger has its stub")
    }

    fn other_protocol(&self, why: &str) -> Failure {
        self.failure(format_args!("this is not a gdb stub: {why}"))
            .hint("--gdb takes what QEMU's -gdb listens on, not its monitor or console")
    }
}

fn is_wait(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// Whether the place is a path and not a host and a port.
fn is_path(place: &str) -> bool {
    // A number above 65535 is a wrong port, not a path.
    let is_number = |port: &str| !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit());
    match place.rsplit_once(':') {
        Some((_, port)) => !is_number(port),
        None => !is_number(place),
    }
}

fn tcp(place: &str) -> Result<TcpStream, Failure> {
    let (host, port) = place.rsplit_once(':').unwrap_or(("", place));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if host.is_empty() { "localhost" } else { host };
    let port: u16 = port.parse().map_err(|_| Failure::new("the port is not a number below 65536"))?;
    let mut last = Failure::new("the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// Whether the user wants to stop. The guest is put back as it was found all the same; a second
/// wish ends the tool at once.
fn interruption() -> Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    let flag = FLAG.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(false));
        let of_handler = Arc::clone(&flag);
        // Without a handler the guest stays stopped if the tool is interrupted, and nothing else.
        let _ = ctrlc::set_handler(move || {
            if of_handler.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        });
        flag
    });
    Arc::clone(flag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A link to a peer that connects and then sends `piece` again and again, at intervals of
    /// `pause`, until nobody listens.
    fn link_to(piece: &'static [u8], pause: Duration) -> (Link, std::thread::JoinHandle<()>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stub");
        let listener = UnixListener::bind(&path).unwrap();
        let peer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            while stream.write_all(piece).is_ok() {
                std::thread::sleep(pause);
            }
        });
        let mut link = Link::connect(path.to_str().unwrap()).unwrap();
        link.patience = Duration::from_millis(300);
        (link, peer)
    }

    #[test]
    fn a_peer_that_sends_no_packet_is_given_up_in_time() {
        for (piece, pause, what) in [
            (&b"++++++++"[..], Duration::ZERO, "it acknowledges what was not sent"),
            (b"$", Duration::from_millis(10), "no answer within"),
            (b"+", Duration::from_millis(50), "no answer within"),
        ] {
            let (mut link, peer) = link_to(piece, pause);
            let started = Instant::now();
            let error = link.ask(b"?").unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
            assert!(started.elapsed() < Duration::from_secs(5));
            drop(link);
            peer.join().unwrap();
        }
    }
}
