//! Every test runs in network (and, for an ordinary user, user) namespaces of its own.
//!
//! [`isolated`] runs the test's own binary once more for this one test under util-linux's `unshare`,
//! and there the body. So nothing a test does can touch the machine's interfaces, whatever is left
//! over disappears with the process, and tests run in parallel. Root gets a network and a mount
//! namespace and stays real root, an ordinary user gets a user namespace on top; the same tests thus
//! check both the privileged and the unprivileged paths. `timeout` bounds each one.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ipnet::IpNet;
use rustix::event::{PollFd, PollFlags};
use rustix::thread::{CapabilitySet, CapabilitySets};
use wharf::io::netlink::{AddressOptions, Netlink};
use wharf::io::netns::{NetNs, in_namespace};
use wharf::io::process::{Isolation, Network, may_make_namespaces, prepare_network, run_isolated};
use wharf::io::sysctl;
use wharf::io::tap::Tap;

/// Set in the inner run, to the test's name.
const INSIDE: &str = "WHARF_E2E_INSIDE";
/// In the inner run of [`in_world`]: a directory that the outer run removes, whatever happens.
const DIRECTORY: &str = "WHARF_E2E_DIRECTORY";
/// No test of one piece takes this many seconds unless it hangs.
const TIMEOUT: &str = "30";
/// No test with a daemon takes this many seconds unless it hangs, even on a busy machine.
const WORLD_TIMEOUT: &str = "90";
/// What a test measured begins with this in its output, and is shown.
pub(crate) const REPORT: &str = "endurance: ";
/// Nor does one of endurance so many.
const LONG_TIMEOUT: &str = "600";
/// How long a test waits for something that the kernel does on its own.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Runs `body` in namespaces of its own. `name` is the test's path, such as `taps::it_works`.
pub(crate) fn isolated(name: &str, body: impl FnOnce()) {
    if inside(name) {
        loopback_up();
        return body();
    }
    run_inside(name, TIMEOUT, &[], |_| {});
}

/// The same with a process namespace on top and a directory of its own, which `body` is given: for
/// tests that start daemons. When the test ends, however it ends, so does every process that anybody
/// in it has started, and the directory is removed.
pub(crate) fn in_world(name: &str, body: impl FnOnce(&Path)) {
    in_world_for(name, WORLD_TIMEOUT, body);
}

/// The same for what takes long in full (`scripts/endurance`).
pub(crate) fn in_long_world(name: &str, body: impl FnOnce(&Path)) {
    in_world_for(name, LONG_TIMEOUT, body);
}

fn in_world_for(name: &str, timeout: &str, body: impl FnOnce(&Path)) {
    if inside(name) {
        prepare_network().expect("lo comes up");
        let directory = std::env::var_os(DIRECTORY).expect("set by the outer run");
        return body(Path::new(&directory));
    }
    let directory = tempfile::tempdir().expect("a directory");
    // A shell as the first process collects the orphans of the others.
    let init =
        ["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", "\"$@\"; exit $?", "init"];
    run_inside(name, timeout, &init, |command| {
        command.env(DIRECTORY, directory.path());
    });
}

fn inside(name: &str) -> bool {
    std::env::var(INSIDE).is_ok_and(|inside| inside == name)
}

fn run_inside(name: &str, timeout: &str, more: &[&str], prepare: impl FnOnce(&mut Command)) {
    let exe = std::env::current_exe().expect("the test's own path");
    let mut command = Command::new("timeout");
    command.args(["--kill-after=2", timeout, "unshare", "--net", "--mount"]);
    if !rustix::process::getuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(more).arg(exe).args(["--exact", name, "--nocapture", "--test-threads=1"]);
    prepare(&mut command);
    let output = command.env(INSIDE, name).output().expect("`timeout` and `unshare` can be run");
    let stdout = String::from_utf8_lossy(&output.stdout);
    // A name that matches nothing must not look like a success.
    let ran = stdout.contains("1 passed");
    if !output.status.success() || !ran {
        let stderr = String::from_utf8_lossy(&output.stderr);
        panic!("{name} failed in its namespace ({}):\n{stdout}\n{stderr}", output.status);
    }
    // The first of them stands behind the test's name.
    for said in stdout.lines().filter_map(|line| line.split_once(REPORT)) {
        println!("{REPORT}{}", said.1);
    }
}

fn loopback_up() {
    Netlink::open().unwrap().set_up(1).expect("lo comes up");
}

/// A namespace with a TAP as `eth0`, configured: one kernel with one port.
pub(crate) struct Host {
    /// Its namespace.
    pub(crate) ns: NetNs,
    /// The queues of its port.
    pub(crate) taps: Vec<Tap>,
}

