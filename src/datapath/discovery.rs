//! Who is where: ARP, neighbour discovery and address configuration, inside and on uplinks.

use super::slow::Frame;
use super::{Datapath, Output};
use crate::base::ids::PortId;
use crate::base::time::{Span, Time};
use crate::config::{Port, PortKind, Uplink, link_local};
use crate::packet::{DropReason, L3, PacketBuf, Parsed};
use crate::stage::respond::{Question, arp, ndp};
use crate::stage::route::icmp_error::IcmpError;
use crate::stage::route::neighbour::{Action, Resolution};
use crate::wire::addr::Addr;
use crate::wire::icmp::v6;
use crate::wire::ipv6;
use crate::wire::mac::Mac;

/// How long a hop uses a neighbour's MAC without asking the neighbour table, which thereby learns that
/// the neighbour is still in use and must be probed when its time is over.
const HOP_FRESH: Span = Span::from_secs(1);

impl Datapath {
    /// Answers questions about stations of a network from the configuration. `true`: answered.
    ///
    /// Addresses of endpoints are known from their attachment, so that nothing is flooded for them;
    /// towards the host's own port the switch does not answer for the gateway, since there the host
    /// itself has that address (its duplicate address detection would fail).
    pub(super) fn discovery_inside(
        &mut self,
        port: &Port,
        parsed: &Parsed,
        frame: &mut Frame<'_>,
    ) -> Result<bool, DropReason> {
        let question = match parsed.l3 {
            L3::Arp => arp::question(frame.batch.bytes(frame.at))?,
            L3::V6 if is_neighbour_discovery(parsed, frame.batch.bytes(frame.at)) => {
                if kind(parsed, frame.batch.bytes(frame.at)) == Some(v6::ROUTER_SOLICITATION) {
                    return self.advertise_guest(port, parsed, frame).map(|()| true);
                }
                ndp::question(frame.batch.bytes(frame.at), parsed)?
            }
            _ => return self.configure_guest(port, parsed, frame),
        };
        let Some(question) = question else { return Ok(false) };
        let Some(network) = self.tables.network_of(port.domain) else { return Ok(false) };
        let (mac, router) = if network.is_gateway(question.target) {
            if port.kind == PortKind::Host {
                return Err(DropReason::NeighbourIgnored);
            }
            (network.gateway_mac, true)
        } else {
            let Some(id) = self.station(port, question.target) else {
                return Ok(self.answer_for_lan(port, parsed, question, frame));
            };
            if id == port.id {
                // A probe for its own address, or a gratuitous announcement: nobody must answer.
                return Err(DropReason::NeighbourIgnored);
            }
            let Some(other) = self.tables.port(id) else { return Ok(false) };
            if port.isolated && other.isolated {
                return Err(DropReason::PortIsolated);
            }
            (other.mac, false)
        };
        let mut view = frame.batch.frame(frame.at);
        match parsed.l3 {
            L3::Arp => arp::answer(&mut view, mac),
            _ => ndp::answer(&mut view, mac, router),
        }
        self.emit(port.id, frame.at, frame.batch, frame.out);
        Ok(true)
    }

    /// Answers for a station of the host's LAN, if the container believes that it is there itself. Never
    /// a probe: whoever asks without an address wants to know whether somebody else has the one he takes.
    fn answer_for_lan(
        &mut self,
        port: &Port,
        parsed: &Parsed,
        question: Question,
        frame: &mut Frame<'_>,
    ) -> bool {
        let Some(network) = self.tables.network_of(port.domain) else { return false };
        let probe =
            question.sender.1.is_unspecified() || question.sender.1 == Addr::from_v4_bits(0);
        if !network.guise.transparent || probe {
            return false;
        }
        let (mac, mut view) = (network.gateway_mac, frame.batch.frame(frame.at));
        match parsed.l3 {
            L3::Arp => arp::answer(&mut view, mac),
            _ => ndp::answer(&mut view, mac, true),
        }
        self.emit(port.id, frame.at, frame.batch, frame.out);
        true
    }

    /// The port of an endpoint by one of its addresses, its link-local one included.
    fn station(&self, port: &Port, addr: Addr) -> Option<PortId> {
        if let Some(id) = self.tables.port_by_addr(port.domain, addr) {
            return Some(id);
        }
        let mac = eui64_mac(addr)?;
        self.tables.port_by_mac(port.domain, mac)
    }

    /// Questions and answers on an uplink's LAN, where we are a station ourselves.
    pub(super) fn discovery_uplink(
        &mut self,
        port: &Port,
        parsed: &Parsed,
        frame: &mut Frame<'_>,
    ) -> Result<bool, DropReason> {
        let Some(uplink) = self.tables.uplink_of(port.domain).cloned() else { return Ok(false) };
        if self.lease_packet(&uplink, parsed, frame) {
            return Ok(true);
        }
        let bytes = frame.batch.bytes(frame.at);
        let (question, learned, solicited) = match parsed.l3 {
            L3::Arp => {
                let solicited = arp::is_solicited(bytes, port.mac);
                (arp::question(bytes)?, arp::reply_seen(bytes), solicited)
            }
            L3::V6 if is_neighbour_discovery(parsed, bytes) => {
                let solicited = ndp::is_solicited(bytes, parsed);
                (ndp::question(bytes, parsed)?, ndp::learned(bytes, parsed), solicited)
            }
            _ => return Ok(false),
        };
        let for_us = question.is_some_and(|q| uplink_has(&uplink, port, q.target));
        if let Some(learned) = learned {
            self.neighbour_learned(frame.now, port.id, learned, solicited, frame.out);
        }
        if !for_us {
            return Err(DropReason::NeighbourIgnored);
        }
        let mut view = frame.batch.frame(frame.at);
        match parsed.l3 {
            L3::Arp => arp::answer(&mut view, port.mac),
            _ => ndp::answer(&mut view, port.mac, false),
        }
        self.emit(port.id, frame.at, frame.batch, frame.out);
        Ok(true)
    }

