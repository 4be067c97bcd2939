//! The socket uplink's TCP under strain, with the real daemon between real kernels: much, many, long, and
//! ill-behaved. Amounts are small enough for every run by default; `scripts/endurance` runs the full ones
//! on a release binary and prints what it measured.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;
use rustix::process::{Resource, getrlimit, setrlimit};
use wharf::base::limits::FLOW_EVENTS_MAX;
use wharf::io::netlink::Netlink;
use wharf::io::netns::{NetNs, in_namespace};
use wharf::io::process::prepare_network;
use wharf::wire::addr::Family;

use crate::support::{REPORT, configure, connect_in, in_long_world, listener_in};
use crate::world::{BLUE, FAMILIES, World, eventually};

/// Set to `full` by `scripts/endurance`.
const AMOUNT: &str = "WHARF_ENDURANCE";
/// No stream stands still for so long.
const STALL: Duration = Duration::from_secs(20);

/// What a test does by default, and what it does in full.
fn amount(default: usize, full: usize) -> usize {
    match std::env::var(AMOUNT).as_deref() {
        Ok("full") => full,
        Ok("") | Err(_) => default,
        Ok(other) => panic!("{AMOUNT} is `{other}`; it may be `full`"),
    }
}

/// Says what was measured: `scripts/endurance` shows it.
fn report(text: &str) {
    println!("{REPORT}{text}");
}

/// A host, which is the test's own namespace, with a cable to the world; a daemon; a network.
struct Scene {
    world: World,
    outside: NetNs,
}

impl Scene {
    fn new(dir: &Path, starter: &[&str]) -> Self {
        let outside = NetNs::staging().unwrap();
        Netlink::open().unwrap().create_veth("nic0", "lan0", Some(&outside)).unwrap();
        configure("nic0", &["192.0.2.1/24", "2001:db8::1/64"]);
        in_namespace(&outside, || {
            configure("lan0", &["192.0.2.9/24", "2001:db8::9/64"]);
            prepare_network().unwrap();
        })
        .unwrap();
        let world = World::started_by(dir, starter);
        world.start("--uplink sockets");
        world.ok(&format!("network create blue {BLUE}"));
        Self { world, outside }
    }

    fn container(&self, name: &str) -> NetNs {
        self.world.container(name, "--network blue").ns()
    }

    fn pid(&self) -> u64 {
        self.world.json("status --json")["pid"].as_u64().unwrap()
    }

    /// Descriptors of the daemon.
    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Resident memory of the daemon, in KiB.
    fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        field(&status, "VmRSS:")
    }

    /// Without the pages of its program, of which it touches more as time goes by.
    fn anonymous(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        field(&status, "RssAnon:")
    }

    fn flows(&self) -> usize {
        self.world.json("flows --proto tcp --limit 100000 --json").as_array().unwrap().len()
    }

    fn is_clean(&self, descriptors: usize) {
        let patience = Duration::from_secs(15);
        eventually("no descriptor is left", patience, || self.descriptors() <= descriptors);
        eventually("no flow is left", patience, || self.flows() == 0);
    }
}

fn outside_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => [192, 0, 2, 9].into(),
        Family::V6 => "2001:db8::9".parse().unwrap(),
    }
}

/// The number behind a name in a text of the kernel's.
fn field(text: &str, name: &str) -> u64 {
    let rest = text.split_once(name).expect("the kernel says so").1;
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

/// Random bytes without end: a block whose length no buffer's is a multiple of, again and again.
struct Noise(Vec<u8>);

impl Noise {
    fn new(seed: u64) -> Self {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 56
        };
        Self((0..1_048_583).map(|_| next() as u8).collect())
    }

    /// What is at this place of the stream, up to some length.
    fn at(&self, place: usize, most: usize) -> &[u8] {
        let from = place % self.0.len();
        &self.0[from..(from + most).min(self.0.len())]
    }
}

fn send(mut stream: &TcpStream, noise: &Noise, bytes: usize) -> std::io::Result<()> {
    let mut sent = 0;
    while sent < bytes {
        sent += stream.write(noise.at(sent, (bytes - sent).min(1 << 17)))?;
    }
    stream.shutdown(Shutdown::Write)
}

