//! Fragments: only the first has ports, so the others borrow them from it.

use super::slow::Frame;
use super::{Datapath, pipeline::Slot};
use crate::base::time::Time;
use crate::packet::{DropReason, Fragment, FrameBatch};
use crate::stage::route::fragments::Admitted;

impl Datapath {
    /// Completes the key of a fragment. `None`: it is held until the first one comes.
    pub(super) fn with_ports(
        &mut self,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<Option<Slot>, DropReason> {
        if slot.parsed.fragment == Fragment::Whole {
            return Ok(Some(*slot));
        }
        let domain = slot.key.domain;
        let view = frame.batch.frame(frame.at);
        if slot.parsed.fragment == Fragment::First {
            let released = self.fragments.first(frame.now, domain, &slot.parsed, &view)?;
            if !released.is_empty() {
                self.replay(released, frame);
            }
            return Ok(Some(*slot));
        }
        match self.fragments.admit(frame.now, domain, &slot.parsed, &view) {
            Admitted::Ports(src_port, dst_port) => {
                let mut known = *slot;
                (known.key.src_port, known.key.dst_port) = (src_port, dst_port);
                known.parsed.src_port = src_port;
                known.parsed.dst_port = dst_port;
                known.hash = known.key.hash(self.seed);
                Ok(Some(known))
            }
            Admitted::Held => Ok(None),
            Admitted::Drop(reason) => Err(reason),
        }
    }

    /// Fragments that came before their first one are sent through after it, in a batch of their own.
    fn replay(&mut self, released: Vec<crate::packet::PacketBuf>, frame: &mut Frame<'_>) {
        let mut later = super::Output::default();
        for held in released {
            let mut batch = FrameBatch::new();
            if !batch.push_owned(&held) {
                continue;
            }
            self.frames(frame.now, frame.ingress, &mut batch, &mut later);
            for sent in later.frames.drain(..) {
                let owned = match sent.frame {
                    super::FrameRef::Batch(at) => batch.frame(usize::from(at)).to_owned(),
                    super::FrameRef::Owned(owned) => owned,
                };
                frame.out.owned(sent.port, owned);
            }
        }
    }

    pub(super) fn fragment_timers(&mut self, now: Time) {
        for port in self.fragments.tick(now) {
            self.drop_frame(port, DropReason::FragmentTimeout);
        }
    }
}
