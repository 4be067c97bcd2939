//! The host sockets of the socket uplink: executes [`SocketCall`]s and turns readiness into
//! [`SocketEvent`]s. It decides nothing: what a call or an event means for a flow is `stage/sockets`'.
//!
//! Every socket is non-blocking and registered edge-triggered, with its [`SocketId`] as token. A closed
//! descriptor leaves the poller by itself, so closing costs one system call.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use hashbrown::HashMap;
use rustix::process::{Resource, getrlimit};

use super::features::Feature;
use super::host_calls::{self as calls, Name};
use super::host_datagrams;
use super::host_errors::explain;
use super::host_gather::Gather;
use super::host_inbox::{Inbox, Inboxed};
use super::host_listen::{Listener, Transport};
use super::host_outbox::{self, Outbox, Run};
use super::host_ping::{self, RawId};
use super::host_stream::{prepare_stream, reset_at_close, room};
use super::poller::{Poller, Ready, Token, Wish};
use crate::base::limits::SOCKET_DESCRIPTORS_RESERVED;
use crate::packet::FrameBatch;
use crate::stage::sockets::{
    ListenerId, SockAddr, SocketCall, SocketError, SocketEvent, SocketId, SocketKind, SocketOutput,
    Via,
};

/// Tokens of this file: the two highest bits are `01`.
pub(super) const TAG: u64 = 1 << 62;
/// Tokens of listeners, among those: no [`SocketKind`] has this number.
const LISTENER: u64 = 7 << 59;
/// What a peek without SO_PEEK_OFF copies away into.
const SCRATCH: usize = 128 * 1024;

/// What this kernel can do beyond Linux 6.1. Each is probed, and can be forced off (`features.rs`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features {
    /// SO_PEEK_OFF for TCP of both families (Linux 6.9).
    pub peek_offset: bool,
    /// Trains of datagrams sent by one call (UDP_SEGMENT).
    pub udp_segment: bool,
    /// Trains of datagrams received by one call (UDP_GRO).
    pub udp_gro: bool,
}

impl Features {
    /// Asks the kernel, for what is not forced off.
    pub fn probe() -> Self {
        let peek = |v4| {
            calls::socket(v4, libc::SOCK_STREAM, 0).is_ok_and(|fd| {
                calls::set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_PEEK_OFF, &[0]).is_ok()
            })
        };
        let udp = |name| {
            calls::socket(true, libc::SOCK_DGRAM, 0)
                .is_ok_and(|fd| calls::set_option(fd.as_fd(), libc::SOL_UDP, name, &[1]).is_ok())
        };
        Self {
            peek_offset: Feature::PeekOffset.is_allowed() && peek(true) && peek(false),
            udp_segment: Feature::UdpSegment.is_allowed() && udp(libc::UDP_SEGMENT),
            udp_gro: Feature::UdpGro.is_allowed() && udp(libc::UDP_GRO),
        }
    }
}

/// What became of a call.
#[derive(Debug)]
pub enum Executed<'a> {
    /// Done, and there is nothing to say.
    Done,
    /// Its answer.
    Event(SocketEvent<'a>),
    /// One of its answers: execute the call again for the others.
    More(SocketEvent<'a>),
    /// The batch for received frames is full: write out what is in it, clear it, execute the call again.
    NoRoom,
}

#[derive(Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts about a socket of the kernel's"
)]
pub(super) struct Entry {
    pub(super) fd: OwnedFd,
    pub(super) id: SocketId,
    pub(super) v4: bool,
    pub(super) connecting: bool,
    pub(super) watching: bool,
    /// SO_PEEK_OFF is on. It is not for a socket of which each answer was fetched by one peek.
    pub(super) offset_on: bool,
    /// There is or was urgent data: a read ends before it, which says nothing about what is behind.
    pub(super) urgent: bool,
    /// Of a raw socket for echo requests.
    pub(super) raw: Option<RawId>,
    /// Whether the host may cut what it sends; unknown until the first datagram.
    fragment: Option<bool>,
}

