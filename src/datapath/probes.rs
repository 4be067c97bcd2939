//! Backends of services are asked whether they serve: the prober's surroundings, and what comes of it.

use super::slow::Frame;
use super::{Datapath, Event, Output, pipeline::Slot};
use crate::base::hash::Seed;
use crate::base::time::Time;
use crate::config::Tables;
use crate::packet::{DropReason, FlowKey};
use crate::stage::flow::FlowTable;
use crate::stage::service::health::{Checked, Origin, ProbeOutput, Surroundings};
use crate::wire::addr::Addr;

struct Around<'a> {
    tables: &'a Tables,
    flows: &'a FlowTable,
    seed: Seed,
}

impl Surroundings for Around<'_> {
    fn origin(&self, checked: &Checked) -> Option<Origin> {
        let port = self.tables.port(checked.plug)?;
        let network = self.tables.network_of(port.domain)?;
        let addr: Addr = network.gateway(checked.addr.family())?;
        port.addrs.contains(&checked.addr).then_some(Origin {
            domain: port.domain,
            addr,
            gateway: network.gateway_mac,
            station: port.mac,
            mtu: port.mtu,
        })
    }

    fn is_taken(&self, key: &FlowKey) -> bool {
        self.flows.lookup(key, key.hash(self.seed)).is_some()
    }
}

impl Datapath {
    /// Time has passed.
    pub(super) fn probe_timers(&mut self, now: Time, out: &mut Output) {
        let around = Around { tables: &self.tables, flows: &self.flows, seed: self.seed };
        let mut probed = ProbeOutput::default();
        self.prober.tick(now, &around, &mut probed);
        self.settle_probes(probed, out);
    }

    /// A packet that answers an attempt at a backend; `None`: it answers none.
    pub(super) fn probe_answer(
        &mut self,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Option<Result<(), DropReason>> {
        let mut probed = ProbeOutput::default();
        let view = frame.batch.frame(frame.at);
        let packet = (&slot.parsed, &slot.key);
        let done = self.prober.segment(frame.now, packet, &view, &mut probed)?;
        self.settle_probes(probed, frame.out);
        Some(done)
    }

    fn settle_probes(&mut self, probed: ProbeOutput, out: &mut Output) {
        for (port, frames) in probed.frames {
            for frame in frames {
                self.emit_owned(port, frame, out);
            }
        }
        out.events.extend(probed.verdicts.into_iter().map(Event::Health));
    }
}
