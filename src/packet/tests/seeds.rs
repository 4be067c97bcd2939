//! The seeds of the fuzz target `parse`: reads from a TAP, good ones and evil ones, under their names.
//!
//! They lie in `fuzz/corpus/parse` as files, because a fuzzer wants files; this test says how each is
//! made. After a change here, `WHARF_WRITE_SEEDS=1 cargo test --lib seeds` writes them anew.

use std::path::PathBuf;

use zerocopy::IntoBytes;

use super::super::{Csum, Gso, Offload, Parsed};
use super::{L4, Spec, example};
use crate::wire::tcp::{ACK, CWR, FIN, PSH, SYN};

/// What a `read` from the TAP would give.
fn read(frame: &[u8], offload: Offload) -> Vec<u8> {
    [offload.to_vnet(0).as_bytes(), frame].concat()
}

fn plain(frame: &[u8]) -> Vec<u8> {
    read(frame, Offload::NONE)
}

fn super_frame(spec: &Spec, gso: Gso, gso_size: u16) -> Vec<u8> {
    let (frame, offload) = spec.build_partial();
    read(&frame, Offload { gso, gso_size, ..offload })
}

fn unfinished(frame: &[u8], start: u16, offset: u16) -> Vec<u8> {
    read(frame, Offload { csum: Csum::Partial { start, offset }, ..Offload::NONE })
}

/// A frame with some of its bytes changed.
fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

fn good() -> Vec<(&'static str, Vec<u8>)> {
    let syn = L4::Tcp(SYN, vec![2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]);
    let last = L4::Tcp(ACK | PSH | FIN | CWR, vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    let of = |v6, l4: &L4| Spec { l4: l4.clone(), ..example(v6) };
    let empty = |v6, l4: &L4| Spec { payload: Vec::new(), ..of(v6, l4) };
    let long = |v6, l4: &L4| Spec { payload: vec![0x5a; 500], ..of(v6, l4) };
    let chain = vec![(0, 0), (60, 1), (43, 0)];
    // Who has fe80::…, with the asker's link-layer address.
    let solicitation =
        [&[135, 0, 0, 0, 0, 0, 0, 0][..], &[0xfe; 16], &[1, 1, 2, 0x42, 10, 0, 0, 1]].concat();
    let mut arp = vec![0; 42];
    arp[..14].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 66, 10, 0, 0, 1, 8, 6]);
    arp[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    let [first, later] = of(false, &L4::Udp(true)).build_fragments(64);
    let [first6, later6] = of(true, &L4::Udp(true)).build_fragments(64);
    vec![
        ("tcp_syn", plain(&empty(false, &syn).build())),
        ("tcp_syn_ipv6", plain(&empty(true, &syn).build())),
        ("tcp_unfinished", {
            let (frame, offload) = of(false, &last).build_partial();
            read(&frame, offload)
        }),
        ("tso_ipv4", super_frame(&long(false, &last), Gso::TcpV4, 100)),
        ("tso_ipv6", super_frame(&long(true, &last), Gso::TcpV6, 99)),
        ("uso_ipv4", super_frame(&long(false, &L4::Udp(true)), Gso::UdpL4, 200)),
        ("uso_ipv6", super_frame(&long(true, &L4::Udp(true)), Gso::UdpL4, 250)),
        ("udp_without_checksum", plain(&of(false, &L4::Udp(false)).build())),
        ("echo_request", plain(&of(false, &L4::Echo(false)).build())),
        ("echo_reply_ipv6", plain(&of(true, &L4::Echo(true)).build())),
        ("packet_too_big", plain(&of(true, &L4::IcmpError).build())),
        ("sctp", plain(&of(false, &L4::Sctp).build())),
        ("ndp_ns", plain(&of(true, &L4::Echo(false)).frame(&solicitation, None))),
        ("arp_request", plain(&arp)),
        ("ipv4_options", plain(&Spec { ip_options: 10, ..of(false, &last) }.build())),
        ("ipv6_ext_chain", plain(&Spec { extensions: chain, ..of(true, &last) }.build())),
        ("fragment_first", plain(&first)),
        ("fragment_later", plain(&later)),
        ("fragment_first_ipv6", plain(&first6)),
        ("fragment_later_ipv6", plain(&later6)),
        ("tunnel_with_unfinished_inside", unfinished(&long(false, &L4::Udp(true)).build(), 92, 16)),
    ]
}

fn evil() -> Vec<(&'static str, Vec<u8>)> {
    let (v4, v6) = (example(false), example(true));
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 172, 17, 0, 2];
    let endless = Spec { extensions: vec![(60, 0); 40], ..v6.clone() };
    let many = Spec { payload: vec![0; 300], ..v4.clone() };
    vec![
        ("hostile_gso", super_frame(&many, Gso::TcpV4, 1)),
        ("hostile_gso_of_another_protocol", super_frame(&v4, Gso::TcpV6, 10)),
        ("hostile_checksum_over_a_port", unfinished(&v4.build(), 34, 2)),
        ("hostile_checksum_over_an_address", unfinished(&v6.build(), 36, 4)),
        ("hostile_checksum_beyond_the_end", unfinished(&v4.build(), 65_530, 16)),
        ("mapped_source", plain(&with(v6.build(), 22, &mapped))),
        ("endless_extensions", plain(&endless.build())),
        ("second_fragment_header", {
            let spec = Spec { extensions: vec![(44, 0)], ..v6.clone() };
            plain(&spec.frame(&[0; 64], Some((0, true))))
        }),
        ("ping_of_death", plain(&v4.frame(&[0; 64], Some((65_520, false))))),
        ("fragment_over_tcp_flags", plain(&v4.frame(&[0; 64], Some((8, true))))),
        ("ipv4_shorter_than_its_header", plain(&with(v4.build(), 16, &[0, 19]))),
        ("tcp_header_beyond_the_end", plain(&with(v4.build(), 46, &[0xf0]))[..70].to_vec()),
        ("vlan_tagged", plain(&with(v4.build(), 12, &[0x81, 0, 0, 1, 8, 0]))),
        ("virtio_header_alone", plain(&[])),
    ]
}

#[test]
fn the_fuzzer_s_seeds_are_what_their_names_say() {
    for (name, bytes) in good() {
        assert!(Parsed::new(&bytes[10..]).is_ok(), "{name}");
    }
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/parse");
    let write = std::env::var_os("WHARF_WRITE_SEEDS").is_some();
    for (name, bytes) in good().into_iter().chain(evil()) {
        let path = folder.join(name);
        if write {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        let found = std::fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found, bytes, "{name} is not what this file says");
    }
}
