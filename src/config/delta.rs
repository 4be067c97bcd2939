//! Changes of the configuration, as control sends them to every worker.

use std::sync::Arc;

use super::{Network, Peer, PolicyTables, Port, Tunnel, Uplink};
use crate::base::ids::{NetworkId, PeerId, PortId, PublicationId, ServiceId, UplinkId};
use crate::stage::dns::{Named, Zone};
use crate::stage::policy::Subject;
use crate::stage::service::{Publication, Service};
use crate::wire::addr::Addr;

/// One change. Control has validated it: references exist, nothing overlaps.
#[derive(Clone, Debug)]
pub enum Delta {
    /// A network appears or changes.
    Network(Arc<Network>),
    /// A network goes; its ports have gone before.
    RemoveNetwork(NetworkId),
    /// A port appears or changes.
    Port(Arc<Port>),
    /// A port goes, and with it its flows, neighbours and learned addresses.
    RemovePort(PortId),
    /// An uplink appears or changes.
    Uplink(Arc<Uplink>),
    /// An uplink goes; no network names it any more.
    RemoveUplink(UplinkId),
    /// Our own end of the tunnels to other nodes appears or changes; it comes before the first peer.
    Tunnel(Arc<Tunnel>),
    /// Another node appears or changes.
    Peer(Arc<Peer>),
    /// Another node goes, and with it its port and its flows.
    RemovePeer(PeerId),
    /// A publication appears.
    Publish(Publication),
    /// A publication goes.
    Unpublish(PublicationId),
    /// A service appears or changes, with what it is called in every network.
    Service(Arc<Service>, Arc<Named>),
    /// A service goes.
    RemoveService(ServiceId),
    /// All that a network's name server knows.
    Names(NetworkId, Arc<Zone>),
    /// What one endpoint of a network is called from now on; nothing, if it is gone.
    Name(NetworkId, PortId, Option<Arc<Named>>),
    /// Whom name servers ask about everything else, in order.
    Resolvers(Arc<[Addr]>),
    /// The host's own addresses: published ports answer on them from inside, too.
    HostAddresses(Arc<[Addr]>),
    /// Network policy, all of it.
    Policy(Arc<PolicyTables>),
    /// What one endpoint is to the rules from now on. Of one that comes, sent before its port: it is never
    /// without its rules.
    Subject(PortId, Option<Arc<Subject>>),
}
