//! The socket uplink between real kernels: container, host with veth, and a peer behind it.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use wharf::io::features::Feature;
use wharf::io::host_listen::{Listener, Transport};
use wharf::io::host_sockets::Features;
use wharf::io::netlink::Netlink;
use wharf::io::netns::{NetNs, in_namespace};

use crate::socket_loop::{Uplink, container};
use crate::support::{
    PATIENCE, configure, connect_in, give_up_raw_sockets, isolated, listener_in, udp_in,
};

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
            let inner = connect_in(&container.ns, to);
            let (outer, _) = listener.accept().unwrap();
            both_ways(&inner, &outer, BYTES);
        }
    });
    uplink.run_out(PATIENCE);
    assert_eq!(uplink.flows.tcp_flows().filter(|flow| flow.is_open()).count(), 0);
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

/// RFC 6093 6: what is urgent stays where it is in the stream. The kernel ends a read before it, which must
/// not be taken for the stream's end. Without SO_PEEK_OFF nobody can look behind it: then it is a reset, and
/// not an end.
#[test]
fn urgent_data_comes_in_its_place_and_the_end_behind_it() {
    isolated("sockets::urgent_data_comes_in_its_place_and_the_end_behind_it", || {
        let (outside, container) = (outside(), container());
        let tap = container.taps.into_iter().next().unwrap();
        let mut uplink = Uplink::new(tap, Features::probe());
        serving(&mut uplink, || {
            for address in addresses() {
                let (listener, to) = listener_in(&outside, address);
                let mut inner = connect_in(&container.ns, to);
                let (mut outer, _) = listener.accept().unwrap();
                inner.set_read_timeout(Some(PATIENCE)).unwrap();
                outer.write_all(b"before ").unwrap();
                rustix::net::send(&outer, b"!", rustix::net::SendFlags::OOB).unwrap();
                let sent =
                    outer.write_all(b" behind").and_then(|()| outer.shutdown(Shutdown::Write));
                let mut all = Vec::new();
                let end = inner.read_to_end(&mut all);
                // Else the connection is reset, maybe before all was sent.
                if Features::probe().peek_offset {
                    sent.unwrap();
                    assert_eq!(std::str::from_utf8(&all).unwrap(), "before ! behind");
                    end.unwrap();
                } else {
                    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
                }
            }
        });
    });
}

/// The container's MAC, as its kernel has it.
fn mac_of(ns: &NetNs) -> wharf::wire::mac::Mac {
    in_namespace(ns, || Netlink::open().unwrap().link("eth0").unwrap().mac.unwrap()).unwrap()
}

#[test]
fn a_published_port_shows_the_client_s_address_and_the_container_decides() {
    isolated(
        "sockets::a_published_port_shows_the_client_s_address_and_the_container_decides",
        || {
            let (outside, container) = (outside(), container());
            let tap = container.taps.into_iter().next().unwrap();
            let mut uplink = Uplink::new(tap, Features::probe());
            let mac = mac_of(&container.ns);
            let listener = Listener::bind(None, 0, Transport::Tcp).unwrap();
            let port = listener.port();
            uplink.publish(listener, 8080, mac);
            serving(&mut uplink, || {
                for (inner, host) in [("10.0.0.2", "192.0.2.1"), ("fd10::2", "2001:db8::1")] {
                    let to = (host.parse::<IpAddr>().unwrap(), port).into();
                    // The kernel accepts before we can ask the container, so the reset comes a moment after.
                    let refused = || {
                        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
                        stream.set_read_timeout(Some(PATIENCE))?;
                        stream.read(&mut [0])
                    };
                    let error = in_namespace(&outside, refused).unwrap().unwrap_err();
                    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "nobody listens");

                    let inner: IpAddr = inner.parse().unwrap();
                    let bind = || std::net::TcpListener::bind((inner, 8080)).unwrap();
                    let server = in_namespace(&container.ns, bind).unwrap();
                    let client = connect_in(&outside, to);
                    let (served, seen) = server.accept().unwrap();
                    assert_eq!(seen, client.local_addr().unwrap(), "the true client");
                    both_ways(&client, &served, 4 << 20);
                    let own = TcpStream::connect(to).unwrap();
                    let (_, seen) = server.accept().unwrap();
                    let gateway: IpAddr =
                        if inner.is_ipv4() { "10.0.0.1" } else { "fd10::1" }.parse().unwrap();
                    assert_eq!(seen.ip(), gateway, "the host itself");
                    drop(own);
                }
            });
        },
    );
}

#[test]
fn refused_unreachable_and_reset_reach_the_container() {
    isolated("sockets::refused_unreachable_and_reset_reach_the_container", || {
        let (outside, container) = (outside(), container());
        let tap = container.taps.into_iter().next().unwrap();
        let mut uplink = Uplink::new(tap, Features::probe());
        serving(&mut uplink, || {
            let connect = |to: (IpAddr, u16)| {
                in_namespace(&container.ns, || TcpStream::connect_timeout(&to.into(), PATIENCE))
                    .unwrap()
            };
            for address in addresses() {
                let refused = connect((address, 9)).unwrap_err();
                assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
                let (listener, to) = listener_in(&outside, address);
                let inner = connect_in(&container.ns, to);
                let (outer, _) = listener.accept().unwrap();
                (&inner).write_all(b"unread").unwrap();
                let mut byte = [0];
                outer.peek(&mut byte).unwrap();
                // Closing with unread bytes resets.
                drop(outer);
                inner.set_read_timeout(Some(PATIENCE)).unwrap();
                let error = (&inner).read(&mut byte).unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            }
            let nowhere: IpAddr = "203.0.113.1".parse().unwrap();
            let error = connect((nowhere, 80)).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::NetworkUnreachable, "{error}");
            let loopback = connect(("169.254.1.1".parse().unwrap(), 80)).unwrap_err();
            assert_eq!(loopback.kind(), std::io::ErrorKind::TimedOut, "dropped, not answered");
        });
    });
}

