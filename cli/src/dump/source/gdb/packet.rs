//! Packets of gdb's remote protocol: `$`, what it says, `#` and two digits of checksum.

use thiserror::Error;

/// Longest packet that is taken. QEMU's have at most 128 KiB.
const LONGEST: usize = 1 << 20;

/// What has come from a stub.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Received {
    /// The stub has the last packet.
    Acknowledged,
    /// The stub wants the last packet once more.
    Refused,
    /// A packet, without escapes and run lengths.
    Packet(Vec<u8>),
}

/// Why bytes are no packets of gdb's remote protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum PacketError {
    /// A byte that begins nothing.
    #[error("byte {byte:#04x} begins no packet of gdb's remote protocol")]
    NoPacket {
        /// The byte.
        byte: u8,
    },
    /// The packet never ends.
    #[error("a packet has more than {LONGEST} bytes")]
    TooLong,
    /// The checksum is wrong.
    #[error("a packet has the checksum {found:#04x} and says {said:#04x}")]
    Checksum {
        /// The sum of its bytes.
        found: u8,
        /// What stands behind it.
        said: u8,
    },
    /// The checksum has a character that is no hexadecimal digit, or an escape or a run has nothing
    /// to repeat or to escape.
    #[error("a packet is malformed")]
    Malformed,
}

/// The bytes that send `packet`.
pub fn encode(packet: &[u8]) -> Vec<u8> {
    let mut bytes = vec![b'$'];
    for &byte in packet {
        match byte {
            b'$' | b'#' | b'}' | b'*' => bytes.extend([b'}', byte ^ 0x20]),
            byte => bytes.push(byte),
        }
    }
    let sum = sum(&bytes[1..]);
    bytes.extend(format!("#{sum:02x}").into_bytes());
    bytes
}

/// Bytes as hexadecimal digits, as many packets have them.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that hexadecimal digits say, appended to `bytes`; `None` if they aren't any.
pub fn from_hex(digits: &[u8], bytes: &mut Vec<u8>) -> Option<()> {
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    for pair in pairs {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        bytes.push((high? << 4 | low?) as u8);
    }
    Some(())
}

/// Finds packets in a stream of bytes.
#[derive(Default)]
pub struct Decoder {
    /// What has come and was not looked at.
    waiting: Vec<u8>,
    /// How much of it was looked at.
    done: usize,
}

impl Decoder {
    /// Takes bytes that have come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.waiting.drain(..self.done);
        self.done = 0;
        self.waiting.extend_from_slice(bytes);
    }

    /// The next that has come whole; `None` if more has to come first.
    ///
    /// # Errors
    /// The bytes are not of this protocol. The packet that is wrong is passed over.
    pub fn next(&mut self) -> Result<Option<Received>, PacketError> {
        let rest = self.waiting.get(self.done..).unwrap_or_default();
        let Some((&first, rest)) = rest.split_first() else { return Ok(None) };
        match first {
            b'+' => {
                self.done += 1;
                Ok(Some(Received::Acknowledged))
            }
            b'-' => {
                self.done += 1;
                Ok(Some(Received::Refused))
            }
            b'$' => {
                let Some(len) = rest.iter().take(LONGEST + 1).position(|&byte| byte == b'#') else {
                    return if rest.len() > LONGEST { Err(PacketError::TooLong) } else { Ok(None) };
                };
                let (said, rest) = rest.split_at(len);
                let Some(&[_, high, low]) = rest.first_chunk::<3>() else { return Ok(None) };
                let found = sum(said);
                let packet = unpacked(said);
                self.done += 1 + len + 3;
                let mut checksum = Vec::new();
                from_hex(&[high, low], &mut checksum).ok_or(PacketError::Malformed)?;
                match checksum[..] {
                    [said] if said != found => Err(PacketError::Checksum { found, said }),
                    _ => packet.map(|packet| Some(Received::Packet(packet))),
                }
            }
            byte => {
                self.done += 1;
                Err(PacketError::NoPacket { byte })
            }
        }
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, &byte| sum.wrapping_add(byte))
}

/// `}` escapes the next byte; `*` and a character repeat the byte before it.
fn unpacked(said: &[u8]) -> Result<Vec<u8>, PacketError> {
    let mut packet = Vec::with_capacity(said.len());
    let mut bytes = said.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'}' => packet.push(bytes.next().ok_or(PacketError::Malformed)? ^ 0x20),
            b'*' => {
                let (Some(&last), Some(&count @ b' '..=b'~')) = (packet.last(), bytes.next()) else {
                    return Err(PacketError::Malformed);
                };
                packet.extend(std::iter::repeat_n(last, usize::from(count - b' ') + 3));
            }
            byte => packet.push(byte),
        }
        if packet.len() > LONGEST {
            return Err(PacketError::TooLong);
        }
    }
    Ok(packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8]) -> Vec<Result<Received, PacketError>> {
        let mut decoder = Decoder::default();
        decoder.push(bytes);
        std::iter::from_fn(|| decoder.next().transpose()).collect()
    }

    #[test]
    fn packets_are_found_among_acknowledgements() {
        assert_eq!(encode(b"g"), b"$g#67");
        assert_eq!(
            all(b"+$OK#9a-$#00"),
            [
                Ok(Received::Acknowledged),
                Ok(Received::Packet(b"OK".to_vec())),
                Ok(Received::Refused),
                Ok(Received::Packet(Vec::new())),
            ]
        );
        assert_eq!(all(b"$0* #7a"), [Ok(Received::Packet(b"0000".to_vec()))]);
    }

    #[test]
    fn what_is_wrong_is_said_and_passed_over() {
        assert_eq!(all(b"$OK#9b$OK#9a")[0], Err(PacketError::Checksum { found: 0x9a, said: 0x9b }));
        assert_eq!(all(b"$OK#9b$OK#9a")[1], Ok(Received::Packet(b"OK".to_vec())));
        assert_eq!(all(b"HTTP/1.1 400")[0], Err(PacketError::NoPacket { byte: b'H' }));
        assert_eq!(all(b"$*!#4b"), [Err(PacketError::Malformed)]);
        assert_eq!(all(b"$}#7d"), [Err(PacketError::Malformed)]);
    }

    #[test]
    fn a_packet_that_never_ends_is_an_error() {
        let mut decoder = Decoder::default();
        decoder.push(&vec![b'$'; LONGEST + 2]);
        assert_eq!(decoder.next(), Err(PacketError::TooLong));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_was_encoded_comes_back_in_pieces(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..5),
            piece in 1_usize..9,
        ) {
            let bytes: Vec<u8> = packets.iter().flat_map(|packet| encode(packet)).collect();
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for piece in bytes.chunks(piece) {
                decoder.push(piece);
                while let Some(received) = decoder.next().unwrap() {
                    found.push(received);
                }
            }
            prop_assert_eq!(found, packets.into_iter().map(Received::Packet).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'$'), Just(b'#'),
            Just(b'*'), Just(b'}'), Just(b'0')], 0..200)) {
            let found = all(&bytes).len();
            prop_assert!(found <= bytes.len());
        }
    }
}
