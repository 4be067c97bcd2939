//! Address configuration of an uplink: DHCP and router advertisements, from the client's side.

use super::slow::Frame;
use super::{Datapath, Event, Output};
use crate::base::ids::{PortId, UplinkId};
use crate::base::time::Time;
use crate::config::Uplink;
use crate::packet::{L3, Parsed};
use crate::stage::lease::dhcp::{DhcpClient, LeaseEvent};
use crate::wire::ipv6;
use crate::wire::mac::Mac;

/// DHCP's client port.
const DHCP_CLIENT: u16 = 68;

/// The lease of one uplink.
#[derive(Debug)]
pub(super) struct Lease {
    port: PortId,
    client: DhcpClient,
}

impl Lease {
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.client.next_deadline()
    }
}

impl Datapath {
    /// Starts to ask for an address on an uplink.
    pub fn configure(&mut self, now: Time, uplink: UplinkId, port: PortId, out: &mut Output) {
        let mac = self.tables.port(port).map_or(Mac::ZERO, |p| p.mac);
        let client = DhcpClient::new(mac, self.seed.hash([mac.to_u64(), now.0]));
        self.leases.insert(uplink, Lease { port, client });
        self.lease_timers(now, out);
    }

    pub(super) fn lease_timers(&mut self, now: Time, out: &mut Output) {
        let mut sent = Vec::new();
        for lease in self.leases.values_mut() {
            if let Some(frame) = lease.client.tick(now) {
                sent.push((lease.port, frame));
            }
        }
        for (port, frame) in sent {
            self.emit_owned(port, frame, out);
        }
    }

    /// Whether the frame was a DHCP answer for us.
    pub(super) fn lease_packet(
        &mut self,
        uplink: &Uplink,
        parsed: &Parsed,
        frame: &mut Frame<'_>,
    ) -> bool {
        let is_dhcp = parsed.l3 == L3::V4
            && parsed.proto == ipv6::UDP
            && parsed.dst_port == DHCP_CLIENT;
        let Some(lease) = self.leases.get_mut(&uplink.id).filter(|_| is_dhcp) else { return false };
        let event = lease.client.handle(frame.now, frame.batch.bytes(frame.at), parsed);
        match event {
            Some(LeaseEvent::Bound(bound)) => frame.out.events.push(Event::Leased {
                uplink: uplink.id,
                addr: (bound.addr, bound.prefix_len),
                routers: bound.routers,
                dns: bound.dns,
                mtu: bound.mtu,
            }),
            Some(LeaseEvent::Lost) => {
                frame.out.events.push(Event::LeaseLost { uplink: uplink.id });
            }
            None => {}
        }
        let (now, out) = (frame.now, &mut *frame.out);
        self.lease_timers(now, out);
        true
    }
}
