//! Published ports: which container stands behind a listening socket, and whom it sees as its client.

use std::sync::Arc;

use crate::base::ids::{DomainId, PortId};
use crate::stage::sockets::calls::{ListenerId, SockAddr};
use crate::stage::sockets::headers::Link;
use crate::wire::addr::Addr;

/// The container behind a publication. One for all its ports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Where it is plugged in.
    pub port: PortId,
    /// Its network's domain.
    pub domain: DomainId,
    /// Its MAC and the gateway's.
    pub link: Link,
    /// Its addresses: IPv4, IPv6.
    pub addrs: [Option<Addr>; 2],
    /// The gateway's addresses: IPv4, IPv6.
    pub gateways: [Option<Addr>; 2],
    /// Subnets the container believes to be on its own link: what comes from there it would answer
    /// directly and not through the gateway.
    pub subnets: Vec<(Addr, u8)>,
    /// The network's MTU.
    pub mtu: u16,
}

/// A listening socket's publication.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published {
    /// Its name.
    pub listener: ListenerId,
    /// The container.
    pub target: Arc<Target>,
    /// The port inside.
    pub port: u16,
}

/// The two ends of a connection as the container sees them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ends {
    pub(super) inside: Addr,
    /// The client's own address, or the gateway's in its place.
    pub(super) client: Addr,
    pub(super) gateway: Addr,
}

impl Target {
    /// The container sees its client's true address, unless it could not answer it: the host itself
    /// (loopback, or an address of the host talking to itself), a link-local address, one of another
    /// family, and one inside the container's own subnets are shown as the gateway.
    pub(super) fn ends(&self, client: Addr, local: Addr) -> Option<Ends> {
        let family = usize::from(!client.is_v4());
        if let Some(inside) = self.addrs[family] {
            let gateway = self.gateways[family];
            let host = client.is_loopback() || client == local;
            let hidden = host || client.is_link_local() || self.on_link(client);
            let shown = if hidden { gateway? } else { client };
            return Some(Ends { inside, client: shown, gateway: gateway.unwrap_or(shown) });
        }
        self.other_family(client.is_v4())
    }

    /// The same connection in the other family, in which the client can only be shown as the gateway.
    pub(super) fn other_family(&self, than_v4: bool) -> Option<Ends> {
        let family = usize::from(than_v4);
        let (inside, gateway) = (self.addrs[family]?, self.gateways[family]?);
        Some(Ends { inside, client: gateway, gateway })
    }

    fn on_link(&self, addr: Addr) -> bool {
        self.subnets.iter().any(|&(prefix, len)| within(addr, prefix, len))
    }
}

fn within(addr: Addr, prefix: Addr, len: u8) -> bool {
    let bits = if prefix.is_v4() { 96 + u32::from(len.min(32)) } else { u32::from(len.min(128)) };
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    let differ = u128::from_be_bytes(addr.bytes()) ^ u128::from_be_bytes(prefix.bytes());
    addr.is_v4() == prefix.is_v4() && differ & mask == 0
}

/// The other ports under which a client may be shown, when its own is taken by another connection of
/// the same client to the same container's port: two publications of one port make that possible.
pub(super) fn ports_to_show(client: SockAddr) -> impl Iterator<Item = u16> {
    let others = (1..=u16::from(u8::MAX)).map(move |n| {
        // Upwards in the dynamic range, from a place that follows from the client's own port.
        49_152 + (client.port.wrapping_mul(31).wrapping_add(n)) % 16_384
    });
    std::iter::once(client.port).chain(others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::sockets::testing;

    fn addr(text: &str) -> Addr {
        text.parse().unwrap()
    }

    fn target(v4: bool, v6: bool) -> Target {
        Target {
            port: PortId(3),
            domain: DomainId(1),
            link: Link { inside: testing::INSIDE, gateway: testing::GATEWAY },
            addrs: [v4.then(|| addr("172.17.0.2")), v6.then(|| addr("fd00::2"))],
            gateways: [v4.then(|| addr("172.17.0.1")), v6.then(|| addr("fd00::1"))],
            subnets: vec![(addr("172.17.0.0"), 16), (addr("fd00::"), 64)],
            mtu: 1500,
        }
    }

    #[test]
    fn a_client_from_outside_is_seen_under_its_true_address() {
        for (client, local) in [("192.0.2.9", "192.0.2.1"), ("2001:db8::9", "2001:db8::1")] {
            let ends = target(true, true).ends(addr(client), addr(local)).unwrap();
            assert_eq!(ends.client, addr(client));
            assert_eq!(ends.inside.is_v4(), addr(client).is_v4());
        }
    }

    #[test]
    fn clients_that_could_not_be_answered_are_seen_as_the_gateway() {
        let both = target(true, true);
        for (client, local, shown) in [
            ("127.0.0.1", "127.0.0.1", "172.17.0.1"),
            ("192.0.2.1", "192.0.2.1", "172.17.0.1"),
            ("169.254.3.4", "192.0.2.1", "172.17.0.1"),
            ("172.17.0.9", "192.0.2.1", "172.17.0.1"),
            ("::1", "::1", "fd00::1"),
            ("fe80::5", "fe80::1", "fd00::1"),
            ("fd00::77", "2001:db8::1", "fd00::1"),
        ] {
            assert_eq!(both.ends(addr(client), addr(local)).unwrap().client, addr(shown));
        }
        let ends = target(true, false).ends(addr("2001:db8::9"), addr("2001:db8::1")).unwrap();
        assert_eq!((ends.inside, ends.client), (addr("172.17.0.2"), addr("172.17.0.1")));
        assert_eq!(target(false, false).ends(addr("192.0.2.9"), addr("192.0.2.1")), None);
    }
}
