//! `Merger`: cut again, its super-frames give the frames they were made of.

use proptest::prelude::*;
use zerocopy::FromBytes;

use super::super::merge::{Merged, Merger};
use super::super::split::Segments;
use super::super::{DropReason, FrameBatch, Gso, Offload, PacketBuf};
use super::{L4, Spec, example};
use crate::wire::tcp::{ACK, CWR, ECE, FIN, PSH, SYN};
use crate::wire::vnet::VnetHeader;

const OPTIONS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];

fn tcp(v6: bool, seq: u32, flags: u8, payload: usize) -> Spec {
    let payload = (0..payload).map(|n| n as u8 ^ seq as u8).collect();
    Spec { l4: L4::Tcp(flags, OPTIONS.to_vec()), seq, df: true, payload, ..example(v6) }
}

fn udp(v6: bool, payload: usize) -> Spec {
    Spec { l4: L4::Udp(true), df: true, payload: vec![7; payload], ..example(v6) }
}

/// What is written: virtio-net header and frame of each, and how many frames it was made of.
fn written(frames: &[(Vec<u8>, Offload)]) -> Vec<(Vec<u8>, usize)> {
    let (mut batch, mut merger) = (FrameBatch::new(), Merger::default());
    let mut counts: Vec<usize> = Vec::new();
    let mut writes = Vec::new();
    let mut next = 0;
    while let Some((frame, _)) = frames.get(next) {
        next += 1;
        match merger.push(&mut batch, frame, u16::MAX).unwrap() {
            Merged::Joined => *counts.last_mut().unwrap() += 1,
            Merged::Alone => counts.push(1),
            Merged::Full => {
                take(&mut batch, &mut counts, &mut writes);
                next -= 1;
            }
        }
    }
    merger.finish(&mut batch);
    take(&mut batch, &mut counts, &mut writes);
    writes
}

fn take(batch: &mut FrameBatch, counts: &mut Vec<usize>, writes: &mut Vec<(Vec<u8>, usize)>) {
    for (at, count) in counts.drain(..).enumerate() {
        writes.push((batch.with_vnet_header(at).to_vec(), count));
    }
    batch.clear();
}

fn counts(specs: &[Spec]) -> Vec<usize> {
    let frames: Vec<_> = specs.iter().map(|spec| (spec.build(), Offload::NONE)).collect();
    written(&frames).into_iter().map(|(_, count)| count).collect()
}

/// What the receiver makes of a write: the kernel's checks, then segments.
fn received(write: &[u8]) -> Vec<Vec<u8>> {
    let (header, frame) = VnetHeader::read_from_prefix(write).unwrap();
    let offload = Offload::from_vnet(&header, frame.len()).unwrap();
    let mut buf = PacketBuf::new(frame, offload);
    let parsed = buf.frame().parse().unwrap();
    assert_eq!(parsed.ip_len as usize + 14, frame.len());
    assert!(parsed.ipv4_checksum_is_right(frame));
    if offload.gso == Gso::None {
        return vec![frame.to_vec()];
    }
    let mut segments = Segments::new(buf.frame(), &parsed).unwrap();
    let mut found = Vec::new();
    while let Some(segment) = segments.next() {
        found.push(segment.bytes().to_vec());
    }
    found
}

/// A frame without what DF makes meaningless (RFC 6864).
fn without_id(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[12..14] == [8, 0] && frame[20] & 0x40 != 0 {
        frame[18..20].fill(0);
        frame[24..26].fill(0);
    }
    frame
}

/// One step of one of a few flows.
#[derive(Clone, Debug)]
struct Step {
    flow: usize,
    kind: u8,
    size: usize,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0_usize..4, 0_u8..39, prop_oneof![Just(1000_usize), Just(300), 1_usize..1000])
        .prop_map(|(flow, kind, size)| Step { flow, kind, size });
    prop::collection::vec(step, 1..60)
}

