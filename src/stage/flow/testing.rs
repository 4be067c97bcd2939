//! Keys for the tests of this folder.

use zerocopy::IntoBytes;

use crate::base::ids::{DomainId, NetworkId, UplinkId};
use crate::packet::{FlowKey, Scope};
use crate::wire::addr::Addr;
use crate::wire::ipv4::Ipv4;
use crate::wire::ipv6::Ipv6;

pub(super) fn addr(v6: bool, n: u32) -> Addr {
    if v6 {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&[0xfd, 0x01]);
        bytes[12..].copy_from_slice(&n.to_be_bytes());
        Addr::from_v6_bytes(bytes)
    } else {
        Addr::from_v4_bits(0x0a00_0000 | n & 0x00ff_ffff)
    }
}

pub(super) fn outside(v6: bool) -> Addr {
    if v6 { "2001:db8::1" } else { "203.0.113.1" }.parse().unwrap()
}

/// The two keys of bridged flow `n`: another source address for each.
pub(super) fn keys(v6: bool, proto: u8, n: u32) -> [FlowKey; 2] {
    let domain = DomainId::from(NetworkId(1));
    let there = FlowKey {
        src: addr(v6, n),
        dst: addr(v6, 0x00fe_0000),
        src_port: 40_000,
        dst_port: 80,
        domain,
        proto,
        scope: Scope::Bridged,
    };
    [there, there.reversed(domain, Scope::Bridged)]
}

/// The two keys of flow `n` behind one outside address: another outside port for each.
pub(super) fn masqueraded(v6: bool, proto: u8, n: u32) -> [FlowKey; 2] {
    let there = FlowKey { scope: Scope::Routed, ..keys(v6, proto, n)[0] };
    let mut back = there.reversed(DomainId::from(UplinkId(0)), Scope::Routed);
    back.dst = outside(v6);
    back.dst_port = 1_024 + n as u16;
    [there, back]
}

/// A frame with `payload` as an IP packet's, from address 1 to address 2, the IP checksum right.
pub(super) fn ip_frame(v6: bool, proto: u8, payload: &[u8]) -> Vec<u8> {
    ip_frame_between(addr(v6, 1), addr(v6, 2), proto, payload)
}

pub(super) fn ip_frame_between(src: Addr, dst: Addr, proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend(if src.is_v4() { [0x08, 0x00] } else { [0x86, 0xdd] });
    frame.extend(ip_packet(src, dst, proto, payload));
    frame
}

pub(super) fn ip_packet(src: Addr, dst: Addr, proto: u8, payload: &[u8]) -> Vec<u8> {
    let len = payload.len() as u16;
    let mut packet = if src.is_v4() {
        let mut header = Ipv4::new(src, dst, proto, len);
        header.fill_checksum();
        header.as_bytes().to_vec()
    } else {
        Ipv6::new(src, dst, proto, len).as_bytes().to_vec()
    };
    packet.extend(payload);
    packet
}
