//! Simulation: whole hosts and switches in one process, under a clock that only this program moves.
//!
//! Hosts are smoltcp's stack with its own neighbour discovery, TCP, UDP and ICMP; switches are
//! [`Datapath`](wharf::datapath::Datapath)s, watched at every call (`sim/node.rs`); the wires between
//! lose, reorder, double and delay frames by a seed. A failure prints the seed: `WHARF_SIM_SEED=N`
//! runs that one again, `WHARF_SIM_RUNS=N` runs so many others.

#[path = "sim/host.rs"]
mod host;
#[path = "sim/net.rs"]
mod net;
#[path = "sim/node.rs"]
mod node;
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#[path = "common/packets.rs"]
mod packets;
#[path = "sim/programs.rs"]
mod programs;
#[path = "sim/rng.rs"]
mod rng;
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#[path = "common/soak.rs"]
mod soak;
#[path = "sim/soak.rs"]
mod soaking;
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#[path = "common/world.rs"]
mod world;

use std::net::IpAddr;

use wharf::base::ids::{PortId, PublicationId};
use wharf::base::time::Span;
use wharf::config::Delta;
use wharf::wire::addr::Family;
use wharf::wire::ipv6::{TCP, UDP};
use wharf::wire::mac::Mac;

use crate::host::{Host, Identity};
use crate::net::{Net, Plug, Quality};
use crate::node::{Node, UPLINK_PORT, endpoint, network, outside, publication, uplink};
use crate::programs::{ask, connect, echo, ping, serve};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// Bytes of a transfer, each way.
const BULK: u64 = 150_000;
const PATIENCE: Span = Span::from_secs(600);
/// Where containers serve, and where that is published.
const INSIDE: u16 = 5_000;
const OUTSIDE: u16 = 1_180;

/// Runs a story under each seed that was asked for.
fn simulate(story: impl Fn(&mut World)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds: Vec<u64> = match (number("WHARF_SIM_SEED"), number("WHARF_SIM_RUNS")) {
        (Some(seed), _) => vec![seed],
        (None, runs) => (1..=runs.unwrap_or(2)).collect(),
    };
    for seed in seeds {
        for family in FAMILIES {
            println!("WHARF_SIM_SEED={seed} ({family:?})"); // shown when it fails
            let mut world = World::new(seed, family);
            story(&mut world);
            world.net.settle();
        }
    }
}

/// Switches with containers on networks, and a remote host on the LAN between them.
struct World {
    net: Net,
    family: Family,
    /// Of each container: its host's number, its switch, its network, its port, who it is.
    containers: Vec<(usize, usize, u8, PortId, Identity)>,
    remote: usize,
}

impl World {
    fn new(seed: u64, family: Family) -> Self {
        let mut net = Net::new(seed);
        let id = Identity {
            mac: Mac([2, 0xee, 0, 0, 0, 9]),
            v4: ([192, 0, 2, 9].into(), 24),
            v6: ("2001:db8:1::9".parse().expect("an address"), 64),
            gateway: None,
        };
        net.hosts.push(Host::new(id, net.now, seed));
        net.on_lan(Plug::Host(0));
        Self { net, family, containers: Vec::new(), remote: 0 }
    }

    /// A switch with two networks.
    fn switch(&mut self, open: bool) -> usize {
        let number = self.net.nodes.len();
        let seed = self.net.rng.next();
        self.net.nodes.push(Node::new(number as u8, seed));
        let node = number as u8;
        for delta in
            [network(node, 0, open), network(node, 1, open)].into_iter().chain(uplink(node))
        {
            self.net.nodes[number].apply(self.net.now, delta);
        }
        self.net.on_lan(Plug::Node(number, UPLINK_PORT));
        number
    }

    /// A container on network `n` of a switch.
    fn container(&mut self, switch: usize, n: u8, guard: bool) -> usize {
        let port = 1 + self.containers.len() as u16;
        let (delta, id) = endpoint(switch as u8, n, port, guard);
        self.net.nodes[switch].apply(self.net.now, delta);
        let (host, seed) = (self.net.hosts.len(), self.net.rng.next());
        self.net.hosts.push(Host::new(id, self.net.now, seed));
        self.net.wire(Plug::Host(host), Plug::Node(switch, PortId(port)));
        self.containers.push((host, switch, n, PortId(port), id));
        self.containers.len() - 1
    }