/// Plays the steps: mostly data in order, sometimes what must not merge.
fn play(steps: &[Step], v6: bool) -> Vec<(Vec<u8>, Offload)> {
    let mut seq = [0_u32, 1000, u32::MAX - 2000, 7];
    let mut ids = [0_u16, 65_530, 100, 200];
    let mut frames = Vec::new();
    for step in steps {
        let is_udp = step.flow == 3;
        let mut spec =
            if is_udp { udp(v6, step.size) } else { tcp(v6, seq[step.flow], ACK, step.size) };
        spec.ports[0] = 1000 + step.flow as u16;
        spec.id = ids[step.flow];
        spec.df = step.flow != 1;
        ids[step.flow] = ids[step.flow].wrapping_add(1);
        match (step.kind, &mut spec.l4) {
            (30, L4::Tcp(flags, _)) => *flags |= PSH,
            (31, L4::Tcp(flags, _)) => *flags |= FIN,
            (32, L4::Tcp(flags, _)) => *flags |= CWR,
            (33, L4::Tcp(flags, _)) => *flags |= ECE,
            (34, L4::Tcp(..)) => spec.payload.clear(),
            (35, L4::Tcp(_, options)) => options[7] = 9,
            (36, _) => spec.ttl = 63,
            (37, L4::Tcp(..)) => seq[step.flow] = seq[step.flow].wrapping_add(1),
            (38, _) => spec.id = 9999,
            _ => {}
        }
        seq[step.flow] = seq[step.flow].wrapping_add(spec.payload.len() as u32);
        let unfinished = step.kind % 2 == 0;
        frames.push(if unfinished { spec.build_partial() } else { (spec.build(), Offload::NONE) });
    }
    frames
}

/// The frame with its checksum finished, as the receiver sees it.
fn finished((frame, offload): &(Vec<u8>, Offload)) -> Vec<u8> {
    let mut buf = PacketBuf::new(frame, *offload);
    super::super::finish::finish_checksum(&mut buf.frame());
    buf.bytes().to_vec()
}

proptest! {
    #[test]
    fn super_frames_cut_again_are_the_frames_they_were_made_of(steps in steps(), v6: bool) {
        let frames = play(&steps, v6);
        let writes = written(&frames);
        prop_assert_eq!(writes.iter().map(|(_, count)| count).sum::<usize>(), frames.len());
        let found = writes.iter().flat_map(|(write, count)| {
            let mut segments = received(write);
            assert_eq!(segments.len(), *count);
            if *count == 1 {
                // Written as it came, its checksum perhaps still unfinished.
                let (header, frame) = VnetHeader::read_from_prefix(write).unwrap();
                let offload = Offload::from_vnet(&header, frame.len()).unwrap();
                segments = vec![finished(&(frame.to_vec(), offload))];
            }
            segments
        });
        let sent: Vec<_> = frames.iter().map(finished).map(without_id).collect();
        prop_assert_eq!(found.map(without_id).collect::<Vec<_>>(), sent);
    }
}

#[test]
fn a_stream_becomes_one_write() {
    for v6 in [false, true] {
        let segment = |n: u32, len| tcp(v6, 1000 + n * 500, ACK, len);
        let mut stream: Vec<Spec> = (0..20).map(|n| segment(n, 500)).collect();
        stream.push(tcp(v6, 1000 + 20 * 500, ACK | PSH, 77));
        assert_eq!(counts(&stream), [21]);
        let frames: Vec<_> = stream.iter().map(|spec| (spec.build(), Offload::NONE)).collect();
        let (write, _) = &written(&frames)[0];
        let flags_at = 10 + if v6 { 54 } else { 34 } + 13;
        assert_eq!(write[flags_at], ACK | PSH, "the last one's push is the whole's");
    }
}

#[test]
fn datagrams_of_one_size_become_one_write_and_a_shorter_one_ends_it() {
    for v6 in [false, true] {
        let sizes = [200, 200, 200, 50, 50, 200];
        assert_eq!(counts(&sizes.map(|size| udp(v6, size))), [4, 1, 1]);
    }
}

#[test]
fn datagrams_without_checksum_merge_in_ipv4_alone() {
    let of = |v6| Spec { l4: L4::Udp(false), ..udp(v6, 100) };
    assert_eq!(counts(&[of(false), of(false)]), [2]);
    assert_eq!(counts(&[of(true), of(true)]), [1, 1]);
}

/// A second segment that differs by one thing does not merge.
fn refuses(what: &str, change: impl Fn(&mut Spec)) {
    for v6 in [false, true] {
        let first = tcp(v6, 1000, ACK, 100);
        let mut second = tcp(v6, 1100, ACK, 100);
        assert_eq!(counts(&[first.clone(), second.clone()]), [2]);
        change(&mut second);
        assert_eq!(counts(&[first, second]), [1, 1], "{what}");
    }
}

#[test]
fn what_cutting_would_not_restore_keeps_segments_apart() {
    refuses("a hole", |s| s.seq += 1);
    refuses("a repetition", |s| s.seq -= 100);
    refuses("a larger segment", |s| s.payload.push(0));
    refuses("another hop limit", |s| s.ttl -= 1);
    refuses("another port", |s| s.ports[1] += 1);
    refuses("another address", |s| s.src[15] += 1);
    refuses("other options", |s| s.l4 = L4::Tcp(ACK, vec![1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 2]));
    refuses("fewer options", |s| s.l4 = L4::Tcp(ACK, vec![1; 4]));
    refuses("an echo of congestion", |s| s.l4 = L4::Tcp(ACK | ECE, OPTIONS.to_vec()));
    for flags in [SYN, FIN, CWR] {
        refuses("a flag", |s| s.l4 = L4::Tcp(ACK | flags, OPTIONS.to_vec()));
    }
}