/// Reads to the end and compares every byte; a slow reader rests now and then.
fn receive(mut stream: &TcpStream, noise: &Noise, slow: bool) -> std::io::Result<usize> {
    let mut buf = vec![0; 1 << 17];
    let mut got = 0;
    loop {
        let n = stream.read(&mut buf)?;
        if n == 0 {
            return Ok(got);
        }
        let mut at = 0;
        while at < n {
            let wanted = noise.at(got + at, n - at);
            assert!(buf[at..at + wanted.len()] == *wanted, "bytes differ near {got}");
            at += wanted.len();
        }
        got += n;
        if slow {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Both ends of a connection out of a container.
fn pair(scene: &Scene, inside: &NetNs, family: Family) -> (TcpStream, TcpStream) {
    let (listener, to) = listener_in(&scene.outside, outside_address(family));
    let inner = connect_in(inside, to);
    let (outer, _) = listener.accept().unwrap();
    for stream in [&inner, &outer] {
        stream.set_read_timeout(Some(STALL)).unwrap();
        stream.set_write_timeout(Some(STALL)).unwrap();
    }
    (inner, outer)
}

/// So many bytes each way over each of so many connections.
fn transfer(scene: &Scene, inside: &NetNs, flows: usize, bytes: usize) {
    let noises = [Noise::new(1), Noise::new(2)];
    let families = FAMILIES.into_iter().cycle();
    let pairs: Vec<_> = families.take(flows).map(|f| pair(scene, inside, f)).collect();
    thread::scope(|scope| {
        for (n, (inner, outer)) in pairs.iter().enumerate() {
            let slow = n % 4 == 1;
            scope.spawn(|| send(inner, &noises[0], bytes).unwrap());
            scope.spawn(|| send(outer, &noises[1], bytes).unwrap());
            scope.spawn(|| assert_eq!(receive(inner, &noises[1], false).unwrap(), bytes));
            scope.spawn({
                let noise = &noises[0];
                move || assert_eq!(receive(outer, noise, slow).unwrap(), bytes)
            });
        }
    });
}

/// Connections of which one end resets in the middle: the other end sees true bytes, and then a reset.
fn resets(scene: &Scene, inside: &NetNs, count: usize) {
    let noise = Noise::new(3);
    for n in 0..count {
        let (inner, outer) = pair(scene, inside, FAMILIES[n % 2]);
        let (quitter, stayer) = if n % 4 < 2 { (inner, outer) } else { (outer, inner) };
        thread::scope(|scope| {
            let sender = scope.spawn(|| send(&stayer, &noise, usize::MAX).unwrap_err().kind());
            let reader = scope.spawn(|| receive(&stayer, &noise, false));
            let mut sent = 0;
            while sent < 3_000_000 {
                sent += (&quitter).write(noise.at(sent, 100_000)).unwrap();
            }
            set_socket_linger(&quitter, Some(Duration::ZERO)).unwrap();
            drop(quitter);
            // The kernel tells it once: to whoever asks first.
            let ends =
                [Some(sender.join().unwrap()), reader.join().unwrap().err().map(|e| e.kind())];
            assert!(ends.contains(&Some(ErrorKind::ConnectionReset)), "{ends:?}");
        });
    }
}

/// Keeps this machine's cores busy while `body` runs.
fn under_load<T>(body: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        stop.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn random_bytes_arrive_exact_over_one_flow_and_over_32_with_slow_readers_resets_and_a_busy_machine()
{
    let name = "endurance::random_bytes_arrive_exact_over_one_flow_and_over_32_with_slow_readers_resets_and_a_busy_machine";
    in_long_world(name, |dir| {
        let scene = Scene::new(dir, &[]);
        let inside = scene.container("web");
        let bytes = amount(64, 1024) << 20;
        let before = scene.descriptors();
        under_load(|| {
            for flows in [1, 32] {
                let start = Instant::now();
                transfer(&scene, &inside, flows, bytes / flows);
                report(&format!(
                    "{} MiB each way over {flows} flows, byte-exact, in {:.1} s",
                    bytes >> 20,
                    start.elapsed().as_secs_f64()
                ));
            }
            resets(&scene, &inside, 16);
        });
        scene.is_clean(before);
        report(&format!("resident memory then: {} KiB", scene.resident()));
    });
}

/// Answers a byte with a byte, on so many ports.
fn echo_ports(scene: &Scene, count: usize) -> Vec<SocketAddr> {
    let ports = (0..count).map(|n| {
        let (listener, to) = listener_in(&scene.outside, outside_address(FAMILIES[n % 2]));
        thread::spawn(move || echo(&listener));
        to
    });
    ports.collect()
}

fn echo(listener: &TcpListener) {
    let mut byte = [0];
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let _ = stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte));
    }
}

fn short_connections(inside: &NetNs, to: &[SocketAddr], count: usize) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                in_namespace(inside, || {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= count {
                            return;
                        }
                        let mut stream =
                            TcpStream::connect_timeout(&to[n % to.len()], STALL).unwrap();
                        stream.set_read_timeout(Some(STALL)).unwrap();
                        stream.write_all(b"?").unwrap();
                        let mut byte = [0];
                        stream.read_exact(&mut byte).unwrap();
                    }
                })
                .unwrap();
            });
        }
    });
}