    fn publish(&mut self, container: usize) {
        let (_, switch, n, port, id) = self.containers[container];
        for (number, proto) in [(1, TCP), (2, UDP)] {
            let delta = publication(number, proto, OUTSIDE, (port, n, &id), INSIDE);
            self.net.nodes[switch].apply(self.net.now, delta);
        }
    }

    fn host(&mut self, container: usize) -> &mut Host {
        let number = self.containers[container].0;
        &mut self.net.hosts[number]
    }

    fn addr(&self, container: usize) -> IpAddr {
        self.containers[container].4.addr(self.family)
    }

    fn remote_addr(&self) -> IpAddr {
        self.net.hosts[self.remote].id.addr(self.family)
    }

    fn outside_addr(&self, switch: usize) -> IpAddr {
        let (v4, v6) = outside(switch as u8);
        if self.family == Family::V4 { v4.into() } else { v6.into() }
    }

    /// A TCP transfer both ways, datagrams and pings between two containers.
    fn talk(&mut self, from: usize, to: usize) {
        let addr = self.addr(to);
        self.host(to).run(serve(INSIDE, (1, 2), BULK));
        self.host(to).run(echo(INSIDE));
        self.host(from).run(connect((addr, INSIDE), 40_000, (2, 1), BULK));
        self.host(from).run(ask((addr, INSIDE), 40_001, 10));
        self.host(from).run(ping(addr, 77, 5));
    }

    /// The same to the remote host.
    fn talk_to_remote(&mut self, from: usize, port: u16) {
        let (addr, remote) = (self.remote_addr(), self.remote);
        let streams = (u64::from(port), u64::from(port) + 1);
        self.net.hosts[remote].run(serve(port, streams, BULK));
        self.net.hosts[remote].run(echo(port));
        self.host(from).run(connect((addr, port), 40_000, (streams.1, streams.0), BULK));
        self.host(from).run(ask((addr, port), 33_000 + port, 10));
        self.host(from).run(ping(addr, 78, 5));
    }

    /// The container serves what is published.
    fn serve_published(&mut self, container: usize) {
        self.publish(container);
        self.host(container).run(serve(INSIDE, (1, 2), BULK));
        self.host(container).run(echo(INSIDE));
    }

    fn finish(&mut self) {
        self.net.run(PATIENCE);
    }
}

fn bad(world: &mut World) {
    world.net.quality = Quality::BAD;
}

#[test]
fn containers_of_one_network_talk_over_bad_wires() {
    simulate(|world| {
        bad(world);
        let switch = world.switch(false);
        let (a, b) = (world.container(switch, 0, true), world.container(switch, 0, true));
        world.talk(a, b);
        world.finish();
    });
}

#[test]
fn containers_without_a_guard_are_learned_while_they_talk() {
    simulate(|world| {
        let switch = world.switch(false);
        let (a, b) = (world.container(switch, 0, false), world.container(switch, 0, false));
        world.talk(a, b);
        world.finish();
    });
}

#[test]
fn containers_of_two_open_networks_talk_through_the_router() {
    simulate(|world| {
        bad(world);
        let switch = world.switch(true);
        let (a, b) = (world.container(switch, 0, true), world.container(switch, 1, true));
        world.talk(a, b);
        world.finish();
    });
}

#[test]
fn containers_reach_the_remote_host_through_masquerade() {
    simulate(|world| {
        bad(world);
        let switch = world.switch(false);
        let (a, b) = (world.container(switch, 0, true), world.container(switch, 1, true));
        world.talk_to_remote(a, 7_000);
        world.talk_to_remote(b, 7_100);
        world.finish();
    });
}

#[test]
fn the_remote_host_reaches_a_published_port() {
    simulate(|world| {
        bad(world);
        let switch = world.switch(false);
        let web = world.container(switch, 0, true);
        world.serve_published(web);
        let (to, remote) = (world.outside_addr(switch), world.remote);
        world.net.hosts[remote].run(connect((to, OUTSIDE), 40_000, (2, 1), BULK));
        world.net.hosts[remote].run(ask((to, OUTSIDE), 40_001, 10));
        world.net.hosts[remote].run(ping(to, 79, 5));
        world.finish();
    });
}

