//! The nftables table that keeps the kernel from answering for addresses and ports which are ours.
//!
//! A packet socket sees a frame before the `netdev` ingress hook does, so a `drop` there takes the frame
//! from the kernel's stack only. The table is made with `flags owner`: it belongs to the netlink socket
//! that made it. Nobody else can change or flush it, and it is gone when the socket is, however the
//! process ends. Its name is the interface's, so that two daemons cannot share one address.
//!
//! ```text
//! table netdev wharf-IFACE {                          # for IPv4 and again for IPv6
//!   ip frag-off & 0x1fff != 0                                              accept  # has no ports
//!   ip daddr @addr4  meta l4proto { tcp, udp, sctp }  th dport FIRST-LAST  drop    # masquerade
//!   ip daddr @addr4  meta l4proto . th dport @port4                        drop    # published
//!   ip daddr @addr4  ip daddr . meta l4proto . th dport @at4               drop    # at one of them
//! }
//! ```
//!
//! The Ethernet type is compared rather than `meta protocol`: frames with a VLAN tag pass this hook, too,
//! and they belong to another interface. Only first fragments have ports; in a later one the kernel reads
//! the "ports" elsewhere (of IPv6, in the flow label), so that these are let pass before. They reach the
//! kernel, which holds them for a first one that never comes and lets them go after 30 s, within its own
//! bound (`net.ipv4.ipfrag_high_thresh`), and says nothing (RFC 1122 3.3.2: no error without the first).

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};

use super::{NETFILTER, header};
use crate::io::netlink::raw::{Message, RawNetlink};
use crate::wire::ipv6::{FRAGMENT, SCTP, TCP, UDP};

/// Names and numbers of linux/netfilter/nf_tables.h.
const NEW_TABLE: u16 = 0;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
const DELETE_ELEMENTS: u16 = 14;
const GET_GENERATION: u16 = 16;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NETDEV: u8 = 5;
const OWNER: u32 = 2;
/// NF_NETDEV_INGRESS.
const INGRESS: u32 = 0;
/// Before what the host itself filters there.
const PRIORITY: i32 = -300;
/// NFT_REG32_00; each register has four bytes, so that a key of several fields lies in neighbours.
const FIRST_REGISTER: u32 = 8;

const CHAIN: &str = "ingress";
const PROTOS: &str = "proto";

/// Elements of one message: an attribute list has at most 64 KiB, and a message must fit the socket's
/// send buffer.
const ELEMENTS_PER_MESSAGE: usize = 512;

/// Something the kernel shall not answer for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Held {
    /// An address of the host at which the range and the ports are ours.
    Address(IpAddr),
    /// A port of a protocol at all such addresses of one family (IPv6 if `v6`).
    Port {
        /// Which family.
        v6: bool,
        /// TCP, UDP or SCTP.
        proto: u8,
        /// The port.
        port: u16,
    },
    /// A port at one address.
    At {
        /// The address.
        addr: IpAddr,
        /// TCP, UDP or SCTP.
        proto: u8,
        /// The port.
        port: u16,
    },
}

/// Why there is no table, or not this one.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The right is missing.
    #[error(
        "not allowed to keep the kernel from answering for ports of the host's address: that takes \
         CAP_NET_ADMIN; run the daemon as root, or give the uplink an address of its own"
    )]
    NotPermitted,
    /// Somebody else has it.
    #[error("another Wharf daemon shares the host's address on `{0}` already")]
    Owned(String),
    /// The kernel cannot.
    #[error(
        "this kernel has no nftables at an interface's ingress (CONFIG_NF_TABLES_NETDEV): give the \
         uplink an address of its own"
    )]
    Missing,
    /// Something else.
    #[error("the kernel refused {what} of the table `{table}`: {source}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// The table.
        table: String,
        /// Its answer.
        source: io::Error,
    },
}

/// A table that lives as long as this value.
#[derive(Debug)]
pub struct OwnedTable {
    netlink: RawNetlink,
    name: String,
    /// How often each is held: several publications may need one port.
    held: BTreeMap<Held, u32>,
}