fn udp_out(features: Features) {
    let (outside, container) = (outside(), container());
    let tap = container.taps.into_iter().next().unwrap();
    let mut uplink = Uplink::new(tap, features);
    serving(&mut uplink, || {
        for (inner, address) in ["10.0.0.2", "fd10::2"].into_iter().zip(addresses()) {
            let server = udp_in(&outside, address, 0);
            let client = udp_in(&container.ns, inner.parse().unwrap(), 0);
            let to = server.local_addr().unwrap();
            let (mut buf, mut from) = ([0; 2048], None);
            for round in 0..50_u8 {
                let sent = vec![round; 1200];
                client.send_to(&sent, to).unwrap();
                let (n, peer) = server.recv_from(&mut buf).unwrap();
                assert_eq!(buf[..n], sent);
                assert_eq!(*from.get_or_insert(peer), peer, "one outside port for all");
                server.send_to(&sent[..700], peer).unwrap();
                let (n, seen) = client.recv_from(&mut buf).unwrap();
                assert_eq!((&buf[..n], seen), (&sent[..700], to));
            }
            let other = udp_in(&outside, address, 0);
            client.send_to(b"x", other.local_addr().unwrap()).unwrap();
            assert_eq!(other.recv_from(&mut buf).unwrap().1, from.unwrap(), "RFC 4787 REQ-1");
            // Nobody is there: the ICMP error comes back as the kernel would have it.
            client.connect((address, 9)).unwrap();
            client.send(b"x").unwrap();
            let error = client.recv(&mut buf).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        }
    });
}

#[test]
fn udp_keeps_its_outside_port_and_learns_of_errors() {
    isolated("sockets::udp_keeps_its_outside_port_and_learns_of_errors", || {
        udp_out(Features::probe());
    });
}

#[test]
fn udp_does_the_same_as_on_linux_6_1() {
    isolated("sockets::udp_does_the_same_as_on_linux_6_1", || udp_out(Features::default()));
}

#[test]
fn published_udp_answers_from_the_address_that_was_asked() {
    isolated("sockets::published_udp_answers_from_the_address_that_was_asked", || {
        let (outside, container) = (outside(), container());
        configure("out0", &["192.0.2.100/24", "2001:db8::100/64"]);
        let tap = container.taps.into_iter().next().unwrap();
        let mut uplink = Uplink::new(tap, Features::probe());
        let listener = Listener::bind(None, 0, Transport::Udp).unwrap();
        let port = listener.port();
        uplink.publish(listener, 5353, mac_of(&container.ns));
        serving(&mut uplink, || {
            let mut buf = [0; 2048];
            for (inner, hosts) in [
                ("10.0.0.2", ["192.0.2.1", "192.0.2.100"]),
                ("fd10::2", ["2001:db8::1", "2001:db8::100"]),
            ] {
                let server = udp_in(&container.ns, inner.parse().unwrap(), 5353);
                for host in hosts {
                    let host: IpAddr = host.parse().unwrap();
                    let from = if host.is_ipv4() { addresses()[0] } else { addresses()[1] };
                    let client = udp_in(&outside, from, 0);
                    client.send_to(b"question", (host, port)).unwrap();
                    let (n, seen) = server.recv_from(&mut buf).unwrap();
                    assert_eq!((&buf[..n], seen), (&b"question"[..], client.local_addr().unwrap()));
                    server.send_to(b"answer", seen).unwrap();
                    let (n, answered) = client.recv_from(&mut buf).unwrap();
                    assert_eq!((&buf[..n], answered), (&b"answer"[..], (host, port).into()));
                }
            }
        });
    });
}

#[test]
fn echo_goes_through_ping_sockets_or_is_refused_honestly() {
    isolated("sockets::echo_goes_through_ping_sockets_or_is_refused_honestly", || {
        let (_outside, container) = (outside(), container());
        let tap = container.taps.into_iter().next().unwrap();
        let mut uplink = Uplink::new(tap, Features::probe());
        let ping = |to: &str| {
            let run = || {
                std::process::Command::new("ping")
                    .args(["-c", "2", "-i", "0.2", "-W", "2", to])
                    .output()
                    .expect("ping runs")
            };
            let output = in_namespace(&container.ns, run).unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let range = "/proc/sys/net/ipv4/ping_group_range";
        // Else raw sockets would do. The thread that serves inherits it.
        give_up_raw_sockets();
        serving(&mut uplink, || {
            let both = ["192.0.2.2", "2001:db8::2"];
            // A fresh namespace permits ping sockets to nobody.
            for to in both {
                let text = ping(to);
                let honest = text.contains("Packet filtered") || text.contains("prohibited");
                assert!(honest, "{text}");
            }
            // An ordinary user may name no other group: the others have no number in here.
            std::fs::write(range, "0 0").unwrap();
            let honest =
                if Feature::PingSockets.is_allowed() { " 2 received" } else { " +2 errors" };
            for to in both {
                let text = ping(to);
                assert!(text.contains(honest), "{text}");
            }
        });
    });
}
