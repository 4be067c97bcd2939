//! The gateway's name server.
//!
//! What the zone knows is answered in place. The rest is forwarded by a socket flow that is redirected
//! from the gateway's address to a resolver of the host. No flow of the flow table remembers a query's
//! decision: the next one from the same port may be about another name.

use super::slow::Frame;
use super::{Datapath, pipeline::Slot};
use crate::config::{Guise, Network, Port, Stands};
use crate::packet::{DropReason, FlowKey};
use crate::stage::dns::{self, Answer};
use crate::wire::addr::Addr;
use crate::wire::ipv6;

impl Datapath {
    /// Whether a packet to a gateway is for its name server. One that stands for another program's answers
    /// at the addresses where that one does.
    pub(super) fn is_query(network: &Network, key: &FlowKey) -> bool {
        let answers = match network.stands_for(key.dst) {
            Some(stands) => stands == Stands::NameServer,
            None => network.guise == Guise::default(),
        };
        answers && key.dst_port == dns::PORT && matches!(key.proto, ipv6::UDP | ipv6::TCP)
    }

    /// The host's resolver that queries to this gateway are forwarded to, if this network's are.
    pub(super) fn resolver(&self, network: &Network, gateway: Addr) -> Option<Addr> {
        let uplink = network.uplink.filter(|_| !network.internal)?;
        self.tables.uplink(uplink)?;
        let all = self.tables.resolvers();
        // One of the same family if there is one; the socket is of the resolver's anyway.
        let same = all.iter().find(|resolver| resolver.is_v4() == gateway.is_v4());
        same.or(all.first()).copied()
    }

    /// A query to the gateway. `false`: it is a connection that nobody could answer.
    pub(super) fn name_server(
        &mut self,
        port: &Port,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<bool, DropReason> {
        let parsed = &slot.parsed;
        let Some(network) = self.tables.network_of(port.domain) else { return Ok(false) };
        let forwards = self.resolver(network, parsed.dst).is_some();
        if slot.key.proto == ipv6::TCP {
            if forwards {
                self.commit_routed(port, &self.into_sockets(&slot.key), slot, frame)?;
            }
            return Ok(forwards);
        }
        let (bytes, offload) = (frame.batch.bytes(frame.at), frame.batch.offload(frame.at));
        let query = dns::query(parsed, bytes, offload).ok_or(DropReason::Malformed)?;
        let answer = match dns::answer(self.tables.zone(network.id), query) {
            Answer::Known(answer) => answer,
            Answer::Forward if forwards => {
                let (now, at) = (frame.now, frame.at);
                self.to_sockets(now, port.id, parsed, at, frame.batch, frame.out)?;
                return Ok(true);
            }
            Answer::Forward => dns::refuse(query).ok_or(DropReason::Malformed)?,
            Answer::Nonsense => return Err(DropReason::Malformed),
        };
        self.emit_owned(port.id, dns::reply(parsed, &answer), frame.out);
        Ok(true)
    }
}
