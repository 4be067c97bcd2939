//! Host sockets in memory. Strict: a call that a kernel would answer with an error fails the test.

use std::collections::{BTreeMap, VecDeque};

use wharf::packet::{FrameBatch, Offload};
use wharf::stage::sockets::{
    FrameSlot, ListenerId, Room, SockAddr, SocketCall, SocketError, SocketEvent, SocketId,
    SocketOutput,
};

/// Something to be told to the flow machines.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Told {
    Connected(SocketId),
    Failed(SocketId, SocketError),
    Readable(SocketId, bool),
    Writable(SocketId),
}

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    Open,
    /// The flow machine closed it in order; what was queued is delivered.
    Closed,
    /// Reset by the flow machine.
    Reset,
    /// Reset by the peer.
    PeerReset,
}

/// One stream socket of the host and, behind it, the peer.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Bytes on their way to the peer.
    to_peer: VecDeque<u8>,
    /// Bytes from the peer that have not been taken off.
    from_peer: VecDeque<u8>,
    peek_at: usize,
    shut: bool,
    peer_shut: bool,
    watching: bool,
    pub(crate) life: Life,
    /// Which connection of the scenario this is: its port outside.
    pub(crate) port: u16,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Host {
    /// Capacities: towards the peer, from the peer.
    buffers: [usize; 2],
    pub(crate) streams: BTreeMap<u64, Stream>,
    /// Clients that wait to be accepted, by their port.
    pub(crate) backlog: VecDeque<u16>,
    pub(crate) told: VecDeque<Told>,
    pub(crate) refuse: bool,
    pub(crate) client: SockAddr,
    /// Sockets that have been closed: nothing may be asked of them.
    gone: Vec<SocketId>,
}

impl Stream {
    fn room(&self, capacity: usize) -> Room {
        let free = capacity.saturating_sub(self.to_peer.len());
        Room { free: free as u32, total: capacity as u32 }
    }
}

impl Host {
    pub(crate) fn new(buffers: [usize; 2], refuse: bool, client: SockAddr) -> Self {
        Self {
            buffers,
            streams: BTreeMap::new(),
            backlog: VecDeque::new(),
            told: VecDeque::new(),
            refuse,
            client,
            gone: Vec::new(),
        }
    }

    fn stream(&mut self, socket: SocketId) -> &mut Stream {
        assert!(!self.gone.contains(&socket), "{socket:?} has been closed");
        self.streams.get_mut(&socket.token()).expect("an open socket")
    }

    fn add(&mut self, socket: SocketId, port: u16) {
        let stream = Stream {
            to_peer: VecDeque::new(),
            from_peer: VecDeque::new(),
            peek_at: 0,
            shut: false,
            peer_shut: false,
            watching: false,
            life: Life::Open,
            port,
        };
        assert!(self.streams.insert(socket.token(), stream).is_none(), "a name used twice");
    }