#[test]
fn short_connections_leave_no_descriptor_no_flow_and_no_memory_behind() {
    let name = "endurance::short_connections_leave_no_descriptor_no_flow_and_no_memory_behind";
    in_long_world(name, |dir| {
        let scene = Scene::new(dir, &[]);
        let inside = scene.container("web");
        let to = echo_ports(&scene, 16);
        let before = scene.descriptors();
        let count = amount(5_000, 100_000);
        // What tables, and the bounded journal of flows, grow to once is no leak.
        short_connections(&inside, &to, FLOW_EVENTS_MAX / 2 + 1_000);
        scene.is_clean(before);
        let resident = scene.anonymous();
        let start = Instant::now();
        short_connections(&inside, &to, count);
        let seconds = start.elapsed().as_secs_f64();
        scene.is_clean(before);
        let grown = scene.anonymous().saturating_sub(resident);
        report(&format!(
            "{count} short connections in {seconds:.1} s: descriptors {before} before, {} after; \
             {resident} KiB of its own before, {grown} KiB more after; flows left: {}",
            scene.descriptors(),
            scene.flows()
        ));
        // A flow that stayed would cost a KiB or two; allocators keep some of what they once had.
        assert!(grown < 4_096, "its memory has grown by {grown} KiB from {resident}");
    });
}