#[test]
fn neighbours_and_strangers_reach_a_published_port_by_the_outside_address() {
    simulate(|world| {
        bad(world);
        let switch = world.switch(false);
        let web = world.container(switch, 0, true);
        world.serve_published(web);
        let to = world.outside_addr(switch);
        for (network, port) in [(0, 40_000), (1, 40_010)] {
            let client = world.container(switch, network, true);
            if network == 0 {
                world.host(client).run(connect((to, OUTSIDE), port, (2, 1), BULK));
            }
            world.host(client).run(ask((to, OUTSIDE), port + 1, 10));
        }
        world.finish();
    });
}

#[test]
fn a_container_of_one_switch_reaches_a_published_port_of_the_other() {
    simulate(|world| {
        bad(world);
        let (one, two) = (world.switch(false), world.switch(false));
        let (web, client) = (world.container(two, 0, true), world.container(one, 0, true));
        world.serve_published(web);
        let to = world.outside_addr(two);
        world.host(client).run(connect((to, OUTSIDE), 40_000, (2, 1), BULK));
        world.host(client).run(ask((to, OUTSIDE), 40_001, 10));
        world.host(client).run(ping(to, 80, 5));
        world.talk_to_remote(client, 7_200);
        world.finish();
    });
}

#[test]
fn connections_go_on_when_the_daemon_is_started_again_under_them() {
    simulate(|world| {
        let switch = world.switch(true);
        let (a, b) = (world.container(switch, 0, true), world.container(switch, 0, true));
        let (c, d) = (world.container(switch, 1, true), world.container(switch, 1, true));
        world.talk(a, b);
        let addr = world.addr(b);
        // Routed, and masqueraded with the port it had.
        world.host(b).run(serve(INSIDE + 1, (3, 4), BULK));
        world.host(c).run(connect((addr, INSIDE + 1), 40_000, (4, 3), BULK));
        world.talk_to_remote(d, 7_300);
        for _ in 0..3 {
            // In the middle of it: three connections at least are known.
            while world.net.nodes[switch].flows() < 3 {
                world.net.run_for(Span::from_millis(1));
            }
            let pause = Span::from_millis(1 + world.net.rng.below(8));
            world.net.run_for(pause);
            let now = world.net.now;
            world.net.nodes[switch].restart(now);
        }
        world.finish();
    });
}

#[test]
fn others_come_and_go_while_connections_go_on() {
    simulate(|world| {
        bad(world);
        let switch = world.switch(true);
        let (a, b) = (world.container(switch, 0, true), world.container(switch, 1, true));
        world.talk(a, b);
        world.talk_to_remote(a, 7_400);
        for round in 0..40_u16 {
            let pause = Span::from_micros(world.net.rng.below(5_000));
            world.net.run_for(pause);
            let (now, id) = (world.net.now, 100 + round % 10);
            let (delta, who) = endpoint(switch as u8, (round % 2) as u8, id, true);
            let node = &mut world.net.nodes[switch];
            if round % 20 < 10 {
                node.apply(now, delta);
                let to = (PortId(id), (round % 2) as u8, &who);
                node.apply(now, publication(1_000 + u32::from(id), UDP, 2_000 + id, to, 80));
            } else {
                node.apply(now, Delta::Unpublish(PublicationId(1_000 + u32::from(id))));
                node.apply(now, Delta::RemovePort(PortId(id)));
            }
        }
        world.finish();
    });
}

#[test]
fn a_container_that_lies_disturbs_nobody() {
    simulate(|world| {
        let switch = world.switch(false);
        let (a, b) = (world.container(switch, 0, true), world.container(switch, 0, true));
        let liar = world.container(switch, 0, true);
        let web = world.container(switch, 1, true);
        world.talk(a, b);
        world.serve_published(web);
        let (to, remote) = (world.outside_addr(switch), world.remote);
        world.net.hosts[remote].run(connect((to, OUTSIDE), 40_000, (2, 1), BULK));
        let port = world.containers[liar].3;
        for _ in 0..200 {
            let pause = Span::from_micros(world.net.rng.below(1_000));
            world.net.run_for(pause);
            // It sends what it could have heard of others, as it was or with some bits changed.
            let Some(mut lie) = world.net.heard.last().cloned() else { continue };
            if world.net.rng.permille(700) {
                let at = world.net.rng.below(lie.len() as u64) as usize;
                lie.frame().bytes_mut()[at] ^= 1 << world.net.rng.below(8);
            }
            let now = world.net.now;
            let sent = world.net.nodes[switch].receive(now, port, &[lie]);
            world.net.send_all(switch, sent);
        }
        world.finish();
    });
}
