//! Everything a TCP flow sends: segments towards the container, and calls of its host socket.
//!
//! Bytes are sent where they are met (`Send` needs the frame); all else waits for the end of the batch,
//! when [`TcpFlow::flush`] says each thing once: one `Discard` for all acknowledgements, one
//! acknowledgement for all segments, one `Peek`.

use super::flow::{TcpFlow, TcpState};
use super::seq::Seq;
use crate::packet::FrameMut;
use crate::stage::sockets::calls::{FrameSlot, SocketCall, SocketId};
use crate::stage::sockets::headers::{self, TcpFields};
use crate::stage::sockets::output::{Delivery, SmallFrame, SocketOutput};
use crate::wire::tcp;

impl TcpFlow {
    /// Says what the batch made necessary.
    pub(super) fn flush(&mut self, out: &mut SocketOutput) {
        if self.state == TcpState::Open {
            self.discard_acknowledged(out);
            self.peek(out);
            self.send_fin(out);
            self.watch(out);
        }
        if matches!(self.state, TcpState::Open | TcpState::TimeWait) {
            while self.acks_due > 0 {
                self.acks_due -= 1;
                self.send_flags(out, self.snd_nxt, tcp::ACK);
            }
        }
    }

    fn discard_acknowledged(&mut self, out: &mut SocketOutput) {
        let len = std::mem::take(&mut self.discard);
        if len > 0 {
            out.call(SocketCall::Discard { socket: self.id, len });
        }
    }

    /// Asks for bytes if the container has a window for them.
    fn peek(&mut self, out: &mut SocketOutput) {
        if !self.readable || self.peeking.is_some() {
            return;
        }
        let window = self.snd_una.plus(self.snd_wnd).since(self.snd_nxt);
        let mut len = window.min(self.super_frame());
        if let Some(fin) = self.fin_at {
            len = len.min(fin.since(self.snd_nxt));
        }
        // Sender's side of the silly window syndrome (RFC 9293 3.8.6.2.1): rather wait for more window,
        // if an acknowledgement is coming that may bring it.
        let silly = len == window && len < u32::from(self.mss) && self.in_flight();
        if len == 0 || silly {
            return;
        }
        let offset = self.snd_nxt.since(self.snd_una);
        if std::mem::take(&mut self.peek_moved) {
            out.call(SocketCall::SetPeekOffset { socket: self.id, offset });
        }
        let headers = headers::tcp_headers(self.key.src.is_v4()) as u16;
        self.peeking = Some(self.snd_nxt);
        out.call(SocketCall::Peek { socket: self.id, offset, len, headers });
    }

    /// The bytes of a `Peek` are in `frame`: makes a segment of them, with our FIN if they are the last.
    pub(super) fn send_data(
        &mut self,
        frame: &mut FrameMut<'_>,
        slot: FrameSlot,
        out: &mut SocketOutput,
    ) {
        let headers = headers::tcp_headers(self.key.src.is_v4());
        let len = frame.len().saturating_sub(headers) as u32;
        let end = self.snd_nxt.plus(len);
        let push = if self.readable { 0 } else { tcp::PSH };
        let fin = if self.fin_at == Some(end) { tcp::FIN } else { 0 };
        let fields = self.fields(self.snd_nxt, tcp::ACK | push | fin);
        self.acks_due = 0;
        let mss = self.mss;
        *frame.offload_mut() =
            headers::write_tcp(frame.bytes_mut(), self.link, &self.key, fields, 0, mss);
        self.snd_nxt = end.plus(u32::from(fin > 0));
        self.snd_max = self.snd_max.max(self.snd_nxt);
        out.deliveries.push(Delivery::Slot { port: self.port, slot });
    }

    /// The stream from the host has ended and all of it is sent: so is our FIN. It needs no window
    /// (RFC 9293 3.8.6: a FIN may be sent into a closed one; Linux accepts it).
    fn send_fin(&mut self, out: &mut SocketOutput) {
        if self.fin_at != Some(self.snd_nxt) || self.peeking.is_some() {
            return;
        }
        self.send_flags(out, self.snd_nxt, tcp::ACK | tcp::FIN);
        self.acks_due = 0;
        self.snd_nxt = self.snd_nxt.plus(1);
        self.snd_max = self.snd_max.max(self.snd_nxt);
    }

    /// Has the kernel tell when the send buffer drains, once a fifth of it is all we have promised: the
    /// kernel reports a third free, of which a quarter is promised, so this does not run in circles.
    fn watch(&mut self, out: &mut SocketOutput) {
        let promised = self.rcv_edge.since(self.rcv_nxt);
        let low = promised < self.room.total / 5 || self.not_taken;
        if low && !self.watching && !self.fin_received && self.sending == 0 {
            self.watching = true;
            out.call(SocketCall::WatchWritable { socket: self.id });
        }
    }

