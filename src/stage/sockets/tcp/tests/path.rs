//! How large segments towards a container may be.

use super::*;

impl Rig {
    /// What a router behind the container says of the segment that began at `seq`.
    fn too_big(&mut self, seq: u32, mtu: u16) -> Option<Result<(), DropReason>> {
        let key = *self.flows.tcp_flows().next().unwrap().key();
        self.flows.path_mtu(PortId(3), &key, (seq, mtu))
    }

    /// Opens a connection on a network with this MTU, to a container that would take anything.
    fn opened(v4: bool, mtu: u16) -> (Self, SocketId, Vec<TcpOption>) {
        let mut rig = Self::new(v4);
        rig.mtu = mtu;
        let fields = TcpFields { seq: ISN, ack: 0, flags: SYN, window: 64_000 };
        rig.raw(fields, &[2, 4, 255, 255, 1, 3, 3, 8], &[]).unwrap();
        rig.seq = ISN.wrapping_add(1);
        let socket = rig.socket();
        rig.event(SocketEvent::Connected { socket, room: ROOM });
        let answer = rig.segment();
        rig.ack = answer.seq.wrapping_add(1);
        rig.send(ACK, &[]).unwrap();
        (rig, socket, answer.options)
    }

    /// So many bytes come from the host; the segment that they become.
    fn outward(&mut self, socket: SocketId, len: usize) -> Seen {
        self.event(SocketEvent::Readable { socket, hangup: false });
        self.calls();
        self.data(socket, &vec![1; len]);
        self.segment()
    }
}

#[test]
fn the_mss_we_tell_and_keep_to_is_the_network_s_mtu_less_headers_in_both_families() {
    for mtu in [1280, 1500, 9000] {
        for (v4, headers) in [(true, 40), (false, 60)] {
            let (mut rig, socket, options) = Rig::opened(v4, mtu);
            assert!(options.contains(&TcpOption::Mss(mtu - headers)), "{options:?}");
            assert_eq!(rig.outward(socket, 40_000).gso.1, mtu - headers);
        }
    }
}

#[test]
fn a_hop_behind_the_container_that_takes_less_makes_segments_smaller_and_has_them_again() {
    for (v4, mss) in [(true, 1360), (false, 1340)] {
        let (mut rig, socket, _) = Rig::opened(v4, 1500);
        let first = rig.outward(socket, 20_000);
        assert_eq!(rig.too_big(first.seq, 1400), Some(Ok(())));
        let calls = rig.calls();
        let again = SocketCall::SetPeekOffset { socket, offset: 0 };
        assert!(calls.contains(&again), "{calls:?}");
        rig.data(socket, &[1; 20_000]);
        let second = rig.segment();
        assert_eq!((second.seq, second.gso.1), (first.seq, mss));
        rig.ack = second.seq.wrapping_add(20_000);
        rig.send(ACK, &[]).unwrap();
        assert!(rig.calls().contains(&SocketCall::Discard { socket, len: 20_000 }));
        assert_eq!(rig.outward(socket, 9_000).gso.1, mss, "it stays so");
    }
}

#[test]
fn a_smaller_segment_is_not_for_ever() {
    for (v4, mss, small) in [(true, 1460, 1360), (false, 1440, 1340)] {
        let (mut rig, socket, _) = Rig::opened(v4, 1500);
        let narrow = |rig: &mut Rig| {
            let first = rig.outward(socket, 20_000);
            assert_eq!(first.gso.1, mss);
            rig.too_big(first.seq, 1400).unwrap().unwrap();
            rig.calls();
            rig.data(socket, &[1; 20_000]);
            rig.ack = rig.segment().seq.wrapping_add(20_000);
            rig.send(ACK, &[]).unwrap();
            rig.calls();
        };
        for _ in 0..2 {
            narrow(&mut rig);
            for _ in 0..9 {
                rig.wait(Span::from_secs(60));
                let seen = rig.outward(socket, 9_000);
                assert_eq!(seen.gso.1, small, "RFC 8201 5.3: not before ten minutes");
                rig.ack = seen.seq.wrapping_add(9_000);
                rig.send(ACK, &[]).unwrap();
                rig.calls();
            }
            // Then the path is tried anew, and if it is still narrow it says so again.
            rig.wait(Span::from_secs(60));
        }
    }
}

#[test]
fn a_forged_too_big_error_changes_nothing_and_a_true_one_has_a_floor() {
    for (v4, floor) in [(true, 552 - 40), (false, 1280 - 60)] {
        let (mut rig, socket, _) = Rig::opened(v4, 1500);
        let unrelated = Some(Err(DropReason::IcmpUnrelated));
        assert_eq!(rig.too_big(rig.ack, 1300), unrelated, "nothing is under way");
        let first = rig.outward(socket, 20_000);
        for off in [20_000, 1 << 31, u32::MAX] {
            assert_eq!(rig.too_big(first.seq.wrapping_add(off), 1300), unrelated, "{off}");
        }
        let key = *rig.flows.tcp_flows().next().unwrap().key();
        assert_eq!(rig.flows.path_mtu(PortId(4), &key, (first.seq, 1300)), None, "a stranger");
        assert_eq!(rig.calls(), []);
        rig.too_big(first.seq, 9_000).unwrap().unwrap();
        assert_eq!(rig.calls(), [], "it never grows");
        rig.too_big(first.seq, 0).unwrap().unwrap();
        rig.calls();
        rig.data(socket, &[1; 20_000]);
        assert_eq!(rig.segment().gso.1, floor);
    }
}
