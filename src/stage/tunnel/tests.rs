//! Bytes of datagrams, against frames that an independent library wrote.

use etherparse::PacketBuilder;

use super::vxlan::{Inner, open};
use super::{Link, TunnelOutput, Wrap};
use crate::base::ids::PortId;
use crate::packet::{Csum, DropReason, FrameBatch, Gso, Offload, PacketBuf, Parsed};
use crate::wire::addr::Addr;
use crate::wire::mac::Mac;

const LINK: Link = Link {
    port: PortId(9),
    to: (Addr::from_v4_bits(0xc000_0202), 4789),
    wrap: Wrap::Vxlan { vni: 0x12_3456 },
};
const V6: [[u8; 16]; 2] = [[0xfd; 16], [0xfe; 16]];

fn tcp(v6: bool, seq: u32, payload: &[u8]) -> Vec<u8> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ip = if v6 {
        link.ipv6(V6[0], V6[1], 64)
    } else {
        link.ipv4([10, 244, 1, 2], [10, 244, 2, 2], 64)
    };
    let mut frame = Vec::new();
    ip.tcp(40000, 443, seq, 502).ack(7).write(&mut frame, payload).unwrap();
    frame
}

fn udp(port: u16, payload: usize) -> Vec<u8> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let mut frame = Vec::new();
    let ip = link.ipv4([10, 244, 1, 2], [10, 244, 2, 2], 64);
    ip.udp(port, 53).write(&mut frame, &vec![7; payload]).unwrap();
    frame
}

/// The same frame as a sender leaves it that has its device finish checksums.
fn unfinished(mut frame: Vec<u8>) -> (Vec<u8>, Csum) {
    let parsed = Parsed::new(&frame).unwrap();
    let (l4, len) = (usize::from(parsed.l4), parsed.l4_len() as u32);
    let pseudo = crate::wire::checksum::pseudo_header(parsed.src, parsed.dst, 6, len);
    frame[l4 + 16..l4 + 18].copy_from_slice(&pseudo.to_be_bytes());
    (frame, Csum::Partial { start: parsed.l4, offset: 16 })
}

/// The datagrams of each train.
fn datagrams(out: &TunnelOutput, batch: &FrameBatch) -> Vec<Vec<Vec<u8>>> {
    let train = |train| {
        let bytes: Vec<u8> = out.pieces(train, batch).flatten().copied().collect();
        assert_eq!(bytes.len(), train.bytes as usize);
        let cut: Vec<_> = bytes.chunks(train.segment as usize).map(<[u8]>::to_vec).collect();
        assert_eq!(cut.len(), train.count as usize);
        cut
    };
    out.trains().iter().map(train).collect()
}

fn wrapped(frames: &[(Vec<u8>, Offload)]) -> Vec<Vec<Vec<u8>>> {
    let (mut batch, mut out) = (FrameBatch::new(), TunnelOutput::default());
    for (at, (frame, offload)) in frames.iter().enumerate() {
        assert!(batch.push(frame, *offload));
        out.wrap(&LINK, at, &mut batch).unwrap();
    }
    datagrams(&out, &batch)
}

const HEADER: [u8; 8] = [8, 0, 0, 0, 0x12, 0x34, 0x56, 0];

#[test]
fn a_frame_travels_as_it_is_behind_eight_bytes() {
    for v6 in [false, true] {
        let frame = tcp(v6, 1, b"hello");
        let sent = wrapped(&[(frame.clone(), Offload::NONE)]);
        assert_eq!(sent, [[[&HEADER[..], &frame].concat()]]);
        let inner = open(&sent[0][0]).unwrap();
        let (dst, src) = (Mac([2, 0, 0, 0, 0, 2]), Mac([2, 0, 0, 0, 0, 1]));
        assert_eq!(inner, Inner { vni: 0x12_3456, dst, src, frame: &frame });
    }
}

#[test]
fn an_unfinished_checksum_is_finished_before_it_leaves() {
    for v6 in [false, true] {
        let (bare, csum) = unfinished(tcp(v6, 1, b"hello"));
        let sent = wrapped(&[(bare, Offload { csum, ..Offload::NONE })]);
        assert_eq!(sent[0][0][8..], tcp(v6, 1, b"hello"));
    }
}

#[test]
fn a_super_frame_leaves_as_a_train_of_the_segments_it_stands_for() {
    for (v6, gso) in [(false, Gso::TcpV4), (true, Gso::TcpV6)] {
        let payload: Vec<u8> = (0..3500_u32).map(|n| n as u8).collect();
        let (whole, csum) = unfinished(tcp(v6, 100, &payload));
        let offload = Offload { gso, gso_size: 1000, csum, ecn: false };
        let sent = wrapped(&[(whole, offload)]);
        let expected: Vec<Vec<u8>> = payload
            .chunks(1000)
            .enumerate()
            .map(|(n, piece)| {
                let mut frame = tcp(v6, 100 + n as u32 * 1000, piece);
                if !v6 {
                    // Segments are numbered (RFC 6864); the one built here is not.
                    frame[18..20].copy_from_slice(&(n as u16).to_be_bytes());
                    let old = u16::from_be_bytes([frame[24], frame[25]]);
                    let new = crate::wire::checksum::update(old, n as u16);
                    frame[24..26].copy_from_slice(&new.to_be_bytes());
                }
                [&HEADER[..], &frame].concat()
            })
            .collect();
        assert!(sent == [expected], "a segment differs");
    }
}

#[test]
fn a_super_frame_that_is_too_long_with_its_headers_makes_two_trains() {
    let (whole, csum) = unfinished(tcp(false, 100, &vec![9; 65_000]));
    let offload = Offload { gso: Gso::TcpV4, gso_size: 1398, csum, ecn: false };
    let sent = wrapped(&[(whole, offload)]);
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|train| train.iter().map(Vec::len).sum::<usize>() <= 65_507));
    assert_eq!(sent.iter().map(Vec::len).sum::<usize>(), 65_000_usize.div_ceil(1398));
}

#[test]
fn small_frames_of_one_flow_make_trains_and_other_flows_make_others() {
    let frame = |port, size| (udp(port, size), Offload::NONE);
    let sent = wrapped(&[
        frame(1, 100),
        frame(1, 100),
        frame(1, 60),
        frame(1, 100),
        frame(2, 100),
        frame(2, 100),
    ]);
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [3, 1, 2]);
    let many: Vec<_> = (0..64).map(|_| frame(1, 18)).collect();
    assert_eq!(wrapped(&many).iter().map(Vec::len).collect::<Vec<_>>(), [63, 1]);
}

#[test]
fn a_frame_of_its_own_is_wrapped_alike() {
    let (batch, mut out) = (FrameBatch::new(), TunnelOutput::default());
    out.wrap_owned(&LINK, PacketBuf::new(&udp(1, 10), Offload::NONE)).unwrap();
    out.wrap_owned(&LINK, PacketBuf::new(&udp(1, 10), Offload::NONE)).unwrap();
    let one = [&HEADER[..], &udp(1, 10)].concat();
    assert_eq!(datagrams(&out, &batch), [[one.clone(), one]]);
}

#[test]
fn what_is_no_vxlan_or_too_short_is_refused() {
    let good = [&HEADER[..], &udp(1, 10)].concat();
    for len in 0..22 {
        assert_eq!(open(&good[..len]), Err(DropReason::TunnelHeader), "{len}");
    }
    assert!(open(&good[..22]).is_ok(), "what is in the frame is looked at later");
    let mut unsaid = good.clone();
    unsaid[0] = 0;
    assert_eq!(open(&unsaid), Err(DropReason::TunnelHeader));
}
