//! Questions to the workers, with names in place of numbers both ways.

use std::collections::BTreeMap;

use super::Control;
use super::error::ControlError;
use super::model::{
    FdbView, FlowEventView, FlowEventsView, FlowQuery, FlowView, NeighbourView, PortView,
    StatsInfo, TraceQuery,
};
use crate::base::ids::{DomainId, NetworkId, PortId};
use crate::datapath::inspect::{
    FlowCount, FlowFilter, FlowInfo, PortStats, RouteInfo, TraceReport, TraceRequest, WorkerStats,
};
use crate::packet::DropReason;
use crate::worker::command::{Answer, Query};

impl Control {
    /// Flows that match, of all workers.
    pub fn flows(&self, query: &FlowQuery) -> Result<Vec<FlowView>, ControlError> {
        let mut flows = Vec::new();
        for filter in self.flow_filters(query)? {
            for answer in self.ask(Query::Flows(filter))? {
                let Answer::Flows(some) = answer else { continue };
                flows.extend(some);
            }
        }
        flows.truncate(query.limit.unwrap_or(usize::MAX));
        Ok(flows.into_iter().map(|flow| self.flow_view(flow)).collect())
    }

    /// Forgets flows that match; says how many.
    pub fn flush_flows(&self, query: &FlowQuery) -> Result<usize, ControlError> {
        let mut count = 0;
        for filter in self.flow_filters(query)? {
            for answer in self.ask(Query::FlushFlows(filter))? {
                let Answer::Flushed(some) = answer else { continue };
                count += some;
            }
        }
        Ok(count)
    }

    /// Flows of all workers by state.
    pub fn count_flows(&self) -> Result<Vec<FlowCount>, ControlError> {
        let mut sums: Vec<FlowCount> = Vec::new();
        for answer in self.ask(Query::CountFlows)? {
            let Answer::Counts(counts) = answer else { continue };
            if sums.is_empty() {
                sums = counts;
                continue;
            }
            for (sum, count) in sums.iter_mut().zip(counts) {
                sum.flows += count.flows;
            }
        }
        Ok(sums)
    }

    /// Beginnings and ends of flows that match, since the last question; `from` is what that answered.
    pub fn flow_events(
        &self,
        query: &FlowQuery,
        from: Option<u64>,
    ) -> Result<FlowEventsView, ControlError> {
        let filter = Self::flow_filter(query);
        let ports = query.endpoint.as_ref().map(|name| self.find(name, None)).transpose()?;
        let ports: Option<Vec<PortId>> =
            ports.map(|found| found.into_iter().map(|e| e.record.port).collect());
        let is_meant = |flow: &FlowInfo| {
            ports.as_ref().is_none_or(|ports| {
                ports.contains(&flow.initiator_port) || ports.contains(&flow.responder_port)
            })
        };
        let now = self.now();
        let mut view = FlowEventsView::default();
        for answer in self.ask(Query::FlowEvents(filter, from))? {
            let Answer::FlowEvents(some) = answer else { continue };
            (view.next, view.lost) = (some.next, view.lost + some.lost);
            let meant = some.events.into_iter().filter(|event| is_meant(&event.flow));
            view.events.extend(meant.map(|event| FlowEventView {
                what: event.what,
                time_ms: now.saturating_sub(event.ago_ms),
                duration_ms: event.duration_ms,
                flow: self.flow_view(event.flow),
            }));
        }
        Ok(view)
    }

    fn flow_view(&self, flow: FlowInfo) -> FlowView {
        let (from, to) = (self.port_name(flow.initiator_port), self.port_name(flow.responder_port));
        FlowView { from, to, flow }
    }

    /// One filter, or one for each port of the container that is meant.
    fn flow_filters(&self, query: &FlowQuery) -> Result<Vec<FlowFilter>, ControlError> {
        let filter = Self::flow_filter(query);
        let Some(endpoint) = &query.endpoint else { return Ok(vec![filter]) };
        let ports = self.find(endpoint, None)?.into_iter().map(|e| e.record.port);
        Ok(ports.map(|p| FlowFilter { port: Some(p), ..filter.clone() }).collect())
    }

