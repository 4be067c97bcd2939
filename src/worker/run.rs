//! The loop.
//!
//! The poller is edge-triggered, so a port that was not read until it said "empty" stays on the ready
//! list. Each turn serves one batch of every ready port, so that none waits for another's flood; after
//! [`TURNS_BETWEEN_POLLS`] turns, or when no port is ready, the poller and the commands are looked at.

use crossbeam_channel::{Receiver, Sender};

use super::busy::Busy;
use super::capture::Captures;
use super::down::DownPorts;
use super::ports::{Device, Drained, PortIo, Written};
use super::sockets::Sockets;
use super::tunnels::Tunnels;
use super::{Answer, Clock, Command, Notice, Query, WAKER};
use crate::base::hash::Seed;
use crate::base::ids::PortId;
use crate::base::time::{Span, Time};
use crate::datapath::nodes::Arrived;
use crate::datapath::{Datapath, Event, FrameRef, OutFrame, Output};
use crate::io::host_listen::{Listener, Transport};
use crate::io::host_sockets::HostSockets;
use crate::io::poller::{Poller, Ready, Token, Wish};
use crate::packet::{DropReason, FrameBatch};
use crate::stage::sockets::Published;

/// A poll costs a system call (some 300 ns); a turn of one busy port costs ten times that.
const TURNS_BETWEEN_POLLS: u32 = 4;

/// While frames keep coming, timers are looked at this often: what they do is due in seconds.
const TIMER_GRANULARITY: Span = Span::from_millis(1);

/// How soon a packet socket that was full is tried again, should the kernel not say that it has room:
/// a full device queue (ENOBUFS) gives no such event.
const RETRY: Span = Span::from_millis(1);

/// Everything a worker's thread owns.
pub(super) struct Loop {
    datapath: Datapath,
    poller: Poller,
    inbox: Receiver<Command>,
    notices: Sender<Notice>,
    clock: Clock,
    /// By port number.
    ports: Vec<Option<PortIo>>,
    ready: Vec<PortId>,
    /// Ports with a queue that waits for room.
    blocked: Vec<PortId>,
    /// Ports whose frames wait for their rate limit.
    paced: Vec<PortId>,
    down: DownPorts,
    events: Vec<Ready>,
    refused: Vec<DropReason>,
    batch: FrameBatch,
    out: Output,
    sockets: Sockets,
    captures: Captures,
    tunnels: Tunnels,
    wakeups: u64,
    busy: Busy,
    /// When timers are looked at next.
    timers_at: Time,
    stop: bool,
}

impl Loop {
    pub(super) fn new(
        seed: Seed,
        poller: Poller,
        inbox: Receiver<Command>,
        notices: Sender<Notice>,
    ) -> Self {
        Self {
            datapath: Datapath::new(seed),
            poller,
            inbox,
            notices,
            clock: Clock::new(),
            ports: Vec::new(),
            ready: Vec::new(),
            blocked: Vec::new(),
            paced: Vec::new(),
            down: DownPorts::default(),
            events: Vec::new(),
            refused: Vec::new(),
            batch: FrameBatch::new(),
            out: Output::default(),
            sockets: Sockets::new(),
            captures: Captures::new(),
            tunnels: Tunnels::default(),
            wakeups: 0,
            busy: Busy::default(),
            timers_at: Time::ZERO,
            stop: false,
        }
    }

    pub(super) fn run(mut self) {
        while !self.stop {
            if let Err(error) = self.poll() {
                let _ = self.notices.send(Notice::Failed(format!("waiting for events: {error}")));
                return;
            }
            self.commands();
            for _ in 0..TURNS_BETWEEN_POLLS {
                let now = self.clock.now();
                self.timers(now);
                self.turn(now);
                self.unread_sockets(now);
                self.serve_tunnels(now);
                if self.ready.is_empty() && !self.tunnels.is_ready() {
                    break;
                }
            }
        }
    }

    fn poll(&mut self) -> std::io::Result<()> {
        let busy = !self.ready.is_empty() || self.sockets.has_unread() || self.tunnels.is_ready();
        if !busy && self.captures.is_on() {
            self.captures.flush();
        }
        let timeout = if busy { Some(Span::ZERO) } else { self.idle_time() };
        self.poller.wait(timeout, &mut self.events)?;
        self.wakeups += 1;
        for event in std::mem::take(&mut self.events).drain(..) {
            if HostSockets::owns(event.token) {
                self.socket_ready(event);
            } else if event.token != WAKER && !self.tunnels.note(event.token) {
                self.note(event);
            }
        }
        Ok(())
    }

