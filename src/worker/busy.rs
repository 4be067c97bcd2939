//! When it is time to look at what nobody reports.
//!
//! A full ring, a peer that is silent: these show in counters only, and show only while frames pass. So the
//! worker, which is awake then, asks for the look; on an idle machine nobody is woken for it.

use crate::base::time::{Span, Time};

/// Not more often than this: a look costs a question to each worker, and one to the kernel for each container.
const EVERY: Span = Span::from_secs(30);
/// And not for fewer frames than a container's ring holds.
const FRAMES: u64 = 1_000;

/// What had passed when it was asked for last.
#[derive(Debug, Default)]
pub(super) struct Busy {
    next: Option<Time>,
    frames: u64,
}

impl Busy {
    /// Whether to ask now, after so many frames in all.
    #[inline]
    pub(super) fn is_due(&mut self, now: Time, frames: u64) -> bool {
        if frames - self.frames < FRAMES || self.next.is_some_and(|next| now < next) {
            return false;
        }
        (self.next, self.frames) = (Some(now + EVERY), frames);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_for_at_once_and_then_twice_a_minute_as_long_as_frames_pass() {
        let mut busy = Busy::default();
        let at = |secs| Time::ZERO + Span::from_secs(secs);
        assert!(!busy.is_due(at(1), FRAMES - 1));
        assert!(busy.is_due(at(2), FRAMES));
        assert!(!busy.is_due(at(31), FRAMES * 9), "not so soon");
        assert!(busy.is_due(at(32), FRAMES * 9));
        assert!(!busy.is_due(at(3_600), FRAMES * 9), "nothing has passed");
    }
}
