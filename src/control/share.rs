//! Uplinks that share the host's address: what is theirs of it, and how they follow the host.
//!
//! A port is ours in this order: a listening socket holds it, the kernel's table and the packet socket's
//! filter are told, the workers are. It is given back in the reverse order, so that at no time nobody
//! answers for it. What belongs to a publication is decided per family, since a port that is published
//! for one family only is the host's in the other.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Control;
use super::error::ControlError;
use super::model::{EventKind, PacketSpec, PortRange, SharedInfo, UplinkKind};
use super::outside::{HostShare, HostWatch, OpenedShare, ShareRequest};
use super::store::record::{PublicationRecord, UplinkRecord};
use crate::base::ids::{PortId, UplinkId};
use crate::io::netfilter::table::Held;

/// What a working uplink has of the host's address.
#[derive(Debug)]
pub(super) struct Share {
    /// For masquerade.
    pub(super) ports: PortRange,
    host: Box<dyn HostShare>,
    /// Who was found to use some of them and still does.
    intruders: BTreeSet<String>,
    conflicts: u64,
}

impl Share {
    pub(super) fn new(ports: PortRange, host: Box<dyn HostShare>) -> Self {
        Self { ports, host, intruders: BTreeSet::new(), conflicts: 0 }
    }

    pub(super) fn info(&self) -> SharedInfo {
        SharedInfo { ports: self.ports, conflicts: self.conflicts }
    }

    /// Those who were not there before.
    fn newcomers(&mut self) -> Vec<String> {
        let now = match self.host.conflicts() {
            Ok(now) => now.into_iter().collect::<BTreeSet<_>>(),
            Err(error) => {
                tracing::warn!("cannot look for conflicts: {error}");
                return Vec::new();
            }
        };
        let new: Vec<_> = now.difference(&self.intruders).cloned().collect();
        self.conflicts += new.len() as u64;
        self.intruders = now;
        new
    }
}

impl Control {
    /// Takes ports of the host's address for an uplink.
    pub(super) fn open_shared(
        &self,
        record: &UplinkRecord,
        packet: &PacketSpec,
    ) -> Result<OpenedShare, ControlError> {
        let others = self.state.uplinks.values().filter_map(|uplink| {
            let share = uplink.share.as_ref()?;
            Some((share.ports, format!("uplink {}", uplink.record.spec.name)))
        });
        let mut held = self.held_by(self.state.publications.values());
        held.extend(self.held_by_services());
        let request = ShareRequest {
            interface: &packet.interface,
            ports: packet.ports,
            taken: others.collect(),
            held,
        };
        let opened = self.outside.host.share(&request)?;
        for note in &opened.notes {
            tracing::warn!("uplink {}: {note}", record.spec.name);
        }
        Ok(opened)
    }

    /// Follows the host for an uplink that shares its address.
    pub(super) fn watch(&self, record: &UplinkRecord) -> Option<Box<dyn HostWatch>> {
        let shares = matches!(&record.spec.kind, UplinkKind::Packet(p) if p.share_host_address);
        if !shares {
            return None;
        }
        let watch = self.outside.host.watch(record.port);
        watch.inspect_err(|error| tracing::warn!("changes of the host are not seen: {error}")).ok()
    }

    /// What publications take of the host's addresses. Their endpoints must be there.
    pub(super) fn held_by<'a>(
        &self,
        records: impl IntoIterator<Item = &'a PublicationRecord>,
    ) -> Vec<Held> {
        records.into_iter().flat_map(|record| self.held_by_one(record)).collect()
    }

    fn held_by_one(&self, record: &PublicationRecord) -> Vec<Held> {
        let Some(endpoint) = self.state.endpoints.get(&record.endpoint) else { return Vec::new() };
        let (proto, ports) = (record.proto.number(), record.host_ports);
        let mut held = Vec::new();
        for v6 in [false, true] {
            let served = endpoint.addr(v6).is_some();
            let meant = record.host_addr.is_none_or(|addr| addr.is_ipv6() == v6);
            if !served || !meant {
                continue;
            }
            let one = |port| match record.host_addr.filter(|addr| !addr.is_unspecified()) {
                Some(addr) => Held::At { addr, proto, port },
                None => Held::Port { v6, proto, port },
            };
            held.extend((ports.first()..=ports.last()).map(one));
        }
        held
    }

    /// Takes and gives back ports on every shared address.
    pub(super) fn hold(&mut self, more: &[Held], less: &[Held]) {
        if more.is_empty() && less.is_empty() {
            return;
        }
        let mut failed = Vec::new();
        for uplink in self.state.uplinks.values_mut() {
            let Some(share) = &mut uplink.share else { continue };
            if let Err(error) = share.host.hold(more, less) {
                failed.push((uplink.record.spec.name.clone(), error));
            }
        }
        for (name, error) in failed {
            let text = format!("the kernel goes on answering for a port of uplink {name}: {error}");
            self.event(EventKind::UplinkConflict, Some(&name), None, text);
        }
    }

    /// Addresses, routes or links of the host have changed, or it is time to look for conflicts.
    pub(super) fn host_changed(&mut self, port: PortId, conflicts: bool) {
        let found = self.state.uplinks.values().find(|u| u.record.port == port);
        let Some(id) = found.map(|uplink| uplink.record.id) else { return };
        self.refresh_host_addresses();
        self.follow_host(id);
        if conflicts {
            self.look_for_conflicts(id);
        }
    }

    fn follow_host(&mut self, id: UplinkId) {
        let Some(uplink) = self.state.uplinks.get_mut(&id) else { return };
        let Some(share) = &mut uplink.share else { return self.open_again(id) };
        match share.host.look() {
            // Its frames are not for us any more, and ours not from it.
            Ok(seen) if seen.mac != uplink.record.mac => self.open_again(id),
            Ok(seen) if seen.lan != uplink.lan || seen.mtu != uplink.mtu => {
                uplink.mtu = seen.mtu;
                self.configured(id, seen.lan);
            }
            Ok(_) => {}
            // An interface that is gone is a worker's to notice.
            Err(error) => tracing::debug!("{error}"),
        }
    }

    /// An uplink that does not work, or works on what is no longer there.
    fn open_again(&mut self, id: UplinkId) {
        let Some(record) = self.state.uplinks.get(&id).map(|u| u.record.clone()) else { return };
        let spec = record.spec.clone();
        if let Err(error) = self.replace_uplink(record, spec) {
            tracing::debug!("{error}");
        }
    }

    fn look_for_conflicts(&mut self, id: UplinkId) {
        let Some(uplink) = self.state.uplinks.get_mut(&id) else { return };
        let Some(share) = &mut uplink.share else { return };
        let new = share.newcomers();
        let name = uplink.record.spec.name.clone();
        for intruder in new {
            let text = format!("{intruder} uses a port of uplink {name}, which gets its packets");
            self.event(EventKind::UplinkConflict, Some(&name), None, text);
        }
    }
}

/// Addresses in the table's words.
pub(super) fn addresses(addrs: impl IntoIterator<Item = IpAddr>) -> Vec<Held> {
    addrs.into_iter().map(Held::Address).collect()
}