#[test]
fn without_descriptors_new_flows_are_refused_by_name_and_old_ones_live_and_later_new_ones_too() {
    let name = "endurance::without_descriptors_new_flows_are_refused_by_name_and_old_ones_live_and_later_new_ones_too";
    in_long_world(name, |dir| {
        let scene = Scene::new(dir, &["prlimit", "--nofile=160:160"]);
        let inside = scene.container("web");
        for family in FAMILIES {
            let (listener, to) = listener_in(&scene.outside, outside_address(family));
            let connect =
                || in_namespace(&inside, || TcpStream::connect_timeout(&to, STALL)).unwrap();
            let dropped = scene.world.drops("web", "socket-limit");
            let mut flows = Vec::new();
            let error = loop {
                assert!(flows.len() < 200, "the limit is 160");
                match connect() {
                    Ok(stream) => flows.push((stream, listener.accept().unwrap().0)),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "at once, and not a time-out");
            assert!(scene.world.drops("web", "socket-limit") > dropped, "counted");
            assert_eq!(scene.world.names(), ["web"], "and the daemon still answers");
            report(&format!("{} flows until descriptors ran out, then {error}", flows.len()));
            for (inner, outer) in &flows {
                let mut byte = [0];
                let (mut inner, mut outer) = (inner, outer);
                inner.write_all(b"x").unwrap();
                outer.read_exact(&mut byte).unwrap();
            }
            drop(flows.pop());
            let patience = Duration::from_secs(5);
            eventually("one more when one has gone", patience, || connect().is_ok());
        }
    });
}

/// Frames that the kernel has dropped between two of its devices, a cable's ends for example, because a
/// core had too many to look at: what a flood costs on the host's side, whoever sent them.
fn backlog_drops() -> u64 {
    let cores = fs::read_to_string("/proc/net/softnet_stat").unwrap();
    let dropped = cores.lines().map(|line| line.split_whitespace().nth(1).unwrap());
    dropped.map(|hex| u64::from_str_radix(hex, 16).unwrap()).sum()
}

/// Begins a connection and does not wait for it.
fn begin(to: SocketAddr) -> std::os::fd::OwnedFd {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = socket_with(family, SocketType::STREAM, flags, None).unwrap();
    let _ = connect(&fd, &to);
    fd
}

fn ip(args: &str) {
    let done = Command::new("ip").args(args.split_whitespace()).status().unwrap();
    assert!(done.success(), "ip {args}");
}

#[test]
fn a_container_that_floods_with_syns_does_not_starve_its_neighbour() {
    let name = "endurance::a_container_that_floods_with_syns_does_not_starve_its_neighbour";
    in_long_world(name, |dir| {
        let scene = Scene::new(dir, &[]);
        let (bad, good) = (scene.container("bad"), scene.container("good"));
        // Packets to there go nowhere, and nobody says so.
        ip("route add 198.51.100.0/24 via 192.0.2.9");
        ip("-6 route add 2001:db8:bad::/48 via 2001:db8::9");
        let before = scene.descriptors();
        for (family, nowhere) in FAMILIES.into_iter().zip(["198.51.100.1", "2001:db8:bad::1"]) {
            let to = SocketAddr::new(nowhere.parse().unwrap(), 80);
            let flood = || (0..1_200).map(|_| begin(to)).collect::<Vec<_>>();
            let _flood = in_namespace(&bad, flood).unwrap();
            let bounded = || scene.world.drops("bad", "flow-share") > 0;
            eventually("the flood meets its bound", Duration::from_secs(10), bounded);
            let open = scene.descriptors() - before;
            assert!((400..=520).contains(&open), "512 half-open flows are a port's share: {open}");
            let (start, mut slowest) = (Instant::now(), (Duration::ZERO, 0));
            let dropped = backlog_drops();
            for n in 0..50 {
                let (listener, to) = listener_in(&scene.outside, outside_address(family));
                let began = Instant::now();
                let stream = connect_in(&good, to);
                (&stream).write_all(b"x").unwrap();
                let mut byte = [0];
                listener.accept().unwrap().0.read_exact(&mut byte).unwrap();
                slowest = slowest.max((began.elapsed(), n));
            }
            report(&format!(
                "beside a flood of SYNs ({open} half-open flows) a neighbour's 50 connections took {} ms, \
                 the slowest, number {}, {} ms; {} frames did not fit into the kernel's backlog",
                start.elapsed().as_millis(),
                slowest.1,
                slowest.0.as_millis(),
                backlog_drops() - dropped,
            ));
            assert!(start.elapsed() < Duration::from_secs(5), "the neighbour waits");
            assert_eq!(scene.world.drops("good", "flow-share"), 0);
        }
    });
}

/// Lets this process have so many descriptors.
fn want_descriptors(count: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.maximum = limit.maximum.map(|most| most.max(count));
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)
        .unwrap_or_else(|error| panic!("{count} open files are needed: {error}; run it as root"));
}

/// Echoes bytes of any number of connections: a process of its own, since descriptors have a limit.
const ECHO: &str = "
import selectors, socket, sys
listener = socket.create_server((sys.argv[1], 0), backlog=4096)
print(listener.getsockname()[1], flush=True)
poll = selectors.DefaultSelector()
poll.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in poll.select():
        if key.fileobj is listener:
            poll.register(listener.accept()[0], selectors.EVENT_READ)
        elif not (data := key.fileobj.recv(64)):
            poll.unregister(key.fileobj)
            key.fileobj.close()
        else:
            key.fileobj.sendall(data)
";

/// The process, which ends with this test's world, and where it listens.
#[allow(clippy::zombie_processes, reason = "the world's first process collects it")]
fn echo_process(scene: &Scene) -> SocketAddr {
    let address = outside_address(Family::V4);
    let start = || {
        let mut command = Command::new("python3");
        command.args(["-c", ECHO, &address.to_string()]).stdout(std::process::Stdio::piped());
        command.spawn().expect("python3 runs")
    };
    let mut child = in_namespace(&scene.outside, start).unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    SocketAddr::new(address, line.trim().parse().unwrap())
}