    /// The window to tell: the send buffer's free room, less a quarter for the kernel's own bookkeeping
    /// (an skb costs about 1 KiB beside its bytes). The edge never moves left (RFC 9293 3.8.6).
    fn window(&mut self) -> u16 {
        let usable = self.room.free - self.room.free / 4;
        let most = u32::from(u16::MAX) << self.our_scale;
        let edge = self.rcv_nxt.plus(usable.min(most));
        self.rcv_edge = self.rcv_edge.max(edge).max(self.rcv_nxt);
        let window = self.rcv_edge.since(self.rcv_nxt);
        // Rounded up, since rounding down would move the edge left.
        window.div_ceil(1 << self.our_scale).min(u32::from(u16::MAX)) as u16
    }

    fn fields(&mut self, seq: Seq, flags: u8) -> TcpFields {
        let window = self.window();
        TcpFields { seq: seq.0, ack: self.rcv_nxt.0, flags, window }
    }

    fn send_segment(&self, out: &mut SocketOutput, fields: TcpFields, options: &[u8]) {
        let at = headers::tcp_headers(self.key.src.is_v4());
        let mut frame = SmallFrame::zeroed(at + options.len());
        frame.bytes_mut()[at..].copy_from_slice(options);
        frame.offload =
            headers::write_tcp(frame.bytes_mut(), self.link, &self.key, fields, options.len(), 0);
        out.made(self.port, frame);
    }

    /// Sends a segment without data.
    pub(super) fn send_flags(&mut self, out: &mut SocketOutput, seq: Seq, flags: u8) {
        let fields = self.fields(seq, flags);
        self.send_segment(out, fields, &[]);
    }

    /// Sends our SYN-ACK, or our SYN if the client came from outside.
    pub(super) fn send_syn(&mut self, out: &mut SocketOutput) {
        let answer = self.state == TcpState::SynAckSent;
        let usable = self.room.free - self.room.free / 4;
        // RFC 7323 2.2: the window of a SYN is never scaled.
        let window = usable.min(u32::from(u16::MAX)) as u16;
        self.rcv_edge = self.rcv_nxt.plus(u32::from(window));
        let flags = if answer { tcp::SYN | tcp::ACK } else { tcp::SYN };
        let ack = if answer { self.rcv_nxt.0 } else { 0 };
        let fields = TcpFields { seq: self.snd_una.0, ack, flags, window };
        self.snd_nxt = self.snd_una.plus(1);
        self.snd_max = self.snd_nxt;
        let [high, low] = self.own_mss().to_be_bytes();
        let scale = if answer { self.our_scale } else { super::flow::OUR_SCALE };
        // No SACK: what is lost is sent again from the host's socket, where it still is, in one go.
        // No timestamps: they would cost twelve bytes of each segment for nothing on this path.
        let options = [2, 4, high, low, 1, 3, 3, scale];
        let with_scale = !answer || self.our_scale > 0;
        self.send_segment(out, fields, &options[..if with_scale { 8 } else { 4 }]);
    }

    /// Asks the container for a sign of life or its window, by a segment that it has had already.
    pub(super) fn probe(&mut self, out: &mut SocketOutput) {
        let before = Seq(self.snd_una.0.wrapping_sub(1));
        self.send_flags(out, before, tcp::ACK);
    }

    /// Tells the container that there is no such connection (any more).
    pub(super) fn send_reset(&mut self, out: &mut SocketOutput) {
        let flags = if self.state == TcpState::SynSent { tcp::RST } else { tcp::RST | tcp::ACK };
        let fields = TcpFields { seq: self.snd_nxt.0, ack: self.expected().0, flags, window: 0 };
        self.send_segment(out, fields, &[]);
    }

    /// Hands a piece of a frame to the host's socket, behind what this batch has brought already.
    pub(super) fn send_piece(
        &mut self,
        slot: FrameSlot,
        start: u32,
        len: u32,
        out: &mut SocketOutput,
    ) {
        let own = |call: &SocketCall| is_send_of(call, self.id);
        if self.sending == 0 || !out.append(self.send_call, slot, start, len, own) {
            self.send_call = out.calls.len() as u32;
            let parts = out.part(slot, start, len);
            out.call(SocketCall::Send { socket: self.id, parts });
        }
        self.sending += len;
    }
}

fn is_send_of(call: &SocketCall, id: SocketId) -> bool {
    matches!(call, SocketCall::Send { socket, .. } if *socket == id)
}
