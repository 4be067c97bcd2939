//! A switch of the simulation, watched at every call: what must always hold is asserted here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use wharf::base::hash::Seed;
use wharf::base::ids::{DomainId, NetworkId, PortId, PublicationId, UplinkId};
use wharf::base::time::{Span, Time};
use wharf::config::{Delta, Network, Port, PortKind, Subnet, Uplink, UplinkKind};
use wharf::datapath::inspect::PortStats;
use wharf::datapath::{Datapath, FrameRef, Output};
use wharf::packet::{FrameBatch, L3, PacketBuf, Parsed};
use wharf::stage::service::publish::Publication;
use wharf::wire::addr::Addr;
use wharf::wire::mac::Mac;

use crate::host::Identity;

pub(crate) const UPLINK: UplinkId = UplinkId(0);
pub(crate) const UPLINK_PORT: PortId = PortId(500);
/// Calls of `tick` at one moment: a sweep of flows goes by slices, and nothing else repeats.
const TICKS_AT_ONCE: u32 = 64;

/// A frame on its way out, and whether it is one of those that came in with the call.
type Sent = (PortId, PacketBuf);

/// A switch, and what it was told.
pub(crate) struct Node {
    pub(crate) number: u8,
    dp: Datapath,
    seed: u64,
    /// The configuration in force, in the order it must be told to a fresh switch.
    config: Vec<Delta>,
    ticks: (Time, u32),
    calls: u64,
}

impl Node {
    pub(crate) fn new(number: u8, seed: u64) -> Self {
        let dp = Datapath::new(Seed(seed));
        Self { number, dp, seed, config: Vec::new(), ticks: (Time::ZERO, 0), calls: 0 }
    }

    /// Changes the configuration.
    pub(crate) fn apply(&mut self, now: Time, delta: Delta) -> Vec<Sent> {
        let mut out = Output::default();
        self.dp.apply(now, &delta, &mut out);
        match &delta {
            Delta::RemovePort(id) => {
                self.config.retain(|d| !matches!(d, Delta::Port(port) if port.id == *id));
            }
            Delta::Unpublish(id) => {
                self.config.retain(|d| !matches!(d, Delta::Publish(p) if p.id == *id));
            }
            _ => self.config.push(delta),
        }
        take(&mut FrameBatch::new(), &mut out)
    }

    /// The daemon died and was started again: all that was learned is gone.
    pub(crate) fn restart(&mut self, now: Time) {
        self.seed += 1;
        self.dp = Datapath::new(Seed(self.seed));
        self.ticks = (Time::ZERO, 0);
        for delta in &self.config {
            self.dp.apply(now, delta, &mut Output::default());
        }
    }

    pub(crate) fn deadline(&self, now: Time) -> Option<Time> {
        self.dp.next_deadline(now)
    }

    pub(crate) fn tick(&mut self, now: Time) -> Vec<Sent> {
        self.ticks = if self.ticks.0 == now { (now, self.ticks.1 + 1) } else { (now, 1) };
        assert!(self.ticks.1 <= TICKS_AT_ONCE, "deadlines make no progress at {now:?}");
        let before = self.stats();
        let mut out = Output::default();
        self.dp.tick(now, &mut out);
        Self::check_sent(&before, &self.stats(), &out);
        take(&mut FrameBatch::new(), &mut out)
    }

    /// Hands frames in, and checks what becomes of them.
    pub(crate) fn receive(&mut self, now: Time, port: PortId, frames: &[PacketBuf]) -> Vec<Sent> {
        self.calls += 1;
        let mut batch = FrameBatch::new();
        assert!(frames.iter().all(|frame| batch.push_owned(frame)), "they fit");
        let (before, held) = (self.stats(), self.dp.footprint().held);
        let mut out = Output::default();
        self.dp.frames(now, port, &mut batch, &mut out);
        let after = self.stats();
        Self::check_sent(&before, &after, &out);
        Self::check_received(port, frames.len(), &before, &after);
        self.check_vanished(frames.len(), &before, &after, held, &out);
        self.check_ways(port, frames, &out);
        take(&mut batch, &mut out)
    }

    /// Nothing is remembered that time could end.
    pub(crate) fn assert_empty(&self) {
        let footprint = self.dp.footprint();
        let left = (footprint.flows, footprint.mappings, footprint.hops, footprint.stations);
        assert_eq!((left, footprint.held), ((0, 0, 0, 0), 0), "{footprint:?}");
    }

    pub(crate) fn flows(&self) -> usize {
        self.dp.footprint().flows
    }

    /// Drops by reason, for a person who looks at a failure.
    pub(crate) fn drops(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for (reason, n) in self.dp.list_ports().into_iter().flat_map(|port| port.drops) {
            *all.entry(reason).or_default() += n;
        }
        all
    }

