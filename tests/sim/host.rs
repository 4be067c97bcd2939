//! A host of the simulation: smoltcp's stack with its own neighbour discovery, TCP and UDP, and a few
//! programs that run on it.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, IpEndpoint};
use wharf::base::time::{Span, Time};
use wharf::packet::{Csum, Gso, Offload, PacketBuf, Parsed, finish};
use wharf::wire::addr::Family;
use wharf::wire::checksum;
use wharf::wire::mac::Mac;

use crate::programs::Program;

/// How soon a stack is polled again that wants it at once.
const BREATH: Span = Span::from_micros(50);

/// The wire's end in the stack.
#[derive(Debug)]
pub(crate) struct Wire {
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    mtu: usize,
}

pub(crate) struct Received(Vec<u8>);
pub(crate) struct Sender<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut frame = vec![0; len];
        let result = write(&mut frame);
        self.0.push(frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sender<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sender<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sender(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sender<'_>> {
        Some(Sender(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

/// Addresses of a host, and who routes for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) mac: Mac,
    pub(crate) v4: (Ipv4Addr, u8),
    pub(crate) v6: (Ipv6Addr, u8),
    pub(crate) gateway: Option<(Ipv4Addr, Ipv6Addr)>,
}

impl Identity {
    pub(crate) fn addr(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.0.into(),
            Family::V6 => self.v6.0.into(),
        }
    }
}

/// One host.
pub(crate) struct Host {
    pub(crate) id: Identity,
    iface: Interface,
    wire: Wire,
    sockets: SocketSet<'static>,
    programs: Vec<Program>,
    /// Leaves transport checksums to its device, as Linux does on a TAP.
    unfinished: bool,
    next_poll: Option<Time>,
}

impl Host {
    pub(crate) fn new(id: Identity, now: Time, seed: u64) -> Self {
        let mut wire = Wire { received: VecDeque::new(), sent: Vec::new(), mtu: 1514 };
        let mut config = Config::new(EthernetAddress(id.mac.0).into());
        config.random_seed = seed;
        let mut iface = Interface::new(config, &mut wire, instant(now));
        iface.update_ip_addrs(|addrs| {
            addrs.push(IpCidr::new(id.v4.0.into(), id.v4.1)).expect("two addresses fit");
            addrs.push(IpCidr::new(id.v6.0.into(), id.v6.1)).expect("two addresses fit");
        });
        if let Some((v4, v6)) = id.gateway {
            iface.routes_mut().add_default_ipv4_route(v4).expect("two routes fit");
            iface.routes_mut().add_default_ipv6_route(v6).expect("two routes fit");
        }
        Self {
            id,
            iface,
            wire,
            sockets: SocketSet::new(Vec::new()),
            programs: Vec::new(),
            unfinished: seed.is_multiple_of(2),
            next_poll: Some(now),
        }
    }

    pub(crate) fn run(&mut self, make: impl FnOnce(&mut SocketSet<'static>) -> Program) {
        let program = make(&mut self.sockets);
        self.programs.push(program);
        self.next_poll = Some(Time::ZERO);
    }

    pub(crate) fn is_done(&self) -> bool {
        self.programs.iter().all(Program::is_done)
    }

    pub(crate) fn unfinished_programs(&self) -> Vec<String> {
        let waiting = self.programs.iter().filter(|program| !program.is_done());
        waiting.map(|program| program.describe(&self.sockets)).collect()
    }

    pub(crate) fn next_poll(&self) -> Option<Time> {
        self.next_poll
    }

    /// Takes a frame in, as its device does: what the sender left undone is done here.
    pub(crate) fn receive(&mut self, now: Time, mut frame: PacketBuf) {
        assert_eq!(frame.offload().gso, Gso::None, "nobody sent a super-frame");
        finish::finish_checksum(&mut frame.frame());
        let mut bytes = frame.bytes().to_vec();
        if answer_echo(&self.id, &mut bytes) {
            self.wire.sent.push(bytes);
        } else {
            self.wire.received.push_back(bytes);
        }
        self.next_poll = Some(now);
    }

    /// Lets the stack and the programs work, and gives what they send.
    pub(crate) fn poll(&mut self, now: Time) -> Vec<PacketBuf> {
        for _ in 0..4 {
            self.iface.poll(instant(now), &mut self.wire, &mut self.sockets);
            let mut busy = false;
            for program in &mut self.programs {
                busy |= program.work(now, &self.id, &mut self.iface, &mut self.sockets);
            }
            if !busy {
                break;
            }
        }
        let wanted = self.iface.poll_at(instant(now), &self.sockets);
        let wanted = wanted.map(|at| Time(at.total_micros() as u64 * 1_000));
        let alarm = self.programs.iter().filter_map(|program| program.alarm(now)).min();
        let next = wanted.into_iter().chain(alarm).min();
        self.next_poll = next.map(|at| at.max(now + BREATH));
        let unfinished = self.unfinished;
        let sent = std::mem::take(&mut self.wire.sent);
        sent.into_iter().map(|bytes| offloaded(&bytes, unfinished)).collect()
    }
}

fn instant(now: Time) -> Instant {
    Instant::from_micros((now.0 / 1_000) as i64)
}

/// Replaces a finished checksum by the sum of the pseudo-header, if the host leaves it to its device.
fn offloaded(bytes: &[u8], unfinished: bool) -> PacketBuf {
    let plain = PacketBuf::new(bytes, Offload::NONE);
    let Ok(parsed) = Parsed::new(bytes) else { return plain };
    let offset = match parsed.proto {
        6 => 16,
        17 => 6,
        _ => return plain,
    };
    if !unfinished || !parsed.is_ip() {
        return plain;
    }
    let len = parsed.l4_len() as u32;
    let sum = checksum::pseudo_header(parsed.src, parsed.dst, parsed.proto, len);
    let mut bytes = bytes.to_vec();
    let at = usize::from(parsed.l4 + offset);
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let csum = Csum::Partial { start: parsed.l4, offset };
    PacketBuf::new(&bytes, Offload { csum, ..Offload::NONE })
}

/// Turns an echo request for this host into its reply; smoltcp is built without that.
fn answer_echo(id: &Identity, frame: &mut [u8]) -> bool {
    let Ok(parsed) = Parsed::new(frame) else { return false };
    let at = usize::from(parsed.l4);
    let (request, reply) = match parsed.proto {
        1 => (8, 0),
        58 => (128, 129),
        _ => return false,
    };
    let ours = [id.addr(Family::V4).into(), id.addr(Family::V6).into()].contains(&parsed.dst);
    if !ours || parsed.dst_mac != id.mac || frame[at] != request {
        return false;
    }
    let message = &mut frame[at..];
    message[0] = reply;
    message[2..4].fill(0);
    let mut sum = checksum::sum(message);
    if parsed.proto == 58 {
        let len = message.len() as u32;
        sum = checksum::add(sum, checksum::pseudo_header(parsed.dst, parsed.src, 58, len));
    }
    message[2..4].copy_from_slice(&(!sum).to_be_bytes());
    let (dst, rest) = frame.split_at_mut(6);
    dst.swap_with_slice(&mut rest[..6]);
    let (from, len) = if parsed.proto == 1 { (26, 4) } else { (22, 16) };
    let (src, dst) = frame[from..from + 2 * len].split_at_mut(len);
    src.swap_with_slice(dst);
    true
}

/// As smoltcp has it.
pub(crate) fn endpoint(addr: IpAddr, port: u16) -> IpEndpoint {
    IpEndpoint::new(addr.into(), port)
}
