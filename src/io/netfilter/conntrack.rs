//! Connections that the kernel translates itself: a host that masquerades for others (virtual machines,
//! another container engine) has ports of its address in use that no socket shows.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{NETFILTER, header};
use crate::io::netlink::raw::{RawNetlink, attribute};

/// NFNL_SUBSYS_CTNETLINK and IPCTNL_MSG_CT_GET.
const GET: u16 = 1 << 8 | 1;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
/// IPS_SRC_NAT and IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h.
const TRANSLATED: u32 = 1 << 4 | 1 << 5;

/// One end's address and port of the host in a translated connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translated {
    /// TCP, UDP and the like.
    pub proto: u8,
    /// Who began it.
    pub from: SocketAddr,
    /// Whom it was sent to.
    pub to: SocketAddr,
    /// Where answers to it arrive.
    pub answers_to: SocketAddr,
}

/// All connections that the kernel translates in this namespace. A kernel that tracks none has none.
pub fn translated() -> io::Result<Vec<Translated>> {
    let mut found = Vec::new();
    let mut netlink = RawNetlink::open(NETFILTER)?;
    let dump = netlink.dump(GET, &header(libc::AF_UNSPEC as u8, 0), |_, content| {
        // The family's header comes first.
        found.extend(content.get(4..).and_then(read));
    });
    match dump {
        // The module that answers is not there.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(found),
        Err(error) => Err(error),
        Ok(()) => Ok(found),
    }
}

fn read(bytes: &[u8]) -> Option<Translated> {
    let status = attribute(bytes, STATUS)?.first_chunk().map(|w| u32::from_be_bytes(*w))?;
    if status & TRANSLATED == 0 {
        return None;
    }
    let (proto, from, to) = tuple(attribute(bytes, TUPLE_ORIGINAL)?)?;
    let (_, _, answers_to) = tuple(attribute(bytes, TUPLE_REPLY)?)?;
    Some(Translated { proto, from, to, answers_to })
}

/// Protocol, source and destination: CTA_TUPLE_IP (1) and CTA_TUPLE_PROTO (2).
fn tuple(bytes: &[u8]) -> Option<(u8, SocketAddr, SocketAddr)> {
    let (ip, proto) = (attribute(bytes, 1)?, attribute(bytes, 2)?);
    let addr = |v4: u16, v6: u16| -> Option<IpAddr> {
        if let Some(octets) = attribute(ip, v4) {
            return Some(Ipv4Addr::from(*octets.first_chunk::<4>()?).into());
        }
        Some(Ipv6Addr::from(*attribute(ip, v6)?.first_chunk::<16>()?).into())
    };
    let port = |kind| {
        attribute(proto, kind).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_be_bytes(*b))
    };
    let number = *attribute(proto, 1)?.first()?;
    Some((number, (addr(1, 3)?, port(2)).into(), (addr(2, 4)?, port(3)).into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::netlink::raw::Message;

    fn tuple_of(message: Message, kind: u16, from: (u8, u16), to: (u8, u16)) -> Message {
        message.nested(kind, |m| {
            m.nested(1, |m| m.attribute(1, &[192, 0, 2, from.0]).attribute(2, &[192, 0, 2, to.0]))
                .nested(2, |m| {
                    let port = |p: u16| p.to_be_bytes();
                    m.attribute(1, &[17]).attribute(2, &port(from.1)).attribute(3, &port(to.1))
                })
        })
    }

    #[test]
    fn a_masqueraded_connection_is_read_and_others_are_left_out() {
        for (status, is_translated) in [(1 << 4, true), (1 << 5, true), (1 << 1, false)] {
            let message = Message::new(0, 0, 0, &[]).number(STATUS, status);
            let message = tuple_of(message, TUPLE_ORIGINAL, (5, 1000), (9, 53));
            let bytes = tuple_of(message, TUPLE_REPLY, (9, 53), (1, 61_500)).finish();
            let found = read(&bytes[16..]);
            assert_eq!(found.is_some(), is_translated);
            let Some(found) = found else { continue };
            assert_eq!((found.proto, found.from), (17, "192.0.2.5:1000".parse().unwrap()));
            assert_eq!(found.to, "192.0.2.9:53".parse().unwrap());
            assert_eq!(found.answers_to, "192.0.2.1:61500".parse().unwrap());
        }
    }
}
