//! The host's own interface on a network, and plugging TAPs in and out.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Control;
use super::compile;
use super::error::ControlError;
use super::outside::HostInterface;
use super::store::record::{HostRecord, NetworkRecord};
use crate::base::ids::PortId;
use crate::base::limits::PORTS_MAX;
use crate::config::Delta;
use crate::io::tap::Tap;
use crate::worker::command::Command;

impl Control {
    /// Makes the host's interface on a network and notes it in the record.
    pub(super) fn make_host_port(
        &mut self,
        record: &mut NetworkRecord,
    ) -> Result<Vec<Tap>, ControlError> {
        let taken = self.outside.host.interfaces()?;
        let ours: Vec<_> =
            self.state.networks.values().filter_map(|n| n.record.host.as_ref()).collect();
        let free = |name: &String| !taken.contains(name) && ours.iter().all(|h| h.ifname != *name);
        let ifname = (0..=u16::MAX).map(|n| format!("wharf{n}")).find(free).unwrap_or_default();
        let taps = self.outside.host.make_interface(&host_interface(record, &ifname))?;
        let port = self.take_port()?;
        record.host = Some(HostRecord { port, ifname });
        Ok(taps)
    }

    /// Plugs the host's interface in.
    pub(super) fn serve_host_port(&mut self, record: &NetworkRecord, taps: Vec<Tap>) {
        let Some(host) = &record.host else { return };
        let uso = taps.first().is_some_and(|t| t.offload().uso);
        self.send_deltas(compile::host_port(record, uso).into_iter().collect());
        self.plug(&host_key(record), host.port, taps);
        self.refresh_host_addresses();
    }

    pub(super) fn drop_host_port(&mut self, record: &NetworkRecord) {
        let Some(host) = &record.host else { return };
        self.unplug(&host_key(record), host.port);
        self.state.ports.give_back(host.port.0);
    }

    /// Hands the TAPs of a port to the workers, and duplicates to their keeper.
    pub(super) fn plug(&mut self, key: &str, port: PortId, taps: Vec<Tap>) {
        if let Err(error) = self.outside.keeper.keep(key, &taps) {
            tracing::warn!("{key} will not survive a restart of the daemon: {error}");
        }
        for tap in taps {
            self.outside.dataplane.send(Command::AddTap(port, tap));
        }
    }

    /// Takes a port away from workers and keeper.
    pub(super) fn unplug(&mut self, key: &str, port: PortId) {
        self.send_deltas(vec![Delta::RemovePort(port)]);
        self.outside.dataplane.send(Command::RemoveIo(port));
        if let Err(error) = self.outside.keeper.forget(key) {
            tracing::warn!("the holder still keeps {key}: {error}");
        }
    }

    pub(super) fn take_port(&mut self) -> Result<PortId, ControlError> {
        let port = self.state.ports.take().map(PortId);
        port.ok_or(ControlError::Exhausted { what: "ports", limit: PORTS_MAX })
    }
}

/// The key under which the host's interface is kept.
pub(super) fn host_key(record: &NetworkRecord) -> String {
    format!("host:{}", record.id.0)
}

pub(super) fn host_interface(record: &NetworkRecord, name: &str) -> HostInterface {
    let address = |(net, gateway): &(IpNet, IpAddr)| IpNet::new(*gateway, net.prefix_len()).ok();
    HostInterface {
        name: name.to_owned(),
        mac: record.gateway_mac,
        addresses: record.subnets.iter().filter_map(address).collect(),
        mtu: record.mtu,
    }
}