impl OwnedTable {
    /// A table on this interface of the calling thread's network namespace, for a range of ports.
    pub fn create(interface: &str, ports: &RangeInclusive<u16>) -> Result<Self, TableError> {
        let name = format!("wharf-{interface}");
        let refused = |what, source| TableError::Refused { what, table: name.clone(), source };
        let mut netlink = RawNetlink::open(NETFILTER).map_err(|e| refused("a socket", e))?;
        may_change(&mut netlink).map_err(|error| explain(error, refused))?;
        let mut batch = Batch::new(&mut netlink, &name);
        batch.table();
        batch.chain(interface);
        batch.sets();
        for family in [V4, V6] {
            batch.rules(family, ports);
        }
        match batch.commit() {
            Ok(()) => Ok(Self { netlink, name, held: BTreeMap::new() }),
            // The right was there a moment ago: it is the owner that is another one.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EEXIST)) => {
                Err(TableError::Owned(interface.to_owned()))
            }
            Err(error) => Err(explain(error, refused)),
        }
    }

    /// Holds these once more, and those once less.
    pub fn change(&mut self, more: &[Held], less: &[Held]) -> Result<(), TableError> {
        let mut before: BTreeMap<Held, bool> = BTreeMap::new();
        for held in more.iter().chain(less) {
            before.entry(*held).or_insert_with(|| self.held.contains_key(held));
        }
        for held in more {
            *self.held.entry(*held).or_default() += 1;
        }
        for held in less {
            match self.held.get_mut(held) {
                Some(1) => drop(self.held.remove(held)),
                Some(count) => *count -= 1,
                None => {}
            }
        }
        let changed = |is: bool| {
            let now = &self.held;
            let changed = before
                .iter()
                .filter(move |(held, was)| now.contains_key(held) == is && **was != is);
            changed.map(|(held, _)| *held).collect::<Vec<_>>()
        };
        let (added, removed) = (changed(true), changed(false));
        self.send(NEW_ELEMENTS, &added)?;
        self.send(DELETE_ELEMENTS, &removed)
    }

    /// What is held.
    pub fn held(&self) -> impl Iterator<Item = &Held> {
        self.held.keys()
    }

    fn send(&mut self, kind: u16, elements: &[Held]) -> Result<(), TableError> {
        let mut by_set: BTreeMap<&'static str, Vec<Vec<u8>>> = BTreeMap::new();
        for held in elements {
            by_set.entry(held.set()).or_default().push(held.key());
        }
        for (set, keys) in by_set {
            for keys in keys.chunks(ELEMENTS_PER_MESSAGE) {
                let mut batch = Batch::new(&mut self.netlink, &self.name);
                batch.elements(kind, set, keys);
                let refused = |source| TableError::Refused {
                    what: "elements",
                    table: self.name.clone(),
                    source,
                };
                batch.commit().map_err(refused)?;
            }
        }
        Ok(())
    }
}

/// Asks for something harmless, so that a missing right is told from a foreign table.
fn may_change(netlink: &mut RawNetlink) -> io::Result<()> {
    let number = netlink.next();
    let kind = SUBSYSTEM << 8 | GET_GENERATION;
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    let request = Message::new(kind, flags, number, &header(libc::AF_UNSPEC as u8, 0));
    netlink.execute(&request.finish(), number..=number)
}

fn explain(
    error: io::Error,
    refused: impl Fn(&'static str, io::Error) -> TableError,
) -> TableError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => TableError::NotPermitted,
        Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT) => TableError::Missing,
        _ => refused("the making", error),
    }
}

impl Held {
    fn set(&self) -> &'static str {
        let family = |v6| if v6 { V6 } else { V4 };
        match self {
            Self::Address(addr) => family(addr.is_ipv6()).addrs,
            Self::Port { v6, .. } => family(*v6).ports,
            Self::At { addr, .. } => family(addr.is_ipv6()).at,
        }
    }

    /// As the set has it: each field padded to a register.
    fn key(&self) -> Vec<u8> {
        let octets = |addr: &IpAddr| match addr {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let fields = |proto: u8, port: u16| {
            let [high, low] = port.to_be_bytes();
            [proto, 0, 0, 0, high, low, 0, 0]
        };
        match self {
            Self::Address(addr) => octets(addr),
            Self::Port { proto, port, .. } => fields(*proto, *port).to_vec(),
            Self::At { addr, proto, port } => {
                let mut key = octets(addr);
                key.extend(fields(*proto, *port));
                key
            }
        }
    }
}

/// What differs between the families.
#[derive(Clone, Copy)]
struct Family {
    ether_type: [u8; 2],
    /// Where the destination is in the header, and how long.
    destination: (u32, u32),
    addrs: &'static str,
    ports: &'static str,
    at: &'static str,
}

