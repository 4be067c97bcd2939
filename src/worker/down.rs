//! Ports whose interface went down.
//!
//! An interface that is removed goes down first, and only that is told; whether it is gone has to be
//! asked, soon after and then ever less often, since an interface may be down for days.

use crate::base::ids::PortId;
use crate::base::time::{Span, Time};

/// The first question: the kernel removes an interface right after it went down.
const FIRST: Span = Span::from_millis(10);
/// Questions are at most this far apart, which is within the bar for an idle daemon's wake-ups.
const LAST: Span = Span::from_secs(10);

/// Whom to ask about, and when.
#[derive(Debug, Default)]
pub(super) struct DownPorts {
    ports: Vec<Down>,
}

#[derive(Debug)]
struct Down {
    id: PortId,
    at: Time,
    wait: Span,
}

impl DownPorts {
    /// A port went down.
    pub(super) fn insert(&mut self, id: PortId, now: Time) {
        self.remove(id);
        self.ports.push(Down { id, at: now + FIRST, wait: FIRST });
    }

    /// A port is served no more.
    pub(super) fn remove(&mut self, id: PortId) {
        self.ports.retain(|down| down.id != id);
    }

    /// The ports to ask about now.
    pub(super) fn due(&mut self, now: Time) -> Vec<PortId> {
        let due = self.ports.iter_mut().filter(|down| down.at <= now);
        due.map(|down| {
            down.wait = Span(down.wait.0 * 2).min(LAST);
            down.at = now + down.wait;
            down.id
        })
        .collect()
    }

    /// When somebody is due.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.ports.iter().map(|down| down.at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_down_is_asked_about_ever_less_often() {
        let mut down = DownPorts::default();
        let mut now = Time::ZERO;
        down.insert(PortId(3), now);
        let mut asked = 0;
        while now < Time::ZERO + Span::from_secs(60) {
            now = down.next_deadline().unwrap();
            assert_eq!(down.due(now), [PortId(3)]);
            assert!(down.due(now).is_empty());
            asked += 1;
        }
        assert!((10..20).contains(&asked), "{asked}");
        down.remove(PortId(3));
        assert_eq!(down.next_deadline(), None);
    }
}
