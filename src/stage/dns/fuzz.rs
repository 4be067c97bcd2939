//! Body of the fuzz target `dns`: hostile queries, replies and segments against a zone, the resolver and
//! connections. Nothing panics, bounds hold, every question comes to its end.

use simple_dns::Packet;

use super::message::{self, Message};
use super::{
    Action, Answer, Client, Datagram, Exchange, Named, PORT, Peer, Resolver, Service, StreamOutput,
    Streams, Zone, answer, refuse,
};
use crate::base::hash::Seed;
use crate::base::ids::{DomainId, PortId};
use crate::base::limits::{NAMES_ASKED_MAX, NAMES_CACHED_BYTES_MAX, NAMES_PATIENCE};
use crate::base::time::{Span, Time};
use crate::packet::{FlowKey, Offload, PacketBuf, Parsed, Scope};
use crate::wire::addr::Addr;

const SERVERS: [Addr; 3] =
    [Addr::from_v4_bytes([192, 0, 2, 1]), Addr::LOOPBACK_V6, Addr::from_v4_bytes([127, 0, 0, 53])];
const HOST: Addr = Addr::from_v4_bytes([10, 20, 0, 2]);
const GATEWAY: Addr = Addr::from_v4_bytes([10, 20, 0, 1]);

struct Scene<'a> {
    rest: &'a [u8],
    now: Time,
    zone: Zone,
    resolver: Resolver,
    streams: Streams,
    out: Vec<Action>,
    streamed: StreamOutput,
    /// Open, with the message that was sent.
    asked: Vec<(Exchange, Addr, Vec<u8>)>,
}

/// Runs a list of operations.
pub fn fuzz(data: &[u8]) {
    let mut scene = Scene::new(data);
    while let Some(operation) = scene.byte() {
        scene.operation(operation);
        scene.settle();
    }
    scene.pass(NAMES_PATIENCE);
    assert_eq!(scene.resolver.sizes().0, 0, "every question has come to its end");
    assert!(scene.asked.is_empty(), "and every socket was closed");
    scene.pass(Span::from_secs(60));
    assert!(scene.streams.is_empty(), "no connection stays for ever");
}

