//! Uplinks: made, removed, shown; and what their LANs tell.

use std::net::IpAddr;

use ipnet::IpNet;

use super::compile::{self, DEFAULT};
use super::error::ControlError;
use super::ipam::{IpamError, overlaps};
use super::model::{EventKind, PacketSpec, UplinkInfo, UplinkKind, UplinkSpec};
use super::networks::in_words;
use super::share::Share;
use super::state::UplinkState;
use super::store::record::{Record, UplinkRecord};
use super::{Control, names, random};
use crate::base::ids::{NetworkId, PortId, UplinkId};
use crate::base::limits::UPLINKS_MAX;
use crate::config::Delta;
use crate::datapath::Lan;
use crate::io::packet::PacketSocket;
use crate::worker::command::Command;

/// The MTU of what has no NIC.
const MTU: u16 = 1500;

impl Control {
    /// Makes an uplink.
    pub fn create_uplink(&mut self, spec: &UplinkSpec) -> Result<UplinkInfo, ControlError> {
        names::check_uplink(&spec.name)?;
        if self.state.uplink(&spec.name).is_some() {
            let (kind, name, holder) = ("uplink", spec.name.clone(), String::new());
            return Err(ControlError::Exists { kind, name, holder });
        }
        self.check_kind(&spec.kind)?;
        let mac = random::mac()?;
        let id = self.state.uplink_ids.take().map(UplinkId);
        let id = id.ok_or(ControlError::Exhausted { what: "uplinks", limit: UPLINKS_MAX })?;
        let made = self.take_port().and_then(|port| {
            let record = UplinkRecord { id, spec: spec.clone(), port, mac };
            self.install_uplink(record).inspect_err(|_| self.state.ports.give_back(port.0))
        });
        if let Err(error) = made {
            self.state.uplink_ids.give_back(id.0);
            return Err(error);
        }
        self.uplink(&spec.name)
    }

    fn install_uplink(&mut self, record: UplinkRecord) -> Result<(), ControlError> {
        let (uplink, sockets) = self.open_uplink(record)?;
        self.write(&[uplink.record.put()])?;
        let (id, name) = (uplink.record.id, uplink.record.spec.name.clone());
        self.state.uplinks.insert(id, uplink);
        self.serve_uplink(id, sockets);
        self.resend_networks_of(&name);
        self.event(EventKind::UplinkCreated, Some(&name), None, format!("uplink {name} created"));
        Ok(())
    }

    /// Makes an uplink another one under the same name, number, port and MAC. It stays as it is if
    /// that fails.
    pub(super) fn replace_uplink(
        &mut self,
        mut record: UplinkRecord,
        spec: UplinkSpec,
    ) -> Result<(), ControlError> {
        let (id, port) = (record.id, record.port);
        record.spec = spec;
        // Out of the state, it is not in its own way. Nor may its table be: what shares the host's address
        // stands still for a moment.
        let mut old = self.state.uplinks.remove(&id);
        let stood = old.as_mut().and_then(|old| old.share.take()).is_some();
        let opened = self.check_kind(&record.spec.kind).and_then(|()| self.open_uplink(record));
        let written = opened.and_then(|opened| {
            self.write(&[opened.0.record.put()])?;
            Ok(opened)
        });
        let (uplink, sockets) = match written {
            Ok(opened) => opened,
            Err(error) => {
                self.state.uplinks.extend(old.map(|old| (id, old)));
                if stood {
                    self.fail_uplink(port, format!("cannot be opened again: {error}"));
                }
                return Err(error);
            }
        };
        let name = uplink.record.spec.name.clone();
        self.state.uplinks.insert(id, uplink);
        self.outside.dataplane.send(Command::RemoveIo(port));
        self.serve_uplink(id, sockets);
        self.resend_networks_of(&name);
        self.event(EventKind::UplinkCreated, Some(&name), None, format!("uplink {name} changed"));
        Ok(())
    }