#[test]
fn a_differing_congestion_mark_keeps_segments_apart() {
    for (v6, at) in [(false, 15), (true, 15)] {
        let mut frames = [1000, 1100].map(|seq| (tcp(v6, seq, ACK, 100).build(), Offload::NONE));
        frames[1].0[at] ^= if v6 { 0x10 } else { 0x01 };
        if !v6 {
            let sum = !super::plain_sum(&[&frames[1].0[14..24], &frames[1].0[26..34]]);
            frames[1].0[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        assert_eq!(written(&frames).len(), 2);
    }
}

#[test]
fn a_damaged_frame_is_not_healed_by_merging() {
    for v6 in [false, true] {
        for damaged in 0..3 {
            let mut frames =
                [1000, 1100, 1200].map(|seq| (tcp(v6, seq, ACK, 100).build(), Offload::NONE));
            let last = frames[damaged].0.len() - 1;
            frames[damaged].0[last] ^= 1;
            let writes = written(&frames);
            let alone = writes
                .iter()
                .find(|(write, count)| *count == 1 && write[10..] == frames[damaged].0);
            assert!(alone.is_some(), "{damaged}");
        }
    }
}

#[test]
fn an_identification_that_means_something_must_count_up() {
    let segment = |seq, id, df| Spec { id, df, ..tcp(false, seq, ACK, 100) };
    assert_eq!(counts(&[segment(1000, 5, false), segment(1100, 6, false)]), [2]);
    assert_eq!(counts(&[segment(1000, 5, false), segment(1100, 5, false)]), [1, 1]);
    assert_eq!(counts(&[segment(1000, 5, true), segment(1100, 5, true)]), [2]);
}

#[test]
fn whatever_comes_between_parts_a_stream() {
    for v6 in [false, true] {
        let data = |seq| tcp(v6, seq, ACK, 100);
        assert_eq!(counts(&[data(1000), tcp(v6, 1100, ACK, 0), data(1100)]), [1, 1, 1]);
        assert_eq!(counts(&[data(1000), udp(v6, 9), data(1100)]), [1, 1, 1]);
    }
    let data = |seq| (tcp(false, seq, ACK, 100).build(), Offload::NONE);
    let [first, _] = udp(false, 100).build_fragments(64);
    assert_eq!(written(&[data(1000), (first, Offload::NONE), data(1100)]).len(), 3);
}

#[test]
fn no_super_frame_is_longer_than_an_ip_packet() {
    for v6 in [false, true] {
        let segments: Vec<Spec> = (0..9).map(|n| tcp(v6, n * 9000, ACK, 9000)).collect();
        assert_eq!(counts(&segments), [7, 2]);
    }
}

/// What a frame became, given alone.
fn alone(frame: &[u8], mtu: u16) -> Result<PacketBuf, DropReason> {
    let (mut batch, mut merger) = (FrameBatch::new(), Merger::default());
    merger.push(&mut batch, frame, mtu)?;
    merger.finish(&mut batch);
    Ok(batch.frame(0).to_owned())
}

#[test]
fn what_a_kernel_left_uncut_and_unfinished_is_a_super_frame() {
    for v6 in [false, true] {
        let (frame, offload) = tcp(v6, 1000, ACK | PSH, 9000).build_partial();
        let whole = alone(&frame, 1450).unwrap();
        let headers = if v6 { 72 } else { 52 };
        let gso = if v6 { Gso::TcpV6 } else { Gso::TcpV4 };
        assert_eq!((whole.offload().gso, whole.offload().gso_size), (gso, 1450 - headers));
        assert_eq!((whole.bytes(), whole.offload().csum), (&frame[..], offload.csum));
        let (frame, offload) = tcp(v6, 1000, ACK | PSH, 900).build_partial();
        assert_eq!(alone(&frame, 1450).unwrap().offload(), offload, "small enough, and unfinished");
        let (frame, _) = udp(v6, 3000).build_partial();
        assert_eq!(alone(&frame, 1450).unwrap_err(), DropReason::CannotSplit);
    }
}

#[test]
fn what_is_finished_is_left_as_it_came() {
    for v6 in [false, true] {
        for spec in [tcp(v6, 1000, ACK, 9000), tcp(v6, 1000, SYN, 0), udp(v6, 3000)] {
            let frame = spec.build();
            let same = alone(&frame, 1450).unwrap();
            assert_eq!((same.bytes(), same.offload()), (&frame[..], Offload::NONE));
        }
    }
}
