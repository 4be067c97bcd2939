//! Frames as a container sends them, for the tests of this folder.

use crate::packet::{Csum, Offload, PacketBuf};
use crate::stage::sockets::headers::{self, Link, TcpFields};
use crate::wire::addr::Addr;
use crate::wire::mac::Mac;
use crate::{base::ids::DomainId, packet::FlowKey, packet::Scope};

pub(super) const INSIDE: Mac = Mac([2, 66, 172, 17, 0, 2]);
pub(super) const GATEWAY: Mac = Mac([2, 66, 172, 17, 0, 1]);
/// From the container to the gateway: the writers of `headers` go the other way.
const OUTWARDS: Link = Link { inside: GATEWAY, gateway: INSIDE };

fn key(src: Addr, src_port: u16, dst: Addr, dst_port: u16) -> FlowKey {
    let (domain, scope) = (DomainId(1), Scope::Routed);
    FlowKey { src: dst, dst: src, src_port: dst_port, dst_port: src_port, domain, proto: 0, scope }
}

pub(super) fn udp(src: Addr, src_port: u16, dst: Addr, dst_port: u16, data: &[u8]) -> PacketBuf {
    udp_train(src, src_port, dst, dst_port, data, None)
}

pub(super) fn udp_train(
    src: Addr,
    src_port: u16,
    dst: Addr,
    dst_port: u16,
    data: &[u8],
    segment: Option<u16>,
) -> PacketBuf {
    let mut bytes = vec![0; headers::udp_headers(src.is_v4())];
    bytes.extend_from_slice(data);
    let key = key(src, src_port, dst, dst_port);
    let offload = headers::write_udp(&mut bytes, OUTWARDS, &key, segment);
    PacketBuf::new(&bytes, offload)
}

pub(super) fn tcp(
    (src, src_port): (Addr, u16),
    (dst, dst_port): (Addr, u16),
    fields: TcpFields,
    options: &[u8],
    data: &[u8],
) -> PacketBuf {
    let mut bytes = vec![0; headers::tcp_headers(src.is_v4())];
    bytes.extend_from_slice(options);
    bytes.extend_from_slice(data);
    let key = key(src, src_port, dst, dst_port);
    let offload = headers::write_tcp(&mut bytes, OUTWARDS, &key, fields, options.len(), 1448);
    debug_assert!(matches!(offload.csum, Csum::Partial { .. }));
    PacketBuf::new(&bytes, Offload { ..offload })
}