    /// Opens what an uplink needs of the host.
    pub(super) fn open_uplink(
        &self,
        mut record: UplinkRecord,
    ) -> Result<(UplinkState, Vec<PacketSocket>), ControlError> {
        // Before the first look, or what changes in between would not be seen.
        let watch = self.watch(&record);
        let (mut share, mut lan) = (None, Lan::default());
        let (sockets, mtu, uso) = match &record.spec.kind {
            UplinkKind::Sockets => (Vec::new(), MTU, false),
            UplinkKind::Packet(packet) if packet.share_host_address => {
                let opened = self.open_shared(&record, packet)?;
                (record.mac, lan) = (opened.seen.mac, opened.seen.lan);
                share = Some(Share::new(opened.ports, opened.host));
                (opened.sockets, opened.seen.mtu, false)
            }
            UplinkKind::Packet(packet) => {
                let opened = self.outside.host.open_packet(&packet.interface, record.mac)?;
                (opened.sockets, opened.mtu, opened.uso)
            }
        };
        let uplink = UplinkState { record, failure: None, mtu, uso, lan, share, watch };
        Ok((uplink, sockets))
    }

    /// Tells the workers of an uplink and hands them its sockets.
    pub(super) fn serve_uplink(&self, id: UplinkId, sockets: Vec<PacketSocket>) {
        let Some(uplink) = self.state.uplinks.get(&id) else { return };
        self.send_deltas(compile::uplink(uplink).into());
        let port = uplink.record.port;
        for socket in sockets {
            self.outside.dataplane.send(Command::AddPacket(port, socket));
        }
        if matches!(&uplink.record.spec.kind, UplinkKind::Packet(p) if p.dhcp) {
            self.outside.dataplane.send(Command::Configure(id, port));
        }
    }

    /// Networks that name this uplink, or none while this is the default, leave another way now.
    fn resend_networks_of(&self, uplink: &str) {
        for id in self.networks_naming(uplink) {
            if let Some(network) = self.state.networks.get(&id) {
                self.send_deltas(vec![compile::network(
                    &self.state,
                    network,
                    &self.settings.guise,
                )]);
            }
        }
    }

    fn networks_naming(&self, uplink: &str) -> Vec<NetworkId> {
        let names_it = |named: &Option<String>| match named {
            Some(name) => name == uplink,
            None => uplink == DEFAULT,
        };
        let networks = self.state.networks.values().map(|n| &n.record);
        networks.filter(|n| !n.internal && names_it(&n.uplink)).map(|n| n.id).collect()
    }

    /// Removes an uplink that no network names.
    pub fn remove_uplink(&mut self, name: &str) -> Result<(), ControlError> {
        let uplink = self.state.uplink(name);
        let record = uplink.ok_or_else(|| ControlError::not_found("uplink", name))?.record.clone();
        let named =
            self.state.networks.values().filter(|n| n.record.uplink.as_deref() == Some(name));
        let users: Vec<&str> = named.map(|n| n.record.name.as_str()).collect();
        if !users.is_empty() {
            return Err(ControlError::InUse {
                kind: "uplink",
                name: name.to_owned(),
                users: in_words(users.iter().map(|u| format!("network {u}"))),
                hint: "give these another one with `wharf network update NAME --uplink OTHER`",
            });
        }
        self.write(&[record.remove()])?;
        self.state.remove_uplink(record.id);
        self.resend_networks_of(name);
        self.send_deltas(vec![Delta::RemovePort(record.port), Delta::RemoveUplink(record.id)]);
        self.outside.dataplane.send(Command::RemoveIo(record.port));
        self.refresh_resolvers();
        self.event(EventKind::UplinkRemoved, Some(name), None, format!("uplink {name} removed"));
        Ok(())
    }

    /// All uplinks, by their numbers.
    pub fn uplinks(&self) -> Vec<UplinkInfo> {
        self.state.uplinks.values().map(|u| self.uplink_info(u)).collect()
    }

    /// One uplink.
    pub fn uplink(&self, name: &str) -> Result<UplinkInfo, ControlError> {
        let uplink = self.state.uplink(name);
        uplink.map(|u| self.uplink_info(u)).ok_or_else(|| ControlError::not_found("uplink", name))
    }