    /// How long nothing will happen by itself.
    fn idle_time(&self) -> Option<Span> {
        let now = self.clock.now();
        let deadline = self.datapath.next_deadline(now).map(|at| at.since(now));
        let waiting = !self.blocked.is_empty() || !self.paced.is_empty();
        let retry = waiting.then_some(RETRY);
        let own = [self.down.next_deadline(), self.tunnels.next_deadline()];
        let own = own.into_iter().flatten().map(|at| at.since(now));
        deadline.into_iter().chain(retry).chain(own).min()
    }

    fn note(&mut self, event: Ready) {
        let id = PortId(event.token.0 as u16);
        let Some(port) = port_of(&mut self.ports, id) else { return };
        if event.readable && !port.ready {
            port.ready = true;
            self.ready.push(id);
        }
        if event.writable && port.has_queue() {
            let now = self.clock.now();
            self.flush_blocked(now, id);
        }
    }

    /// Something happened to a socket of the host.
    fn socket_ready(&mut self, event: Ready) {
        let now = self.clock.now();
        for event in self.sockets.ready(&event).into_iter().flatten() {
            self.datapath.socket_event(now, event, &mut self.out);
        }
        self.datapath.flush_sockets(now, &mut self.out);
        // No frame of a batch is meant by what comes of this.
        self.batch.clear();
        self.flush(now);
    }

    /// The next turn of sockets that have more than one turn's datagrams.
    fn unread_sockets(&mut self, now: Time) {
        if !self.sockets.has_unread() {
            return;
        }
        for event in self.sockets.take_unread() {
            self.datapath.socket_event(now, event, &mut self.out);
        }
        self.batch.clear();
        self.flush(now);
    }

    /// One call's worth of datagrams from other nodes.
    fn serve_tunnels(&mut self, now: Time) {
        if let Some(tunnels) = self.tunnels.receive() {
            self.batch.clear();
            for at in 0..tunnels.len() {
                let Some((from, bytes, segment)) = tunnels.get(at) else { continue };
                let mut arrived = Arrived { from, bytes, segment };
                while !self.tunnels.unwrap(&mut self.datapath, &mut arrived, &mut self.batch) {
                    self.tunnel_frames(now);
                }
            }
            self.tunnel_frames(now);
            self.tunnels.send_sealed(&mut self.datapath, &self.batch);
            self.tunnels.give_back(tunnels);
        }
    }

    fn tunnel_frames(&mut self, now: Time) {
        if let Some(peer) = self.datapath.finish_inbound(now, &mut self.batch) {
            self.process(now, peer);
            self.datapath.flush_sockets(now, &mut self.out);
            self.flush(now);
        }
        self.batch.clear();
    }

    fn listen(&mut self, listener: Listener, published: Published) {
        let stream = listener.transport() == Transport::Tcp;
        let id = published.listener;
        // Known to the data path before the first client can be.
        self.datapath.serve_listener(published, stream);
        if let Err(error) = self.sockets.add(&self.poller, id, listener) {
            self.datapath.drop_listener(id);
            let _ =
                self.notices.send(Notice::Failed(format!("watching a published port: {error}")));
        }
    }

    /// One batch of every ready port.
    fn turn(&mut self, now: Time) {
        let mut at = 0;
        while at < self.ready.len() {
            let id = self.ready[at];
            if self.serve(now, id) {
                at += 1;
            } else {
                self.ready.swap_remove(at);
            }
        }
    }

    /// One batch of one port. `false`: nothing more is there for now.
    fn serve(&mut self, now: Time, id: PortId) -> bool {
        let Some(port) = port_of(&mut self.ports, id) else { return false };
        self.batch.clear();
        let drained = port.drain(now, &mut self.batch, &mut self.refused);
        let held_back = port.holds_back();
        port.ready = drained == Drained::Full || held_back;
        for reason in self.refused.drain(..) {
            self.datapath.count_drop(id, reason);
        }
        if !self.batch.is_empty() {
            self.process(now, id);
            self.datapath.flush_sockets(now, &mut self.out);
            self.flush(now);
        }
        match drained {
            Drained::Dead => self.dead(id),
            Drained::Down => self.down.insert(id, now),
            Drained::Empty | Drained::Full if held_back => {
                self.paced.push(id);
                return false;
            }
            Drained::Empty | Drained::Full => {}
        }
        drained == Drained::Full
    }

