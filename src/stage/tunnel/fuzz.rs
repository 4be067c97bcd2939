//! Foreign datagrams, opened and merged: nothing panics, and what was merged can be cut again.

use super::vxlan;
use crate::packet::merge::{Merged, Merger};
use crate::packet::split::segment_count;
use crate::packet::{FrameBatch, Gso};

/// Every byte of the frames is the sender's choice, and so is where datagrams of a train end.
///
/// The first byte says how large segments are, the second how wide the tunnel is.
pub fn fuzz(data: &[u8]) {
    let Some((&[size, width], train)) = data.split_first_chunk::<2>() else { return };
    let segment = 22 + usize::from(size);
    let mtu = 68 + u16::from(width) * 8;
    let (mut batch, mut merger) = (FrameBatch::new(), Merger::default());
    let (mut joined, mut bytes) = (0, 0);
    for datagram in train.chunks(segment) {
        let Ok(inner) = vxlan::open(datagram) else { continue };
        assert_eq!(inner.frame.len() + 8, datagram.len());
        match merger.push(&mut batch, inner.frame, mtu) {
            Ok(Merged::Joined) => joined += 1,
            Ok(Merged::Alone) => bytes = inner.frame.len().max(bytes),
            Ok(Merged::Full) => break,
            Err(_) => {}
        }
    }
    merger.finish(&mut batch);
    let mut segments = 0;
    for at in 0..batch.len() {
        let parsed = batch.frame(at).parse().expect("a frame that was taken in is one");
        let offload = batch.offload(at);
        segments += segment_count(&parsed, offload, batch.bytes(at));
        assert!(offload.gso == Gso::None || usize::from(offload.gso_size) <= bytes);
    }
    assert!(segments >= batch.len() + joined, "what has joined can be told apart again");
}
