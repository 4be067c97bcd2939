//! Connections to the name server (RFC 7766): queries one after another, each with its length before it.
//!
//! The switch has no TCP stack, and a name server is no reason to have one of its own: smoltcp serves
//! each connection, with an interface of its own, so that nothing is shared between clients and a
//! connection's memory is known. It is fed packets without their Ethernet header; addresses of stations
//! are those of the frames that came.
//!
//! **Bounds.** Connections in all and of each port; queries of one connection that are being answered;
//! bytes of answers that its client has not taken. What is beyond the latter two stays in the client's
//! send queue: a slow reader stops itself. A connection on which nothing moves is reset.
//!
//! Pipelined queries are answered as their answers come (RFC 7766 6.2.1.1).

mod connection;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use hashbrown::HashMap;

use self::connection::Connection;
use crate::base::hash::Seed;
use crate::base::ids::PortId;
use crate::base::limits::{NAMES_STREAMS_MAX, NAMES_STREAMS_PER_PORT_MAX};
use crate::base::slab::Slab;
use crate::base::time::Time;
use crate::packet::{DropReason, FlowKey, Fragment, FrameMut, PacketBuf, Parsed, ip_link};
use crate::wire::tcp;

/// Names a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StreamId {
    slot: u32,
    epoch: u32,
}

/// What comes out of connections. Reused; the caller empties it.
#[derive(Debug, Default)]
pub struct StreamOutput {
    /// Segments for containers.
    pub frames: Vec<(PortId, PacketBuf)>,
    /// Queries that were read.
    pub queries: Vec<(PortId, StreamId, Vec<u8>)>,
}

/// All connections.
#[derive(Debug)]
pub struct Streams {
    seed: Seed,
    slab: Slab<Connection>,
    by_key: HashMap<FlowKey, u32>,
    of_port: HashMap<PortId, u32>,
    timers: BTreeSet<(Time, u32)>,
    epoch: u32,
}

impl Streams {
    /// None yet. Sequence numbers come from the seed.
    pub fn new(seed: Seed) -> Self {
        Self {
            seed,
            slab: Slab::default(),
            by_key: HashMap::new(),
            of_port: HashMap::new(),
            timers: BTreeSet::new(),
            epoch: 0,
        }
    }

    /// Takes in a segment to the name server.
    ///
    /// # Errors
    /// Why it was dropped.
    pub fn segment(
        &mut self,
        now: Time,
        (port, mtu): (PortId, u16),
        (parsed, key): (&Parsed, &FlowKey),
        frame: &FrameMut<'_>,
        out: &mut StreamOutput,
    ) -> Result<(), DropReason> {
        if parsed.fragment != Fragment::Whole {
            return Err(DropReason::FragmentLimit);
        }
        let packet = ip_link::segment(parsed, frame)?;
        let at = match self.by_key.get(key) {
            Some(at) => *at,
            None if parsed.tcp_flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN => {
                self.open(now, (port, mtu), parsed, key)?
            }
            None => {
                // Answered by a reset; nothing is remembered.
                let mut stranger = Connection::new(now, port, mtu, parsed, self.seed.0);
                stranger.refuse(now, packet, out);
                return Err(DropReason::TcpNoFlow);
            }
        };
        if let Some(connection) = self.slab.get_mut(at) {
            connection.receive(packet);
        }
        self.work(now, at, out);
        Ok(())
    }

    fn open(
        &mut self,
        now: Time,
        (port, mtu): (PortId, u16),
        parsed: &Parsed,
        key: &FlowKey,
    ) -> Result<u32, DropReason> {
        let used = self.of_port.get(&port).copied().unwrap_or(0);
        if used >= NAMES_STREAMS_PER_PORT_MAX || self.slab.len() >= NAMES_STREAMS_MAX {
            return Err(DropReason::NameLimit);
        }
        self.epoch = self.epoch.wrapping_add(1);
        let random = self.seed.hash([now.0, self.epoch.into(), key.hash(self.seed)]);
        let mut connection = Connection::new(now, port, mtu, parsed, random);
        connection.listen(*key, self.epoch);
        let at = self.slab.insert(connection);
        self.by_key.insert(*key, at);
        *self.of_port.entry(port).or_default() += 1;
        Ok(at)
    }

    /// Sends the answer to a query of a connection; one that is gone has no use for it.
    pub fn answer(&mut self, now: Time, id: StreamId, answer: &[u8], out: &mut StreamOutput) {
        if let Some(connection) = self.slab.get_mut(id.slot).filter(|c| c.epoch == id.epoch) {
            connection.answer(answer);
            self.work(now, id.slot, out);
        }
    }

    /// Ends a connection: one of its queries will not be answered.
    pub fn reset(&mut self, now: Time, id: StreamId, out: &mut StreamOutput) {
        if let Some(connection) = self.slab.get_mut(id.slot).filter(|c| c.epoch == id.epoch) {
            connection.abort();
            self.work(now, id.slot, out);
        }
    }

    /// Lets a connection do what it can, and notes when it wants to be looked at again.
    fn work(&mut self, now: Time, at: u32, out: &mut StreamOutput) {
        let Some(connection) = self.slab.get_mut(at) else { return };
        connection.work(now, &mut out.frames);
        let id = StreamId { slot: at, epoch: connection.epoch };
        let port = connection.port;
        out.queries.extend(connection.queries.drain(..).map(|query| (port, id, query)));
        let old = connection.due.take();
        let due = connection.next_due(now);
        connection.due = due;
        if let Some(old) = old {
            self.timers.remove(&(old, at));
        }
        match due {
            Some(due) => drop(self.timers.insert((due, at))),
            None => self.remove(at),
        }
    }

    fn remove(&mut self, at: u32) {
        let Some(connection) = self.slab.remove(at) else { return };
        if let Some(due) = connection.due {
            self.timers.remove(&(due, at));
        }
        self.by_key.remove(&connection.key);
        if let Some(used) = self.of_port.get_mut(&connection.port) {
            *used -= 1;
            if *used == 0 {
                self.of_port.remove(&connection.port);
            }
        }
    }

    /// A container is gone.
    pub fn remove_port(&mut self, port: PortId) {
        if self.of_port.contains_key(&port) {
            let own = self.slab.iter().filter(|(_, c)| c.port == port).map(|(at, _)| at);
            own.collect::<Vec<_>>().into_iter().for_each(|at| self.remove(at));
        }
    }

    /// Number of connections.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// When [`tick`](Self::tick) wants to be called.
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Time, out: &mut StreamOutput) {
        while let Some(&(due, at)) = self.timers.first()
            && due <= now
        {
            self.timers.remove(&(due, at));
            if let Some(connection) = self.slab.get_mut(at) {
                connection.due = None;
                connection.expire(now);
            }
            self.work(now, at, out);
        }
    }
}

impl StreamId {
    /// One that no connection has.
    #[cfg(test)]
    pub(super) const NOTHING: Self = Self { slot: u32::MAX, epoch: 0 };
}