    fn flow_filter(query: &FlowQuery) -> FlowFilter {
        FlowFilter {
            port: None,
            proto: query.proto.as_ref().map(|p| p.to_ascii_lowercase()),
            state: query.state.clone(),
            to: query.to,
            addr: query.addr,
            l4_port: query.port,
            limit: query.limit,
        }
    }

    /// MAC addresses and where they are. Workers tell each other what they learn; the youngest counts.
    pub fn fdb(&self) -> Result<Vec<FdbView>, ControlError> {
        let mut found = BTreeMap::new();
        for answer in self.ask(Query::Fdb)? {
            let Answer::Fdb(entries) = answer else { continue };
            for entry in entries {
                let kept = found.entry((entry.domain, entry.mac)).or_insert_with(|| entry.clone());
                if entry.age_ms < kept.age_ms {
                    *kept = entry;
                }
            }
        }
        let view = |entry: crate::datapath::inspect::FdbInfo| FdbView {
            network: self.domain_name(DomainId(entry.domain)),
            mac: entry.mac,
            port: self.port_name(entry.port),
            fixed: entry.fixed,
            age_ms: entry.age_ms,
        };
        Ok(found.into_values().map(view).collect())
    }

    /// Neighbours: endpoints, and hosts on uplinks' LANs.
    pub fn neighbours(&self) -> Result<Vec<NeighbourView>, ControlError> {
        let mut found = BTreeMap::new();
        for answer in self.ask(Query::Neighbours)? {
            let Answer::Neighbours(entries) = answer else { continue };
            for entry in entries {
                let known = found.entry((entry.port, entry.addr)).or_insert_with(|| entry.clone());
                if known.mac.is_none() {
                    *known = entry;
                }
            }
        }
        let view = |entry: crate::datapath::inspect::NeighbourInfo| NeighbourView {
            port: self.port_name(entry.port),
            addr: entry.addr,
            mac: entry.mac,
            state: entry.state,
        };
        Ok(found.into_values().map(view).collect())
    }

    /// Routes, which all workers have alike.
    pub fn routes(&self) -> Result<Vec<RouteInfo>, ControlError> {
        let first = self.ask(Query::Routes)?.into_iter().next();
        Ok(match first {
            Some(Answer::Routes(routes)) => routes,
            _ => Vec::new(),
        })
    }

    /// Counters of ports, summed over workers, and of workers.
    pub fn stats(&self) -> Result<StatsInfo, ControlError> {
        let sums = self.port_sums()?;
        let view = |(port, mut stats): (PortId, PortStats)| {
            let full = self.ring_drops(port);
            stats.drops.extend(full.map(|n| (DropReason::RingFull.name().to_owned(), n)));
            PortView { name: self.port_name(port), network: self.port_network(port), stats }
        };
        let ports = sums.into_iter().map(view).collect();
        Ok(StatsInfo { ports, workers: self.worker_stats()? })
    }

    /// Counters of ports, summed over workers.
    pub(super) fn port_sums(&self) -> Result<BTreeMap<PortId, PortStats>, ControlError> {
        let mut sums: BTreeMap<PortId, PortStats> = BTreeMap::new();
        for answer in self.ask(Query::Ports)? {
            let Answer::Ports(ports) = answer else { continue };
            for stats in ports {
                let Some(port) = stats.port else { continue };
                add(sums.entry(port).or_default(), stats);
            }
        }
        Ok(sums)
    }

    /// What the kernel dropped before we could read it, if anything.
    pub(super) fn ring_drops(&self, port: PortId) -> Option<u64> {
        let record = &self.state.at_port(port)?.record;
        self.outside.host.ring_drops(record.pid?, &record.ifname).filter(|n| *n > 0)
    }

    pub(super) fn worker_stats(&self) -> Result<Vec<WorkerStats>, ControlError> {
        let answers = self.ask(Query::Worker)?.into_iter();
        Ok(answers
            .filter_map(|answer| match answer {
                Answer::Worker(stats) => Some(stats),
                _ => None,
            })
            .collect())
    }

