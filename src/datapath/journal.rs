//! Beginnings and ends of flows, for whoever follows them.
//!
//! Nobody subscribes: who asks, asks again from where he left off, and what happens is written down for
//! a few seconds after each question. So a follower that vanished costs nothing, and while there is
//! none a flow's beginning and end cost one comparison each; its packets cost nothing at any time. The
//! queue is bounded; who is too slow is told how many he missed.

use std::collections::VecDeque;

use super::inspect::{FlowEnd, FlowEvents, FlowHappening};
use crate::base::limits::FLOW_EVENTS_MAX;
use crate::base::time::{Span, Time};
use crate::stage::flow::Flow;

/// How long after a question what happens is written down.
const WANTED: Span = Span::from_secs(5);

#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) at: Time,
    pub(super) what: FlowHappening,
    pub(super) flow: Flow,
}

/// What happened lately.
#[derive(Debug, Default)]
pub(super) struct Journal {
    records: VecDeque<Record>,
    /// Number of the next record.
    next: u64,
    wanted_until: Option<Time>,
}

impl Journal {
    fn is_wanted(&self, now: Time) -> bool {
        self.wanted_until.is_some_and(|until| now <= until)
    }

    #[inline]
    pub(super) fn begun(&mut self, now: Time, flow: &Flow) {
        self.next += 1;
        if self.wanted_until.is_some() {
            self.write(Record { at: now, what: FlowHappening::Begin, flow: *flow });
        }
    }

    #[inline]
    pub(super) fn ended(&mut self, now: Time, flow: &Flow, why: FlowEnd) {
        self.next += 1;
        if self.wanted_until.is_some() {
            self.write(Record { at: now, what: FlowHappening::End(why), flow: *flow });
        }
    }

    /// What is numbered and not written is counted as lost by who asks for it later.
    fn write(&mut self, record: Record) {
        self.tick(record.at);
        if self.wanted_until.is_none() {
            return;
        }
        if self.records.len() == FLOW_EVENTS_MAX {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }

    /// Gives up what nobody has asked for in time.
    pub(super) fn tick(&mut self, now: Time) {
        if self.wanted_until.is_some() && !self.is_wanted(now) {
            self.wanted_until = None;
            self.records = VecDeque::new();
        }
    }

    /// Records from number `from` on, and where to go on; without a number only that.
    pub(super) fn since(
        &mut self,
        now: Time,
        from: Option<u64>,
        describe: impl Fn(&Record) -> Option<super::inspect::FlowEvent>,
    ) -> FlowEvents {
        self.tick(now);
        self.wanted_until = Some(now + WANTED);
        let from = from.unwrap_or(self.next).min(self.next);
        let oldest = self.next - self.records.len() as u64;
        let skipped = from.saturating_sub(oldest) as usize;
        FlowEvents {
            events: self.records.iter().skip(skipped).filter_map(describe).collect(),
            next: self.next,
            lost: oldest.saturating_sub(from),
        }
    }
}