impl Host {
    /// Opened in staging and moved, as an attacher does it, with these addresses, up and usable.
    pub(crate) fn new(addresses: &[&str], queues: usize) -> Self {
        let ns = NetNs::staging().expect("a namespace");
        let taps = move_new_tap(&ns, "eth0", queues).expect("a TAP");
        in_namespace(&ns, || configure("eth0", addresses)).expect("entered");
        Self { ns, taps }
    }
}

/// A TAP made in a staging namespace and moved into `ns`.
pub(crate) fn move_new_tap(ns: &NetNs, name: &str, queues: usize) -> io::Result<Vec<Tap>> {
    let staging = NetNs::staging().map_err(io::Error::other)?;
    in_namespace(&staging, || {
        let taps = Tap::open("staging0", queues).map_err(io::Error::other)?;
        let mut netlink = Netlink::open().map_err(io::Error::other)?;
        let index = netlink.link("staging0").map_err(io::Error::other)?.index;
        netlink.move_and_rename(index, ns, name).map_err(io::Error::other)?;
        Ok(taps)
    })
    .map_err(io::Error::other)?
}

/// Sets a link up with addresses, in the calling thread's namespace; silent about itself.
pub(crate) fn configure(name: &str, addresses: &[&str]) {
    let mut netlink = Netlink::open().unwrap();
    let index = netlink.link(name).unwrap().index;
    let _ = sysctl::quiet_ipv6(name);
    netlink.set_up(1).unwrap();
    for address in addresses {
        let net: IpNet = address.parse().unwrap();
        netlink.add_address(index, net, AddressOptions::default()).unwrap();
    }
    netlink.set_up(index).unwrap();
}

/// Waits until a descriptor can be read or reports an error; what it reported.
pub(crate) fn wait_readable(fd: &impl AsFd, patience: Duration) -> PollFlags {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let timeout = patience.try_into().unwrap();
    rustix::event::poll(&mut fds, Some(&timeout)).unwrap();
    fds[0].revents()
}

/// Copies frames with their headers between two ports until both are dead: the simplest switch.
pub(crate) fn copy_frames(a: &Tap, b: &Tap, mut seen: impl FnMut(&[u8])) {
    let mut buf = vec![0; 70_000];
    loop {
        for (from, to) in [(a, b), (b, a)] {
            loop {
                match from.read(&mut buf) {
                    Ok(length) => {
                        seen(&buf[..length]);
                        let _ = to.write(&buf[..length]);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        assert!(Tap::is_dead_error(&error), "reading a TAP: {error}");
                        return;
                    }
                }
            }
        }
        let mut fds = [PollFd::new(a, PollFlags::IN), PollFd::new(b, PollFlags::IN)];
        rustix::event::poll(&mut fds, None).unwrap();
    }
}

/// A UDP socket in a namespace.
pub(crate) fn udp_in(ns: &NetNs, address: IpAddr, port: u16) -> UdpSocket {
    let socket = in_namespace(ns, || UdpSocket::bind((address, port))).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A TCP listener in a namespace.
pub(crate) fn listener_in(ns: &NetNs, address: IpAddr) -> (TcpListener, SocketAddr) {
    let listener = in_namespace(ns, || TcpListener::bind((address, 0))).unwrap().unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A TCP connection out of a namespace.
pub(crate) fn connect_in(ns: &NetNs, to: SocketAddr) -> TcpStream {
    in_namespace(ns, || TcpStream::connect_timeout(&to, PATIENCE)).unwrap().expect("connected")
}

/// Runs `body` in a process with one thread, as the command line is; its report.
pub(crate) fn in_one_thread(body: impl FnOnce() -> Result<Vec<u8>, String>) -> Vec<u8> {
    let host = Isolation { network: Network::Host, die_with_parent: true, new_session: false };
    run_isolated(host, body).unwrap()
}

/// Becomes what an ordinary user is to the kernel, whoever runs the test.
pub(crate) fn give_up_capabilities() {
    // The one exception: without it the kernel refuses to map number 0, which an ordinary user does
    // not have.
    let rest = CapabilitySet::SETFCAP;
    let sets = CapabilitySets { effective: rest, permitted: rest, inheritable: rest };
    rustix::thread::set_capabilities(None, sets).unwrap();
    assert!(!may_make_namespaces());
}

/// Lets the calling thread open no raw socket any more.
pub(crate) fn give_up_raw_sockets() {
    let mut sets = rustix::thread::capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::NET_RAW);
    sets.permitted.remove(CapabilitySet::NET_RAW);
    rustix::thread::set_capabilities(None, sets).unwrap();
}
