//! What control needs from outside itself, as traits: workers, the host, and whoever keeps TAPs across
//! a restart. The daemon gives it the real ones, a test gives it ones that write down what they hear.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::ipam::Claim;
use super::model::PortRange;
use crate::base::ids::PortId;
use crate::datapath::Lan;
use crate::io::host_listen::{ListenError, Listener, Transport};
use crate::io::netfilter::table::Held;
use crate::io::packet::PacketSocket;
use crate::io::tap::Tap;
use crate::io::tunnel::TunnelSockets;
use crate::wire::mac::Mac;
use crate::worker::command::{Answer, Command, Query};

/// The workers.
pub trait Dataplane: Send + fmt::Debug {
    /// Tells them something. Changes go to all of them, descriptors to the one that shall serve them.
    /// A worker that is gone says so by a notice.
    fn send(&self, command: Command);

    /// Asks all of them; one answer from each, in their order.
    fn query(&self, query: Query) -> Result<Vec<Answer>, DataplaneError>;

    /// How many they are.
    fn workers(&self) -> usize;
}

/// A worker did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("worker {worker} does not answer: {why}; restart the daemon, its endpoints survive that")]
pub struct DataplaneError {
    /// Which one.
    pub worker: usize,
    /// As far as it is known.
    pub why: String,
}

/// Keeps duplicates of TAPs outside this process.
pub trait Keeper: Send + fmt::Debug {
    /// Keeps these, under a key.
    fn keep(&mut self, key: &str, taps: &[Tap]) -> Result<(), String>;

    /// Keeps them no longer.
    fn forget(&mut self, key: &str) -> Result<(), String>;

    /// Keeps nothing any more and ends.
    fn release(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Gives back all that is kept and whose link still exists; keeps on keeping it.
    fn recover(&mut self) -> Result<Vec<(String, Vec<Tap>)>, String>;
}

/// Keeps nothing: a daemon's end is the end of its endpoints.
#[derive(Debug, Default)]
pub struct NoKeeper;

impl Keeper for NoKeeper {
    fn keep(&mut self, _: &str, _: &[Tap]) -> Result<(), String> {
        Ok(())
    }

    fn forget(&mut self, _: &str) -> Result<(), String> {
        Ok(())
    }

    fn recover(&mut self) -> Result<Vec<(String, Vec<Tap>)>, String> {
        Ok(Vec::new())
    }
}

/// The host.
pub trait Host: Send + fmt::Debug {
    /// Ranges it has routes to, with a word on each.
    fn routes(&self) -> Result<Vec<Claim>, HostError>;

    /// Its own addresses at which something may be published.
    fn addresses(&self) -> Result<Vec<IpAddr>, HostError>;

    /// Its name servers, also those on its loopback.
    fn name_servers(&self) -> Vec<IpAddr>;

    /// Domains in which it looks for short names.
    fn search_domains(&self) -> Vec<String> {
        Vec::new()
    }

    /// Opens a NIC for frames to `mac`.
    fn open_packet(&self, interface: &str, mac: Mac) -> Result<OpenedPacket, HostError>;

    /// Takes ports of the host's own addresses on a NIC.
    fn share(&self, request: &ShareRequest<'_>) -> Result<OpenedShare, HostError>;

    /// Tells workers' notices of every change of the host, for the uplink with this port.
    fn watch(&self, port: PortId) -> Result<Box<dyn HostWatch>, HostError>;

    /// Binds a port at an address, or at all of both families.
    fn listen(
        &self,
        addr: Option<IpAddr>,
        port: u16,
        transport: Transport,
    ) -> Result<Listener, ListenError>;

    /// Binds the UDP sockets of the tunnels to other nodes.
    fn open_tunnels(
        &self,
        addrs: &[IpAddr],
        port: u16,
        one_port: bool,
    ) -> Result<TunnelSockets, ListenError>;

    /// Size of the largest IP packet that fits the way to another node, as far as the kernel knows it.
    fn path_mtu(&self, to: IpAddr, port: u16) -> Option<u16>;

    /// Makes an interface of the host's own.
    fn make_interface(&self, wanted: &HostInterface) -> Result<Vec<Tap>, HostError>;

    /// Names of its interfaces.
    fn interfaces(&self) -> Result<Vec<String>, HostError>;

    /// Packets that a container's interface could not hand to its full ring; `None` if nobody can say.
    fn ring_drops(&self, pid: u32, ifname: &str) -> Option<u64>;
}

/// A NIC opened for frames.
#[derive(Debug)]
pub struct OpenedPacket {
    /// Sockets, one for each queue.
    pub sockets: Vec<PacketSocket>,
    /// The NIC's MTU.
    pub mtu: u16,
    /// Whether UDP super-frames may be sent.
    pub uso: bool,
}

/// What an uplink wants that shares the host's address.
#[derive(Clone, Debug)]
pub struct ShareRequest<'a> {
    /// The NIC.
    pub interface: &'a str,
    /// These ports and no others; else those that are usual, or others if they are in use.
    pub ports: Option<PortRange>,
    /// Ports that other uplinks have, and a word on each.
    pub taken: Vec<(PortRange, String)>,
    /// What is published.
    pub held: Vec<Held>,
}

/// A share of the host's addresses on a NIC.
#[derive(Debug)]
pub struct OpenedShare {
    /// Sockets for frames to what is ours, one for each queue.
    pub sockets: Vec<PacketSocket>,
    /// The ports for masquerade.
    pub ports: PortRange,
    /// What somebody should know, such as why the ports are not the usual ones.
    pub notes: Vec<String>,
    /// The host as it is on this NIC.
    pub seen: SeenHost,
    /// What keeps the kernel away; dropping it gives everything back.
    pub host: Box<dyn HostShare>,
}

/// A host on one of its NICs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeenHost {
    /// Addresses and default routers.
    pub lan: Lan,
    /// The NIC's MAC.
    pub mac: Mac,
    /// Its MTU.
    pub mtu: u16,
}

/// Keeps the kernel away from what is ours.
pub trait HostShare: Send + fmt::Debug {
    /// Takes these ports too, and gives those back.
    fn hold(&mut self, more: &[Held], less: &[Held]) -> Result<(), HostError>;

    /// Looks at the host anew, and follows its addresses.
    fn look(&mut self) -> Result<SeenHost, HostError>;

    /// Who of the host uses a port of the range.
    fn conflicts(&self) -> Result<Vec<String>, HostError>;
}

/// Tells of changes as long as it lives.
pub trait HostWatch: Send + fmt::Debug {}

/// An interface of the host's own on a network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostInterface {
    /// Its name.
    pub name: String,
    /// Its MAC: the gateway's.
    pub mac: Mac,
    /// Its addresses: the gateway's.
    pub addresses: Vec<IpNet>,
    /// Largest IP packet.
    pub mtu: u16,
}

/// The host said no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The daemon lacks a right; the text says which and what to do.
    #[error("{0}")]
    Denied(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}
