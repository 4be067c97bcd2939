//! Segments that come in another order than they were sent.

use super::*;
use crate::base::limits::{
    SOCKET_HELD_BYTES_MAX, SOCKET_HELD_BYTES_PER_FLOW_MAX, SOCKET_HELD_RANGES_MAX,
};

/// The least wait after which a gap is a loss, and a moment less.
const LOSS: Span = Span::from_millis(10);
const SHORT: Span = Span::from_millis(9);

impl Rig {
    /// The container sends bytes of its stream that begin `at` bytes from the next expected.
    fn send_at(&mut self, at: u32, flags: u8, data: &[u8]) -> Result<(), DropReason> {
        let fields =
            TcpFields { seq: self.seq.wrapping_add(at), ack: self.ack, flags, window: 500 };
        self.raw(fields, &[], data)
    }

    /// Ends the batch; the bytes that its one call hands to the host's socket.
    fn sent_bytes(&mut self) -> Vec<u8> {
        self.flows.flush(self.now, &mut self.out);
        let sends: Vec<_> = self.out.calls.drain(..).collect();
        let [SocketCall::Send { parts, .. }] = sends[..] else { panic!("{sends:?}") };
        // The first part is the frame itself, which the rig has no batch for: it is filled with ones.
        let pieces = self.out.chain(parts).map(|part| match part.slot.0 {
            0 => vec![1; part.len as usize],
            _ => self.out.piece(part, &self.batch).unwrap().to_vec(),
        });
        let bytes = pieces.flatten().collect();
        self.out.clear();
        bytes
    }
}

#[test]
fn reordered_segments_are_held_and_go_out_in_order_when_the_gap_is_filled() {
    for v4 in [true, false] {
        let (mut rig, socket) = Rig::connected(v4);
        for n in [2, 3, 5] {
            rig.send_at(u32::from(n - 1) * 1000, ACK, &vec![n; 1000]).unwrap();
        }
        assert_eq!(rig.calls(), []);
        let complaint = rig.segment();
        assert_eq!((complaint.ack, complaint.flags), (rig.seq, ACK), "one, which is too few");
        rig.send_at(0, ACK, &[1; 1000]).unwrap();
        let stream: Vec<u8> = (1..4).flat_map(|n| vec![n; 1000]).collect();
        assert!(rig.sent_bytes() == stream);
        rig.sent(socket, 3000);
        rig.seq = rig.seq.wrapping_add(3000);
        assert_eq!(rig.segment().ack, rig.seq);
        rig.send_at(0, ACK, &[1; 1000]).unwrap();
        let stream: Vec<u8> = [1, 5].into_iter().flat_map(|n| vec![n; 1000]).collect();
        assert!(rig.sent_bytes() == stream, "the second gap");
        assert_eq!((rig.flows.held_bytes(), rig.flows.stats().tcp_out_of_order), (0, 3));
    }
}

#[test]
fn a_gap_that_is_filled_in_time_makes_the_container_send_nothing_again() {
    let (mut rig, socket) = Rig::connected(true);
    for n in 1..10 {
        rig.send_at(n * 1000, ACK, &[2; 1000]).unwrap();
        rig.calls();
    }
    assert_eq!(rig.segments().len(), 1, "three would make it send again");
    rig.wait(SHORT);
    assert_eq!(rig.segments(), []);
    rig.send_at(0, ACK, &[1; 1000]).unwrap();
    assert_eq!(rig.sent_bytes().len(), 10_000);
    rig.sent(socket, 10_000);
    rig.segments();
    rig.wait(LOSS);
    assert_eq!(rig.segments(), [], "nothing is missing any more");
    assert_eq!(rig.flows.stats().tcp_gaps_lost, 0);
}

#[test]
fn a_gap_that_lasts_is_a_loss_and_complained_of_once() {
    let (mut rig, _) = Rig::connected(true);
    rig.send_at(1000, ACK, &[2; 1000]).unwrap();
    rig.calls();
    rig.segments();
    rig.wait(LOSS);
    let acks = rig.segments();
    assert!(acks.len() == 4 && acks.iter().all(|seen| seen.ack == rig.seq), "{acks:?}");
    rig.wait(LOSS);
    assert_eq!(rig.segments(), [], "once");
    rig.send_at(2000, ACK, &[3; 1000]).unwrap();
    assert_eq!(rig.segments().len(), 1, "something still arrives");
    assert_eq!(rig.flows.stats().tcp_gaps_lost, 1);
    rig.wait(Span::from_millis(200));
    rig.send_at(0, ACK, &[1; 1000]).unwrap();
    assert_eq!(rig.sent_bytes().len(), 3000, "only what was missing had to come again");
}

#[test]
fn super_frames_are_held_whole() {
    let (mut rig, socket) = Rig::connected(true);
    let room = Room { free: 4_000_000, total: 4_000_000 };
    rig.event(SocketEvent::Sent { socket, accepted: 0, room });
    rig.calls();
    rig.segments();
    rig.send_at(60_000, ACK, &[2; 60_000]).unwrap();
    rig.send_at(0, ACK, &[1; 60_000]).unwrap();
    let bytes = rig.sent_bytes();
    assert!(bytes[..60_000].iter().all(|b| *b == 1) && bytes[60_000..].iter().all(|b| *b == 2));
    assert_eq!(bytes.len(), 120_000);
}

