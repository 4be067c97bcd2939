//! The ports of one group of rules, cut into segments of which each knows its first rule.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A rule's place in the order; [`NONE`] is behind all.
pub(super) type Number = u32;

/// No rule.
pub(super) const NONE: Number = u32::MAX;

/// Where a rule applies; names are interned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ports {
    All,
    Range(u8, u16, u16),
    Named(u8, u32),
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    proto: u8,
    first: u16,
    last: u16,
    rule: Number,
}

/// Which rule is the first for a destination's port.
#[derive(Debug)]
pub(super) struct PortTable {
    /// For every port, and where there is none.
    any: Number,
    /// In order of protocol and port; none overlaps another.
    segments: Box<[Segment]>,
    /// Protocol, name, rule.
    named: Box<[(u8, u32, Number)]>,
}

impl PortTable {
    pub(super) fn new(entries: &[(Ports, Number)]) -> Self {
        let mut any = NONE;
        let (mut ranges, mut named) = (Vec::new(), Vec::new());
        for (ports, rule) in entries {
            match *ports {
                Ports::All => any = any.min(*rule),
                Ports::Range(proto, first, last) => {
                    ranges.push(Segment { proto, first, last, rule: *rule });
                }
                Ports::Named(proto, name) => named.push((proto, name, *rule)),
            }
        }
        named.sort_unstable();
        named.dedup_by_key(|(proto, name, _)| (*proto, *name));
        Self { any, segments: disjoint(ranges).into(), named: named.into() }
    }

    /// The first rule; `names` are what the destination calls this port.
    #[inline]
    pub(super) fn first(&self, proto: u8, port: u16, names: impl Iterator<Item = u32>) -> Number {
        let mut best = self.any;
        let after = self.segments.partition_point(|s| (s.proto, s.first) <= (proto, port));
        if let Some(segment) = after.checked_sub(1).map(|at| self.segments[at])
            && segment.proto == proto
            && port <= segment.last
        {
            best = best.min(segment.rule);
        }
        if self.named.is_empty() {
            return best;
        }
        for name in names {
            if let Ok(at) = self.named.binary_search_by_key(&(proto, name), |n| (n.0, n.1)) {
                best = best.min(self.named[at].2);
            }
        }
        best
    }
}

/// Cuts ranges at each other's ends and keeps the first rule of each piece.
fn disjoint(mut ranges: Vec<Segment>) -> Vec<Segment> {
    if ranges.len() == 1 {
        return ranges;
    }
    ranges.sort_unstable_by_key(|s| (s.proto, s.first));
    let mut result: Vec<Segment> = Vec::new();
    for same in ranges.chunk_by(|a, b| a.proto == b.proto) {
        sweep(same, &mut result);
    }
    result
}

fn sweep(ranges: &[Segment], result: &mut Vec<Segment>) {
    let ends = ranges.iter().flat_map(|s| [u32::from(s.first), u32::from(s.last) + 1]);
    let mut cuts: Vec<u32> = ends.collect();
    cuts.sort_unstable();
    cuts.dedup();
    let (mut next, mut open) = (0, BinaryHeap::new());
    for cut in cuts.windows(2) {
        while let Some(range) = ranges.get(next).filter(|s| u32::from(s.first) == cut[0]) {
            open.push(Reverse((range.rule, range.last)));
            next += 1;
        }
        while open.peek().is_some_and(|Reverse((_, last))| u32::from(*last) < cut[0]) {
            open.pop();
        }
        let Some(Reverse((rule, _))) = open.peek() else { continue };
        let (first, last) = (cut[0] as u16, (cut[1] - 1) as u16);
        match result.last_mut() {
            Some(before)
                if before.proto == ranges[0].proto
                    && before.rule == *rule
                    && u32::from(before.last) + 1 == cut[0] =>
            {
                before.last = last;
            }
            _ => result.push(Segment { proto: ranges[0].proto, first, last, rule: *rule }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some_ports() -> impl Strategy<Value = Ports> {
        prop_oneof![
            1 => Just(Ports::All),
            8 => (6_u8..8, 0_u16..12, 0_u16..6, any::<bool>()).prop_map(|(proto, at, len, high)| {
                let first = if high { u16::MAX - at } else { at };
                Ports::Range(proto, first, first.saturating_add(len))
            }),
            2 => (6_u8..8, 0_u32..3).prop_map(|(proto, name)| Ports::Named(proto, name)),
        ]
    }

    proptest! {
        #[test]
        fn the_first_rule_is_that_of_a_plain_list(
            all in prop::collection::vec(some_ports(), 0..24),
            names in prop::collection::vec(0_u32..3, 0..3),
        ) {
            let entries: Vec<(Ports, Number)> =
                all.iter().enumerate().map(|(n, ports)| (*ports, n as u32 * 7 % 24)).collect();
            let table = PortTable::new(&entries);
            for port in (0..24).chain(u16::MAX - 24..=u16::MAX) {
                for proto in 5..9 {
                    let fits = |ports: &Ports| match ports {
                        Ports::All => true,
                        Ports::Range(p, first, last) => *p == proto && (*first..=*last).contains(&port),
                        Ports::Named(p, name) => *p == proto && names.contains(name),
                    };
                    let model = entries.iter().filter(|(p, _)| fits(p)).map(|(_, rule)| *rule).min();
                    let got = table.first(proto, port, names.iter().copied());
                    prop_assert_eq!(got, model.unwrap_or(NONE), "{}/{}", proto, port);
                }
            }
        }
    }
}
