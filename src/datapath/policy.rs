//! Policy in the pipeline: asked once, before a flow comes to be, and again when the configuration has
//! changed. What answers belongs to its flow and is never judged.
//!
//! Both ends are judged by what is true of them: the source's own address before any translation, and
//! the destination's own address and port after it. So a published port's client is judged by the rules
//! of the container behind it, under the address it came with, wherever it comes from.
//!
//! What the switch does itself at a gateway's address (neighbours, leases, names, echo), and the host
//! where it takes part in a network, is not judged: as in Kubernetes, an endpoint and its own node reach
//! each other.

use hashbrown::HashMap;

use super::decide::Notes;
use super::inspect::{PolicyQuestion, PolicySaid};
use super::output::Denied;
use super::pipeline::Slot;
use super::slow::Frame;
use super::{Datapath, Event, Output};
use crate::base::ids::PortId;
use crate::base::limits::{DENIALS_PER_SECOND, DENIALS_PER_SECOND_AND_PORT, NAMES_TTL_MAX};
use crate::base::rate::TokenBucket;
use crate::base::time::Time;
use crate::config::{Port, PortKind};
use crate::packet::parse::is_icmp_non_query;
use crate::packet::{DropReason, FlowKey, Fragment, L3};
use crate::stage::dns;
use crate::stage::flow::{Direction as Way, Flow, FlowIndex};
use crate::stage::policy::{Action, Direction, Judged, Party, Subject};
use crate::stage::sockets::SocketEvent;
use crate::wire::addr::Addr;

/// A flow that wants to begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    from: PortId,
    to: PortId,
    src: (Addr, u16),
    dst: (Addr, u16),
    proto: u8,
}

impl Begun {
    pub(super) fn new(from: PortId, to: PortId, key: &FlowKey, dst: (Addr, u16)) -> Self {
        Self { from, to, src: (key.src, key.src_port), dst, proto: key.proto }
    }

    fn of(flow: &Flow) -> Self {
        let [key, reply] = flow.keys();
        let (from, to) = (flow.port(Way::Initiator), flow.port(Way::Responder));
        Self::new(from, to, key, (reply.src, reply.src_port))
    }
}

/// Who is told how often that flows are denied.
#[derive(Debug)]
pub(super) struct Denials {
    all: TokenBucket,
    /// A bucket for each port, and how many were not told since.
    ports: HashMap<PortId, (TokenBucket, u64)>,
}

impl Default for Denials {
    fn default() -> Self {
        let all = TokenBucket::new(DENIALS_PER_SECOND, DENIALS_PER_SECOND);
        Self { all, ports: HashMap::new() }
    }
}

impl Denials {
    pub(super) fn remove_port(&mut self, port: PortId) {
        self.ports.remove(&port);
    }

    /// Whether this one is told, and after how many that were not.
    fn tell(&mut self, now: Time, port: PortId) -> Option<u64> {
        let rate = DENIALS_PER_SECOND_AND_PORT;
        let fresh = || (TokenBucket::new(rate, rate), 0);
        let (bucket, untold) = self.ports.entry(port).or_insert_with(fresh);
        if bucket.take(now, 1) && self.all.take(now, 1) {
            return Some(std::mem::take(untold));
        }
        *untold += 1;
        None
    }
}

