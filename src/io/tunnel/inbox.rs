//! Datagrams received many at a time.

use super::TunnelSockets;
use crate::base::limits::IP_PACKET_MAX;
use crate::io::host_calls::{self as calls, RECEIVE_MAX, Received};
use crate::io::host_datagrams::described;
use crate::wire::addr::Addr;
use std::os::fd::AsFd;

/// Room of one: the largest there is, and a few cache lines more, so that the beginnings of all do not fall
/// into the same few lines of the cache.
const STRIDE: usize = IP_PACKET_MAX.next_multiple_of(64) + 17 * 64;
/// From here on it is a train, of which a few fill the cache.
const LARGE: usize = 8 * 1024;
/// Trains received at a time.
const TRAINS: usize = 4;

/// What one call has received.
#[derive(Debug)]
pub struct TunnelInbox {
    room: Box<[u8]>,
    got: Box<[Received]>,
    count: usize,
    large: bool,
}

impl Default for TunnelInbox {
    fn default() -> Self {
        Self::new()
    }
}

impl TunnelInbox {
    /// Memory that the kernel only gives when it is written to.
    pub fn new() -> Self {
        Self {
            room: vec![0; RECEIVE_MAX * STRIDE].into_boxed_slice(),
            got: vec![Received::nothing(); RECEIVE_MAX].into_boxed_slice(),
            count: 0,
            large: false,
        }
    }

    /// Receives what is there at socket number `side`, up to a bound. `false`: nothing more is there.
    pub fn receive(&mut self, sockets: &TunnelSockets, side: usize) -> bool {
        self.count = 0;
        let Some(side) = sockets.sides.get(side) else { return false };
        let wanted = if self.large { TRAINS } else { RECEIVE_MAX };
        let (first, others) = self.room.split_at_mut(STRIDE);
        let got = &mut self.got[..wanted];
        let fd = side.receiving.as_fd();
        // An error is that of a datagram sent before, or says that nothing is there.
        let Ok(count) = calls::receive_many(fd, first, (others, STRIDE), got) else { return false };
        self.count = count;
        self.large = got[..count].iter().any(|got| got.len > LARGE);
        count == wanted
    }

    /// Forgets what was received.
    pub fn clear(&mut self) {
        self.count = 0;
    }

    /// Number of datagrams and trains received.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether nothing was received.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Sender, bytes and size of each datagram of what was received.
    pub fn get(&self, at: usize) -> Option<((Addr, u16), &[u8], usize)> {
        let got = self.got[..self.count].get(at).filter(|got| !got.truncated)?;
        let (from, _, segment) = described(got);
        let from = from?;
        let bytes = &self.room[at * STRIDE..][..got.len.min(STRIDE)];
        let segment = segment.filter(|size| *size > 0).map_or(bytes.len(), usize::from);
        Some(((from.addr, from.port), bytes, segment))
    }
}