const V4: Family = Family {
    ether_type: [0x08, 0x00],
    destination: (16, 4),
    addrs: "addr4",
    ports: "port4",
    at: "at4",
};
const V6: Family = Family {
    ether_type: [0x86, 0xdd],
    destination: (24, 16),
    addrs: "addr6",
    ports: "port6",
    at: "at6",
};

/// Requests that come true together.
struct Batch<'a> {
    netlink: &'a mut RawNetlink,
    table: &'a str,
    bytes: Vec<u8>,
    first: u32,
    last: Option<Message>,
    number: u32,
}

impl<'a> Batch<'a> {
    fn new(netlink: &'a mut RawNetlink, table: &'a str) -> Self {
        let first = netlink.next();
        let frame = header(libc::AF_UNSPEC as u8, SUBSYSTEM);
        let bytes = Message::new(BATCH_BEGIN, NLM_F_REQUEST, first, &frame).finish();
        Self { netlink, table, bytes, first, last: None, number: first }
    }

    /// One request on the table; attribute 1 is its name in all of them but `NEW_TABLE`, where it is
    /// the same.
    fn request(&mut self, kind: u16, flags: u16, write: impl FnOnce(Message) -> Message) {
        if let Some(message) = self.last.take() {
            self.bytes.extend(message.finish());
        }
        self.number = self.netlink.next();
        // Every one asks for an answer, since it is not known yet which is the last.
        let flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let message = Message::new(SUBSYSTEM << 8 | kind, flags, self.number, &header(NETDEV, 0));
        self.last = Some(write(message.text(1, self.table)));
    }

    fn commit(mut self) -> io::Result<()> {
        if let Some(message) = self.last.take() {
            self.bytes.extend(message.finish());
        }
        let end = self.netlink.next();
        let frame = header(libc::AF_UNSPEC as u8, SUBSYSTEM);
        self.bytes.extend(Message::new(BATCH_END, NLM_F_REQUEST, end, &frame).finish());
        self.netlink.execute(&self.bytes, self.first..=self.number)
    }

    fn table(&mut self) {
        self.request(NEW_TABLE, NLM_F_CREATE | NLM_F_EXCL, |m| m.number(2, OWNER));
    }

    fn chain(&mut self, interface: &str) {
        self.request(NEW_CHAIN, NLM_F_CREATE, |m| {
            m.text(3, CHAIN)
                .nested(4, |hook| {
                    let priority = PRIORITY.cast_unsigned();
                    hook.number(1, INGRESS).number(2, priority).text(3, interface)
                })
                .text(7, "filter")
        });
    }

    fn sets(&mut self) {
        // Types as `nft list` names them: ipv4_addr 7, ipv6_addr 8, inet_proto 12, inet_service 13, six
        // bits each where there are several.
        const PROTO_PORT: u32 = (12 << 6) + 13;
        let sets = [
            (PROTOS, 12, 1),
            (V4.addrs, 7, 4),
            (V6.addrs, 8, 16),
            (V4.ports, PROTO_PORT, 8),
            (V6.ports, PROTO_PORT, 8),
            (V4.at, (7 << 12) + PROTO_PORT, 12),
            (V6.at, (8 << 12) + PROTO_PORT, 24),
        ];
        for (number, (name, kind, length)) in (1..).zip(sets) {
            self.request(NEW_SET, NLM_F_CREATE, |m| {
                m.text(2, name).number(3, 0).number(4, kind).number(5, length).number(10, number)
            });
        }
        self.elements(NEW_ELEMENTS, PROTOS, &[vec![TCP], vec![UDP], vec![SCTP]]);
    }

    fn elements(&mut self, kind: u16, set: &str, keys: &[Vec<u8>]) {
        let flags = if kind == NEW_ELEMENTS { NLM_F_CREATE } else { 0 };
        self.request(kind, flags, |m| {
            m.text(2, set).nested(3, |list| {
                keys.iter().fold(list, |list, key| {
                    list.nested(1, |element| element.nested(1, |m| m.attribute(1, key)))
                })
            })
        });
    }