impl<'a> Scene<'a> {
    fn new(data: &'a [u8]) -> Self {
        let mut zone = Zone::new(vec![(Addr::from_v4_bytes([10, 20, 0, 0]), 24)]);
        (0..100).for_each(|n| zone.add("all", Addr::from_v4_bytes([10, 20, 0, n])));
        let (names, whole) = (vec!["web".to_owned()], "web.blue".to_owned());
        let named =
            Named { names, whole, addrs: vec![HOST, Addr::LOOPBACK_V6], ..Named::default() };
        zone.put(PortId(1), Some(named.into()));
        let service = Service { port: 80, target: "web".to_owned() };
        zone.add_service("_http._tcp.web", service);
        let mut resolver = Resolver::new(Seed(9));
        resolver.set_servers(&SERVERS[..2]);
        Self {
            rest: data,
            now: Time(1),
            zone,
            resolver,
            streams: Streams::new(Seed(9)),
            out: Vec::new(),
            streamed: StreamOutput::default(),
            asked: Vec::new(),
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn small(&mut self) -> usize {
        self.byte().unwrap_or(0).into()
    }

    /// As many bytes as the next one says.
    fn bytes(&mut self) -> &'a [u8] {
        let len = self.small().min(self.rest.len());
        let (bytes, rest) = self.rest.split_at(len);
        self.rest = rest;
        bytes
    }

    fn operation(&mut self, operation: u8) {
        match operation % 8 {
            0 => {
                let query = self.bytes();
                self.query(query, operation & 0x10 != 0);
            }
            1 => {
                let query = self.plain_query();
                self.query(&query, operation & 0x10 != 0);
            }
            2 => self.reply(operation),
            3 => {
                if let Some((exchange, ..)) = self.chosen() {
                    self.resolver.failed(self.now, exchange, &mut self.out);
                }
            }
            4 => {
                let span = Span::from_millis(self.small() as u64 * 20);
                self.pass(span);
            }
            5 => {
                let n = self.small() % 4;
                self.resolver.set_servers(&SERVERS[..n]);
            }
            6 => self.segment(),
            _ => self.streams.remove_port(PortId(1)),
        }
    }

    /// A query that is one, for one of few names.
    fn plain_query(&mut self) -> Vec<u8> {
        const NAMES: [&[u8]; 6] = [
            b"\x03wEb\0",
            b"\x03all\0",
            b"\x05_HTTP\x04_tcp\x03web\0",
            b"\x012\x010\x0220\x0210\x07in-addr\x04arpa\0",
            b"\x07example\x04test\0",
            b"\x01x\x07example\x04test\0",
        ];
        let name = NAMES[self.small() % NAMES.len()];
        let (kind, id, more) = (self.small() as u16, self.small() as u16, self.small() as u16);
        let question = [name, &kind.to_be_bytes(), &[0, 1]].concat();
        let edns = (more & 1 != 0).then_some((more << 4, more & 2 != 0));
        message::query(id, more << 8 & 0x7900, &question, edns)
    }

    fn query(&mut self, query: &[u8], stream: bool) {
        if let Some(refusal) = refuse(query) {
            check_answer(query, &refusal);
        }
        match answer(&self.zone, query, stream) {
            Answer::Known(known) => check_answer(query, &known),
            Answer::Forward => {
                let peer = Peer::Datagram(Datagram::new(&Parsed::NOTHING));
                let client = Client { port: PortId(u16::from(stream)), peer };
                let _ = self.resolver.ask(self.now, client, query, &mut self.out);
            }
            Answer::Nonsense => {}
        }
    }

    fn chosen(&mut self) -> Option<(Exchange, Addr, Vec<u8>)> {
        let at = self.small();
        let len = self.asked.len().max(1);
        self.asked.get(at % len).cloned()
    }

    /// A reply with the right header and question, or what of it was chosen, and then anything.
    fn reply(&mut self, operation: u8) {
        let Some((exchange, server, sent)) = self.chosen() else { return };
        let (counts, flags, tail) = (self.bytes(), self.small(), self.bytes());
        let Some(view) = Message::new(&sent) else { return };
        let mut reply = sent[..12 + view.question().len()].to_vec();
        reply[2..4].copy_from_slice(&[0x80 | flags as u8, (flags >> 4) as u8 & 0x0f]);
        reply[6..12].fill(0);
        for (place, count) in reply[6..12].iter_mut().zip(counts) {
            *place = *count;
        }
        if operation & 0x20 != 0 {
            reply.make_ascii_lowercase();
        }
        reply.extend(tail);
        let from = (server, if operation & 0x40 != 0 { 1 } else { PORT });
        self.resolver.reply(self.now, exchange, from, &reply, &mut self.out);
    }

    /// A TCP header and bytes of choice to the name server.
    fn segment(&mut self) {
        let tcp = self.bytes();
        let len = (20 + tcp.len()) as u16;
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
        frame.extend(len.to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame.extend(&HOST.bytes()[12..]);
        frame.extend(&GATEWAY.bytes()[12..]);
        frame.extend(tcp);
        let csum = crate::packet::Csum::Complete;
        let mut frame = PacketBuf::new(&frame, Offload { csum, ..Offload::NONE });
        let Ok(parsed) = Parsed::new(frame.bytes()) else { return };
        let key = FlowKey::new(&parsed, DomainId(1), Scope::Routed);
        let (plug, view) = ((PortId(1), 1500), frame.frame());
        let _ = self.streams.segment(self.now, plug, (&parsed, &key), &view, &mut self.streamed);
    }

    fn settle(&mut self) {
        for action in std::mem::take(&mut self.out) {
            match action {
                Action::Ask { exchange, server, message } => {
                    assert!(Packet::parse(&message).is_ok(), "what we ask is a message");
                    self.asked.push((exchange, server, message));
                }
                Action::Close(exchange) => {
                    let before = self.asked.len();
                    self.asked.retain(|(open, ..)| *open != exchange);
                    assert_eq!(self.asked.len() + 1, before, "closed once");
                }
                Action::Answer(_, message) => assert!(Message::new(&message).is_some()),
            }
        }
        let (asked, _, bytes) = self.resolver.sizes();
        assert!(asked <= NAMES_ASKED_MAX && bytes <= NAMES_CACHED_BYTES_MAX);
        self.streamed.frames.clear();
        for (_, id, query) in std::mem::take(&mut self.streamed.queries) {
            match answer(&self.zone, &query, true) {
                Answer::Known(known) => {
                    self.streams.answer(self.now, id, &known, &mut self.streamed);
                }
                _ => self.streams.reset(self.now, id, &mut self.streamed),
            }
        }
    }

    fn pass(&mut self, span: Span) {
        let end = self.now + span;
        loop {
            let due = [self.resolver.next_deadline(), self.streams.next_deadline()];
            let Some(at) = due.into_iter().flatten().min().filter(|at| *at <= end) else { break };
            self.now = at.max(self.now);
            self.resolver.tick(self.now, &mut self.out);
            self.streams.tick(self.now, &mut self.streamed);
            self.settle();
        }
        self.now = end;
    }
}

/// An answer is one, to that query, and others can read it.
fn check_answer(query: &[u8], answer: &[u8]) {
    assert_eq!(answer[..2], query[..2], "its number");
    assert!(answer[2] & 0x80 != 0, "an answer");
    assert!(Packet::parse(answer).is_ok(), "{answer:x?}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_comes_nothing_panics_and_nothing_is_left(
            operations in prop::collection::vec((0_u8..8, prop::collection::vec(any::<u8>(), 0..24)), 0..40),
        ) {
            let data: Vec<u8> = operations.into_iter().flat_map(|(op, rest)| [vec![op], rest].concat()).collect();
            super::fuzz(&data);
        }
    }
}
