use std::collections::BTreeSet;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use super::*;
use crate::packet::Offload;
use crate::packet::ip_link::IpLink;
use crate::packet::parse::L3_OFFSET;
use crate::stage::service::Traffic;
use crate::wire::addr::Family;

const PLUG: PortId = PortId(3);
const SERVING: u16 = 8080;
const OK: &str = "HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n";

fn addr(family: Family) -> Addr {
    match family {
        Family::V4 => "10.0.0.2".parse().unwrap(),
        Family::V6 => "fd00::2".parse().unwrap(),
    }
}

/// A backend whose only port may be open or closed.
struct Server {
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    link: IpLink,
    family: Family,
    open: bool,
    /// Whether it hears nothing at all.
    deaf: bool,
    answer: &'static str,
    asked: String,
    clients: BTreeSet<u16>,
}

impl Server {
    fn new(family: Family) -> Self {
        let mut link = IpLink::new(1_500);
        let config = Config::new(HardwareAddress::Ip);
        let mut interface = Interface::new(config, &mut link, ip_link::instant(Time::ZERO));
        interface.update_ip_addrs(|addrs| {
            addrs.push(IpCidr::new(IpAddress::from(addr(family).ip()), 0)).unwrap();
        });
        let buffer = |len| SocketBuffer::new(vec![0; len]);
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(Socket::new(buffer(4_096), buffer(4_096)));
        let (open, deaf, answer) = (false, false, OK);
        let (asked, clients) = (String::new(), BTreeSet::new());
        Self { interface, sockets, socket, link, family, open, deaf, answer, asked, clients }
    }

    /// Takes in a frame; what it sends back.
    fn hear(&mut self, now: Time, frame: &[u8]) -> Vec<Vec<u8>> {
        if self.deaf {
            return Vec::new();
        }
        let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
        if self.open && !socket.is_open() {
            socket.listen(SERVING).unwrap();
        }
        self.clients.insert(Parsed::new(frame).unwrap().src_port);
        self.link.receive(frame[L3_OFFSET..].to_vec());
        for _ in 0..2 {
            self.interface.poll(ip_link::instant(now), &mut self.link, &mut self.sockets);
            let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
            while socket.can_recv() {
                let asked = &mut self.asked;
                let taken = socket.recv(|bytes| (bytes.len(), String::from_utf8(bytes.to_vec())));
                asked.push_str(&taken.unwrap().unwrap());
                if asked.ends_with("\r\n\r\n") {
                    socket.send_slice(self.answer.as_bytes()).unwrap();
                    socket.close();
                }
            }
            if !socket.may_recv() && socket.may_send() {
                socket.close();
            }
        }
        let ethernet = [&[2; 6][..], &[4; 6], &ethertype(self.family)].concat();
        self.link.sent().map(|packet| [&ethernet[..], &packet].concat()).collect()
    }
}

fn ethertype(family: Family) -> [u8; 2] {
    if family == Family::V4 { [8, 0] } else { [0x86, 0xdd] }
}

struct There;

impl Surroundings for There {
    fn origin(&self, checked: &Checked) -> Option<Origin> {
        let gateway = if checked.addr.is_v4() { "10.0.0.1" } else { "fd00::1" };
        Some(Origin {
            domain: DomainId(1),
            addr: gateway.parse().unwrap(),
            gateway: Mac([2; 6]),
            station: Mac([4; 6]),
            mtu: 1_500,
        })
    }

    fn is_taken(&self, key: &FlowKey) -> bool {
        key.dst_port == 513
    }
}

struct World {
    now: Time,
    prober: Prober,
    server: Server,
    verdicts: Vec<Option<String>>,
}

fn service(family: Family, check: Check, ready: bool) -> Service {
    let health = Health {
        check,
        interval: Span::from_secs(10),
        timeout: Span::from_secs(2),
        up: 2,
        down: 3,
    };
    let checked = Checked { plug: PLUG, addr: addr(family), port: SERVING, ready };
    Service {
        id: ServiceId(1),
        name: "web".into(),
        vips: Vec::new(),
        fronts: Vec::new(),
        affinity: None,
        internal: Traffic::Cluster,
        external: Traffic::Cluster,
        health: Some((Arc::new(health), vec![checked])),
    }
}

impl World {
    fn new(family: Family, check: Check, ready: bool) -> Self {
        let mut prober = Prober::new(Seed(7));
        prober.put(Time::ZERO, &service(family, check, ready));
        Self { now: Time::ZERO, prober, server: Server::new(family), verdicts: Vec::new() }
    }

    /// Lets so much time pass; what was found out meanwhile.
    fn run(&mut self, span: Span) -> Vec<Option<String>> {
        let end = self.now + span;
        let mut out = ProbeOutput::default();
        while let Some(due) = self.prober.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.prober.tick(self.now, &There, &mut out);
            self.settle(&mut out);
        }
        self.now = end;
        std::mem::take(&mut self.verdicts)
    }

    fn settle(&mut self, out: &mut ProbeOutput) {
        while !out.frames.is_empty() {
            for (port, frames) in std::mem::take(&mut out.frames) {
                assert_eq!(port, PLUG);
                for frame in frames.iter().flat_map(|f| self.server.hear(self.now, f.bytes())) {
                    let parsed = Parsed::new(&frame).unwrap();
                    let key = FlowKey::new(&parsed, DomainId(1), Scope::Routed);
                    let mut buf = PacketBuf::new(&frame, Offload::NONE);
                    let packet = (&parsed, &key);
                    let _ = self.prober.segment(self.now, packet, &buf.frame(), out);
                }
            }
        }
        for verdict in out.verdicts.drain(..) {
            assert_eq!((verdict.service, verdict.port), (ServiceId(1), SERVING));
            self.verdicts.push(verdict.failure);
        }
    }
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

