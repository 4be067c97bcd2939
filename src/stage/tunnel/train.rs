//! Datagrams on their way to other nodes.

use zerocopy::IntoBytes;

use crate::base::ids::PortId;
use crate::base::limits::{TUNNEL_TRAIN_BYTES_MAX, TUNNEL_TRAIN_MAX};
use crate::packet::finish::finish_checksum;
use crate::packet::split::Cut;
use crate::packet::{DropReason, FrameBatch, FrameMut, Gso, PacketBuf, Parsed};
use crate::wire::addr::Addr;
use crate::wire::ethernet::{self, HEADER_LEN as L3_OFFSET};
use crate::wire::vxlan::{HEADER_LEN, Vxlan};

/// The way to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// The peer's port.
    pub port: PortId,
    /// Its end of the tunnel.
    pub to: (Addr, u16),
    /// How packets are wrapped.
    pub wrap: Wrap,
}

/// What is in the datagrams of a tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrap {
    /// Frames behind VXLAN's header, of this network.
    Vxlan {
        /// Twenty-four bits.
        vni: u32,
    },
    /// IP packets as they are. They must not leave so: they are still to be encrypted.
    Bare,
    /// What somebody has encrypted.
    Sealed,
}

/// Datagrams of one size (the last may be shorter) that go one way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Train {
    /// The peer's port.
    pub port: PortId,
    /// Where they go.
    pub to: (Addr, u16),
    /// What is in them.
    pub wrap: Wrap,
    /// Names the inner flow: choose the source port by it, so that routers on the way spread flows.
    pub entropy: u16,
    /// Bytes of each datagram but the last.
    pub segment: u32,
    /// Number of datagrams.
    pub count: u32,
    /// Bytes of all.
    pub bytes: u32,
    /// Where its pieces are.
    first: usize,
    pieces: usize,
    /// Whether another datagram may join.
    open: bool,
}

/// Everything that leaves through tunnels after one batch. Reused; the caller clears it.
#[derive(Debug, Default)]
pub struct TunnelOutput {
    trains: Vec<Train>,
    pieces: Vec<Piece>,
    headers: Vec<u8>,
    owned: Vec<PacketBuf>,
}

/// Where bytes lie.
#[derive(Clone, Copy, Debug)]
struct Piece {
    place: Place,
    start: u32,
    len: u32,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Headers,
    Batch(u16),
    Owned(u16),
}

