//! Address configuration of an uplink: DHCP and router advertisements, from the client's side.

use super::slow::Frame;
use super::{Datapath, Event, Lan, Output};
use crate::base::ids::{PortId, UplinkId};
use crate::base::time::Time;
use crate::config::Uplink;
use crate::packet::{L3, Parsed};
use crate::stage::lease::dhcp::{DhcpClient, LeaseEvent};
use crate::stage::lease::slaac::{self, Slaac, SlaacEvent};
use crate::stage::respond::ndp;
use crate::wire::ipv6;
use crate::wire::mac::Mac;

/// DHCP's client port.
const DHCP_CLIENT: u16 = 68;
/// Every subnet with autoconfiguration has this length (RFC 4862 5.5.3).
const SLAAC_PREFIX_LEN: u8 = 64;

/// What one uplink is being given.
#[derive(Debug)]
pub(super) struct Lease {
    port: PortId,
    dhcp: DhcpClient,
    slaac: Slaac,
    /// What DHCP gave.
    v4: Lan,
}

impl Lease {
    pub(super) fn next_deadline(&self) -> Time {
        let dhcp = self.dhcp.next_deadline();
        self.slaac.next_deadline().map_or(dhcp, |at| at.min(dhcp))
    }

    fn take(&mut self, event: LeaseEvent) {
        self.v4 = match event {
            LeaseEvent::Lost => Lan::default(),
            LeaseEvent::Bound { addr, prefix_len, routers, dns, mtu, .. } => {
                Lan { addrs: vec![(addr, prefix_len)], routers, dns, mtu }
            }
        };
    }

    /// Everything together.
    fn lan(&self) -> Lan {
        let mut lan = self.v4.clone();
        lan.addrs.extend(self.slaac.addresses().iter().map(|a| (a.addr, SLAAC_PREFIX_LEN)));
        lan.routers.extend(self.slaac.routers().iter().map(|r| r.addr));
        let advertised = self.slaac.mtu().map(|mtu| mtu.min(u32::from(u16::MAX)) as u16);
        lan.mtu = lan.mtu.into_iter().chain(advertised).min();
        lan
    }
}

impl Datapath {
    /// Starts to ask for addresses on an uplink.
    pub fn configure(&mut self, now: Time, uplink: UplinkId, port: PortId, out: &mut Output) {
        let mac = self.tables.port(port).map_or(Mac::ZERO, |p| p.mac);
        let dhcp = DhcpClient::new(mac, self.seed.hash([mac.to_u64(), now.0]));
        let lease = Lease { port, dhcp, slaac: Slaac::new(mac), v4: Lan::default() };
        self.leases.insert(uplink, lease);
        self.lease_timers(now, out);
    }

    /// Sends what the clients have to send; tells what they lost.
    pub(super) fn lease_timers(&mut self, now: Time, out: &mut Output) {
        let mut sent = Vec::new();
        for (uplink, lease) in &mut self.leases {
            let before = lease.lan();
            if let Some(frame) = lease.dhcp.tick(now) {
                sent.push((lease.port, frame));
            }
            if let Some(lost) = lease.dhcp.take_lost() {
                lease.take(lost);
            }
            let events = lease.slaac.tick(now);
            if events.contains(&SlaacEvent::Solicit)
                && let Some(port) = self.tables.port(lease.port)
            {
                let our = (port.mac, slaac::link_local(port.mac));
                sent.push((lease.port, ndp::router_solicitation(our)));
            }
            let lan = lease.lan();
            if lan != before {
                out.events.push(Event::Configured(*uplink, lan));
            }
        }
        for (port, frame) in sent {
            self.emit_owned(port, frame, out);
        }
    }

    /// Whether the frame was configuration for us: a DHCP answer or a router advertisement.
    pub(super) fn lease_packet(
        &mut self,
        uplink: &Uplink,
        parsed: &Parsed,
        frame: &mut Frame<'_>,
    ) -> bool {
        let Some(lease) = self.leases.get_mut(&uplink.id) else { return false };
        let bytes = frame.batch.bytes(frame.at);
        let before = lease.lan();
        match (parsed.l3, parsed.proto) {
            (L3::V4, ipv6::UDP) if parsed.dst_port == DHCP_CLIENT => {
                if let Some(event) = lease.dhcp.handle(frame.now, bytes, parsed) {
                    lease.take(event);
                }
            }
            (L3::V6, ipv6::ICMPV6) => {
                let Some(advertised) = ndp::parse_router_advertisement(bytes, parsed) else {
                    return false;
                };
                lease.slaac.handle(frame.now, &advertised);
            }
            _ => return false,
        }
        let lan = lease.lan();
        if lan != before {
            frame.out.events.push(Event::Configured(uplink.id, lan));
        }
        let (now, out) = (frame.now, &mut *frame.out);
        self.lease_timers(now, out);
        true
    }
}
