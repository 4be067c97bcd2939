//! Netlink messages by hand, for the families that no typed crate here speaks: netfilter's and the
//! sockets' own. A message is a header, a family's fixed header, and attributes: length and kind in the
//! machine's byte order, then the value, padded to four bytes.

use std::io;
use std::ops::RangeInclusive;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::{Socket, SocketAddr};

const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// An attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// The kind without its two flags.
const KIND: u16 = 0x3fff;

/// A socket of one family, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(in crate::io) struct RawNetlink {
    socket: Socket,
    sequence: u32,
}

impl RawNetlink {
    pub(in crate::io) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The number of the next message.
    pub(in crate::io) fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends messages, of which the last asks for an answer, and waits for it. The first refusal of any
    /// of them is the error.
    pub(in crate::io) fn execute(
        &mut self,
        messages: &[u8],
        numbers: RangeInclusive<u32>,
    ) -> io::Result<()> {
        self.socket.send(messages, 0)?;
        self.answers(numbers, |_, _| ())
    }

    /// Asks for a table; `take` is given kind and content of each entry.
    pub(in crate::io) fn dump(
        &mut self,
        kind: u16,
        header: &[u8],
        take: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        let number = self.next();
        let request = Message::new(kind, NLM_F_REQUEST | NLM_F_DUMP, number, header);
        self.socket.send(&request.finish(), 0)?;
        self.answers(number..=number, take)
    }

    fn answers(
        &mut self,
        numbers: RangeInclusive<u32>,
        mut take: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        loop {
            let (datagram, _from) = self.socket.recv_from_full()?;
            let mut rest = &datagram[..];
            while let Some(message) = Answer::read(rest) {
                rest = rest.get(message.length.next_multiple_of(4)..).unwrap_or_default();
                if !numbers.contains(&message.sequence) {
                    continue; // an answer to messages that were given up
                }
                match message.kind {
                    DONE => return Ok(()),
                    ERROR => match i32_at(message.content).unwrap_or(0) {
                        0 if message.sequence == *numbers.end() => return Ok(()),
                        0 => {}
                        code => return Err(io::Error::from_raw_os_error(code.saturating_neg())),
                    },
                    kind => take(kind, message.content),
                }
            }
        }
    }
}

struct Answer<'a> {
    length: usize,
    kind: u16,
    sequence: u32,
    content: &'a [u8],
}

impl<'a> Answer<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let header: &[u8; HEADER] = bytes.first_chunk()?;
        let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|n| header[at + n]));
        let length = word(0) as usize;
        let content = bytes.get(HEADER..length)?;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        Some(Self { length, kind, sequence: word(8), content })
    }
}

fn i32_at(bytes: &[u8]) -> Option<i32> {
    bytes.first_chunk().map(|word| i32::from_ne_bytes(*word))
}

/// A message being written.
#[derive(Debug)]
pub(in crate::io) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// With the header of its family behind the common one.
    pub(in crate::io) fn new(kind: u16, flags: u16, sequence: u32, header: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(header);
        let mut message = Self { bytes };
        message.pad();
        message
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub(in crate::io) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.bytes.extend(((value.len() + 4) as u16).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.pad();
        self
    }

    /// Text with the zero at its end that the kernel expects.
    pub(in crate::io) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// A number in network byte order, as all of netfilter's are.
    pub(in crate::io) fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Attributes within one. Their length has sixteen bits: whoever nests many splits them up before.
    pub(in crate::io) fn nested(mut self, kind: u16, write: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend((kind | NESTED).to_ne_bytes());
        let mut written = write(self);
        let length = (written.bytes.len() - start) as u16;
        written.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        written
    }

    pub(in crate::io) fn finish(mut self) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}

/// Kinds and values of the attributes in `bytes`, as far as they are whole.
pub(in crate::io) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let header: &[u8; 4] = rest.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & KIND;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of this kind.
pub(in crate::io) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let message = Message::new(7, 1, 9, &[5, 0, 0, 10])
            .text(1, "abcd")
            .nested(2, |m| m.number(3, 0x0102_0304).attribute(4, &[9]));
        let bytes = message.finish();
        assert_eq!(bytes.len() % 4, 0);
        let answer = Answer::read(&bytes).unwrap();
        assert_eq!((answer.length, answer.kind, answer.sequence), (bytes.len(), 7, 9));
        let content = &answer.content[4..];
        assert_eq!(attribute(content, 1), Some(&b"abcd\0"[..]));
        let nested = attribute(content, 2).unwrap();
        let found: Vec<_> = attributes(nested).collect();
        assert_eq!(found, [(3, &[1, 2, 3, 4][..]), (4, &[9][..])]);
    }

    #[test]
    fn attributes_that_lie_about_their_length_end_the_list() {
        for bytes in [&[3, 0, 1, 0][..], &[200, 0, 1, 0, 1], &[4, 0], &[]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
    }
}