#[test]
fn old_and_overlapping_bytes_are_passed_over() {
    let (mut rig, socket) = Rig::connected(true);
    let start = rig.seq;
    rig.send_at(1500, ACK, &[2; 1000]).unwrap();
    rig.send_at(1000, ACK, &[2; 1000]).unwrap();
    rig.calls();
    rig.segments();
    rig.seq = start.wrapping_sub(500);
    rig.send_at(0, ACK, &[1; 1600]).unwrap();
    let parts = rig.calls();
    let [SocketCall::Send { parts, .. }] = parts[..] else { panic!("{parts:?}") };
    let first = rig.out.chain(parts).next().unwrap();
    assert_eq!((first.start, first.len), (54 + 500, 1100), "only what is new");
    assert_eq!(parts.bytes, 2500, "and each byte once");
    rig.sent(socket, 2500);
    assert_eq!(rig.segment().ack, start.wrapping_add(2500));
}

#[test]
fn a_fin_that_came_early_is_passed_on_behind_the_last_byte() {
    let (mut rig, socket) = Rig::connected(true);
    rig.send_at(1000, ACK | FIN, &[]).unwrap();
    rig.send_at(500, ACK, &[1; 500]).unwrap();
    assert_eq!(rig.calls(), []);
    rig.send_at(0, ACK, &[1; 500]).unwrap();
    assert_eq!(rig.sent_bytes().len(), 1000);
    rig.sent(socket, 1000);
    assert_eq!(rig.calls(), [SocketCall::Shutdown { socket }]);
    assert_eq!(rig.segments().last().unwrap().ack, rig.seq.wrapping_add(1001));
}

#[test]
fn what_the_socket_does_not_take_of_held_bytes_is_asked_for_again() {
    let (mut rig, socket) = Rig::connected(true);
    rig.send_at(1000, ACK, &[2; 1000]).unwrap();
    rig.send_at(0, ACK, &[1; 1000]).unwrap();
    assert_eq!(rig.sent_bytes().len(), 2000);
    rig.event(SocketEvent::Sent { socket, accepted: 1500, room: Room { free: 0, total: 80_000 } });
    rig.calls();
    assert_eq!(rig.segment().ack, rig.seq.wrapping_add(1500));
    rig.event(SocketEvent::Writable { socket, room: ROOM });
    assert_eq!(rig.segments().len(), 4);
    rig.send_at(1500, ACK, &[2; 500]).unwrap();
    assert!(matches!(rig.calls()[..], [SocketCall::Send { parts, .. }] if parts.bytes == 500));
}

#[test]
fn bytes_beyond_the_window_are_not_held() {
    let (mut rig, _) = Rig::connected(true);
    assert_eq!(rig.send_at(80_000, ACK, &[1; 1000]), Err(DropReason::TcpWindow));
    assert_eq!(rig.flows.held_bytes(), 0);
}

#[test]
fn a_flow_that_ends_lets_go_what_it_held() {
    for reset in [true, false] {
        let (mut rig, socket) = Rig::connected(true);
        rig.send_at(1000, ACK, &[2; 1000]).unwrap();
        assert_eq!(rig.flows.held_bytes(), 1000);
        if reset {
            rig.send(RST, &[]).unwrap();
        } else {
            rig.event(SocketEvent::Failed { socket, error: SocketError::Reset });
        }
        rig.calls();
        assert_eq!((rig.flows.counts()[0], rig.flows.held_bytes()), (0, 0));
        assert_eq!(rig.flows.next_deadline(), None);
    }
}

#[test]
fn a_segment_that_finds_no_room_to_wait_is_dropped_by_name() {
    let (mut rig, _) = Rig::connected(true);
    for n in 0..SOCKET_HELD_RANGES_MAX as u32 {
        rig.send_at(10 + n * 2, ACK, &[1]).unwrap();
    }
    assert_eq!(rig.send_at(1000, ACK, &[1]), Err(DropReason::TcpOutOfOrder));
    assert_eq!(rig.flows.stats().tcp_not_held, 1);
}

/// One container cannot make us hold more than the pool, whatever it sends; a neighbour that it pushes
/// out loses a round trip, and it is counted.
#[test]
fn a_full_pool_drops_by_name_what_has_waited_longest() {
    let (mut rig, socket) = Rig::connected(true);
    let room = Room { free: 8_000_000, total: 8_000_000 };
    rig.event(SocketEvent::Sent { socket, accepted: 0, room });
    rig.send_at(10, ACK, &[1; 1000]).unwrap();
    rig.segments();
    let flows = SOCKET_HELD_BYTES_MAX / SOCKET_HELD_BYTES_PER_FLOW_MAX + 1;
    for port in 1..=flows as u16 {
        rig.inside.1 = port;
        let (isn, seq) = (rig.seq, rig.seq.wrapping_add(1));
        let fields = TcpFields { seq: isn, ack: 0, flags: SYN, window: 64_000 };
        rig.raw(fields, &[1, 3, 3, 8], &[]).unwrap();
        let socket = rig.flows.tcp_flows().find(|f| f.key().src_port == port).unwrap().id;
        rig.calls();
        rig.event(SocketEvent::Connected { socket, room });
        let ack = rig.segments().last().unwrap().seq.wrapping_add(1);
        let fields = |seq| TcpFields { seq, ack, flags: ACK, window: 500 };
        rig.raw(fields(seq), &[], &[]).unwrap();
        rig.raw(fields(seq), &[], b"x").unwrap();
        rig.flows.flush(rig.now, &mut rig.out);
        rig.event(SocketEvent::Sent { socket, accepted: 1, room });
        rig.segments();
        for n in 0..SOCKET_HELD_BYTES_PER_FLOW_MAX as u32 / 32_768 {
            rig.raw(fields(seq.wrapping_add(10 + n * 32_768)), &[], &[1; 32_768]).unwrap();
        }
        assert!(rig.flows.held_bytes() <= SOCKET_HELD_BYTES_MAX);
    }
    assert_eq!(rig.flows.held_bytes(), SOCKET_HELD_BYTES_MAX);
    assert_eq!(rig.out.drops, [(PortId(3), DropReason::TcpOutOfOrder); 2], "the first two flows'");
}