    /// What neighbours say to the host on an address that we share with it: we learn from it, and leave
    /// the answer to the kernel. `true`: it was that.
    pub(super) fn neighbours_of_host(
        &mut self,
        port: &Port,
        parsed: &Parsed,
        frame: &mut Frame<'_>,
    ) -> bool {
        let bytes = frame.batch.bytes(frame.at);
        let (learned, solicited) = match parsed.l3 {
            L3::Arp => (arp::reply_seen(bytes), arp::is_solicited(bytes, port.mac)),
            L3::V6 if is_neighbour_discovery(parsed, bytes) => {
                (ndp::learned(bytes, parsed), ndp::is_solicited(bytes, parsed))
            }
            _ => return false,
        };
        if let Some(learned) = learned {
            self.neighbour_learned(frame.now, port.id, learned, solicited, frame.out);
        }
        true
    }

    /// Somebody on an uplink told his MAC: release what waited for it.
    fn neighbour_learned(
        &mut self,
        now: Time,
        port: PortId,
        (addr, mac): (Addr, Mac),
        solicited: bool,
        out: &mut Output,
    ) {
        let learned = self.neighbours.learned(now, port, addr, mac, solicited);
        if learned.changed {
            self.hops.doubt(port, addr);
        } else if solicited {
            self.hops.confirm(port, addr, mac, now + HOP_FRESH);
        }
        for mut held in learned.released {
            set_destination(&mut held, mac);
            self.emit_owned(port, held, out);
        }
    }

    /// Sends the frame, complete but for its destination MAC, as soon as `addr` is resolved.
    pub(super) fn resolve(
        &mut self,
        port: PortId,
        addr: Addr,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        let owned = frame.batch.frame(frame.at).to_owned();
        match self.neighbours.resolve(frame.now, port, addr, Some(owned)) {
            Resolution::Reachable(mac) => {
                self.hops.confirm(port, addr, mac, frame.now + HOP_FRESH);
                if let Some(dst) = frame.batch.frame(frame.at).bytes_mut().first_chunk_mut() {
                    *dst = mac.0;
                }
                self.emit(port, frame.at, frame.batch, frame.out);
                Ok(())
            }
            Resolution::Ask { to } => {
                self.ask(port, addr, to, frame.out);
                Ok(())
            }
            Resolution::Wait => Ok(()),
            Resolution::HoldFull => Err(DropReason::NeighbourHoldFull),
            Resolution::TableFull => Err(DropReason::NeighbourTableFull),
            Resolution::Failed => Err(DropReason::NeighbourFailed),
        }
    }

    fn ask(&mut self, port: PortId, addr: Addr, to: Option<Mac>, out: &mut Output) {
        let Some(entry) = self.tables.entry(port) else { return };
        let mac = entry.port.mac;
        let Some(uplink) = self.tables.uplink_of(entry.port.domain) else { return };
        let own = uplink.addr(addr.family());
        let question = if addr.is_v4() {
            arp::request((mac, own.unwrap_or(Addr::from_v4_bits(0))), addr, to)
        } else {
            // The address that the waiting packet has, too (RFC 4861 7.2.2): the neighbour learns it
            // by the way and need not ask in turn. And it can answer although it has no link-local
            // address yet.
            // A shared address is the only one that surely is the host's: its link-local one need not be
            // made of the MAC.
            let own = own.filter(|_| uplink.shared || !addr.is_link_local());
            ndp::solicitation((mac, own.unwrap_or_else(|| link_local(mac))), addr, to)
        };
        self.emit_owned(port, question, out);
    }

    /// Retries and gives up on neighbours.
    pub(super) fn neighbour_timers(&mut self, now: Time, out: &mut Output) {
        for action in self.neighbours.tick(now) {
            match action {
                Action::Ask { port, addr, to } => self.ask(port, addr, to, out),
                Action::Failed { port, addr, held } => {
                    self.hops.doubt(port, addr);
                    for frame in held {
                        self.drop_frame(port, DropReason::NeighbourFailed);
                        self.unreachable(now, frame, IcmpError::HostUnreachable, out);
                    }
                }
            }
        }
    }
}

fn uplink_has(uplink: &Uplink, port: &Port, addr: Addr) -> bool {
    uplink.is_ours(addr) || addr == link_local(port.mac)
}

fn kind(parsed: &Parsed, frame: &[u8]) -> Option<u8> {
    parsed.l4_bytes(frame).first().copied()
}

fn is_neighbour_discovery(parsed: &Parsed, frame: &[u8]) -> bool {
    parsed.proto == ipv6::ICMPV6
        && kind(parsed, frame)
            .is_some_and(|k| (v6::ROUTER_SOLICITATION..=v6::REDIRECT).contains(&k))
}

/// The MAC from which a link-local address was formed (RFC 4291 appendix A).
fn eui64_mac(addr: Addr) -> Option<Mac> {
    let o = addr.bytes();
    let is_eui64 = addr.is_link_local() && !addr.is_v4() && o[11..13] == [0xff, 0xfe];
    is_eui64.then(|| Mac([o[8] ^ 2, o[9], o[10], o[13], o[14], o[15]]))
}

fn set_destination(frame: &mut PacketBuf, mac: Mac) {
    if let Some(dst) = frame.frame().bytes_mut().first_chunk_mut() {
        *dst = mac.0;
    }
}
