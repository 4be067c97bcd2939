//! Interfaces: looking, changing, moving, making.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use super::{Netlink, NetlinkError};
use crate::wire::mac::Mac;

/// An interface as the kernel shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its number within its network namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address, if it is of that kind.
    pub mac: Option<Mac>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Packets that wait for a reader: the size of a TAP's ring.
    pub txqueuelen: u32,
    /// Whether an administrator set it up.
    pub up: bool,
    /// Whether there is somebody at the other end.
    pub carrier: bool,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// `veth`, `tun`, …; nothing for hardware.
    pub kind: Option<String>,
    /// The bridge or bond it is part of.
    pub controller: Option<u32>,
    /// Its counters.
    pub stats: LinkStats,
}

/// Counters of an interface, from its own point of view: a TAP *transmits* to the switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkStats {
    /// Received packets.
    pub rx_packets: u64,
    /// Sent packets.
    pub tx_packets: u64,
    /// Received bytes.
    pub rx_bytes: u64,
    /// Sent bytes.
    pub tx_bytes: u64,
    /// Dropped on receiving.
    pub rx_dropped: u64,
    /// Dropped on sending: on a TAP, those for which the ring was full.
    pub tx_dropped: u64,
}

impl Netlink {
    /// All interfaces of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let table = self.dump("list the interfaces", &request)?;
        Ok(table.into_iter().filter_map(parse).collect())
    }

    /// The interface of that name.
    pub fn link(&mut self, name: &str) -> Result<Link, NetlinkError> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let answer = self.get(&format!("look for {name}"), RouteNetlinkMessage::GetLink(request));
        match answer {
            Err(error) if error.errno() == Some(libc::ENODEV) => {
                Err(NetlinkError::NoSuchLink(name.to_owned()))
            }
            Err(error) => Err(error),
            Ok(message) => {
                message.and_then(parse).ok_or_else(|| NetlinkError::NoSuchLink(name.to_owned()))
            }
        }
    }

    fn set_link(
        &mut self,
        operation: &str,
        index: u32,
        attributes: Vec<LinkAttribute>,
    ) -> Result<(), NetlinkError> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        request.attributes = attributes;
        self.execute(operation, RouteNetlinkMessage::SetLink(request), 0)
    }

    fn set_flag(
        &mut self,
        operation: &str,
        index: u32,
        flag: LinkFlags,
        on: bool,
    ) -> Result<(), NetlinkError> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        request.header.change_mask = flag;
        request.header.flags = if on { flag } else { LinkFlags::empty() };
        self.execute(operation, RouteNetlinkMessage::SetLink(request), 0)
    }

    /// Sets it up.
    pub fn set_up(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.set_flag("set the interface up", index, LinkFlags::Up, true)
    }

    /// Sets it down, which also takes its IPv6 addresses and its routes away.
    pub fn set_down(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.set_flag("set the interface down", index, LinkFlags::Up, false)
    }

    /// Gives it an Ethernet address; before it is up, so that its link-local address follows.
    pub fn set_mac(&mut self, index: u32, mac: Mac) -> Result<(), NetlinkError> {
        let attribute = LinkAttribute::Address(mac.0.to_vec());
        self.set_link(&format!("set the MAC address {mac}"), index, vec![attribute])
    }

    /// Sets the largest packet.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        self.set_link(&format!("set an MTU of {mtu}"), index, vec![LinkAttribute::Mtu(mtu)])
    }

    /// Sets how many packets wait for a reader; the kernel's default for a TAP is 1000 (500 for a
    /// ring before the first open).
    pub fn set_txqueuelen(&mut self, index: u32, packets: u32) -> Result<(), NetlinkError> {
        let attribute = LinkAttribute::TxQueueLen(packets);
        self.set_link(&format!("set a queue of {packets} packets"), index, vec![attribute])
    }

    /// Renames it.
    pub fn rename(&mut self, index: u32, name: &str) -> Result<(), NetlinkError> {
        let attribute = LinkAttribute::IfName(name.to_owned());
        self.set_link(&format!("rename the interface to {name}"), index, vec![attribute])
    }

    /// Moves it into another network namespace under a name of its own, in one request: there is no
    /// moment at which it is there under its old name, where it might collide. EEXIST: the name is
    /// taken there, and nothing has happened.
    pub fn move_and_rename(
        &mut self,
        index: u32,
        namespace: impl AsFd,
        name: &str,
    ) -> Result<(), NetlinkError> {
        let attributes = vec![
            LinkAttribute::NetNsFd(namespace.as_fd().as_raw_fd()),
            LinkAttribute::IfName(name.to_owned()),
        ];
        self.set_link(&format!("move the interface as {name}"), index, attributes)
    }

    /// Removes it.
    pub fn delete_link(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        self.execute("remove the interface", RouteNetlinkMessage::DelLink(request), 0)
    }

    /// Makes a pair of connected interfaces, the second one in another namespace if one is given.
    pub fn create_veth(
        &mut self,
        name: &str,
        peer: &str,
        peer_namespace: Option<&dyn AsRawFd>,
    ) -> Result<(), NetlinkError> {
        let mut far = LinkMessage::default();
        far.attributes.push(LinkAttribute::IfName(peer.to_owned()));
        if let Some(namespace) = peer_namespace {
            far.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
        }
        let info = vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
        ];
        self.create(name, info)
    }

    fn create(&mut self, name: &str, info: Vec<LinkInfo>) -> Result<(), NetlinkError> {
        let mut request = LinkMessage::default();
        request.attributes =
            vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::LinkInfo(info)];
        self.execute(
            &format!("make the interface {name}"),
            RouteNetlinkMessage::NewLink(request),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }
}

fn parse(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        txqueuelen: 0,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        loopback: flags.contains(LinkFlags::Loopback),
        kind: None,
        controller: None,
        stats: LinkStats::default(),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::TxQueueLen(packets) => link.txqueuelen = packets,
            LinkAttribute::Controller(index) => link.controller = Some(index),
            LinkAttribute::LinkInfo(info) => link.kind = kind_of(&info),
            LinkAttribute::Stats64(stats) => {
                link.stats = LinkStats {
                    rx_packets: stats.rx_packets,
                    tx_packets: stats.tx_packets,
                    rx_bytes: stats.rx_bytes,
                    tx_bytes: stats.tx_bytes,
                    rx_dropped: stats.rx_dropped,
                    tx_dropped: stats.tx_dropped,
                }
            }
            _ => {}
        }
    }
    Some(link)
}

fn kind_of(info: &[LinkInfo]) -> Option<String> {
    info.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}