    fn rules(&mut self, family: Family, ports: &RangeInclusive<u16>) {
        let (offset, length) = family.destination;
        let words = length / 4;
        let ours = |m: Message| {
            let m = destination(is_family(m, family), offset, length);
            look_up(m, family.addrs, FIRST_REGISTER)
        };
        self.rule(|m| accept(later_fragment(is_family(m, family), family)));
        let (first, last) = (ports.start().to_be_bytes(), ports.end().to_be_bytes());
        self.rule(|m| {
            let m = look_up(protocol(ours(m), FIRST_REGISTER), PROTOS, FIRST_REGISTER);
            let m = port(m, FIRST_REGISTER);
            drop_counted(compare(compare(m, GREATER_OR_EQUAL, &first), LESS_OR_EQUAL, &last))
        });
        self.rule(|m| {
            let m = port(protocol(ours(m), FIRST_REGISTER), FIRST_REGISTER + 1);
            drop_counted(look_up(m, family.ports, FIRST_REGISTER))
        });
        self.rule(|m| {
            let m = destination(ours(m), offset, length);
            let m = protocol(m, FIRST_REGISTER + words);
            let m = port(m, FIRST_REGISTER + words + 1);
            drop_counted(look_up(m, family.at, FIRST_REGISTER))
        });
    }

    fn rule(&mut self, write: impl FnOnce(Message) -> Message) {
        self.request(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, |m| m.text(2, CHAIN).nested(4, write));
    }
}

const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const LESS_OR_EQUAL: u32 = 3;
const GREATER_OR_EQUAL: u32 = 5;

/// One expression of a rule: its name, and its own attributes.
fn expression(m: Message, name: &str, write: impl FnOnce(Message) -> Message) -> Message {
    m.nested(1, |m| m.text(1, name).nested(2, write))
}

/// Bytes of a header: of the link (0), the network (1) or the transport (2).
fn payload(m: Message, register: u32, base: u32, (offset, length): (u32, u32)) -> Message {
    expression(m, "payload", |m| {
        m.number(1, register).number(2, base).number(3, offset).number(4, length)
    })
}

fn is_family(m: Message, family: Family) -> Message {
    compare(payload(m, FIRST_REGISTER, 0, (12, 2)), EQUAL, &family.ether_type)
}

fn destination(m: Message, offset: u32, length: u32) -> Message {
    payload(m, FIRST_REGISTER, 1, (offset, length))
}

/// Whether a fragment offset is not zero: in IPv4's header the low 13 bits of a field, in IPv6's
/// extension header (RFC 8200 4.5) the high ones.
fn later_fragment(m: Message, family: Family) -> Message {
    let (m, mask) = match family.ether_type {
        [0x08, _] => (payload(m, FIRST_REGISTER, 1, (6, 2)), [0x1f, 0xff]),
        _ => (fragment_header(m, FIRST_REGISTER, (2, 2)), [0xff, 0xf8]),
    };
    compare(masked(m, FIRST_REGISTER, mask), NOT_EQUAL, &[0, 0])
}

/// Bytes of IPv6's fragment header; the rule ends where a packet has none.
fn fragment_header(m: Message, register: u32, (offset, length): (u32, u32)) -> Message {
    expression(m, "exthdr", |m| {
        m.number(1, register).attribute(2, &[FRAGMENT]).number(3, offset).number(4, length)
    })
}

fn masked(m: Message, register: u32, mask: [u8; 2]) -> Message {
    expression(m, "bitwise", |m| {
        let m = m.number(1, register).number(2, register).number(3, 2);
        m.nested(4, |data| data.attribute(1, &mask)).nested(5, |data| data.attribute(1, &[0, 0]))
    })
}

/// NFT_META_L4PROTO: behind IPv6's extension headers, too.
fn protocol(m: Message, register: u32) -> Message {
    expression(m, "meta", |m| m.number(1, register).number(2, 16))
}

/// The destination port, at the same place in all three protocols.
fn port(m: Message, register: u32) -> Message {
    payload(m, register, 2, (2, 2))
}

fn compare(m: Message, operation: u32, value: &[u8]) -> Message {
    expression(m, "cmp", |m| {
        m.number(1, FIRST_REGISTER).number(2, operation).nested(3, |m| m.attribute(1, value))
    })
}

fn look_up(m: Message, set: &str, register: u32) -> Message {
    expression(m, "lookup", |m| m.text(1, set).number(2, register))
}

fn drop_counted(m: Message) -> Message {
    verdict(expression(m, "counter", |m| m), NF_DROP)
}

fn accept(m: Message) -> Message {
    verdict(m, NF_ACCEPT)
}

/// It has a register of its own, number zero.
fn verdict(m: Message, verdict: u32) -> Message {
    expression(m, "immediate", |m| {
        m.number(1, 0).nested(2, |data| data.nested(2, |m| m.number(1, verdict)))
    })
}