    fn stats(&self) -> BTreeMap<PortId, PortStats> {
        let all = self.dp.list_ports().into_iter();
        all.map(|stats| (stats.port.expect("a port has a number"), stats)).collect()
    }

    /// What the counters say was sent is what was given out.
    fn check_sent(before: &Stats, after: &Stats, out: &Output) {
        let mut sent: BTreeMap<PortId, u64> = BTreeMap::new();
        for frame in &out.frames {
            *sent.entry(frame.port).or_default() += 1;
        }
        for (port, stats) in after {
            let old = before.get(port).map_or(0, |old| old.tx_frames);
            let counted = stats.tx_frames - old;
            assert_eq!(counted, sent.get(port).copied().unwrap_or(0), "sent to {port}");
        }
        let gone = sent.keys().find(|port| !after.contains_key(*port));
        assert_eq!(gone, None, "nothing leaves by a port that is not there");
    }

    fn check_received(port: PortId, n: usize, before: &Stats, after: &Stats) {
        for (other, stats) in after {
            let counted = stats.rx_frames - before.get(other).map_or(0, |old| old.rx_frames);
            assert_eq!(counted, if *other == port { n as u64 } else { 0 }, "received from {other}");
        }
    }

    /// Each frame is sent, answered, held, or dropped by name; none vanishes.
    fn check_vanished(&self, n: usize, before: &Stats, after: &Stats, held: usize, out: &Output) {
        let mut sent = std::collections::BTreeSet::new();
        let mut made = 0;
        for frame in &out.frames {
            match frame.frame {
                FrameRef::Batch(at) => _ = sent.insert(at),
                FrameRef::Owned(_) => made += 1,
            }
        }
        let sum =
            |stats: &Stats| -> u64 { stats.values().flat_map(|s| &s.drops).map(|(_, n)| *n).sum() };
        let dropped = (sum(after) - sum(before)) as usize;
        let kept = self.dp.footprint().held.saturating_sub(held);
        let accounted = sent.len() + made + dropped + kept;
        assert!(accounted >= n, "{n} came, {accounted} are accounted for: {out:?}");
    }

    /// No frame leaves to where it must not go, and none under a name that is not its sender's.
    fn check_ways(&self, from: PortId, frames: &[PacketBuf], out: &Output) {
        let Some(ingress) = self.dp.tables().port(from).cloned() else { return };
        for frame in &out.frames {
            let FrameRef::Batch(at) = frame.frame else { continue };
            let original = &frames[usize::from(at)];
            let egress = self.dp.tables().port(frame.port).expect("checked").clone();
            let Ok(parsed) = Parsed::new(original.bytes()) else { panic!("sent unparsed") };
            Self::check_name(&ingress, &parsed);
            if frame.port != from {
                assert!(
                    self.may_cross(&ingress, &egress, &parsed),
                    "{parsed:?} from {} to {}",
                    ingress.name,
                    egress.name
                );
            }
        }
    }

    fn check_name(ingress: &Port, parsed: &Parsed) {
        if !ingress.guard {
            return;
        }
        assert_eq!(parsed.src_mac, ingress.mac, "the guard lets no other MAC pass");
        let own = ingress.addrs.contains(&parsed.src)
            || parsed.src.is_unspecified()
            || parsed.src.is_link_local();
        let is_ip = matches!(parsed.l3, L3::V4 | L3::V6);
        assert!(!is_ip || own, "the guard lets no other address pass: {parsed:?}");
    }

    fn may_cross(&self, ingress: &Port, egress: &Port, parsed: &Parsed) -> bool {
        let tables = self.dp.tables();
        if ingress.domain == egress.domain {
            return true;
        }
        let target = |port: &Port, number: u16| {
            tables.publications().iter().any(|p| p.endpoint == port.id && p.target_port == number)
        };
        match (tables.network_of(ingress.domain), tables.network_of(egress.domain)) {
            (Some(one), Some(two)) => {
                let to_us = tables.is_host_addr(parsed.dst) || one.is_gateway(parsed.dst);
                let open = !one.isolated && !two.isolated;
                open || to_us || target(ingress, parsed.src_port)
            }
            (Some(one), None) => one.uplink == Some(UPLINK) && !one.internal,
            (None, _) => tables.is_host_addr(parsed.dst),
        }
    }
}

type Stats = BTreeMap<PortId, PortStats>;

/// The frames as their own.
fn take(batch: &mut FrameBatch, out: &mut Output) -> Vec<Sent> {
    let frames = out.frames.drain(..);
    frames
        .map(|sent| match sent.frame {
            FrameRef::Batch(at) => (sent.port, batch.frame(usize::from(at)).to_owned()),
            FrameRef::Owned(owned) => (sent.port, owned),
        })
        .collect()
}