impl Datapath {
    /// What the rules of both ends say, the source's first; `None` where none is about it.
    ///
    /// A flow that stands (`true`) may go on to an address whose name is not good any more.
    pub(super) fn ask_policy(
        &self,
        (now, standing): (Time, bool),
        begun: &Begun,
    ) -> [(Direction, Option<Judged>); 2] {
        let tables = self.tables.policy();
        let kind = |id| self.tables.port(id).map(|port: &std::sync::Arc<Port>| port.kind);
        let is_host = |id| kind(id) == Some(PortKind::Host);
        let (from, to) = (tables.subject(begun.from), tables.subject(begun.to));
        let own = begun.from == begun.to || is_host(begun.from) || is_host(begun.to);
        let source = Party { subject: from, addr: begun.src.0 };
        let destination = Party { subject: to, addr: begun.dst.0 };
        let port = (begun.proto, begun.dst.1);
        let judge = |direction: Direction, subject, peer: &Party<'_>| {
            let subject = Option::filter(subject, |_| !own)?;
            let names = self.learned.names(now, begun.from, peer.addr, standing);
            tables.policy.judge(direction, subject, peer, port, &names)
        };
        [
            (Direction::Egress, judge(Direction::Egress, from, &destination)),
            (Direction::Ingress, judge(Direction::Ingress, to, &source)),
        ]
    }

    /// Why a flow may not begin, if so.
    fn denial(&self, at: (Time, bool), begun: &Begun) -> Option<(DropReason, Judged)> {
        if self.tables.policy().policy.is_empty() {
            return None;
        }
        let asked = self.ask_policy(at, begun).into_iter();
        asked.filter_map(|(direction, judged)| Some((direction, judged?))).find_map(
            |(direction, judged)| {
                (judged.action == Action::Deny).then(|| (reason_of(direction), judged))
            },
        )
    }

    /// The one question: whether the flow of this packet may begin, from where the frame came to `to`,
    /// whose own address and port are `dst`.
    pub(super) fn judge_begin(
        &mut self,
        to: PortId,
        key: &FlowKey,
        dst: (Addr, u16),
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        let begun = Begun::new(frame.ingress, to, key, dst);
        self.judge_begun(frame.now, &begun, frame.out)
    }

    fn judge_begun(
        &mut self,
        now: Time,
        begun: &Begun,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let Some((reason, judged)) = self.denial((now, false), begun) else { return Ok(()) };
        if let Some(untold) = self.denials.tell(now, begun.from) {
            let rule = self.tables.policy().policy.rule(judged.rule);
            let Begun { from, to, src, dst, proto } = *begun;
            let rule = rule.map_or_else(|| "?".into(), |rule| rule.name.clone());
            let denied = Denied { from, to, src, dst, proto, reason, rule, untold };
            out.events.push(Event::Denied(Box::new(denied)));
        }
        Err(reason)
    }

    /// What is remembered for rules about names: the addresses that this answer gives a container.
    pub(super) fn learn_names(&mut self, now: Time, port: PortId, answer: &[u8]) {
        let tables = self.tables.policy();
        let concerns = |subject: &Subject| subject.is_subject(Direction::Egress);
        if !tables.policy.has_names() || !tables.subject(port).is_some_and(concerns) {
            return;
        }
        let Some((name, addrs)) = dns::given(answer) else { return };
        for (addr, ttl) in addrs {
            self.learned.learn(now, port, &name, addr, ttl.min(NAMES_TTL_MAX));
        }
    }

    /// Whether a client of a published port that came to a socket of the host may be taken in. The host
    /// itself may.
    pub(super) fn judge_client(
        &mut self,
        now: Time,
        event: &SocketEvent<'_>,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        if self.tables.policy().policy.is_empty() {
            return Ok(());
        }
        let Some(client) = self.sockets.client_of(event) else { return Ok(()) };
        let (addr, _) = client.from;
        if addr.is_loopback() || self.tables.is_host_addr(addr) {
            return Ok(());
        }
        let begun = Begun {
            from: self.socket_port(),
            to: client.published.target.port,
            src: client.from,
            dst: (client.inside, client.published.port),
            proto: client.proto,
        };
        self.judge_begun(now, &begun, out).inspect_err(|reason| self.drop_frame(begun.to, *reason))
    }

    /// The same for one that was taken in, under the address that the container knows it by: where that is
    /// the gateway's, it stays.
    pub(super) fn is_client_still_permitted(&self, now: Time, flow: &Flow) -> bool {
        let key = flow.key(Way::Initiator);
        let network = self.tables.network_of(key.domain);
        if network.is_some_and(|network| network.is_gateway(key.dst)) {
            return true;
        }
        let begun = Begun {
            from: flow.port(Way::Responder),
            to: flow.port(Way::Initiator),
            src: (key.dst, key.dst_port),
            dst: (key.src, key.src_port),
            proto: key.proto,
        };
        self.denial((now, true), &begun).is_none()
    }

    /// Whether a flow that exists might begin today.
    pub(super) fn is_still_permitted(&self, now: Time, index: FlowIndex) -> bool {
        let flow = self.flows.get(index);
        let key = flow.key(Way::Initiator);
        // What the gateway stands for is not judged.
        let network = self.tables.network_of(key.domain);
        let is_gateway = network.is_some_and(|network| network.is_gateway(key.dst));
        is_gateway && flow.port(Way::Responder) == self.socket_port()
            || self.denial((now, true), &Begun::of(flow)).is_none()
    }

    /// A bridged frame that makes no flow: fragments, errors, and what is not IP.
    pub(super) fn judge_loose(
        &mut self,
        to: PortId,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        let parsed = &slot.parsed;
        let nowhere = (Addr::UNSPECIFIED, 0);
        match parsed.l3 {
            L3::Arp => Ok(()),
            // No rule can mean it but one that means everything.
            L3::Other(_) => self.judge_begin(to, &FlowKey::NOTHING, nowhere, frame),
            L3::V4 | L3::V6 if parsed.fragment == Fragment::First => {
                if self.flows.lookup(&slot.key, slot.hash).is_some() {
                    return Ok(());
                }
                self.judge_begin(to, &slot.key, (slot.key.dst, slot.key.dst_port), frame)
            }
            // Errors, neighbour discovery, and what is worth nothing without its first fragment.
            L3::V4 | L3::V6 => Ok(()),
        }
    }

    /// Whether a frame for everybody, or for somebody not yet known, may reach this port.
    pub(super) fn may_hear(
        &mut self,
        from: &Port,
        to: PortId,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> bool {
        let parsed = &slot.parsed;
        if self.tables.policy().policy.is_empty() || parsed.l3 == L3::Arp {
            return true;
        }
        if is_icmp_non_query(parsed, frame.batch.bytes(frame.at)) {
            return true;
        }
        let key = if parsed.is_ip() { slot.key } else { FlowKey::NOTHING };
        let begun = Begun::new(from.id, to, &key, (key.dst, key.dst_port));
        let Some((reason, _)) = self.denial((frame.now, false), &begun) else { return true };
        // Others may hear it: the frame itself is not dropped.
        self.port_counters(from.id).drop(reason);
        false
    }

    /// What the rules of both ends say about an imagined flow.
    pub fn policy_of(&self, now: Time, question: &PolicyQuestion) -> Vec<PolicySaid> {
        const OUTSIDE: PortId = PortId(u16::MAX);
        let (from, to) = (question.from, question.to);
        let begun = Begun {
            from: from.unwrap_or(OUTSIDE),
            to: to.unwrap_or(OUTSIDE),
            src: (question.src.into(), 0),
            dst: (question.dst.0.into(), question.dst.1),
            proto: question.proto,
        };
        let tables = self.tables.policy();
        let asked = self.ask_policy((now, false), &begun).into_iter().zip([from, to]);
        asked
            .filter(|(_, end)| end.is_some())
            .map(|((direction, judged), _)| {
                let rule = judged.and_then(|j| tables.policy.rule(j.rule));
                let action = judged.map_or(Action::Allow, |j| j.action);
                PolicySaid { direction, action, rule: rule.map(|r| r.name.to_string()) }
            })
            .collect()
    }

    /// Notes what both ends say about an imagined flow; why it would be dropped, if so.
    pub(super) fn note_policy(
        &self,
        now: Time,
        begun: &Begun,
        notes: &mut Notes,
    ) -> Option<DropReason> {
        let tables = self.tables.policy();
        if tables.policy.is_empty() {
            return None;
        }
        let mut dropped = None;
        for (direction, judged) in self.ask_policy((now, false), begun) {
            let of = if direction == Direction::Egress { begun.from } else { begun.to };
            let Some(port) = self.tables.port(of).filter(|p| p.kind == PortKind::Endpoint) else {
                continue;
            };
            let rule = judged.and_then(|j| tables.policy.rule(j.rule));
            notes.note("policy", || match rule {
                None => {
                    format!("{} of {}: no rule is about it, allowed", direction.name(), port.name)
                }
                Some(rule) => {
                    let says = if rule.action == Action::Deny { "denied" } else { "allowed" };
                    format!("{} of {}: {says} by {}", direction.name(), port.name, rule.name)
                }
            });
            let denied = judged.is_some_and(|judged| judged.action == Action::Deny);
            dropped = dropped.or(denied.then(|| reason_of(direction)));
        }
        dropped
    }
}

fn reason_of(direction: Direction) -> DropReason {
    match direction {
        Direction::Ingress => DropReason::PolicyIngress,
        Direction::Egress => DropReason::PolicyEgress,
    }
}
