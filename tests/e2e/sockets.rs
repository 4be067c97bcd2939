//! The socket uplink between real kernels: container, host with veth, and a peer behind it.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use wharf::io::host_listen::{Listener, Transport};
use wharf::io::host_sockets::Features;
use wharf::io::netlink::Netlink;
use wharf::io::netns::{NetNs, in_namespace};

use crate::support::{PATIENCE, configure, connect_in, isolated, listener_in, udp_in};
use crate::uplink::{Uplink, container};

/// What is sent each way.
const BYTES: usize = 64 << 20;

/// A namespace behind a veth of the host's: the outside.
fn outside() -> NetNs {
    let ns = NetNs::staging().unwrap();
    Netlink::open().unwrap().create_veth("out0", "peer0", Some(&ns)).unwrap();
    configure("out0", &["192.0.2.1/24", "2001:db8::1/64"]);
    in_namespace(&ns, || configure("peer0", &["192.0.2.2/24", "2001:db8::2/64"])).unwrap();
    ns
}

/// Runs `body` while the uplink serves.
fn serving<T>(uplink: &mut Uplink, body: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let server = scope.spawn(|| uplink.run(&stop));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        stop.store(true, Ordering::Relaxed);
        server.join().unwrap();
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The byte at a place of a stream that does not repeat itself soon.
fn fill(buf: &mut [u8], from: usize) {
    for (n, byte) in buf.iter_mut().enumerate() {
        let at = (from + n) as u64;
        *byte = (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    }
}

fn send_all(mut stream: &TcpStream, bytes: usize) {
    let mut buf = vec![0; 1 << 17];
    let mut sent = 0;
    while sent < bytes {
        let n = buf.len().min(bytes - sent);
        fill(&mut buf[..n], sent);
        stream.write_all(&buf[..n]).unwrap();
        sent += n;
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

fn receive_all(mut stream: &TcpStream, bytes: usize) {
    let (mut buf, mut wanted) = (vec![0; 1 << 17], vec![0; 1 << 17]);
    let mut got = 0;
    loop {
        let n = stream.read(&mut buf).unwrap();
        if n == 0 {
            break;
        }
        fill(&mut wanted[..n], got);
        assert!(buf[..n] == wanted[..n], "bytes differ near {got}");
        got += n;
    }
    assert_eq!(got, bytes, "the stream's length");
}

fn both_ways(a: &TcpStream, b: &TcpStream, bytes: usize) {
    for stream in [a, b] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
    }
    thread::scope(|scope| {
        scope.spawn(|| send_all(a, bytes));
        scope.spawn(|| send_all(b, bytes));
        scope.spawn(|| receive_all(a, bytes));
        receive_all(b, bytes);
    });
}

fn addresses() -> [IpAddr; 2] {
    ["192.0.2.2", "2001:db8::2"].map(|text| text.parse().unwrap())
}

fn tcp_out(features: Features) {
    let (outside, container) = (outside(), container());
    let tap = container.taps.into_iter().next().unwrap();
    let mut uplink = Uplink::new(tap, features);
    serving(&mut uplink, || {
        for address in addresses() {
            let (listener, to) = listener_in(&outside, address);
            let began = Instant::now();
            let inner = connect_in(&container.ns, to);
            let (outer, _) = listener.accept().unwrap();
            both_ways(&inner, &outer, BYTES);
            println!("{address}: {BYTES} bytes each way in {:?}", began.elapsed());
        }
    });
    assert_eq!(uplink.flows.tcp_flows().filter(|flow| flow.is_open()).count(), 0);
    println!("{:?}", uplink.flows.stats());
}

#[test]
fn tcp_out_is_byte_exact_both_ways_with_all_the_kernel_has() {
    isolated("sockets::tcp_out_is_byte_exact_both_ways_with_all_the_kernel_has", || {
        tcp_out(Features::probe());
    });
}

#[test]
fn tcp_out_is_byte_exact_both_ways_as_on_linux_6_1() {
    isolated("sockets::tcp_out_is_byte_exact_both_ways_as_on_linux_6_1", || {
        tcp_out(Features::default());
    });
}
