//! What a kernel's masquerade does where `docs/nat-conformance.md` asks: the other column. The outcomes
//! stand in `tests/conformance/kernel.txt`; `WHARF_WRITE_DOCS=1` writes what was seen there.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use wharf::io::netlink::Netlink;
use wharf::io::netns::{NetNs, in_namespace};

use crate::support::{PATIENCE, configure, isolated, udp_in};
use crate::traffic::NEVER;

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 3));
const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const REMOTE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10))];

const RULES: &str = "table ip nat {
    chain postrouting {
        type nat hook postrouting priority srcnat
        oifname \"out0\" masquerade
    }
}
";

/// A router in this namespace, containers' addresses in one behind it, remote ones in one before it.
struct Router {
    inside: NetNs,
    outside: NetNs,
}

impl Router {
    fn new() -> Self {
        let [inside, outside] = [(); 2].map(|()| NetNs::staging().unwrap());
        let plug = |ns: &NetNs, near: &str, far: &str, ours: &str, theirs: [&str; 2]| {
            Netlink::open().unwrap().create_veth(near, far, Some(ns)).unwrap();
            configure(near, &[ours]);
            in_namespace(ns, || configure(far, &theirs)).unwrap();
        };
        plug(&inside, "in0", "a0", "10.9.0.1/24", ["10.9.0.2/24", "10.9.0.3/24"]);
        plug(&outside, "out0", "lan0", "192.0.2.1/24", ["192.0.2.9/24", "192.0.2.10/24"]);
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let route = ["route", "add", "default", "via", "10.9.0.1"];
        in_namespace(&inside, || {
            assert!(Command::new("ip").args(route).status().unwrap().success());
        })
        .unwrap();
        let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(RULES.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "nft takes the rules");
        Self { inside, outside }
    }

    fn remote(&self, host: usize, port: u16) -> UdpSocket {
        udp_in(&self.outside, REMOTE[host], port)
    }
}

/// A datagram from one socket to another; who the receiver sees.
fn seen(from: &UdpSocket, to: &UdpSocket) -> SocketAddr {
    from.send_to(b"out", to.local_addr().unwrap()).unwrap();
    to.set_read_timeout(Some(PATIENCE)).unwrap();
    to.recv_from(&mut [0; 16]).unwrap().1
}

/// Whether a datagram from outside to an outside socket reaches an inside one.
fn reaches(from: &UdpSocket, at: SocketAddr, inside: &UdpSocket) -> bool {
    from.send_to(b"in", at).unwrap();
    inside.set_read_timeout(Some(NEVER)).unwrap();
    inside.recv_from(&mut [0; 16]).is_ok()
}

