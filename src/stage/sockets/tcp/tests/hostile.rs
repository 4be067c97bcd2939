//! Containers whose TCP wants to do harm.

use super::*;

impl Rig {
    /// A segment with numbers of its own choosing.
    fn forged(&mut self, seq: u32, ack: u32, flags: u8, window: u16, data: &[u8]) -> Outcome {
        self.raw(TcpFields { seq, ack, flags, window }, &[], data)
    }
}

type Outcome = Result<(), DropReason>;

/// Lengths of what the calls hand to the host's socket.
fn handed(calls: &[SocketCall]) -> Vec<u32> {
    let sends = calls.iter().filter_map(|call| match call {
        SocketCall::Send { parts, .. } => Some(parts.bytes),
        _ => None,
    });
    sends.collect()
}

#[test]
fn overlapping_segments_give_each_byte_to_the_socket_once() {
    let (mut rig, socket) = Rig::connected(true);
    let (seq, ack) = (rig.seq, rig.ack);
    for (at, len) in [(0, 100), (50, 100), (0, 150), (100, 60), (149, 2), (10, 10)] {
        rig.forged(seq.wrapping_add(at), ack, ACK, 500, &vec![7; len]).unwrap();
    }
    assert_eq!(handed(&rig.calls()), [160]);
    rig.sent(socket, 160);
    assert_eq!(rig.segments().last().unwrap().ack, seq.wrapping_add(160));
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_changes_nothing() {
    let (mut rig, socket) = Rig::connected(true);
    let (seq, ack) = (rig.seq, rig.ack);
    rig.event(SocketEvent::Readable { socket, hangup: false });
    rig.calls();
    rig.data(socket, &[1; 1000]);
    rig.segments();
    for beyond in [1001, 5000, 1 << 20, 1 << 30] {
        let forged = rig.forged(seq, ack.wrapping_add(beyond), ACK, 500, &[]);
        assert_eq!(forged, Err(DropReason::TcpWindow), "{beyond}");
        let calls = rig.calls();
        assert!(!calls.iter().any(|c| matches!(c, SocketCall::Discard { .. })), "{calls:?}");
    }
    for old in [1, 1 << 16, 1 << 31] {
        let _ = rig.forged(seq, ack.wrapping_sub(old), ACK, 500, &[]);
        let calls = rig.calls();
        assert!(!calls.iter().any(|c| matches!(c, SocketCall::Discard { .. })), "{calls:?}");
    }
    rig.forged(seq, ack.wrapping_add(1000), ACK, 500, &[]).unwrap();
    assert_eq!(rig.calls(), [SocketCall::Discard { socket, len: 1000 }]);
}

#[test]
fn a_window_that_shrinks_below_what_is_under_way_stops_us_and_loses_nothing() {
    let (mut rig, socket) = Rig::connected(true);
    let (seq, ack) = (rig.seq, rig.ack);
    rig.event(SocketEvent::Readable { socket, hangup: false });
    rig.calls();
    rig.data(socket, &[1; 4000]);
    rig.segments();
    rig.forged(seq, ack.wrapping_add(1000), ACK, 1, &[]).unwrap();
    rig.event(SocketEvent::Readable { socket, hangup: false });
    assert_eq!(rig.calls(), [SocketCall::Discard { socket, len: 1000 }], "no room to send more");
    rig.forged(seq, ack.wrapping_add(4000), ACK, 4, &[]).unwrap();
    let calls = rig.calls();
    assert!(
        matches!(
            calls[..],
            [SocketCall::Discard { len: 3000, .. }, SocketCall::Peek { len: 1024, offset: 0, .. }]
        ),
        "{calls:?}"
    );
}

#[test]
fn the_largest_window_and_scale_ask_for_no_more_than_a_super_frame() {
    for v4 in [true, false] {
        let mut rig = Rig::new(v4);
        let fields = TcpFields { seq: ISN, ack: 0, flags: SYN, window: u16::MAX };
        rig.raw(fields, &[2, 4, 255, 255, 1, 3, 3, 255], &[]).unwrap();
        rig.seq = ISN.wrapping_add(1);
        let socket = rig.socket();
        rig.event(SocketEvent::Connected { socket, room: ROOM });
        rig.ack = rig.segment().seq.wrapping_add(1);
        let (seq, ack) = (rig.seq, rig.ack);
        rig.forged(seq, ack, ACK, u16::MAX, &[]).unwrap();
        rig.calls();
        rig.event(SocketEvent::Readable { socket, hangup: false });
        let calls = rig.calls();
        let [SocketCall::Peek { len, headers, .. }] = calls[..] else { panic!("{calls:?}") };
        assert!(len as usize + usize::from(headers) <= FRAME_MAX, "{len}");
        rig.data(socket, &[1; 3000]);
        let mss = if v4 { 1460 } else { 1440 };
        assert_eq!(rig.segment().gso.1, mss, "an MSS beyond the MTU is not believed");
    }
}

#[test]
fn an_mss_of_nothing_costs_no_frame_a_byte() {
    let mut rig = Rig::new(true);
    let fields = TcpFields { seq: ISN, ack: 0, flags: SYN, window: u16::MAX };
    rig.raw(fields, &[2, 4, 0, 0], &[]).unwrap();
    rig.seq = ISN.wrapping_add(1);
    let socket = rig.socket();
    rig.event(SocketEvent::Connected { socket, room: ROOM });
    rig.ack = rig.segment().seq.wrapping_add(1);
    rig.send(ACK, &[]).unwrap();
    rig.event(SocketEvent::Readable { socket, hangup: false });
    rig.calls();
    rig.data(socket, &[1; 400]);
    assert!(rig.segment().gso.1 >= 88);
}

#[test]
fn streams_go_on_where_both_sequence_numbers_wrap() {
    // The container's begin sixteen before the end of the circle; ours are wherever the hash puts them.
    let (mut rig, socket) = Rig::connected(true);
    assert!(rig.seq > 0xffff_ff00);
    for _ in 0..3 {
        rig.send(ACK, &[1; 40_000]).unwrap();
        assert_eq!(handed(&rig.calls()), [40_000]);
        rig.sent(socket, 40_000);
        assert_eq!(rig.segment().ack, rig.seq);
    }
    // Four thousand million bytes the other way bring ours round.
    let (first, mut wrapped) = (rig.ack, false);
    let mut seen = rig.ack;
    for _ in 0..80_000 {
        rig.event(SocketEvent::Readable { socket, hangup: false });
        rig.calls();
        let step = 60_000_u32;
        // As if they had been sent and acknowledged one by one: the flow only sees numbers.
        rig.data(socket, &[1; 60_000]);
        let out = rig.segment();
        assert_eq!(out.seq, seen);
        seen = seen.wrapping_add(step);
        wrapped |= seen < first;
        rig.ack = seen;
        rig.send(ACK, &[]).unwrap();
        assert_eq!(rig.calls(), [SocketCall::Discard { socket, len: step }]);
        if wrapped {
            break;
        }
    }
    assert!(wrapped);
    assert_eq!(rig.flows.stats().tcp_resent, 0);
}

#[test]
fn impossible_flags_reach_no_socket() {
    let (mut rig, _) = Rig::connected(true);
    let (seq, ack) = (rig.seq, rig.ack);
    for flags in 0..=255_u8 {
        if flags & RST == 0 && (flags & SYN != 0 || flags & ACK == 0) {
            assert!(rig.forged(seq, ack, flags, 500, b"evil").is_err(), "{flags:08b}");
            assert!(handed(&rig.calls()).is_empty(), "{flags:08b}");
        }
    }
    assert_eq!(rig.state(), Some(TcpState::Open));
}

#[test]
fn bytes_behind_the_container_s_fin_are_nobody_s() {
    let (mut rig, socket) = Rig::connected(true);
    rig.send(ACK | FIN, b"end").unwrap();
    rig.send(ACK, b"more").unwrap();
    assert_eq!(handed(&rig.calls()), [3]);
    rig.sent(socket, 3);
    assert_eq!(rig.calls(), [SocketCall::Shutdown { socket }]);
    rig.send(ACK, b"and more").unwrap();
    assert_eq!((rig.calls(), rig.flows.held_bytes()), (vec![], 0));
}
