//! Attaching: from a request to an endpoint with addresses, a MAC, a port and publications.

use std::net::IpAddr;

use super::compile;
use super::error::ControlError;
use super::ipam::range::AddressRange;
use super::ipam::{IpamError, mac_for};
use super::model::{EventKind, NamespaceId, PublishSpec};
use super::networks::in_words;
use super::state::NetworkState;
use super::store::record::{EndpointRecord, Record};
use super::{Control, names, random, rates};
use crate::attach::protocol::{AddressSpan, AttachRequest, Attached};
use crate::io::tap::{Tap, is_interface_name};
use crate::wire::mac::Mac;

/// Frames that wait in a TAP's ring: the kernel's 500 lose bursts of small frames.
const TXQUEUELEN: u32 = 2_000;
/// Digits of an identity that make a name for who has none.
pub(super) const SHORT_ID: usize = 12;

impl Control {
    /// Attaches a container whose TAP's queues are `taps`.
    pub fn attach(
        &mut self,
        request: &AttachRequest,
        taps: Vec<Tap>,
    ) -> Result<Attached, ControlError> {
        let (mut record, specs) = self.plan_endpoint(request)?;
        record.addrs = self.take_addresses(request, &record)?;
        let kept = self.finish_endpoint(request, &mut record).and_then(|()| {
            let planned = self.plan_publications(&record, &specs)?;
            let mut changes = vec![record.put()];
            changes.extend(planned.iter().map(|p| p.record.put()));
            self.write(&changes).inspect_err(|_| self.unplan(&planned))?;
            Ok(planned)
        });
        let planned = match kept {
            Ok(planned) => planned,
            Err(error) => {
                self.state.release(record.network, &record.addrs);
                self.state.ports.give_back(record.port.0);
                return Err(error);
            }
        };
        let uso = taps.first().is_some_and(|t| t.offload().uso);
        self.install_endpoint(&record, uso);
        self.install_publications(planned);
        self.retarget(&record.name);
        self.plug(&record.id, record.port, taps);
        self.limit(&record);
        self.refresh_host_addresses();
        let network = self.state.network_name(record.network).to_owned();
        let text = format!(
            "{} attached with {}",
            record.name,
            in_words(record.addrs.iter().map(IpAddr::to_string))
        );
        self.event(EventKind::EndpointAttached, Some(&network), Some(&record.name), text);
        self.reply(&record)
    }

    /// Everything that can be checked and chosen before an address is taken.
    fn plan_endpoint(
        &mut self,
        request: &AttachRequest,
    ) -> Result<(EndpointRecord, Vec<PublishSpec>), ControlError> {
        let limit = self.settings.config.limits.endpoints;
        if self.state.endpoints.len() >= limit {
            return Err(ControlError::Exhausted { what: "endpoints", limit });
        }
        let network = self.state.network(&request.network);
        let network =
            network.ok_or_else(|| ControlError::not_found("network", &request.network))?.record.id;
        let id = random::identity()?;
        let name = request.name.clone().unwrap_or_else(|| id[..SHORT_ID].to_owned());
        names::check("an endpoint", &name)?;
        names::check_labels(&request.labels, &request.aliases)?;
        if !is_interface_name(&request.ifname) {
            return Err(ControlError::invalid(
                format!("`{}` cannot be the name of an interface", request.ifname),
                "use up to 15 printable characters without `/` and `:`, such as eth0",
            ));
        }
        rates::check(&request.rate)?;
        let netns = request.netns.map(|ns| NamespaceId { dev: ns.dev, ino: ns.ino });
        self.check_container(&name, request, netns)?;
        let specs = request.publish.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        let record = EndpointRecord {
            id,
            name,
            network,
            ifname: request.ifname.clone(),
            port: self.take_port()?,
            mac: Mac::ZERO,
            addrs: Vec::new(),
            labels: request.labels.clone(),
            aliases: request.aliases.clone(),
            pid: request.pid,
            netns,
            container_id: request.container_id.clone(),
            rate: request.rate,
            since_ms: self.now(),
        };
        Ok((record, specs))
    }

    /// A name is one container's, which may be on several networks; twice on one only if its engine, which
    /// gave it an identity, wants two interfaces there.
    fn check_container(
        &self,
        name: &str,
        request: &AttachRequest,
        netns: Option<NamespaceId>,
    ) -> Result<(), ControlError> {
        for endpoint in self.state.named(name) {
            let record = &endpoint.record;
            let network = self.state.network_name(record.network);
            let same_id =
                request.container_id.is_some() && record.container_id == request.container_id;
            let same_container = same_id || (netns.is_some() && record.netns == netns);
            let another =
                network != request.network || (same_id && record.ifname != request.ifname);
            if same_container && another {
                continue;
            }
            let addrs = in_words(record.addrs.iter().map(IpAddr::to_string));
            let holder = format!(", on network {network} with {addrs}");
            return Err(ControlError::Exists { kind: "endpoint", name: name.to_owned(), holder });
        }
        Ok(())
    }

