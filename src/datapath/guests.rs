//! Guests that configure themselves: DHCP, DHCPv6 and router solicitations of endpoints.
//!
//! They are told what their port's configuration says. A guard lets no other server's answer through, so
//! where there is one, their questions go no further than this.

use std::collections::BTreeSet;

use super::slow::Frame;
use super::{Datapath, Output};
use crate::base::ids::PortId;
use crate::base::time::Time;
use crate::config::{Guise, Network, Port, PortKind, Stands, link_local};
use crate::packet::{DropReason, Parsed};
use crate::stage::respond::guest::{Guest, Place};
use crate::stage::respond::{dhcp, dhcp6, ra};
use crate::wire::addr::{Addr, Family};
use crate::wire::mac::Mac;
use crate::wire::router::Told;

/// Who asked for a router, and when it will be told again.
#[derive(Debug, Default)]
pub(super) struct Advertised(BTreeSet<(Time, PortId)>);

impl Advertised {
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.0.first().map(|(at, _)| *at)
    }

    pub(super) fn remove_port(&mut self, port: PortId) {
        self.0.retain(|(_, other)| *other != port);
    }
}

impl Datapath {
    /// Answers a guest that asks for its addresses. `true`: that is the end of its question.
    pub(super) fn configure_guest(
        &mut self,
        port: &Port,
        parsed: &Parsed,
        frame: &mut Frame<'_>,
    ) -> Result<bool, DropReason> {
        let (v4, v6) = (dhcp::is_request(parsed), dhcp6::is_request(parsed));
        if !v4 && !v6 || port.kind != PortKind::Endpoint {
            return Ok(false);
        }
        let Some(network) = self.tables.network_of(port.domain) else { return Ok(false) };
        // Somebody in particular is asked, and it is not us.
        let group = parsed.dst.is_multicast_or_broadcast();
        let Some(guest) = guest(network, port, parsed.src.family()) else { return Ok(false) };
        if !group && !network.is_gateway(parsed.dst) {
            return Ok(false);
        }
        let bytes = frame.batch.bytes(frame.at);
        let answer = if v4 {
            dhcp::answer(bytes, parsed, &guest)?
        } else {
            dhcp6::answer(bytes, parsed, &guest)?
        };
        if let Some(answer) = answer {
            self.emit_owned(port.id, answer, frame.out);
        }
        Ok(port.guard || !group)
    }

    /// Answers a guest that asks for a router: one that has its addresses from its attachment by these,
    /// another program's container by the subnet.
    pub(super) fn advertise_guest(
        &mut self,
        port: &Port,
        parsed: &Parsed,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        ra::check_solicitation(frame.batch.bytes(frame.at), parsed)?;
        let network = self.tables.network_of(port.domain).ok_or(DropReason::PortGone)?;
        let told = told(network, port).ok_or(DropReason::NeighbourIgnored)?;
        let answer = ra::advertisement(router(network), &told, Some(parsed));
        self.emit_owned(port.id, answer, frame.out);
        self.advertised.remove_port(port.id);
        self.advertised.0.insert((frame.now + ra::INTERVAL, port.id));
        Ok(())
    }

    /// Says again what guests were told, before they forget it.
    pub(super) fn advertise_again(&mut self, now: Time, out: &mut Output) {
        while let Some(&(due, id)) = self.advertised.0.first()
            && due <= now
        {
            self.advertised.0.remove(&(due, id));
            let Some(port) = self.tables.port(id) else { continue };
            let Some(network) = self.tables.network_of(port.domain) else { continue };
            if let Some(told) = told(network, port) {
                let answer = ra::advertisement(router(network), &told, None);
                self.emit_owned(id, answer, out);
                self.advertised.0.insert((now + ra::INTERVAL, id));
            }
        }
    }
}

fn router(network: &Network) -> (Mac, Addr) {
    (network.gateway_mac, link_local(network.gateway_mac))
}

/// What an endpoint is told of its router.
fn told(network: &Network, port: &Port) -> Option<Told> {
    if port.kind != PortKind::Endpoint {
        return None;
    }
    if network.guise == Guise::default() {
        return guest(network, port, Family::V6).map(|guest| ra::told(&guest));
    }
    // Another program's container makes itself an address, and has its name servers from that program.
    let subnet = network.subnet_v6().filter(|_| network.guise.advertises)?;
    Some(Told {
        lifetime: ra::LIFETIME,
        flags: 0,
        prefix: (subnet.prefix, subnet.len),
        autonomous: true,
        mtu: network.mtu,
        name_server: None,
        search: Vec::new(),
    })
}

/// What a port's configuration says of it in one family.
fn guest<'a>(network: &'a Network, port: &Port, family: Family) -> Option<Guest<'a>> {
    let addr = *port.addrs.iter().find(|addr| addr.family() == family)?;
    let subnet = network.subnets.iter().find(|subnet| subnet.contains(addr))?;
    if network.guise.transparent {
        return None; // The container is told nothing that its host is not.
    }
    let named = network.guise.also.iter().filter(|(_, stands)| *stands == Stands::NameServer);
    let named = named.map(|(addr, _)| *addr).find(|addr| addr.family() == family);
    let (gateway, name_server) = (subnet.gateway, named.unwrap_or(subnet.gateway));
    let (prefix, prefix_len) = (subnet.prefix, subnet.len);
    Some(Guest {
        mac: port.mac,
        gateway_mac: network.gateway_mac,
        router: link_local(network.gateway_mac),
        place: Place { addr, prefix, prefix_len, gateway, name_server },
        mtu: port.mtu.min(network.mtu),
        domain: &network.name,
    })
}
