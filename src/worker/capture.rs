//! Copies of frames for those who look. When nobody does, nothing is done; when somebody does, the
//! frames' way is not held up: a reader that is too slow loses copies, and is told how many.
//!
//! Copies are collected in blocks, so that the channel to the reader is used once for hundreds of
//! frames. A frame that came in is copied before the data path changes it, and what became of it is
//! written to the copy afterwards.

use std::sync::Weak;

use crossbeam_channel::{Sender, TrySendError};
use zerocopy::FromBytes;

use crate::base::ids::PortId;
use crate::base::limits::{CAPTURE_BLOCK_BYTES, CAPTURE_BLOCK_FRAMES, CAPTURES_MAX};
use crate::base::time::Time;
use crate::packet::bpf::Program;
use crate::packet::{DropReason, FrameBatch, Offload};
use crate::wire::vnet::{HEADER_LEN, VnetHeader};

/// Where a frame was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// As it came in from a port.
    Ingress,
    /// As it left by a port.
    Egress,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct CaptureRequest {
    /// Frames of these ports; of all, if it is empty.
    pub ports: Vec<PortId>,
    /// Only frames that were dropped.
    pub drops: bool,
    /// Only on this side.
    pub side: Option<Side>,
    /// Bytes of each frame that are kept.
    pub snap: usize,
    /// Frames until it ends.
    pub count: u64,
    /// Only frames that this program accepts.
    pub filter: Option<Program>,
}

/// One frame.
#[derive(Clone, Copy, Debug)]
pub struct Captured {
    /// Nanoseconds since 1970.
    pub at: u64,
    /// Where.
    pub port: PortId,
    /// On which side of the switch.
    pub side: Side,
    /// Why it went no further.
    pub drop: Option<DropReason>,
    /// Its length, of which perhaps not all is kept.
    pub length: u32,
    /// What is left to be done to it.
    pub offload: Offload,
    start: u32,
    kept: u32,
}

/// Frames captured together, in order.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// What is known of them.
    pub frames: Vec<Captured>,
    bytes: Vec<u8>,
    /// Frames that were lost until now because the reader was too slow.
    pub lost: u64,
}

impl Block {
    /// What was kept of a frame of this block.
    pub fn bytes(&self, frame: &Captured) -> &[u8] {
        let start = frame.start as usize;
        self.bytes.get(start..start + frame.kept as usize).unwrap_or_default()
    }
}

/// Whom copies are for.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Where they go.
    pub blocks: Sender<Block>,
    /// Gone when the reader is: the channel tells only who sends.
    pub alive: Weak<()>,
}

/// All that is being captured.
#[derive(Debug)]
pub(super) struct Captures {
    open: Vec<Capture>,
    /// Nanoseconds between the worker's time and that since 1970.
    epoch: u64,
}

#[derive(Debug)]
struct Capture {
    request: CaptureRequest,
    reader: Reader,
    block: Block,
    /// Where the frames of the batch at hand begin, and their numbers in it.
    mark: usize,
    indexes: Vec<u16>,
    remaining: u64,
    is_over: bool,
}

impl Captures {
    pub(super) fn new() -> Self {
        Self { open: Vec::new(), epoch: 0 }
    }

    #[inline]
    pub(super) fn is_on(&self) -> bool {
        !self.open.is_empty()
    }

    /// Begins one, if not too many are going on; the reader sees the channel closed otherwise.
    pub(super) fn add(&mut self, request: CaptureRequest, reader: Reader, epoch: u64) {
        self.epoch = epoch;
        if self.open.len() < CAPTURES_MAX {
            let remaining = request.count;
            let (block, indexes) = (Block::default(), Vec::new());
            let capture =
                Capture { request, reader, block, mark: 0, indexes, remaining, is_over: false };
            self.open.push(capture);
        }
    }

    /// A batch as it came in.
    pub(super) fn ingress(&mut self, now: Time, port: PortId, batch: &FrameBatch) {
        let at = self.epoch + now.0;
        for capture in &mut self.open {
            if !capture.begin(batch.len()) {
                continue;
            }
            for index in 0..batch.len() {
                let (frame, offload) = (batch.bytes(index), batch.offload(index));
                if capture.take(at, port, Side::Ingress, frame, offload) {
                    capture.indexes.push(index as u16);
                }
            }
        }
    }

    /// What became of the batch that came in last.
    pub(super) fn dropped(&mut self, drops: &[(u16, DropReason)]) {
        self.open.iter_mut().for_each(|capture| capture.settle(drops));
    }