    /// Hands the batch to the data path, and to those who look on.
    fn process(&mut self, now: Time, id: PortId) {
        let watched = self.captures.is_on();
        self.datapath.note_drops(watched);
        if watched {
            self.captures.ingress(now, id, &self.batch);
        }
        self.datapath.frames(now, id, &mut self.batch, &mut self.out);
        if watched {
            self.captures.dropped(self.datapath.noted_drops());
        }
    }

    /// Writes what the data path wants to leave, and does what it wants of sockets.
    fn flush(&mut self, now: Time) {
        self.write_frames(now);
        if !self.out.sockets.is_empty() {
            let Self { sockets, datapath, poller, batch, out, ports, captures, .. } = self;
            sockets.work(now, datapath, poller, batch, out, |id, frame| {
                write(ports, captures, now, id, frame)
            });
            self.write_frames(now);
        }
    }

    fn write_frames(&mut self, now: Time) {
        self.datapath.flush_tunnels(&mut self.batch, &mut self.out);
        if !self.out.tunnels.is_empty() {
            self.tunnels.send(&mut self.datapath, &self.batch, &mut self.out);
        }
        let Self { ports, captures, batch, .. } = self;
        for OutFrame { port: id, frame } in self.out.frames.drain(..) {
            let written = match frame {
                FrameRef::Batch(at) => {
                    write(ports, captures, now, id, batch.with_vnet_header(usize::from(at)))
                }
                FrameRef::Owned(mut owned) => {
                    write(ports, captures, now, id, owned.with_vnet_header())
                }
            };
            match written {
                Written::Sent => {}
                Written::Full => {
                    if !self.blocked.contains(&id) {
                        self.blocked.push(id);
                    }
                }
                Written::Refused(reason) => self.datapath.count_drop(id, reason),
                Written::Dead => self.datapath.count_drop(id, DropReason::PortGone),
            }
        }
        for event in self.out.events.drain(..) {
            let _ = self.notices.send(notice(event));
        }
    }

    fn timers(&mut self, now: Time) {
        for id in std::mem::take(&mut self.blocked) {
            self.flush_blocked(now, id);
        }
        self.ready.append(&mut self.paced);
        if now < self.timers_at {
            return;
        }
        self.timers_at = now + TIMER_GRANULARITY;
        if self.busy.is_due(now, self.datapath.frames_processed()) {
            let _ = self.notices.send(Notice::Busy);
        }
        for id in self.down.due(now) {
            match port_of(&mut self.ports, id) {
                Some(port) if port.is_gone() => self.dead(id),
                Some(_) => {}
                None => self.down.remove(id),
            }
        }
        if self.tunnels.next_deadline().is_some_and(|at| at <= now) {
            self.tunnels.tick(now, &mut self.datapath, &self.batch);
        }
        if self.datapath.next_deadline(now).is_some_and(|at| at <= now) {
            self.datapath.tick(now, &mut self.out);
            self.flush(now);
        }
    }

    fn flush_blocked(&mut self, now: Time, id: PortId) {
        let Some(port) = port_of(&mut self.ports, id) else { return };
        let refused = port.flush_queue(now);
        if port.has_queue() && !self.blocked.contains(&id) {
            self.blocked.push(id);
        }
        for reason in refused {
            self.datapath.count_drop(id, reason);
        }
    }