    fn uplink_info(&self, uplink: &UplinkState) -> UplinkInfo {
        let record = &uplink.record;
        let name_of = |id: NetworkId| self.state.network_name(id).to_owned();
        UplinkInfo {
            id: record.id,
            name: record.spec.name.clone(),
            kind: record.spec.kind.clone(),
            port: record.port,
            mac: matches!(record.spec.kind, UplinkKind::Packet(_)).then_some(record.mac),
            addresses: uplink.nets(),
            gateways: uplink.routers(),
            dns: uplink.lan.dns.iter().map(|dns| dns.ip()).collect(),
            mtu: uplink.mtu(),
            shared: uplink.share.as_ref().map(Share::info),
            state: uplink.state_in_words(),
            networks: self.networks_naming(&record.spec.name).into_iter().map(name_of).collect(),
        }
    }

    /// What a LAN gave an uplink has changed.
    pub(super) fn configured(&mut self, id: UplinkId, lan: Lan) {
        let Some(uplink) = self.state.uplinks.get_mut(&id) else { return };
        let name = uplink.record.spec.name.clone();
        let given = lan.addrs.iter().map(|(addr, len)| format!("{addr}/{len}"));
        let (kind, text) = if lan.addrs.is_empty() {
            (EventKind::UplinkLost, format!("uplink {name} lost its address"))
        } else {
            let given: Vec<String> = given.collect();
            (
                EventKind::UplinkLeased,
                format!("uplink {name} has the address {}", in_words(given.iter())),
            )
        };
        uplink.lan = lan;
        let deltas = compile::uplink(uplink);
        self.send_deltas(deltas.into());
        self.refresh_resolvers();
        self.event(kind, Some(&name), None, text);
        self.warn_of_overlap(id);
    }

    /// A LAN that overlaps a network makes that network's hosts unreachable from there; a lease cannot
    /// be refused as a static address can, so it is said.
    fn warn_of_overlap(&mut self, id: UplinkId) {
        let Some(uplink) = self.state.uplinks.get(&id) else { return };
        let (name, nets) = (uplink.record.spec.name.clone(), uplink.nets());
        let networks = self.state.networks.values().map(|n| &n.record);
        let hit =
            networks.filter(|n| nets.iter().any(|l| n.subnets.iter().any(|(s, _)| overlaps(l, s))));
        let hit: Vec<&str> = hit.map(|n| n.name.as_str()).collect();
        if hit.is_empty() {
            return;
        }
        let text = format!("the LAN of uplink {name} overlaps {}", in_words(hit.iter()));
        self.event(EventKind::UplinkLeased, Some(&name), None, text);
    }

    /// An uplink's NIC is gone.
    pub(super) fn uplink_dead(&mut self, port: PortId) {
        self.fail_uplink(port, "its interface is gone".to_owned());
    }

    /// An uplink works no longer.
    fn fail_uplink(&mut self, port: PortId, why: String) {
        let dead = self.state.uplinks.values_mut().find(|u| u.record.port == port);
        let Some(uplink) = dead else { return };
        let text = format!("uplink {} does not work: {why}", uplink.record.spec.name);
        uplink.failure = Some(why);
        uplink.share = None;
        let (id, name) = (uplink.record.id, uplink.record.spec.name.clone());
        self.resend_networks_of(&name);
        self.send_deltas(vec![Delta::RemovePort(port), Delta::RemoveUplink(id)]);
        self.outside.dataplane.send(Command::RemoveIo(port));
        self.event(EventKind::UplinkLost, Some(&name), None, text);
    }

    fn check_kind(&self, kind: &UplinkKind) -> Result<(), ControlError> {
        match kind {
            UplinkKind::Sockets => Ok(()),
            UplinkKind::Packet(packet) => self.check_packet(packet),
        }
    }

