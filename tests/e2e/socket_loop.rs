//! The smallest worker of a socket uplink: one TAP, the flow machines, host sockets.

use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wharf::base::hash::Seed;
use wharf::base::ids::{DomainId, PortId};
use wharf::base::time::{Span, Time};
use wharf::io::host_listen::Listener;
use wharf::io::host_sockets::{Executed, Features, HostSockets};
use wharf::io::netns::in_namespace;
use wharf::io::poller::{Poller, Token, Wish};
use wharf::io::tap::Tap;
use wharf::packet::{FlowKey, FrameBatch, Parsed, Scope};
use wharf::stage::sockets::{
    Delivery, FrameSlot, Inside, Link, ListenerId, Published, SocketFlows, SocketOutput, Target,
    TcpFlow,
};
use wharf::wire::addr::Addr;
use wharf::wire::mac::Mac;

use crate::support::Host;

pub(crate) const GATEWAY: Mac = Mac([2, 66, 10, 0, 0, 1]);
const TAP: Token = Token(1);
pub(crate) const INSIDE_V4: &str = "10.0.0.2";
pub(crate) const INSIDE_V6: &str = "fd10::2";

/// A container: a namespace whose default routes lead to the uplink.
pub(crate) fn container() -> Host {
    let host = Host::new(&["10.0.0.2/24", "fd10::2/64"], 1);
    for (family, gateway) in [("-4", "10.0.0.1"), ("-6", "fd10::1")] {
        let lladdr = GATEWAY.to_string();
        let neigh = ["neigh", "add", gateway, "lladdr", &lladdr, "dev", "eth0", "nud", "permanent"];
        let route = ["route", "add", "default", "via", gateway, "dev", "eth0"];
        for args in [&neigh[..], &route[..]] {
            ip(&host, family, args);
        }
    }
    host
}

fn ip(host: &Host, family: &str, args: &[&str]) {
    let run = || Command::new("ip").arg(family).args(args).output().expect("ip runs");
    let output = in_namespace(&host.ns, run).unwrap();
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) struct Uplink {
    pub(crate) flows: SocketFlows,
    pub(crate) sockets: HostSockets,
    poller: Poller,
    tap: Tap,
    batch: FrameBatch,
    received: FrameBatch,
    out: SocketOutput,
    began: Instant,
}

impl Uplink {
    pub(crate) fn new(tap: Tap, features: Features) -> Self {
        let poller = Poller::new().unwrap();
        poller.add(&tap, TAP, Wish::Read).unwrap();
        Self {
            flows: SocketFlows::new(Seed(42)),
            sockets: HostSockets::new(features),
            poller,
            tap,
            batch: FrameBatch::new(),
            received: FrameBatch::new(),
            out: SocketOutput::default(),
            began: Self::clock(),
        }
    }

    /// Serves a listener for the container's `port`.
    pub(crate) fn publish(&mut self, listener: Listener, port: u16, mac: Mac) {
        let addr = |text: &str| Some(text.parse::<Addr>().unwrap());
        let target = Target {
            port: PortId(1),
            domain: DomainId(1),
            link: Link { inside: mac, gateway: GATEWAY },
            addrs: [addr(INSIDE_V4), addr(INSIDE_V6)],
            gateways: [addr("10.0.0.1"), addr("fd10::1")],
            subnets: vec![],
            mtu: 1500,
        };
        let id = ListenerId(u32::from(port));
        let published = Published { listener: id, target: target.into(), port };
        match listener.transport() {
            wharf::io::host_listen::Transport::Tcp => self.flows.publish_tcp(published),
            wharf::io::host_listen::Transport::Udp => self.flows.publish_udp(published),
        }
        self.sockets.add_listener(&self.poller, id, listener).unwrap();
    }

    #[allow(clippy::disallowed_methods, reason = "a test has no worker whose clock it could ask")]
    fn clock() -> Instant {
        Instant::now()
    }

    fn now(&self) -> Time {
        Time(self.began.elapsed().as_nanos() as u64)
    }

