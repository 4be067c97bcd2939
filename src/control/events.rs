//! What happened: a bounded ring for those who ask later, and callbacks for those who listen.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use super::model::{EventInfo, EventKind};
use crate::base::limits::EVENTS_KEPT;

/// A listener. It must not block; it is forgotten when it says `false`.
pub type Listener = Box<dyn FnMut(&EventInfo) -> bool + Send>;

/// The last events and who listens.
#[derive(Default)]
pub(super) struct Events {
    kept: VecDeque<EventInfo>,
    next: u64,
    counts: BTreeMap<EventKind, u64>,
    listeners: Vec<Listener>,
}

impl Events {
    /// Something happened; its number is given here.
    pub(super) fn record(&mut self, event: EventInfo) {
        let event = EventInfo { seq: self.next, ..event };
        self.next += 1;
        *self.counts.entry(event.kind).or_default() += 1;
        self.listeners.retain_mut(|listener| listener(&event));
        if self.kept.len() == EVENTS_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(event);
    }

    /// How often what has happened, since the daemon began.
    pub(super) fn counts(&self) -> impl Iterator<Item = (EventKind, u64)> {
        self.counts.iter().map(|(kind, count)| (*kind, *count))
    }

    /// Kept events from number `from` on.
    pub(super) fn since(&self, from: u64) -> Vec<EventInfo> {
        self.kept.iter().filter(|e| e.seq >= from).cloned().collect()
    }

    pub(super) fn listen(&mut self, listener: Listener) {
        self.listeners.push(listener);
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("next", &self.next).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn event(kind: EventKind, text: &str) -> EventInfo {
        let (text, seq, time_ms) = (text.to_owned(), 0, 0);
        EventInfo { seq, time_ms, kind, network: None, endpoint: None, text, hint: None }
    }

    #[test]
    fn old_events_make_room_and_a_gap_shows() {
        let mut events = Events::default();
        for n in 0..EVENTS_KEPT + 3 {
            events.record(event(EventKind::NetworkCreated, &n.to_string()));
        }
        let all = events.since(0);
        assert_eq!((all.len(), all[0].seq), (EVENTS_KEPT, 3));
        assert_eq!(events.since(EVENTS_KEPT as u64 + 2).len(), 1);
        let counted: Vec<_> = events.counts().collect();
        assert_eq!(counted, [(EventKind::NetworkCreated, EVENTS_KEPT as u64 + 3)]);
    }

    #[test]
    fn a_listener_hears_everything_until_it_goes() {
        let mut events = Events::default();
        let (sender, receiver) = mpsc::channel();
        events.listen(Box::new(move |event| sender.send(event.seq).is_ok()));
        let mut record = || events.record(event(EventKind::DaemonStarted, ""));
        record();
        assert_eq!(receiver.recv(), Ok(0));
        drop(receiver);
        record();
        assert!(events.listeners.is_empty());
    }
}