/// Network `n` of a node: `10.(20 + 40 * node + n).0.0/16`, `fd00:(20 + …)::/64`.
pub(crate) fn network(node: u8, n: u8, open: bool) -> Delta {
    let second = 20 + 40 * node + n;
    let subnet = |prefix: IpAddr, len, gateway: IpAddr| Subnet {
        prefix: prefix.into(),
        len,
        gateway: gateway.into(),
    };
    Delta::Network(Arc::new(Network {
        id: NetworkId(u16::from(n)),
        name: format!("net{n}").into(),
        subnets: vec![
            subnet([10, second, 0, 0].into(), 16, [10, second, 0, 1].into()),
            subnet(v6(second, 0).into(), 64, v6(second, 1).into()),
        ],
        gateway_mac: Mac([2, 0x42, 10, second, 0, 1]),
        mtu: 1500,
        isolated: !open,
        internal: false,
        uplink: Some(UPLINK),
        host_port: None,
        host_loopback: false,
        guise: wharf::config::Guise::default(),
    }))
}

fn v6(second: u8, host: u16) -> std::net::Ipv6Addr {
    std::net::Ipv6Addr::new(0xfd00, u16::from(second), 0, 0, 0, 0, 0, host)
}

/// An endpoint on network `n`, and who is behind it.
pub(crate) fn endpoint(node: u8, n: u8, port: u16, guard: bool) -> (Delta, Identity) {
    let second = 20 + 40 * node + n;
    let [high, low] = (port + 1).to_be_bytes();
    let v4 = std::net::Ipv4Addr::new(10, second, high, low);
    let id = Identity {
        mac: Mac::from_ipv4(v4),
        v4: (v4, 16),
        v6: (v6(second, port + 1), 64),
        gateway: Some(([10, second, 0, 1].into(), v6(second, 1))),
    };
    let delta = Delta::Port(Arc::new(Port {
        id: PortId(port),
        name: format!("c{port}").into(),
        kind: PortKind::Endpoint,
        domain: NetworkId(u16::from(n)).into(),
        mac: id.mac,
        addrs: vec![v4.into(), id.v6.0.into()],
        guard,
        isolated: false,
        mtu: 1500,
        uso: true,
    }));
    (delta, id)
}

/// The uplink of a node to the one LAN there is, `192.0.2.0/24` and `2001:db8:1::/64`.
pub(crate) fn uplink(node: u8) -> [Delta; 2] {
    let (v4, v6) = outside(node);
    let addrs: Vec<(Addr, u8)> = vec![(v4.into(), 24), (v6.into(), 64)];
    let uplink = Uplink {
        id: UPLINK,
        name: "default".into(),
        kind: UplinkKind::Packet,
        port: UPLINK_PORT,
        addrs: addrs.clone(),
        routers: Vec::new(),
        nat_ports: 1024..=65535,
        nat: Default::default(),
        shared: false,
        mtu: 1500,
    };
    let port = Port {
        id: UPLINK_PORT,
        name: "default".into(),
        kind: PortKind::PacketUplink,
        domain: DomainId::from(UPLINK),
        mac: Mac([2, 0xaa, 0, 0, 0, node]),
        addrs: addrs.into_iter().map(|(addr, _)| addr).collect(),
        guard: false,
        isolated: false,
        mtu: 1500,
        uso: true,
    };
    [Delta::Uplink(Arc::new(uplink)), Delta::Port(Arc::new(port))]
}

/// Our addresses on the LAN.
pub(crate) fn outside(node: u8) -> (std::net::Ipv4Addr, std::net::Ipv6Addr) {
    ([192, 0, 2, 1 + node].into(), format!("2001:db8:1::{}", 1 + node).parse().expect("an address"))
}

/// `host_port` of every address of ours leads to `port` of an endpoint.
pub(crate) fn publication(
    id: u32,
    proto: u8,
    host_port: u16,
    to: (PortId, u8, &Identity),
    port: u16,
) -> Delta {
    Delta::Publish(Publication {
        id: PublicationId(id),
        proto,
        host_addr: None,
        host_ports: host_port..=host_port,
        target_v4: Some(to.2.v4.0.into()),
        target_v6: Some(to.2.v6.0.into()),
        target_port: port,
        domain: NetworkId(u16::from(to.1)).into(),
        endpoint: to.0,
    })
}

/// Longer than anything is remembered: established TCP connections live for two hours.
pub(crate) const FOR_EVER: Span = Span::from_secs(4 * 3_600);