fn sysctl(name: &str) -> String {
    let path = Path::new("/proc/sys/net/netfilter").join(format!("nf_conntrack_{name}"));
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

fn answer(yes: bool, otherwise: &str) -> String {
    if yes { "yes".to_owned() } else { format!("no: {otherwise}") }
}

/// Requirement and outcome.
fn look(router: &Router) -> Vec<(&'static str, String)> {
    let mut all = ports(router);
    all.extend(filters(router));
    all.extend(connections(router));
    let udp = [sysctl("udp_timeout"), sysctl("udp_timeout_stream")];
    let long = |text: &String, secs: u64| text.parse::<u64>().unwrap() >= secs;
    all.push((
        "4787 REQ-5",
        answer(long(&udp[0], 120), &format!("{} s, {} s once answered", udp[0], udp[1])),
    ));
    all.push(("4787 REQ-5 c", answer(long(&udp[1], 300), &format!("{} s at most", udp[1]))));
    let [syn, fin, established] =
        ["tcp_timeout_syn_sent", "tcp_timeout_fin_wait", "tcp_timeout_established"].map(sysctl);
    let kept = long(&syn, 240) && long(&fin, 240) && long(&established, 7_440);
    let times = format!("{established} s, but {syn} s while it opens and {fin} s while it closes");
    all.push(("5382 REQ-5", answer(kept, &times)));
    let icmp = sysctl("icmp_timeout");
    all.push(("5508 REQ-2", answer(long(&icmp, 60), &format!("{icmp} s"))));
    let close = sysctl("tcp_timeout_close");
    all.push(("7857 2.2", answer(long(&close, 240), &format!("gone after {close} s"))));
    all
}

fn ports(router: &Router) -> Vec<(&'static str, String)> {
    let (a, b) = (udp_in(&router.inside, A, 5_000), udp_in(&router.inside, B, 5_000));
    let (one, other) = (router.remote(0, 7_001), router.remote(1, 7_002));
    let a_seen = seen(&a, &one);
    // A destination that `a` has not spoken to first: there `a`'s port is free to the kernel.
    let b_seen = [seen(&b, &other), seen(&b, &one)];
    let independent = b_seen[0] == b_seen[1];
    let shared = a_seen == b_seen[0];
    let (mut parity, mut class) = (true, true);
    for port in (6_000..6_016).chain([700, 1_000]) {
        let (a, b) = (udp_in(&router.inside, A, port), udp_in(&router.inside, B, port));
        seen(&a, &one);
        let moved = seen(&b, &one).port();
        assert_ne!(moved, port, "told apart");
        parity &= moved % 2 == port % 2;
        class &= (moved < 1_024) == (port < 1_024);
    }
    let per_destination = "another port where two sockets with one port meet at a destination";
    vec![
        ("4787 REQ-1", answer(independent, per_destination)),
        ("4787 REQ-3", answer(!shared, "two sockets share a port towards different destinations")),
        ("4787 REQ-3 a", answer(class, "not kept")),
        ("4787 REQ-4", answer(parity, "not kept after a collision")),
    ]
}

fn filters(router: &Router) -> Vec<(&'static str, String)> {
    let (a, b) = (udp_in(&router.inside, A, 5_100), udp_in(&router.inside, B, 5_101));
    let (one, port, stranger) =
        (router.remote(0, 7_003), router.remote(0, 7_004), router.remote(1, 7_003));
    let at = seen(&a, &one);
    assert!(reaches(&one, at, &a));
    let allowed = [reaches(&port, at, &a), reaches(&stranger, at, &a)];
    let kind = match allowed {
        [false, false] => "no: address-and-port-dependent",
        [true, false] => "yes: address-dependent",
        _ => "yes: endpoint-independent",
    };
    let at_b = seen(&b, &one);
    assert_eq!(at_b.ip(), OUTSIDE);
    a.send_to(b"hairpin", at_b).unwrap();
    b.set_read_timeout(Some(NEVER)).unwrap();
    let hairpin = b.recv_from(&mut [0; 16]).map(|(_, from)| from);
    // Nobody listens there: the remote host's own kernel says so.
    let closed = SocketAddr::from((REMOTE[0], 7_005));
    a.send_to(b"closed", closed).unwrap();
    std::thread::sleep(NEVER / 4);
    let _ = a.send_to(b"the error is told here", one.local_addr().unwrap());
    let still = reaches(&one, at, &a);
    vec![
        ("4787 REQ-8", kind.to_owned()),
        ("4787 REQ-9", answer(hairpin.is_ok(), "it does not arrive")),
        ("4787 REQ-9 a", answer(hairpin.is_ok_and(|from| from == at), "it does not arrive")),
        ("4787 REQ-12", answer(still, "the mapping is gone")),
    ]
}

fn connections(router: &Router) -> Vec<(&'static str, String)> {
    let begun = Instant::now();
    let to = SocketAddr::from((OUTSIDE, 5_200));
    let patience = Duration::from_secs(7);
    let connected =
        in_namespace(&router.outside, || TcpStream::connect_timeout(&to, patience)).unwrap();
    assert!(connected.is_err());
    let waited = begun.elapsed() >= Duration::from_secs(6);
    vec![("5382 REQ-4", answer(waited, "refused at once"))]
}

#[test]
fn the_kernel_s_column_is_what_a_kernel_does() {
    isolated("kernel_nat::the_kernel_s_column_is_what_a_kernel_does", || {
        let router = Router::new();
        let mut text = String::from(
            "# What nftables masquerade of a Linux kernel does; verified by tests/e2e/kernel_nat.rs.\n",
        );
        let mut outcomes = look(&router);
        outcomes.sort();
        let ids: BTreeSet<_> = outcomes.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids.len(), outcomes.len());
        for (id, outcome) in outcomes {
            let _ = writeln!(text, "{id}: {outcome}");
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/kernel.txt");
        if std::env::var_os("WHARF_WRITE_DOCS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), text);
    });
}