    /// A frame that left, behind its virtio-net header, or did not.
    pub(super) fn egress(
        &mut self,
        now: Time,
        port: PortId,
        frame: &[u8],
        drop: Option<DropReason>,
    ) {
        let Some((header, frame)) = frame.split_at_checked(HEADER_LEN) else { return };
        let offload = VnetHeader::read_from_bytes(header).ok();
        let offload = offload.and_then(|header| Offload::from_vnet(&header, frame.len()).ok());
        let at = self.epoch + now.0;
        for capture in self.open.iter_mut().filter(|c| drop.is_some() || !c.request.drops) {
            if capture.begin(1)
                && capture.take(at, port, Side::Egress, frame, offload.unwrap_or_default())
                && let Some(captured) = capture.block.frames.last_mut()
            {
                captured.drop = drop;
            }
        }
    }

    /// Hands over what there is; forgets those that are over or that nobody reads.
    pub(super) fn flush(&mut self) {
        self.open.retain_mut(|capture| {
            capture.send();
            !capture.is_over
        });
    }
}

impl Capture {
    /// Before frames are taken: a block never ends in the middle of a batch. `false`: there is no room.
    fn begin(&mut self, frames: usize) -> bool {
        let is_full = |block: &Block| {
            block.bytes.len() >= CAPTURE_BLOCK_BYTES || block.frames.len() >= CAPTURE_BLOCK_FRAMES
        };
        if is_full(&self.block) {
            self.send();
        }
        self.mark = self.block.frames.len();
        self.indexes.clear();
        let room = !is_full(&self.block);
        if !room {
            self.block.lost += frames as u64;
        }
        room
    }

    fn take(&mut self, at: u64, port: PortId, side: Side, frame: &[u8], offload: Offload) -> bool {
        let request = &self.request;
        let wanted = self.remaining > 0
            && request.side.is_none_or(|wanted| wanted == side)
            && (request.ports.is_empty() || request.ports.contains(&port))
            && request.filter.as_ref().is_none_or(|filter| filter.accepts(frame));
        if !wanted {
            return false;
        }
        let kept = frame.len().min(request.snap);
        let start = self.block.bytes.len() as u32;
        self.block.bytes.extend_from_slice(&frame[..kept]);
        let (length, kept) = (frame.len() as u32, kept as u32);
        self.block.frames.push(Captured {
            at,
            port,
            side,
            drop: None,
            length,
            offload,
            start,
            kept,
        });
        // Which of those that came in will be dropped is not known yet.
        if !(request.drops && side == Side::Ingress) {
            self.remaining -= 1;
        }
        true
    }

    /// Writes to the frames of the last batch what became of them.
    fn settle(&mut self, drops: &[(u16, DropReason)]) {
        let frames = &mut self.block.frames[self.mark..];
        for (captured, index) in frames.iter_mut().zip(&self.indexes) {
            captured.drop = drops.iter().find(|(at, _)| at == index).map(|(_, reason)| *reason);
        }
        if !self.request.drops {
            return;
        }
        let first = frames.first().map(|captured| captured.start);
        let taken = self.block.frames.split_off(self.mark);
        let mut end = first.map_or(self.block.bytes.len(), |start| start as usize);
        for mut captured in taken.into_iter().filter(|captured| captured.drop.is_some()) {
            if self.remaining == 0 {
                break;
            }
            self.remaining -= 1;
            let from = captured.start as usize;
            self.block.bytes.copy_within(from..from + captured.kept as usize, end);
            captured.start = end as u32;
            end += captured.kept as usize;
            self.block.frames.push(captured);
        }
        self.block.bytes.truncate(end);
    }