    fn commands(&mut self) {
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Deltas(deltas) => {
                    let now = self.clock.now();
                    for delta in &deltas {
                        self.datapath.apply(now, delta, &mut self.out);
                    }
                    self.tunnels.follow(&deltas);
                    self.flush(now);
                }
                Command::AddTap(id, tap) => self.add(id, Device::Tap(tap)),
                Command::AddPacket(id, socket) => self.add(id, Device::Packet(socket)),
                Command::Tunnels(sockets) => {
                    if let Err(error) = self.tunnels.replace(&self.poller, sockets) {
                        let text = format!("watching the tunnels to other nodes: {error}");
                        let _ = self.notices.send(Notice::Failed(text));
                    }
                }
                Command::Encrypt(identity) => self.tunnels.encrypt(identity),
                Command::Limit(id, limits) => {
                    if let Some(port) = port_of(&mut self.ports, id) {
                        port.limit(limits);
                    }
                }
                Command::RemoveIo(id) => self.remove(id),
                Command::Configure(uplink, port) => {
                    let now = self.clock.now();
                    self.datapath.configure(now, uplink, port, &mut self.out);
                    self.flush(now);
                }
                Command::Tune(tuning) => {
                    self.datapath.set_timeouts(tuning.timeouts);
                    self.datapath.set_flow_limit(tuning.flows_max);
                    let (flows, ports) = (tuning.flows_per_endpoint, tuning.ports_per_endpoint);
                    self.datapath.set_default_shares(flows, ports);
                    self.datapath.set_pick_up(tuning.pick_up);
                }
                Command::AddListener(listener, published) => self.listen(listener, published),
                Command::Retarget(ids, target) => self.datapath.retarget(ids, &target),
                Command::RemoveListener(id) => {
                    self.sockets.remove(&self.poller, id);
                    self.datapath.drop_listener(id);
                }
                Command::Capture(request, reader) => {
                    self.captures.add(*request, reader, self.clock.epoch());
                }
                Command::Query(query, reply) => {
                    // Whoever asked may have given up waiting.
                    let _ = reply.send(self.answer(query));
                }
                Command::Stop => self.stop = true,
            }
        }
    }

    fn add(&mut self, id: PortId, device: Device) {
        self.remove(id);
        if let Err(error) = self.poller.add(&device, Token(u64::from(id.0)), Wish::ReadWrite) {
            let _ = self.notices.send(Notice::Failed(format!("watching {id}: {error}")));
            return;
        }
        let at = usize::from(id.0);
        if self.ports.len() <= at {
            self.ports.resize_with(at + 1, || None);
        }
        self.ports[at] = Some(PortIo::new(id, device));
        self.ready.push(id);
    }

    fn remove(&mut self, id: PortId) {
        let Some(port) = self.ports.get_mut(usize::from(id.0)).and_then(Option::take) else {
            return;
        };
        // The descriptor is closed next; a duplicate in the holder must not be reported here.
        let _ = self.poller.remove(&port.device);
        self.ready.retain(|ready| *ready != id);
        self.blocked.retain(|blocked| *blocked != id);
        self.paced.retain(|paced| *paced != id);
        self.down.remove(id);
    }

    fn dead(&mut self, id: PortId) {
        self.down.remove(id);
        if let Some(port) = self.ports.get_mut(usize::from(id.0)).and_then(Option::take) {
            let _ = self.poller.remove(&port.device);
            let _ = self.notices.send(Notice::PortDead(port.id));
        }
    }

    fn answer(&mut self, query: Query) -> Answer {
        let now = self.clock.now();
        match query {
            Query::Flows(filter) => Answer::Flows(self.datapath.list_flows(now, &filter)),
            Query::FlushFlows(filter) => Answer::Flushed(self.datapath.flush_flows(now, &filter)),
            Query::CountFlows => Answer::Counts(self.datapath.count_flows()),
            Query::FlowEvents(filter, from) => {
                Answer::FlowEvents(self.datapath.flow_events(now, &filter, from))
            }
            Query::Fdb => Answer::Fdb(self.datapath.list_fdb(now)),
            Query::Neighbours => Answer::Neighbours(self.datapath.list_neighbours(now)),
            Query::Routes => Answer::Routes(self.datapath.list_routes()),
            Query::Ports => Answer::Ports(self.datapath.list_ports()),
            Query::Peers => Answer::Peers(self.datapath.list_peers(now)),
            Query::Worker => {
                let mut stats = self.datapath.worker_stats();
                stats.wakeups = self.wakeups;
                Answer::Worker(stats)
            }
            Query::Policy(question) => Answer::Policy(self.datapath.policy_of(now, &question)),
            Query::Trace(request) => Answer::Trace(self.datapath.trace(now, &request)),
        }
    }
}

#[inline]
fn port_of(ports: &mut [Option<PortIo>], id: PortId) -> Option<&mut PortIo> {
    ports.get_mut(usize::from(id.0))?.as_mut()
}

/// Writes a frame with its header to a port, for those who look on, too.
#[inline]
fn write(
    ports: &mut [Option<PortIo>],
    captures: &mut Captures,
    now: Time,
    id: PortId,
    frame: &[u8],
) -> Written {
    let written = match port_of(ports, id) {
        Some(port) => port.write(now, frame),
        None => Written::Refused(DropReason::PortDown),
    };
    if captures.is_on() {
        let drop = match written {
            Written::Sent | Written::Full => None,
            Written::Refused(reason) => Some(reason),
            Written::Dead => Some(DropReason::PortGone),
        };
        captures.egress(now, id, frame, drop);
    }
    written
}

fn notice(event: Event) -> Notice {
    match event {
        Event::Configured(uplink, lan) => Notice::Configured(uplink, lan),
        Event::Shortage(port, reason) => Notice::Shortage(port, reason),
        Event::Denied(denied) => Notice::Denied(denied),
        Event::Health(verdict) => Notice::Health(verdict),
    }
}
