//! The gateway's name server: queries from containers, and their answers.
//!
//! What the zone knows is answered in place, by datagram or on a connection; the rest is the resolver's,
//! if the network may look outside (`upstream.rs` carries out what that wants). No flow of the flow table
//! remembers a query: the next one from the same port may be about another name.

use hashbrown::HashMap;

use super::slow::Frame;
use super::upstream::Upstream;
use super::{Datapath, Output, pipeline::Slot};
use crate::base::hash::Seed;
use crate::base::ids::PortId;
use crate::base::time::Time;
use crate::config::{Guise, Network, Port, Stands};
use crate::packet::{DropReason, FlowKey};
use crate::stage::dns::{
    self, Action, Answer, Client, Datagram, Peer, Resolver, StreamOutput, Streams,
};
use crate::stage::sockets::SocketId;
use crate::wire::addr::Addr;
use crate::wire::ipv6;

/// All that the name servers of a worker's gateways share.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) resolver: Resolver,
    streams: Streams,
    /// Connections to resolvers of the host.
    pub(super) upstream: HashMap<SocketId, Upstream>,
    /// To be carried out.
    pub(super) actions: Vec<Action>,
    streamed: StreamOutput,
}

impl Names {
    pub(super) fn new(seed: Seed) -> Self {
        Self {
            resolver: Resolver::new(seed),
            streams: Streams::new(seed),
            upstream: HashMap::new(),
            actions: Vec::new(),
            streamed: StreamOutput::default(),
        }
    }

    pub(super) fn set_servers(&mut self, servers: &[Addr]) {
        self.resolver.set_servers(servers);
    }

    pub(super) fn remove_port(&mut self, port: PortId) {
        self.streams.remove_port(port);
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        [self.resolver.next_deadline(), self.streams.next_deadline()].into_iter().flatten().min()
    }
}

impl Datapath {
    /// Whether a packet to a gateway is for its name server. One that stands for another program's answers
    /// at the addresses where that one does.
    pub(super) fn is_query(network: &Network, key: &FlowKey) -> bool {
        let answers = match network.stands_for(key.dst) {
            Some(stands) => stands == Stands::NameServer,
            None => network.guise == Guise::default(),
        };
        answers && key.dst_port == dns::PORT && matches!(key.proto, ipv6::UDP | ipv6::TCP)
    }

    /// Whether names that the switch does not know are asked of the host's resolvers.
    fn looks_outside(&self, network: &Network) -> bool {
        let uplink = network.uplink.filter(|_| !network.internal);
        uplink.is_some_and(|id| self.tables.uplink(id).is_some()) && self.names.resolver.can_ask()
    }

    /// A packet to the name server.
    pub(super) fn name_server(
        &mut self,
        port: &Port,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        let (now, parsed) = (frame.now, &slot.parsed);
        let result = if slot.key.proto == ipv6::TCP {
            let (plug, packet) = ((port.id, port.mtu), (parsed, &slot.key));
            let view = frame.batch.frame(frame.at);
            let names = &mut self.names;
            names.streams.segment(now, plug, packet, &view, &mut names.streamed)
        } else {
            let (bytes, offload) = (frame.batch.bytes(frame.at), frame.batch.offload(frame.at));
            let query = dns::query(parsed, bytes, offload).ok_or(DropReason::Malformed)?;
            let client = Client { port: port.id, peer: Peer::Datagram(Datagram::new(parsed)) };
            self.query(now, client, query, frame.out)
        };
        self.settle_names(now, frame.out);
        result
    }

    fn query(
        &mut self,
        now: Time,
        client: Client,
        query: &[u8],
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let port = self.tables.port(client.port).ok_or(DropReason::PortGone)?;
        let network = self.tables.network_of(port.domain).ok_or(DropReason::PortGone)?;
        let stream = matches!(client.peer, Peer::Stream(_));
        let own = dns::answer(self.tables.zone(network.id), query, stream);
        let answer = match own {
            Answer::Forward => dns::answer(self.tables.service_names(), query, stream),
            own => own,
        };
        let answer = match answer {
            Answer::Known(answer) => answer,
            Answer::Forward if self.looks_outside(network) => {
                return self.names.resolver.ask(now, client, query, &mut self.names.actions);
            }
            Answer::Forward => dns::refuse(query).ok_or(DropReason::Malformed)?,
            Answer::Nonsense => return Err(DropReason::Malformed),
        };
        self.answer_client(now, &client, &answer, out);
        Ok(())
    }

    fn answer_client(&mut self, now: Time, client: &Client, answer: &[u8], out: &mut Output) {
        self.learn_names(now, client.port, answer);
        let names = &mut self.names;
        match &client.peer {
            Peer::Datagram(to) => self.emit_owned(client.port, dns::reply(to, answer), out),
            Peer::Stream(id) => names.streams.answer(now, *id, answer, &mut names.streamed),
        }
    }

    /// Carries out what the resolver wants and what connections brought, until there is nothing more.
    pub(super) fn settle_names(&mut self, now: Time, out: &mut Output) {
        loop {
            for action in std::mem::take(&mut self.names.actions) {
                match action {
                    Action::Answer(client, answer) => {
                        self.answer_client(now, &client, &answer, out);
                    }
                    Action::Ask { exchange, server, message } => {
                        self.ask_upstream(exchange, server, &message, out);
                    }
                    Action::Close(exchange) => self.close_upstream(exchange, out),
                }
            }
            let streamed = std::mem::take(&mut self.names.streamed);
            for (port, frame) in streamed.frames {
                self.emit_owned(port, frame, out);
            }
            for (port, id, query) in streamed.queries {
                let client = Client { port, peer: Peer::Stream(id) };
                if let Err(reason) = self.query(now, client, &query, out) {
                    self.drop_frame(port, reason);
                    let names = &mut self.names;
                    names.streams.reset(now, id, &mut names.streamed);
                }
            }
            let names = &self.names;
            let streamed = &names.streamed;
            if names.actions.is_empty() && streamed.frames.is_empty() && streamed.queries.is_empty()
            {
                break;
            }
        }
    }

    /// Time has passed.
    pub(super) fn name_timers(&mut self, now: Time, out: &mut Output) {
        let names = &mut self.names;
        names.resolver.tick(now, &mut names.actions);
        names.streams.tick(now, &mut names.streamed);
        self.settle_names(now, out);
    }
}