    fn send(&mut self) {
        if !self.block.frames.is_empty() {
            let lost = self.block.lost;
            match self.reader.blocks.try_send(std::mem::take(&mut self.block)) {
                Ok(()) => self.block.lost = lost,
                Err(TrySendError::Full(block)) => self.block = block,
                Err(TrySendError::Disconnected(_)) => self.is_over = true,
            }
        }
        self.is_over |= self.reader.alive.strong_count() == 0
            || (self.remaining == 0 && self.block.frames.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crossbeam_channel::{Receiver, bounded};

    use super::*;
    use crate::packet::bpf::Instruction;

    const WEB: PortId = PortId(1);

    fn batch(frames: &[&[u8]]) -> FrameBatch {
        let mut batch = FrameBatch::new();
        for frame in frames {
            assert!(batch.push(frame, Offload::NONE));
        }
        batch
    }

    fn everything() -> CaptureRequest {
        CaptureRequest {
            ports: Vec::new(),
            drops: false,
            side: None,
            snap: usize::MAX,
            count: u64::MAX,
            filter: None,
        }
    }

    fn capture(request: CaptureRequest) -> (Captures, Receiver<Block>, Arc<()>) {
        let mut captures = Captures::new();
        let (blocks, receiver) = bounded(1);
        let alive = Arc::new(());
        let reader = Reader { blocks, alive: Arc::downgrade(&alive) };
        captures.add(request, reader, 1_000);
        (captures, receiver, alive)
    }

    fn texts(block: &Block) -> Vec<(&[u8], Option<DropReason>)> {
        block.frames.iter().map(|frame| (block.bytes(frame), frame.drop)).collect()
    }

    #[test]
    fn a_frame_is_as_it_came_in_with_what_became_of_it() {
        let (mut captures, reader, _alive) = capture(everything());
        let mut frames = batch(&[b"first", b"second"]);
        captures.ingress(Time(7), WEB, &frames);
        frames.frame(0).bytes_mut().fill(b'x');
        captures.dropped(&[(1, DropReason::NoListener), (1, DropReason::PortDown)]);
        captures.flush();
        let block = reader.try_recv().unwrap();
        let expected = [(&b"first"[..], None), (b"second", Some(DropReason::NoListener))];
        assert_eq!(texts(&block), expected);
        assert_eq!((block.frames[0].at, block.frames[0].side), (1_007, Side::Ingress));
    }

    #[test]
    fn of_drops_alone_only_those_are_kept() {
        let (mut captures, reader, _alive) =
            capture(CaptureRequest { drops: true, count: 2, ..everything() });
        captures.ingress(Time(7), WEB, &batch(&[b"one", b"two", b"three", b"four"]));
        captures.dropped(&[(1, DropReason::NoListener), (3, DropReason::NoListener)]);
        captures.egress(Time(8), WEB, &[0; 30], None);
        captures.ingress(Time(9), WEB, &batch(&[b"one too many"]));
        captures.dropped(&[(0, DropReason::NoListener)]);
        captures.flush();
        let block = reader.try_recv().unwrap();
        assert_eq!(
            texts(&block).iter().map(|(text, _)| *text).collect::<Vec<_>>(),
            [&b"two"[..], b"four"]
        );
        captures.flush();
        assert!(!captures.is_on(), "it had all it was asked for");
    }

    #[test]
    fn only_what_was_asked_for_is_copied() {
        let no_long_ones = [(0x80, 0, 0, 0), (0x35, 0, 1, 5), (6, 0, 0, 0), (6, 0, 0, 1)];
        let code = no_long_ones.map(|(op, jt, jf, k)| Instruction(op, jt, jf, k)).to_vec();
        let (mut captures, reader, _alive) = capture(CaptureRequest {
            ports: vec![WEB],
            side: Some(Side::Ingress),
            snap: 2,
            filter: Some(Program::new(code).unwrap()),
            ..everything()
        });
        captures.ingress(Time(7), PortId(2), &batch(&[b"abc"]));
        captures.ingress(Time(7), WEB, &batch(&[b"abcdef", b"abc"]));
        captures.dropped(&[]);
        captures.egress(Time(8), WEB, &[0; 13], None);
        captures.flush();
        let block = reader.try_recv().unwrap();
        assert_eq!(texts(&block), [(&b"ab"[..], None)]);
        assert_eq!(block.frames[0].length, 3);
    }

    #[test]
    fn a_reader_that_is_too_slow_is_told_how_many_it_lost() {
        let (mut captures, reader, _alive) = capture(everything());
        let large = [0; 32_768];
        let frames = batch(&[&large, &large]);
        for _ in 0..CAPTURE_BLOCK_BYTES / 65_536 * 4 {
            captures.ingress(Time(7), WEB, &frames);
            captures.dropped(&[]);
        }
        let first = reader.try_recv().unwrap();
        assert_eq!((first.frames.len() * 32_768, first.lost), (CAPTURE_BLOCK_BYTES, 0));
        captures.flush();
        let second = reader.try_recv().unwrap();
        assert_eq!(second.lost as usize, CAPTURE_BLOCK_BYTES / 65_536 * 2 * 2);
    }

    #[test]
    fn without_a_reader_it_ends() {
        let (mut captures, _reader, alive) = capture(everything());
        captures.flush();
        assert!(captures.is_on());
        drop(alive);
        captures.flush();
        assert!(!captures.is_on());
    }
}