    pub(crate) fn execute<'a>(
        &mut self,
        call: &SocketCall,
        out: &SocketOutput,
        sent: &FrameBatch,
        received: &'a mut FrameBatch,
    ) -> Option<SocketEvent<'a>> {
        let capacity = self.buffers[0];
        match *call {
            SocketCall::Connect { socket, to } => {
                if self.refuse {
                    let error = SocketError::Refused;
                    self.told.push_back(Told::Failed(socket, error));
                } else {
                    self.add(socket, to.port);
                    self.told.push_back(Told::Connected(socket));
                }
                None
            }
            SocketCall::Accept { listener, socket } => {
                assert_eq!(listener, ListenerId(1));
                let Some(port) = self.backlog.pop_front() else {
                    return Some(SocketEvent::NotAccepted { socket, error: None });
                };
                self.add(socket, port);
                let client = SockAddr { port, ..self.client };
                let room = self.stream(socket).room(capacity);
                Some(SocketEvent::Accepted { socket, client, local: self.client_side(), room })
            }
            SocketCall::Send { socket, parts } => {
                let bytes: Vec<u8> = out
                    .chain(parts)
                    .flat_map(|part| out.piece(part, sent).expect("a frame that is there").to_vec())
                    .collect();
                assert_eq!(bytes.len(), parts.bytes as usize);
                Some(self.send(socket, &bytes))
            }
            SocketCall::WatchWritable { socket } => {
                self.stream(socket).watching = true;
                self.maybe_writable(socket);
                None
            }
            SocketCall::Peek { socket, offset, len, headers } => {
                Some(self.peek(socket, (offset, len, headers), received))
            }
            SocketCall::SetPeekOffset { socket, offset } => {
                self.stream(socket).peek_at = offset as usize;
                None
            }
            SocketCall::Discard { socket, len } => {
                let stream = self.stream(socket);
                assert!(len as usize <= stream.from_peer.len(), "more than is there");
                stream.from_peer.drain(..len as usize);
                stream.peek_at = stream.peek_at.saturating_sub(len as usize);
                None
            }
            SocketCall::Shutdown { socket } => {
                let stream = self.stream(socket);
                assert!(!std::mem::replace(&mut stream.shut, true), "shut down twice");
                None
            }
            SocketCall::Close { socket, reset } => {
                self.close(socket, reset);
                None
            }
            ref other => panic!("no TCP call: {other:?}"),
        }
    }

    fn client_side(&self) -> SockAddr {
        let local = if self.client.addr.is_v4() { "198.51.100.1" } else { "2001:db8:1::1" };
        SockAddr { addr: local.parse().unwrap(), port: 8080 }
    }

    fn send(&mut self, socket: SocketId, bytes: &[u8]) -> SocketEvent<'static> {
        let capacity = self.buffers[0];
        let stream = self.stream(socket);
        if stream.life != Life::Open {
            return SocketEvent::Failed { socket, error: SocketError::Reset };
        }
        assert!(!stream.shut, "bytes after shutdown");
        let free = capacity.saturating_sub(stream.to_peer.len());
        let accepted = bytes.len().min(free);
        stream.to_peer.extend(&bytes[..accepted]);
        let room = stream.room(capacity);
        SocketEvent::Sent { socket, accepted: accepted as u32, room }
    }

    fn peek<'a>(
        &mut self,
        socket: SocketId,
        (offset, len, headers): (u32, u32, u16),
        received: &'a mut FrameBatch,
    ) -> SocketEvent<'a> {
        let stream = self.stream(socket);
        if stream.life != Life::Open {
            return SocketEvent::Failed { socket, error: SocketError::Reset };
        }
        assert_eq!(stream.peek_at, offset as usize, "the kernel's offset and the flow's differ");
        let asked = stream.peek_at + len as usize;
        let end = asked.min(stream.from_peer.len());
        if stream.peek_at >= end {
            return SocketEvent::Drained { socket, eof: stream.peer_shut };
        }
        let mut bytes = vec![0; usize::from(headers)];
        bytes.extend(stream.from_peer.range(stream.peek_at..end));
        stream.peek_at = end;
        received.clear();
        assert!(received.push(&bytes, Offload::NONE));
        let (frame, more) = (received.frame(0), end == asked);
        SocketEvent::Data { socket, slot: FrameSlot(0), frame, more }
    }

    fn close(&mut self, socket: SocketId, reset: bool) {
        self.gone.push(socket);
        let Some(stream) = self.streams.get_mut(&socket.token()) else { return };
        // Linux: closing with unread bytes resets the peer.
        let unread = !stream.from_peer.is_empty();
        assert!(reset || !unread, "closed with unread bytes");
        if stream.life == Life::Open {
            stream.life = if reset { Life::Reset } else { Life::Closed };
        }
        if !reset {
            assert!(stream.shut, "closed in order, but never shut down");
        }
    }

    fn maybe_writable(&mut self, socket: SocketId) {
        let capacity = self.buffers[0];
        let stream = self.stream(socket);
        if stream.watching && stream.room(capacity).free as usize >= capacity / 3 {
            stream.watching = false;
            self.told.push_back(Told::Writable(socket));
        }
    }

    /// The event of something that was to be told.
    pub(crate) fn event(&self, told: Told) -> SocketEvent<'static> {
        let capacity = self.buffers[0];
        let room = |host: &Self, socket: SocketId| {
            host.streams.get(&socket.token()).map_or(Room::default(), |s| s.room(capacity))
        };
        match told {
            Told::Connected(socket) => SocketEvent::Connected { socket, room: room(self, socket) },
            Told::Failed(socket, error) => SocketEvent::Failed { socket, error },
            Told::Readable(socket, hangup) => SocketEvent::Readable { socket, hangup },
            Told::Writable(socket) => SocketEvent::Writable { socket, room: room(self, socket) },
        }
    }

    // What follows is the peer's side.

    pub(crate) fn peer_writes(&mut self, socket: SocketId, bytes: &[u8]) -> usize {
        let capacity = self.buffers[1];
        let Some(stream) = self.streams.get_mut(&socket.token()) else { return 0 };
        if stream.life != Life::Open || stream.peer_shut {
            return 0;
        }
        let n = bytes.len().min(capacity.saturating_sub(stream.from_peer.len()));
        stream.from_peer.extend(&bytes[..n]);
        if n > 0 {
            self.told.push_back(Told::Readable(socket, false));
        }
        n
    }

    pub(crate) fn peer_shuts_down(&mut self, socket: SocketId) {
        let Some(stream) = self.streams.get_mut(&socket.token()) else { return };
        if !std::mem::replace(&mut stream.peer_shut, true) {
            self.told.push_back(Told::Readable(socket, true));
        }
    }

    /// Bytes that the peer reads, and whether the stream has ended behind them.
    pub(crate) fn peer_reads(&mut self, socket: SocketId, most: usize) -> (Vec<u8>, bool) {
        let Some(stream) = self.streams.get_mut(&socket.token()) else {
            return (Vec::new(), false);
        };
        let n = most.min(stream.to_peer.len());
        let bytes = stream.to_peer.drain(..n).collect();
        let ended = stream.to_peer.is_empty() && stream.shut;
        if n > 0 && stream.life == Life::Open && !self.gone.contains(&socket) {
            self.maybe_writable(socket);
        }
        (bytes, ended)
    }

    pub(crate) fn peer_resets(&mut self, socket: SocketId) {
        let Some(stream) = self.streams.get_mut(&socket.token()) else { return };
        if stream.life == Life::Open {
            stream.life = Life::PeerReset;
            stream.from_peer.clear();
            self.told.push_back(Told::Failed(socket, SocketError::Reset));
        }
    }
}