impl TunnelOutput {
    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.trains.clear();
        self.pieces.clear();
        self.headers.clear();
        self.owned.clear();
    }

    /// Whether nothing leaves.
    pub fn is_empty(&self) -> bool {
        self.trains.is_empty()
    }

    /// The trains, in order.
    pub fn trains(&self) -> &[Train] {
        &self.trains
    }

    /// Number of pieces of a train.
    pub fn count_pieces(&self, train: &Train) -> usize {
        debug_assert!(train.first + train.pieces <= self.pieces.len());
        train.pieces
    }

    /// The bytes of a train, one datagram after the other.
    pub fn pieces<'a>(
        &'a self,
        train: &Train,
        batch: &'a FrameBatch,
    ) -> impl Iterator<Item = &'a [u8]> {
        let pieces = self.pieces.iter().skip(train.first).take(train.pieces);
        pieces.map(move |piece| {
            let range = piece.start as usize..(piece.start + piece.len) as usize;
            let room = match piece.place {
                Place::Headers => &self.headers[..],
                Place::Batch(at) => batch.bytes(usize::from(at)),
                Place::Owned(at) => self.owned[usize::from(at)].bytes(),
            };
            &room[range]
        })
    }

    /// Wraps frame `at` of the batch, which is used up.
    ///
    /// # Errors
    /// A super-frame that cannot be cut.
    pub fn wrap(
        &mut self,
        link: &Link,
        at: usize,
        batch: &mut FrameBatch,
    ) -> Result<(), DropReason> {
        self.wrap_at(link, Place::Batch(at as u16), &mut batch.frame(at))
    }

    /// Wraps a frame of its own.
    ///
    /// # Errors
    /// A super-frame that cannot be cut.
    pub fn wrap_owned(&mut self, link: &Link, mut frame: PacketBuf) -> Result<(), DropReason> {
        let place = Place::Owned(self.owned.len() as u16);
        self.wrap_at(link, place, &mut frame.frame())?;
        self.owned.push(frame);
        Ok(())
    }

    fn wrap_at(
        &mut self,
        link: &Link,
        place: Place,
        frame: &mut FrameMut<'_>,
    ) -> Result<(), DropReason> {
        let entropy = entropy(frame.bytes());
        if frame.offload().gso != Gso::None {
            return self.cut(link, entropy, place, frame);
        }
        finish_checksum(frame);
        let mut start = L3_OFFSET;
        if let Wrap::Vxlan { vni } = link.wrap {
            let room = frame.prepend(HEADER_LEN).ok_or(DropReason::CannotSplit)?;
            room.copy_from_slice(Vxlan::new(vni).as_bytes());
            start = 0;
        }
        let len = frame.len().saturating_sub(start) as u32;
        self.add(link, entropy, len, &[Piece { place, start: start as u32, len }]);
        Ok(())
    }

    /// Adds a datagram that somebody else makes: `make` has `room` bytes and says how many it has used.
    /// None, and there is no datagram.
    pub fn put(&mut self, link: &Link, room: usize, make: impl FnOnce(&mut [u8]) -> usize) {
        let start = self.headers.len();
        self.headers.resize(start + room, 0);
        let len = make(&mut self.headers[start..]).min(room);
        self.headers.truncate(start + len);
        if len > 0 {
            let (start, len) = (start as u32, len as u32);
            self.add(link, 0, len, &[Piece { place: Place::Headers, start, len }]);
        }
    }

    /// Cuts a super-frame: each piece of its payload stays where it is, behind headers of its own.
    fn cut(
        &mut self,
        link: &Link,
        entropy: u16,
        place: Place,
        frame: &FrameMut<'_>,
    ) -> Result<(), DropReason> {
        let bytes = frame.bytes();
        let parsed = Parsed::new(bytes)?;
        let mut cut = Cut::new(bytes, &parsed, frame.offload())?;
        for index in 0..cut.count() {
            let payload = cut.payload(index);
            let mut headers = cut.headers(index, &bytes[payload.clone()]);
            let start = self.headers.len() as u32;
            if let Wrap::Vxlan { vni } = link.wrap {
                self.headers.extend_from_slice(Vxlan::new(vni).as_bytes());
            } else {
                headers = headers.get(L3_OFFSET..).unwrap_or_default();
            }
            self.headers.extend_from_slice(headers);
            let len = self.headers.len() as u32 - start;
            let made = Piece { place: Place::Headers, start, len };
            let kept = Piece { place, start: payload.start as u32, len: payload.len() as u32 };
            self.add(link, entropy, len + kept.len, &[made, kept]);
        }
        Ok(())
    }

    /// A datagram joins the last train, or begins one.
    fn add(&mut self, link: &Link, entropy: u16, len: u32, pieces: &[Piece]) {
        let first = self.pieces.len();
        self.pieces.extend_from_slice(pieces);
        if let Some(train) = self.trains.last_mut()
            && train.takes(link, entropy, len)
        {
            train.count += 1;
            train.bytes += len;
            train.pieces += pieces.len();
            train.open = len == train.segment;
            return;
        }
        self.trains.push(Train {
            port: link.port,
            to: link.to,
            wrap: link.wrap,
            entropy,
            segment: len,
            count: 1,
            bytes: len,
            first,
            pieces: pieces.len(),
            open: true,
        });
    }
}

impl Train {
    fn takes(&self, link: &Link, entropy: u16, len: u32) -> bool {
        self.open
            && (self.port, self.to, self.wrap) == (link.port, link.to, link.wrap)
            && self.entropy == entropy
            && len <= self.segment
            && self.count < TUNNEL_TRAIN_MAX
            && self.bytes + len <= TUNNEL_TRAIN_BYTES_MAX
    }
}

/// A number for the flow of a frame: of its addresses and, if they are where they usually are, its ports.
/// It may be any; that all packets of a flow have one and the same is what counts.
#[inline]
fn entropy(frame: &[u8]) -> u16 {
    let word = |at: usize| {
        let bytes = frame.get(at..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    };
    let ports = |at: usize| {
        let bytes = frame.get(at..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u64::from(u32::from_ne_bytes(*bytes)))
    };
    let has_ports = |proto: usize| matches!(frame.get(proto), Some(6 | 17 | 132));
    let ethertype = frame.get(12..14).map(|b| u16::from_be_bytes([b[0], b[1]]));
    let mixed = match ethertype {
        Some(ethernet::IPV4) => {
            let plain = frame.get(L3_OFFSET) == Some(&0x45) && has_ports(23);
            // Fragments have no ports but the first, which must go their way.
            let whole = matches!(frame.get(20..22), Some([0 | 0x40, 0]));
            word(26) ^ if plain && whole { ports(34) << 16 } else { 0 }
        }
        Some(ethernet::IPV6) => {
            let addrs = word(22) ^ word(30).rotate_left(7) ^ word(38).rotate_left(19);
            let ports = if has_ports(20) { ports(54) << 16 } else { 0 };
            addrs ^ word(46).rotate_left(31) ^ ports
        }
        _ => 0,
    };
    // The upper half of a product depends on every bit of its factors.
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u16
}