    /// One address of each subnet: the wished one, or the next.
    fn take_addresses(
        &mut self,
        request: &AttachRequest,
        record: &EndpointRecord,
    ) -> Result<Vec<IpAddr>, ControlError> {
        let taken = self.state.networks.get_mut(&record.network).map_or_else(
            || Ok(Vec::new()),
            |network| {
                let wished = [request.ip.map(IpAddr::V4), request.ip6.map(IpAddr::V6)];
                let wished: Vec<IpAddr> = wished.into_iter().flatten().collect();
                take_from(network, &wished, &request.within, &record.name)
            },
        );
        taken.map_err(|error| {
            self.state.ports.give_back(record.port.0);
            error.into()
        })
    }

    /// The MAC, which follows from the addresses unless wished for.
    fn finish_endpoint(
        &self,
        request: &AttachRequest,
        record: &mut EndpointRecord,
    ) -> Result<(), ControlError> {
        let holder = |mac: Mac| {
            let network = self.state.networks.get(&record.network)?;
            if network.record.gateway_mac == mac {
                return Some("the gateway".to_owned());
            }
            let mut members = self.state.members(record.network);
            members.find(|e| e.record.mac == mac).map(|e| format!("`{}`", e.record.name))
        };
        let Some(mac) = request.mac else {
            let by_rule = mac_for(&record.addrs).filter(|mac| holder(*mac).is_none());
            record.mac = by_rule.map_or_else(random::mac, Ok)?;
            return Ok(());
        };
        if !mac.is_unicast() {
            return Err(ControlError::invalid(
                format!("{mac} cannot be an interface's MAC address"),
                "its first byte must be even, as in 02:42:ac:11:00:02",
            ));
        }
        if let Some(holder) = holder(mac) {
            return Err(ControlError::MacTaken { mac, holder });
        }
        record.mac = mac;
        Ok(())
    }

    /// Takes a stored endpoint in and tells the workers.
    pub(super) fn install_endpoint(&mut self, record: &EndpointRecord, uso: bool) {
        self.state.insert_endpoint(record.clone(), uso);
        let network = self.state.networks.get(&record.network);
        let endpoint = self.state.endpoints.get(&record.id);
        let delta = network
            .zip(endpoint)
            .map(|(network, endpoint)| compile::endpoint(&network.record, endpoint));
        let subject = self.subject_delta(record);
        self.send_deltas(subject.into_iter().chain(delta).collect());
        self.send_name(record, true);
        self.tell_nodes(record, true);
        self.endpoint_changed(record);
    }

    fn reply(&self, record: &EndpointRecord) -> Result<Attached, ControlError> {
        let info = self.endpoint_info(record.id.as_str());
        let info = info.ok_or_else(|| ControlError::not_found("endpoint", &record.name))?;
        Ok(Attached {
            endpoint: info.id,
            name: info.name,
            mac: info.mac,
            addresses: info.addresses,
            gateways: info.gateways,
            routes: Vec::new(),
            dns: self.dns_for(record),
            search: self.search_domains(record),
            mtu: info.mtu.into(),
            txqueuelen: TXQUEUELEN,
            published: info.published.iter().map(ToString::to_string).collect(),
        })
    }

    /// The gateway's name server.
    fn dns_for(&self, record: &EndpointRecord) -> Vec<IpAddr> {
        let Some(network) = self.state.networks.get(&record.network) else { return Vec::new() };
        let gateways = network.record.subnets.iter().map(|(_, gateway)| *gateway);
        let speaks = |v6: bool| record.addrs.iter().any(|addr| addr.is_ipv6() == v6);
        gateways.filter(|gateway| speaks(gateway.is_ipv6())).collect()
    }
}

/// The next address of a range; of the first of these spans that has one left, if some lie in it.
fn choose(
    range: &mut AddressRange,
    within: &[AddressSpan],
    holder: &str,
) -> Result<IpAddr, IpamError> {
    let subnet = range.subnet();
    let mut spans = within.iter().filter(|s| subnet.contains(&s.first) && subnet.contains(&s.last));
    let Some(span) = spans.next() else { return range.allocate(holder) };
    let mut got = range.allocate_in(span.first, span.last, holder);
    for span in spans {
        if got.is_err() {
            got = range.allocate_in(span.first, span.last, holder);
        }
    }
    got
}

/// Takes one address from each range; gives all back when one cannot be had.
fn take_from(
    network: &mut NetworkState,
    wished: &[IpAddr],
    within: &[AddressSpan],
    holder: &str,
) -> Result<Vec<IpAddr>, IpamError> {
    let fits = |wish: &IpAddr| network.ranges.iter().any(|r| r.subnet().contains(wish));
    let ends = within.iter().flat_map(|span| [&span.first, &span.last]);
    if let Some(addr) = wished.iter().chain(ends).find(|wish| !fits(wish)) {
        let subnets = in_words(network.ranges.iter().map(|r| r.subnet().to_string()));
        return Err(IpamError::Outside { addr: *addr, subnets });
    }
    let holder = format!("`{holder}`");
    let mut taken = Vec::with_capacity(network.ranges.len());
    let mut failure = None;
    for range in &mut network.ranges {
        let v4 = range.subnet().addr().is_ipv4();
        let wish = wished.iter().copied().find(|w| w.is_ipv4() == v4);
        let got = match wish {
            Some(addr) => range.reserve(addr, &holder).map(|()| addr),
            None => choose(range, within, &holder),
        };
        match got {
            Ok(addr) => taken.push(addr),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    let Some(error) = failure else { return Ok(taken) };
    for range in &mut network.ranges {
        for addr in &taken {
            range.release(*addr);
        }
    }
    Err(error)
}