    /// Which way a packet would go. The first worker answers: all have the same configuration.
    pub fn trace(&self, query: &TraceQuery) -> Result<TraceReport, ControlError> {
        let from = self.find(&query.from, None)?;
        // Of several interfaces, the container would use the one whose family fits.
        let fits = from.iter().find(|e| e.addr(query.to.is_ipv6()).is_some());
        let Some(endpoint) = fits else {
            let family = if query.to.is_ipv6() { "IPv6" } else { "IPv4" };
            return Err(ControlError::invalid(
                format!("`{}` has no {family} address to send from", query.from),
                "trace to an address of the other family",
            ));
        };
        let default = if query.port.is_some() { "tcp" } else { "icmp" };
        let proto = query.proto.as_deref().unwrap_or(default).to_ascii_lowercase();
        check_trace(&proto, query.port)?;
        let request =
            TraceRequest { from: endpoint.record.port, to: query.to, port: query.port, proto };
        match self.ask(Query::Trace(request))?.into_iter().next() {
            Some(Answer::Trace(report)) => Ok(report),
            _ => Err(super::outside::DataplaneError {
                worker: 0,
                why: "it gave no trace".to_owned(),
            }
            .into()),
        }
    }

    fn ask(&self, query: Query) -> Result<Vec<Answer>, ControlError> {
        Ok(self.outside.dataplane.query(query)?)
    }

    /// The name that people gave to what is plugged in.
    pub(super) fn port_name(&self, port: PortId) -> String {
        if let Some(endpoint) = self.state.at_port(port) {
            return endpoint.record.name.clone();
        }
        let uplink = self.state.uplinks.values().find(|u| u.record.port == port);
        if let Some(uplink) = uplink {
            return uplink.record.spec.name.clone();
        }
        let node = self.nodes.port_name(port).map(str::to_owned);
        node.or_else(|| self.host_port(port).map(|(_, ifname)| ifname.to_owned()))
            .unwrap_or_else(|| port.to_string())
    }

    pub(super) fn port_network(&self, port: PortId) -> String {
        if let Some(endpoint) = self.state.at_port(port) {
            return self.state.network_name(endpoint.record.network).to_owned();
        }
        self.host_port(port).map_or_else(String::new, |(network, _)| network.to_owned())
    }

    fn host_port(&self, port: PortId) -> Option<(&str, &str)> {
        self.state.networks.values().find_map(|n| {
            let host = n.record.host.as_ref().filter(|h| h.port == port)?;
            Some((n.record.name.as_str(), host.ifname.as_str()))
        })
    }

    fn domain_name(&self, domain: DomainId) -> String {
        let uplinks = self.state.uplinks.values();
        match uplinks.map(|u| &u.record).find(|r| DomainId::from(r.id) == domain) {
            Some(record) => record.spec.name.clone(),
            None if domain.is_uplink() => "?".to_owned(),
            None => self.state.network_name(NetworkId(domain.0)).to_owned(),
        }
    }
}

fn check_trace(proto: &str, port: Option<u16>) -> Result<(), ControlError> {
    let has_ports = match proto {
        "tcp" | "udp" | "sctp" => true,
        "icmp" => false,
        _ => {
            return Err(ControlError::invalid(
                format!("`{proto}` cannot be traced"),
                "use tcp, udp, sctp or icmp",
            ));
        }
    };
    match (has_ports, port) {
        (true, None) => Err(ControlError::invalid(
            format!("a trace over {proto} needs a port"),
            "write ADDRESS:PORT/PROTOCOL",
        )),
        (false, Some(_)) => {
            Err(ControlError::invalid("an ICMP trace has no port", "leave the port out"))
        }
        _ => Ok(()),
    }
}

pub(super) fn add(sum: &mut PortStats, stats: PortStats) {
    sum.port = stats.port;
    sum.rx_frames += stats.rx_frames;
    sum.rx_bytes += stats.rx_bytes;
    sum.tx_frames += stats.tx_frames;
    sum.tx_bytes += stats.tx_bytes;
    for (reason, count) in stats.drops {
        match sum.drops.iter_mut().find(|(r, _)| *r == reason) {
            Some((_, total)) => *total += count,
            None => sum.drops.push((reason, count)),
        }
    }
}