#[test]
fn a_backend_is_ready_when_it_takes_connections_and_not_any_more_after_some_failures() {
    for family in FAMILIES {
        let mut world = World::new(family, Check::Tcp, false);
        let refused = Some("refused the connection".to_owned());
        let told = world.run(Span::from_secs(5));
        assert_eq!(told, std::slice::from_ref(&refused), "told once");
        // One that has just begun is asked each second.
        world.server.open = true;
        assert_eq!(world.run(Span::from_secs(4)), [None], "after two in a row");
        world.server.open = false;
        assert!(world.run(Span::from_secs(20)).is_empty(), "two failures are not enough");
        assert_eq!(world.run(Span::from_secs(20)), [refused]);
        assert!(world.server.clients.iter().all(|port| PORTS.contains(port) && *port != 513));
        assert!(world.server.clients.len() > 5, "from another port each time");
    }
}

#[test]
fn a_request_is_answered_by_a_status_or_the_backend_does_not_serve() {
    for family in FAMILIES {
        for (answer, why) in [
            (OK, None),
            ("HTTP/1.0 302 Found\r\n\r\n", None),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", Some("answers 503")),
            ("SSH-2.0-x\r\n", Some("its answer is not HTTP")),
            ("HTTP/1.1 20", Some("its answer is not HTTP")),
            ("", Some("closed the connection without an answer")),
        ] {
            let mut world = World::new(family, Check::Http("/healthz".into()), false);
            world.server.answer = answer;
            world.server.open = true;
            assert_eq!(world.run(Span::from_secs(4)), [why.map(str::to_owned)], "{answer}");
            let asked = &world.server.asked;
            let host = if family == Family::V4 { "10.0.0.2:8080" } else { "[fd00::2]:8080" };
            assert!(asked.starts_with("GET /healthz HTTP/1.1\r\n"), "{asked}");
            assert!(asked.contains(&format!("\r\nHost: {host}\r\n")), "{asked}");
        }
    }
}

#[test]
fn who_says_nothing_has_failed_when_the_time_is_over() {
    let mut world = World::new(Family::V4, Check::Tcp, true);
    world.server.deaf = true;
    assert!(world.run(Span::from_secs(18)).is_empty(), "two attempts");
    assert_eq!(world.run(Span::from_secs(12)), [Some("no answer in time".to_owned())]);
    assert!(world.prober.running.len() <= 1);
    assert_eq!(world.prober.timers.len(), 1, "each backend has one");
}

#[test]
fn a_service_that_changes_leaves_those_alone_that_it_still_has() {
    let mut world = World::new(Family::V4, Check::Tcp, false);
    world.server.deaf = true;
    world.run(Span::from_millis(100));
    let before = world.prober.running.clone();
    assert_eq!(before.len(), 1);
    world.prober.put(world.now, &service(Family::V4, Check::Tcp, false));
    assert_eq!(world.prober.running, before, "its attempt goes on");
    let mut without = service(Family::V4, Check::Tcp, false);
    without.health = None;
    world.prober.put(world.now, &without);
    assert!(world.prober.is_empty() && world.prober.running.is_empty());
    assert_eq!(world.prober.next_deadline(), None);
    world.prober.put(world.now, &service(Family::V6, Check::Http("/".into()), true));
    assert_eq!(world.prober.len(), 1);
    world.prober.remove(ServiceId(1));
    assert!(world.prober.is_empty() && world.prober.timers.is_empty());
}

#[test]
fn more_than_can_be_asked_at_once_wait_their_turn() {
    let mut prober = Prober::new(Seed(7));
    let many = HEALTH_ATTEMPTS_MAX as u16 + 50;
    for n in 0..many {
        let mut service = service(Family::V4, Check::Tcp, false);
        service.id = ServiceId(n.into());
        if let Some((_, checked)) = &mut service.health {
            checked[0].addr = Addr::from_v4_bytes([10, 1, (n >> 8) as u8, n as u8]);
        }
        prober.put(Time::ZERO, &service);
    }
    let mut out = ProbeOutput::default();
    prober.tick(Time::ZERO, &There, &mut out);
    assert_eq!(prober.running.len(), HEALTH_ATTEMPTS_MAX);
    // The first ones end with their time, and all are asked at last.
    let mut told = 0;
    while let Some(due) =
        prober.next_deadline().filter(|due| *due < Time::ZERO + Span::from_secs(60))
    {
        prober.tick(due, &There, &mut out);
        assert!(prober.running.len() <= HEALTH_ATTEMPTS_MAX);
        told += out.verdicts.drain(..).count();
        out.frames.clear();
    }
    assert_eq!(told, usize::from(many));
}