/// A listener at work.
#[derive(Debug)]
struct Served {
    listener: Listener,
    /// Whether the host may cut what it sends; unknown until the first datagram.
    fragment: Option<bool>,
}

/// All host sockets of one worker.
#[derive(Debug)]
pub struct HostSockets {
    /// By kind and slot.
    tables: [Vec<Option<Entry>>; 5],
    listeners: HashMap<ListenerId, Served>,
    features: Features,
    scratch: Box<[u8]>,
    inbox: Inbox,
    outbox: Outbox,
    /// Sockets that have had their turn and not been read empty: the poller will not name them again.
    unread: Vec<Via>,
    /// Frames that full sockets did not take.
    not_sent: Vec<(Via, u32)>,
    /// Descriptors from this number on are not for flows. The kernel gives the lowest that is free.
    descriptors: u64,
}

impl HostSockets {
    /// No sockets. How many there may be is what the process's limit of open files says now.
    pub fn new(features: Features) -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Self {
            tables: std::array::from_fn(|_| Vec::new()),
            listeners: HashMap::new(),
            features,
            descriptors: limit.saturating_sub(SOCKET_DESCRIPTORS_RESERVED),
            scratch: vec![0; if features.peek_offset { 0 } else { SCRATCH }].into_boxed_slice(),
            inbox: Inbox::new(),
            outbox: Outbox::default(),
            unread: Vec::new(),
            not_sent: Vec::new(),
        }
    }

    /// Whether a readiness token is one of ours.
    pub fn owns(token: Token) -> bool {
        token.0 >> 62 == TAG >> 62
    }

    /// Serves a listener from now on.
    pub fn add_listener(
        &mut self,
        poller: &Poller,
        id: ListenerId,
        listener: Listener,
    ) -> io::Result<()> {
        match listener.transport() {
            Transport::Udp => {
                host_datagrams::prepare(listener.as_fd(), listener.is_v4(), self.features);
            }
            // What is accepted inherits it.
            Transport::Tcp => prepare_stream(listener.as_fd())?,
        }
        poller.add(&listener, Token(TAG | LISTENER | u64::from(id.0)), Wish::Read)?;
        self.listeners.insert(id, Served { listener, fragment: None });
        Ok(())
    }

    /// Closes a listener. A duplicate elsewhere would stay in the poller, so it is taken out first.
    pub fn remove_listener(&mut self, poller: &Poller, id: ListenerId) -> bool {
        let Some(served) = self.listeners.remove(&id) else { return false };
        let _ = poller.remove(&served.listener);
        true
    }

    /// What a readiness means: up to two events.
    pub fn ready(&mut self, ready: &Ready) -> [Option<SocketEvent<'static>>; 2] {
        let token = ready.token.0 & !(3 << 62);
        if token >> 59 == LISTENER >> 59 {
            let listener = ListenerId(token as u32);
            // Errors about datagrams would otherwise fill the buffer that is for datagrams.
            let via = Via::Listener(listener);
            let errors = ready.error.then_some(SocketEvent::ErrorsWaiting { via });
            return [errors, Some(SocketEvent::Incoming { listener })];
        }
        let socket = SocketId::from_token(token);
        let Some(entry) = self.entry(socket) else { return [None, None] };
        if matches!(socket.kind(), SocketKind::Tcp | SocketKind::NameTcp) {
            return entry.stream_ready(ready);
        }
        let errors = ready.error.then_some(SocketEvent::ErrorsWaiting { via: Via::Socket(socket) });
        let readable = ready.readable.then_some(SocketEvent::Readable { socket, hangup: false });
        [errors, readable]
    }

    /// Executes a call of `out`. `sent` is the batch whose frames it names, `received` takes what arrives.
    pub fn execute<'a>(
        &mut self,
        poller: &Poller,
        (call, out): (&SocketCall, &SocketOutput),
        sent: &FrameBatch,
        received: &'a mut FrameBatch,
    ) -> Executed<'a> {
        match *call {
            SocketCall::Connect { socket, to } => self.connect(poller, socket, to),
            SocketCall::Accept { listener, socket } => self.accept(poller, listener, socket),
            SocketCall::Open { socket, v4 } => self.open(poller, socket, v4),
            SocketCall::Close { socket, reset } => self.close(socket, reset),
            SocketCall::SendTo { via, from, to, parts, segment, ttl, fragment } => {
                self.may_fragment(via, fragment);
                let Some((fd, v4, raw)) = datagram_socket(&self.tables, &self.listeners, via)
                else {
                    return Executed::Done;
                };
                let datagram = host_datagrams::Outgoing { from, to, segment, ttl, v4 };
                let gather = Gather::new(out, parts, sent);
                let failed = match raw {
                    Some(id) => {
                        let request = id.request(gather.parts());
                        let parts = &[IoSlice::new(&request)];
                        host_datagrams::send(fd, datagram, parts, self.features)
                    }
                    None => host_datagrams::send(fd, datagram, gather.parts(), self.features),
                };
                match failed {
                    Ok(()) => Executed::Done,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        Executed::Event(SocketEvent::NotSent { via, frames: parts.count })
                    }
                    Err(error) => {
                        Executed::Event(host_datagrams::lost(via, &error, to.addr.is_v4(), to))
                    }
                }
            }
            SocketCall::ReceiveError { via } => {
                match datagram_socket(&self.tables, &self.listeners, via) {
                    Some((fd, _, raw)) => {
                        Executed::Event(host_datagrams::receive_error(fd, via, raw))
                    }
                    None => Executed::Done,
                }
            }
            SocketCall::SendMade { socket, to, start, len } => {
                let range = start as usize..start as usize + len as usize;
                self.send_made(socket, to, out.made.get(range).unwrap_or_default())
            }
            SocketCall::Receive { via, headers } => self.receive(via, headers, received),
            SocketCall::Send { socket, .. }
            | SocketCall::WatchWritable { socket }
            | SocketCall::Peek { socket, .. }
            | SocketCall::SetPeekOffset { socket, .. }
            | SocketCall::Discard { socket, .. }
            | SocketCall::Shutdown { socket } => {
                let (slot, kind) = (socket.slot() as usize, socket.kind() as usize);
                let entry = self.tables[kind].get_mut(slot).and_then(Option::as_mut);
                let Some(entry) = entry.filter(|entry| entry.id == socket) else {
                    return Executed::Done;
                };
                let offset = self.features.peek_offset;
                entry.execute(poller, (call, out), sent, (received, &mut self.scratch, offset))
            }
        }
    }

    /// Sends those of the first `calls` that are datagrams for one socket, at once. Gives the number of
    /// those that are done; the next one is to be executed by itself.
    pub fn send_run(
        &mut self,
        (calls, out): (&[SocketCall], &SocketOutput),
        sent: &FrameBatch,
    ) -> usize {
        let Some((via, fragment)) = host_outbox::run_of(calls) else { return 0 };
        self.may_fragment(via, fragment);
        match datagram_socket(&self.tables, &self.listeners, via) {
            Some((fd, v4, None)) => {
                let trains = self.features.udp_segment;
                match self.outbox.send((fd, v4), via, (calls, out), sent, trains) {
                    Run::Sent(calls) => calls,
                    Run::Full { calls, frames } => {
                        self.not_sent.push((via, frames));
                        calls
                    }
                }
            }
            _ => 0,
        }
    }

    /// What full sockets did not take of runs.
    pub fn take_not_sent(&mut self) -> Vec<SocketEvent<'static>> {
        let event = |(via, frames)| SocketEvent::NotSent { via, frames };
        self.not_sent.drain(..).map(event).collect()
    }

    /// Sees to it that the datagrams of a socket may be cut by the host, or may not.
    fn may_fragment(&mut self, via: Via, fragment: bool) {
        let (fd, v4, known) = match via {
            Via::Socket(socket) => {
                let Some(entry) = self.entry(socket) else { return };
                (entry.fd.as_fd(), entry.v4, &mut entry.fragment)
            }
            Via::Listener(listener) => {
                let Some(served) = self.listeners.get_mut(&listener) else { return };
                (served.listener.as_fd(), served.listener.is_v4(), &mut served.fragment)
            }
        };
        if *known != Some(fragment) {
            *known = Some(fragment);
            host_datagrams::may_fragment(fd, v4, fragment);
        }
    }

    fn send_made(&mut self, socket: SocketId, to: SockAddr, bytes: &[u8]) -> Executed<'static> {
        let features = self.features;
        let Some(entry) = self.entry(socket) else { return Executed::Done };
        let parts = [IoSlice::new(bytes)];
        if socket.kind() == SocketKind::NameTcp {
            return Executed::Event(entry.send(&parts));
        }
        let v4 = entry.v4;
        let datagram = host_datagrams::Outgoing { from: None, to, segment: 0, ttl: None, v4 };
        match host_datagrams::send(entry.fd.as_fd(), datagram, &parts, features) {
            Ok(()) => Executed::Done,
            Err(error) => {
                Executed::Event(host_datagrams::lost(Via::Socket(socket), &error, v4, to))
            }
        }
    }

    fn receive<'a>(
        &mut self,
        via: Via,
        headers: u16,
        received: &'a mut FrameBatch,
    ) -> Executed<'a> {
        let got = datagram_socket(&self.tables, &self.listeners, via).map(|(fd, v4, raw)| {
            let before = raw.map_or(0, |_| host_ping::before_message(v4));
            self.inbox.receive(fd, via, usize::from(headers - before.min(headers)), received)
        });
        match got {
            Some(Inboxed::Event(event)) => Executed::More(event),
            Some(Inboxed::NoRoom) => Executed::NoRoom,
            Some(Inboxed::Drained) => Executed::Event(match via {
                Via::Socket(socket) => SocketEvent::Drained { socket, eof: false },
                Via::Listener(listener) => SocketEvent::ListenerDrained { listener },
            }),
            Some(Inboxed::Enough) => {
                self.unread.push(via);
                Executed::Done
            }
            None => {
                self.inbox.forget();
                Executed::Done
            }
        }
    }

    /// Whether sockets wait for their next turn.
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Those sockets, each as if it had become readable now.
    pub fn take_unread(&mut self) -> Vec<SocketEvent<'static>> {
        let event = |via| match via {
            Via::Socket(socket) => SocketEvent::Readable { socket, hangup: false },
            Via::Listener(listener) => SocketEvent::Incoming { listener },
        };
        self.unread.drain(..).map(event).collect()
    }

    fn entry(&mut self, id: SocketId) -> Option<&mut Entry> {
        let table = &mut self.tables[id.kind() as usize];
        table.get_mut(id.slot() as usize)?.as_mut().filter(|entry| entry.id == id)
    }

    /// Refuses a descriptor that is not for flows, as the kernel would.
    fn within(&self, fd: &OwnedFd) -> io::Result<()> {
        let fits = u64::from(fd.as_raw_fd().unsigned_abs()) < self.descriptors;
        if fits { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EMFILE)) }
    }

    fn keep(
        &mut self,
        poller: &Poller,
        (fd, id): (OwnedFd, SocketId),
        v4: bool,
        connecting: bool,
    ) -> io::Result<()> {
        // A datagram socket would be reported writable for every datagram that has left.
        let stream = matches!(id.kind(), SocketKind::Tcp | SocketKind::NameTcp);
        let wish = if stream { Wish::Stream } else { Wish::Read };
        poller.add(&fd, Token(TAG | id.token()), wish)?;
        let table = &mut self.tables[id.kind() as usize];
        let slot = id.slot() as usize;
        if table.len() <= slot {
            table.resize_with(slot + 1, || None);
        }
        let (watching, offset_on, urgent) = (false, false, false);
        table[slot] = Some(Entry {
            fd,
            id,
            v4,
            connecting,
            watching,
            offset_on,
            urgent,
            raw: None,
            fragment: None,
        });
        Ok(())
    }

    fn connect(&mut self, poller: &Poller, socket: SocketId, to: SockAddr) -> Executed<'static> {
        let v4 = to.addr.is_v4();
        let result = calls::socket(v4, libc::SOCK_STREAM, 0).and_then(|fd| {
            self.within(&fd)?;
            prepare_stream(fd.as_fd())?;
            let connecting = match calls::connect(fd.as_fd(), &Name::new(to.addr, to.port, v4)) {
                Ok(()) => false,
                Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => true,
                Err(error) => return Err(error),
            };
            let room = (!connecting).then(|| room(fd.as_fd()));
            self.keep(poller, (fd, socket), v4, connecting)?;
            Ok(room)
        });
        match result {
            Ok(None) => Executed::Done,
            Ok(Some(room)) => Executed::Event(SocketEvent::Connected { socket, room }),
            Err(error) => {
                let error = explain(&error, v4);
                Executed::Event(SocketEvent::Failed { socket, error })
            }
        }
    }

    fn accept(
        &mut self,
        poller: &Poller,
        listener: ListenerId,
        socket: SocketId,
    ) -> Executed<'static> {
        let none = |error| Executed::Event(SocketEvent::NotAccepted { socket, error });
        let Some(served) = self.listeners.get(&listener) else { return none(None) };
        let from = &served.listener;
        let (fd, client) = loop {
            match calls::accept(from.as_fd()) {
                Ok(accepted) => break accepted,
                // The client gave up in between: the next one.
                Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return none(None),
                Err(error) => return none(Some(explain(&error, true))),
            }
        };
        if let Err(error) = self.within(&fd) {
            reset_at_close(fd.as_fd());
            return none(Some(explain(&error, true)));
        }
        let local = calls::local_name(fd.as_fd()).ok().and_then(|name| name.get());
        let room = room(fd.as_fd());
        let kept = self.keep(poller, (fd, socket), from_v4(client), false);
        match (kept, client.get(), local) {
            (Ok(()), Some(client), Some(local)) => {
                let [client, local] = [client, local].map(|(addr, port)| SockAddr { addr, port });
                Executed::Event(SocketEvent::Accepted { socket, client, local, room })
            }
            _ => none(Some(SocketError::Other)),
        }
    }

    fn open(&mut self, poller: &Poller, socket: SocketId, v4: bool) -> Executed<'static> {
        let opened = match socket.kind() {
            SocketKind::Ping => host_ping::open(v4),
            _ => calls::socket(v4, libc::SOCK_DGRAM, 0).map(|fd| (fd, None)),
        };
        let result = opened.and_then(|(fd, raw)| {
            self.within(&fd)?;
            host_datagrams::prepare(fd.as_fd(), v4, self.features);
            self.keep(poller, (fd, socket), v4, false)?;
            if let Some(entry) = self.entry(socket) {
                entry.raw = raw;
            }
            Ok(())
        });
        match result {
            Ok(()) => Executed::Done,
            Err(error) => {
                let error = explain(&error, v4);
                Executed::Event(SocketEvent::Failed { socket, error })
            }
        }
    }

    fn close(&mut self, socket: SocketId, reset: bool) -> Executed<'static> {
        let table = &mut self.tables[socket.kind() as usize];
        if let Some(place) = table.get_mut(socket.slot() as usize)
            && let Some(entry) = place.take_if(|entry| entry.id == socket)
            && reset
        {
            reset_at_close(entry.fd.as_fd());
        }
        Executed::Done
    }
}

/// A socket of datagrams, whether it is one of IPv4, and its identifier if it is a raw one.
fn datagram_socket<'a>(
    tables: &'a [Vec<Option<Entry>>; 5],
    listeners: &'a HashMap<ListenerId, Served>,
    via: Via,
) -> Option<(BorrowedFd<'a>, bool, Option<RawId>)> {
    match via {
        Via::Socket(id) => {
            let entry = tables[id.kind() as usize].get(id.slot() as usize)?.as_ref()?;
            (entry.id == id).then(|| (entry.fd.as_fd(), entry.v4, entry.raw))
        }
        Via::Listener(id) => {
            let listener = &listeners.get(&id)?.listener;
            Some((listener.as_fd(), listener.is_v4(), None))
        }
    }
}

fn from_v4(name: Name) -> bool {
    name.get().is_some_and(|(addr, _)| addr.is_v4())
}