    fn check_packet(&self, packet: &PacketSpec) -> Result<(), ControlError> {
        if packet.share_host_address {
            if packet.dhcp || !packet.addresses.is_empty() || !packet.gateways.is_empty() {
                return Err(ControlError::invalid(
                    format!(
                        "the uplink on {} would share the host's address and have its own",
                        packet.interface
                    ),
                    "leave out addresses and gateways: the host's are used",
                ));
            }
        } else if packet.addresses.is_empty() && !packet.dhcp {
            return Err(ControlError::invalid(
                format!("the uplink on {} has no address", packet.interface),
                "give --address CIDR, or --address dhcp",
            ));
        }
        let user = self.state.uplinks.values().find(|u| {
            matches!(&u.record.spec.kind, UplinkKind::Packet(p) if p.interface == packet.interface)
        });
        if let Some(user) = user {
            return Err(ControlError::InUse {
                kind: "interface",
                name: packet.interface.clone(),
                users: format!("uplink {}", user.record.spec.name),
                hint: "choose another interface, or remove that uplink first",
            });
        }
        for addr in &packet.addresses {
            self.check_address(*addr)?;
        }
        for gateway in &packet.gateways {
            let on_link = packet.addresses.iter().any(|n| n.contains(gateway))
                || matches!(gateway, IpAddr::V6(g) if g.is_unicast_link_local());
            if !on_link {
                let subnets = in_words(packet.addresses.iter().map(|n| n.trunc().to_string()));
                return Err(IpamError::Outside { addr: *gateway, subnets }.into());
            }
        }
        Ok(())
    }

    /// An address of ours on a LAN: a host's address, and the LAN none of our networks.
    fn check_address(&self, addr: IpNet) -> Result<(), ControlError> {
        let ip = addr.addr();
        let is_range = addr.prefix_len() + 1 < addr.max_prefix_len()
            && (ip == addr.network() || (ip.is_ipv4() && ip == addr.broadcast()));
        if is_range || ip.is_multicast() || ip.is_loopback() || ip.is_unspecified() {
            return Err(ControlError::invalid(
                format!("{addr} cannot be an uplink's address"),
                "give a host's address with the LAN's prefix length, as in 192.168.1.50/24",
            ));
        }
        if let Some(claim) = self.claims().iter().find(|c| overlaps(&c.net, &addr)) {
            let (other, holder) = (claim.net, claim.holder.clone());
            return Err(IpamError::Overlap { subnet: addr.trunc(), other, holder }.into());
        }
        Ok(())
    }
}

impl UplinkState {
    fn packet(&self) -> Option<&PacketSpec> {
        match &self.record.spec.kind {
            UplinkKind::Packet(packet) => Some(packet),
            UplinkKind::Sockets => None,
        }
    }

    /// Whether our addresses there are the host's as well.
    pub(super) fn shares_host(&self) -> bool {
        self.packet().is_some_and(|packet| packet.share_host_address)
    }

    /// Our addresses there, static ones first.
    pub(super) fn addrs(&self) -> Vec<(IpAddr, u8)> {
        let fixed = self.packet().into_iter().flat_map(|p| &p.addresses);
        let fixed = fixed.map(|n| (n.addr(), n.prefix_len()));
        fixed.chain(self.lan.addrs.iter().map(|(addr, len)| (addr.ip(), *len))).collect()
    }

    /// The same as ranges with host bits.
    pub(super) fn nets(&self) -> Vec<IpNet> {
        self.addrs().into_iter().filter_map(|(a, len)| IpNet::new(a, len).ok()).collect()
    }

    /// Routers, static ones first.
    pub(super) fn routers(&self) -> Vec<IpAddr> {
        let fixed = self.packet().into_iter().flat_map(|p| p.gateways.iter().copied());
        fixed.chain(self.lan.routers.iter().map(|router| router.ip())).collect()
    }

    /// The NIC's MTU, or less if the LAN says so.
    pub(super) fn mtu(&self) -> u16 {
        self.lan.mtu.map_or(self.mtu, |mtu| mtu.min(self.mtu))
    }

    fn state_in_words(&self) -> String {
        match &self.failure {
            Some(failure) => failure.clone(),
            None if self.packet().is_some() && self.addrs().is_empty() => {
                "waits for an address".to_owned()
            }
            None => "works".to_owned(),
        }
    }
}