    /// Serves until told to stop.
    pub(crate) fn run(&mut self, stop: &AtomicBool) {
        self.serve_while(|_| !stop.load(Ordering::Relaxed));
    }

    /// Serves on until every connection has ended, but not for longer than `patience`.
    ///
    /// Both ends of a connection know of its end before the last acknowledgement has come here.
    pub(crate) fn run_out(&mut self, patience: Duration) {
        let start = self.began.elapsed();
        self.serve_while(|uplink| {
            let open = uplink.flows.tcp_flows().any(TcpFlow::is_open);
            open && uplink.began.elapsed() < start + patience
        });
    }

    fn serve_while(&mut self, more: impl Fn(&Self) -> bool) {
        let mut ready = Vec::new();
        while more(self) {
            let more = self.frames();
            let now = self.now();
            let longest = Span::from_millis(20);
            let next = self.flows.next_deadline().map_or(longest, |at| at.since(now).min(longest));
            let more = more || self.sockets.has_unread();
            let timeout = if more { Span::ZERO } else { next };
            self.poller.wait(Some(timeout), &mut ready).unwrap();
            let now = self.now();
            for ready in ready.drain(..) {
                if HostSockets::owns(ready.token) {
                    for event in self.sockets.ready(&ready).into_iter().flatten() {
                        self.flows.event(now, event, &mut self.out);
                    }
                }
            }
            for event in self.sockets.take_unread() {
                self.flows.event(now, event, &mut self.out);
            }
            self.flows.tick(now, &mut self.out);
            self.work(now);
        }
    }

    /// One batch from the TAP; whether there may be more.
    fn frames(&mut self) -> bool {
        self.batch.clear();
        let mut more = true;
        while let Some(room) = self.batch.spare() {
            let Ok(n) = self.tap.read(room) else {
                more = false;
                break;
            };
            self.batch.commit(n).unwrap();
        }
        let now = self.now();
        for n in 0..self.batch.len() {
            let Ok(parsed) = Parsed::new(self.batch.bytes(n)) else { continue };
            let gateway: IpAddr =
                if parsed.src.is_v4() { "10.0.0.1" } else { "fd10::1" }.parse().unwrap();
            let inside = Inside {
                port: PortId(1),
                key: FlowKey::new(&parsed, DomainId(1), Scope::Routed),
                mtu: 1500,
                gateway: Some(gateway.into()),
                redirect: None,
                assembled: false,
            };
            let frame = self.batch.frame(n);
            let slot = FrameSlot(n as u16);
            let _ = self.flows.frame(now, &inside, &parsed, &frame, slot, &mut self.out);
        }
        self.flows.flush(now, &mut self.out);
        self.work(now);
        more
    }

    fn work(&mut self, now: Time) {
        loop {
            let calls = std::mem::take(&mut self.out.calls);
            self.deliver();
            if calls.is_empty() {
                break;
            }
            for call in &calls {
                loop {
                    let (batch, received) = (&self.batch, &mut self.received);
                    match self.sockets.execute(&self.poller, (call, &self.out), batch, received) {
                        Executed::Done => break,
                        Executed::Event(event) => {
                            self.flows.event(now, event, &mut self.out);
                            break;
                        }
                        Executed::More(event) => {
                            self.flows.event(now, event, &mut self.out);
                            continue;
                        }
                        Executed::NoRoom => {}
                    }
                    self.deliver();
                }
            }
            self.flows.flush(now, &mut self.out);
        }
        self.out.clear();
    }

    fn deliver(&mut self) {
        for delivery in self.out.deliveries.drain(..) {
            match delivery {
                Delivery::Slot { slot, .. } => {
                    let _ = self.tap.write(self.received.with_vnet_header(usize::from(slot.0)));
                }
                Delivery::Made { frame, .. } => {
                    let mut owned = wharf::packet::PacketBuf::new(frame.bytes(), frame.offload);
                    let _ = self.tap.write(owned.with_vnet_header());
                }
            }
        }
        self.received.clear();
    }
}
