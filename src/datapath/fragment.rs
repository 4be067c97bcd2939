//! Fragments: only the first has ports, so the others borrow them from it.

use super::slow::Frame;
use super::{Datapath, pipeline::Slot};
use crate::packet::{DropReason, FlowKey, Fragment, FrameBatch, PacketBuf};
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
        let view = frame.batch.frame(frame.at);
        let from = (frame.ingress, slot.key.domain);
        let ids = &mut self.ip_ids;
        let fresh = || ids.take(slot.parsed.dst, slot.parsed.proto, 1);
        match self.fragments.admit(frame.now, from, &slot.parsed, &view, fresh) {
            Admitted::Key(ports) => {
                let mut known = *slot;
                known.parsed.proto = ports.proto;
                known.parsed.src_port = ports.src_port;
                known.parsed.dst_port = ports.dst_port;
                known.fragment_id = ports.id;
                known.key = FlowKey::new(&known.parsed, slot.key.domain, slot.key.scope);
                known.hash = known.key.hash(self.seed);
                Ok(Some(known))
            }
            Admitted::Held => Ok(None),
            Admitted::Drop(reason) => Err(reason),
        }
    }

    /// Fragments that came before their first one are sent through after it, in a batch of their own.
    pub(super) fn replay_held(&mut self, slot: &Slot, mut first: PacketBuf, frame: &mut Frame<'_>) {
        let released = self.fragments.first(slot.key.domain, &slot.parsed, &first.frame());
        let mut later = super::Output::default();
        for held in released {
            let mut batch = FrameBatch::new();
            if !batch.push_owned(&held) {
                continue;
            }
            self.process(frame.now, frame.ingress, &mut batch, &mut later);
            for sent in later.frames.drain(..) {
                let owned = match sent.frame {
                    super::FrameRef::Batch(at) => batch.frame(usize::from(at)).to_owned(),
                    super::FrameRef::Owned(owned) => owned,
                };
                frame.out.owned(sent.port, owned);
            }
        }
    }
}
