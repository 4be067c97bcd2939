//! The container: smoltcp over a link that loses, repeats and reorders.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};
use wharf::base::time::Time;
use wharf::wire::mac::Mac;

use crate::Dice;

pub(crate) const INSIDE: Mac = Mac([2, 66, 172, 17, 0, 2]);

/// One direction of the container's link.
#[derive(Debug)]
pub(crate) struct Link {
    loss: u64,
    duplication: u64,
    reordering: u64,
    flying: BinaryHeap<Reverse<(Time, u64, Vec<u8>)>>,
    sent: u64,
}

impl Link {
    pub(crate) fn new(loss: u64, duplication: u64, reordering: u64) -> Self {
        Self { loss, duplication, reordering, flying: BinaryHeap::new(), sent: 0 }
    }

    pub(crate) fn send(&mut self, now: Time, dice: &mut Dice, frame: &[u8]) {
        if dice.chance(self.loss) {
            return;
        }
        for _ in 0..if dice.chance(self.duplication) { 2 } else { 1 } {
            let late = dice.chance(self.reordering);
            let delay = if late { (1 + dice.below(3)) * 1_000_000 } else { 0 };
            self.sent += 1;
            self.flying.push(Reverse((Time(now.0 + delay), self.sent, frame.to_vec())));
        }
    }

    pub(crate) fn arrive(&mut self, now: Time) -> Option<Vec<u8>> {
        let due = self.flying.peek().is_some_and(|Reverse((at, ..))| *at <= now);
        due.then(|| self.flying.pop().map(|Reverse((.., frame))| frame)).flatten()
    }
}

/// smoltcp's device: two queues.
#[derive(Debug, Default)]
pub(crate) struct Port {
    pub(crate) to_stack: VecDeque<Vec<u8>>,
    pub(crate) from_stack: VecDeque<Vec<u8>>,
}

pub(crate) struct Rx(Vec<u8>);
pub(crate) struct Tx<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Port {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Rx, Tx<'_>)> {
        let frame = self.to_stack.pop_front()?;
        Some((Rx(frame), Tx(&mut self.from_stack)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Tx<'_>> {
        Some(Tx(&mut self.from_stack))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// A container with TCP sockets.
pub(crate) struct Inside {
    pub(crate) port: Port,
    interface: Interface,
    sockets: SocketSet<'static>,
    pub(crate) handles: Vec<SocketHandle>,
}

impl Inside {
    pub(crate) fn new(v4: bool) -> Self {
        let mut port = Port::default();
        let mac = HardwareAddress::Ethernet(EthernetAddress(INSIDE.0));
        let mut interface = Interface::new(Config::new(mac), &mut port, Instant::ZERO);
        let (own, gateway) =
            if v4 { ("172.17.0.2/16", "172.17.0.1") } else { ("fd00::2/64", "fd00::1") };
        interface.update_ip_addrs(|addrs| addrs.push(own.parse::<IpCidr>().unwrap()).unwrap());
        match gateway.parse::<IpAddress>().unwrap() {
            IpAddress::Ipv4(to) => interface.routes_mut().add_default_ipv4_route(to).unwrap(),
            IpAddress::Ipv6(to) => interface.routes_mut().add_default_ipv6_route(to).unwrap(),
        };
        Self { port, interface, sockets: SocketSet::new(Vec::new()), handles: Vec::new() }
    }

    fn add(&mut self, buffers: usize) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; buffers]);
        let handle = self.sockets.add(tcp::Socket::new(buffer(), buffer()));
        self.handles.push(handle);
        handle
    }

    pub(crate) fn connect(&mut self, buffers: usize, to: (IpAddress, u16), local_port: u16) {
        let handle = self.add(buffers);
        let socket = self.sockets.get_mut::<tcp::Socket>(handle);
        socket.connect(self.interface.context(), to, local_port).unwrap();
    }

    pub(crate) fn listen(&mut self, buffers: usize, port: u16) {
        let handle = self.add(buffers);
        self.sockets.get_mut::<tcp::Socket>(handle).listen(port).unwrap();
    }

    pub(crate) fn socket(&mut self, n: usize) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handles[n])
    }

    pub(crate) fn poll(&mut self, now: Time) {
        let now = Instant::from_micros((now.0 / 1_000) as i64);
        let _ = self.interface.poll(now, &mut self.port, &mut self.sockets);
    }
}
