//! Which ports of the host are published, to find conflicts and free ones.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::model::{PortRange, Proto};
use crate::base::ids::PublicationId;

/// Ranges by their first port, with their last port and owner. Ranges of one address never overlap.
type Ranges = BTreeMap<u16, (u16, PublicationId)>;

/// Published host ports, by protocol and host address as it was named.
///
/// A wildcard and an address do not share a port although the packet path could tell them apart: each
/// publication has a listening socket on the host, too, and the kernel does not let them.
#[derive(Debug, Default)]
pub(super) struct HostPorts {
    taken: BTreeMap<(Proto, Option<IpAddr>), Ranges>,
    /// Where the next choice begins: past the last one, so that choosing twelve thousand ports does not
    /// walk over all chosen before, each time.
    next: BTreeMap<Proto, u16>,
}

/// Whether two host addresses can be the same one. `None` stands for all of both families.
fn meet(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return true };
    let wild = a.is_unspecified() || b.is_unspecified();
    a == b || (wild && a.is_ipv4() == b.is_ipv4())
}

impl HostPorts {
    /// Who has a port of this range.
    pub(super) fn holder(
        &self,
        proto: Proto,
        addr: Option<IpAddr>,
        ports: PortRange,
    ) -> Option<PublicationId> {
        self.meeting(proto, addr).find_map(|ranges| hit(ranges, ports)).map(|(_, id)| id)
    }

    /// A run of `count` free ports within `from`.
    pub(super) fn choose(
        &mut self,
        proto: Proto,
        addr: Option<IpAddr>,
        count: u32,
        from: PortRange,
    ) -> Option<PortRange> {
        let next = self.next.get(&proto).and_then(|next| PortRange::new(*next, from.last()));
        let rest = next.filter(|rest| rest.first() >= from.first());
        let found = rest.and_then(|rest| self.free_run(proto, addr, count, rest));
        let found = found.or_else(|| self.free_run(proto, addr, count, from))?;
        self.next.insert(proto, found.last().checked_add(1).unwrap_or(from.first()));
        Some(found)
    }

    fn free_run(
        &self,
        proto: Proto,
        addr: Option<IpAddr>,
        count: u32,
        from: PortRange,
    ) -> Option<PortRange> {
        let mut first = u32::from(from.first());
        while first + count - 1 <= u32::from(from.last()) {
            let ports = PortRange::new(first as u16, (first + count - 1) as u16)?;
            let last_hit =
                self.meeting(proto, addr).filter_map(|r| hit(r, ports)).map(|h| h.0).max();
            match last_hit {
                Some(last) => first = u32::from(last) + 1,
                None => return Some(ports),
            }
        }
        None
    }

    pub(super) fn insert(
        &mut self,
        proto: Proto,
        addr: Option<IpAddr>,
        ports: PortRange,
        id: PublicationId,
    ) {
        self.taken.entry((proto, addr)).or_default().insert(ports.first(), (ports.last(), id));
    }

    pub(super) fn remove(&mut self, proto: Proto, addr: Option<IpAddr>, ports: PortRange) {
        if let Some(ranges) = self.taken.get_mut(&(proto, addr)) {
            ranges.remove(&ports.first());
            if ranges.is_empty() {
                self.taken.remove(&(proto, addr));
            }
        }
    }

    fn meeting(&self, proto: Proto, addr: Option<IpAddr>) -> impl Iterator<Item = &Ranges> {
        self.taken.iter().filter(move |((p, a), _)| *p == proto && meet(*a, addr)).map(|(_, r)| r)
    }
}

/// The last range that begins at or before the end of `ports`, if it reaches into them.
fn hit(ranges: &Ranges, ports: PortRange) -> Option<(u16, PublicationId)> {
    let (_, (last, id)) = ranges.range(..=ports.last()).next_back()?;
    (*last >= ports.first()).then_some((*last, *id))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(first: u16, last: u16) -> PortRange {
        PortRange::new(first, last).unwrap()
    }

    #[test]
    fn a_wildcard_meets_every_address_of_its_family() {
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        for (a, b, wanted) in [
            (None, ip("10.0.0.1"), true),
            (None, ip("::1"), true),
            (None, None, true),
            (ip("0.0.0.0"), ip("10.0.0.1"), true),
            (ip("0.0.0.0"), ip("::1"), false),
            (ip("0.0.0.0"), ip("::"), false),
            (ip("::"), ip("fd00::1"), true),
            (ip("10.0.0.1"), ip("10.0.0.2"), false),
            (ip("fd00::1"), ip("fd00::1"), true),
        ] {
            let mut ports = HostPorts::default();
            ports.insert(Proto::Tcp, a, range(80, 80), PublicationId(1));
            assert_eq!(ports.holder(Proto::Tcp, b, range(80, 80)).is_some(), wanted, "{a:?} {b:?}");
            assert_eq!(ports.holder(Proto::Udp, b, range(80, 80)), None);
        }
    }

    #[test]
    fn a_free_port_is_chosen_past_what_is_taken() {
        let mut ports = HostPorts::default();
        ports.insert(Proto::Tcp, None, range(100, 102), PublicationId(1));
        ports.insert(Proto::Tcp, None, range(104, 104), PublicationId(2));
        let mut choose =
            |count, first, last| ports.choose(Proto::Tcp, None, count, range(first, last));
        assert_eq!(choose(1, 100, 110), Some(range(103, 103)));
        assert_eq!(choose(2, 100, 110), Some(range(105, 106)));
        assert_eq!(choose(1, 100, 102), None);
        assert_eq!(choose(9, 100, 110), None);
        assert_eq!(choose(1, 65_535, 65_535), Some(range(65_535, 65_535)));
    }

    proptest! {
        #[test]
        fn holders_are_those_of_a_plain_map(
            wanted in proptest::collection::vec((1_u16..60, 0_u16..6), 1..40),
            probe in (1_u16..60, 0_u16..6),
        ) {
            let mut ports = HostPorts::default();
            let mut plain: BTreeMap<u16, PublicationId> = BTreeMap::new();
            for (n, (first, length)) in wanted.into_iter().enumerate() {
                let (ports_wanted, id) = (range(first, first + length), PublicationId(n as u32));
                let clash = (first..=first + length).any(|p| plain.contains_key(&p));
                prop_assert_eq!(ports.holder(Proto::Udp, None, ports_wanted).is_some(), clash);
                if !clash {
                    ports.insert(Proto::Udp, None, ports_wanted, id);
                    plain.extend((first..=first + length).map(|p| (p, id)));
                }
            }
            let (first, last) = (probe.0, probe.0 + probe.1);
            let held = (first..=last).filter_map(|p| plain.get(&p)).next_back().copied();
            prop_assert_eq!(ports.holder(Proto::Udp, None, range(first, last)), held);
        }
    }
}