/// What the kernel spends on sockets and their data, in KiB: its slabs, and TCP's buffers here.
fn kernel_memory() -> u64 {
    let slabs = field(&fs::read_to_string("/proc/meminfo").unwrap(), "Slab:");
    let sockets = fs::read_to_string("/proc/net/sockstat").unwrap();
    let tcp = sockets.lines().find(|line| line.starts_with("TCP:")).unwrap();
    slabs + field(tcp, "mem") * 4
}

#[test]
fn many_open_flows_of_which_a_hundred_work_all_live() {
    let name = "endurance::many_open_flows_of_which_a_hundred_work_all_live";
    in_long_world(name, |dir| {
        let count = amount(1_000, 10_000);
        want_descriptors(count as u64 + 400);
        let scene = Scene::new(dir, &[]);
        let inside = scene.container("web");
        let to = echo_process(&scene);
        let before = (scene.descriptors(), scene.resident(), kernel_memory());
        let mut idle = Vec::with_capacity(count);
        let active: Vec<_> =
            FAMILIES.into_iter().cycle().take(100).map(|f| pair(&scene, &inside, f)).collect();
        in_namespace(&inside, || {
            for _ in active.len()..count {
                idle.push(TcpStream::connect_timeout(&to, STALL).unwrap());
            }
        })
        .unwrap();
        let resident = scene.resident().saturating_sub(before.1);
        let kernel = kernel_memory().saturating_sub(before.2);
        report(&format!(
            "{count} open flows: resident {resident} KiB more ({} bytes a flow); kernel {kernel} KiB more \
             (slabs and TCP of the whole machine, both ends' sockets among them)",
            resident * 1024 / count as u64
        ));
        assert!(resident * 1024 / count as u64 <= 2_048, "a flow and its entries are small");
        work(&active, amount(64, 1024) << 20, count);
        let mut byte = [0];
        for mut inner in &idle {
            inner.write_all(b"x").unwrap();
            inner.set_read_timeout(Some(STALL)).unwrap();
            inner.read_exact(&mut byte).unwrap();
        }
        drop((idle, active));
        scene.is_clean(before.0);
    });
}

/// So many bytes in all out of these connections, all at once, from one thread each way.
fn work(active: &[(TcpStream, TcpStream)], bytes: usize, open: usize) {
    let noise = Noise::new(4);
    let each = bytes / active.len();
    let start = Instant::now();
    thread::scope(|scope| {
        for (inner, outer) in active {
            scope.spawn(|| send(inner, &noise, each).unwrap());
            scope.spawn(|| assert_eq!(receive(outer, &noise, false).unwrap(), each));
        }
    });
    let moved = (each * active.len()) >> 10;
    let rate = moved as u128 / start.elapsed().as_millis().max(1);
    report(&format!("{} of {open} flows at work: {rate} MiB/s in all", active.len()));
}

/// RFC 6555: who has no IPv6 must hear so at once, so that clients take IPv4.
#[test]
fn a_destination_in_ipv6_is_unreachable_at_once_where_the_host_has_none() {
    let name = "endurance::a_destination_in_ipv6_is_unreachable_at_once_where_the_host_has_none";
    in_long_world(name, |dir| {
        let scene = Scene::new(dir, &[]);
        let inside = scene.container("web");
        let elsewhere: SocketAddr = "[2001:db8:ffff::1]:80".parse().unwrap();
        let here = SocketAddr::new(outside_address(Family::V6), 80);
        let fails_at_once = |to: SocketAddr| {
            let start = Instant::now();
            let connect = || TcpStream::connect_timeout(&to, STALL).unwrap_err();
            let error = in_namespace(&inside, connect).unwrap();
            let unreachable = [ErrorKind::NetworkUnreachable, ErrorKind::HostUnreachable];
            assert!(unreachable.contains(&error.kind()), "{to}: {error}");
            assert!(start.elapsed() < Duration::from_secs(1), "{to}: {:?}", start.elapsed());
        };
        fails_at_once(elsewhere);
        ip("-6 addr flush dev nic0");
        fails_at_once(elsewhere);
        fails_at_once(here);
        fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        fails_at_once(here);
        let (_inner, _outer) = pair(&scene, &inside, Family::V4);
    });
}
