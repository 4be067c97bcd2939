//! What an uplink says about translation, against real kernels; and what is told about flows.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Stdio;

use serde_json::Value;
use wharf::wire::addr::Family;

use crate::support::{PATIENCE, in_world, udp_in};
use crate::traffic::{NEVER, serve_whoami, whoami_udp};
use crate::world::{BLUE, Container, FAMILIES, Lan, World};

/// A second remote host, to whom nobody has spoken.
fn stranger(family: Family) -> IpAddr {
    match family {
        Family::V4 => [192, 0, 2, 10].into(),
        Family::V6 => "2001:db8::a".parse().unwrap(),
    }
}

fn world(dir: &std::path::Path, options: &str) -> (World, Lan, Container) {
    let lan =
        Lan::with_remote(&["192.0.2.9/24", "2001:db8::9/64", "192.0.2.10/24", "2001:db8::a/64"]);
    let world = World::new(dir);
    world.ok(&format!("uplink create default {} {options}", Lan::UPLINK));
    world.ok(&format!("network create blue {BLUE}"));
    let web = world.container("web", "--network blue");
    (world, lan, web)
}

/// Sends, since a first datagram may wait for a neighbour; whether it arrives.
fn arrives(from: &UdpSocket, to: SocketAddr, at: &UdpSocket) -> bool {
    at.set_read_timeout(Some(NEVER)).unwrap();
    from.send_to(b"knock", to).unwrap();
    at.recv_from(&mut [0; 16]).is_ok()
}

/// Whether the owner of an outside port is reached by another port of whom it spoke to, and by a
/// stranger.
fn reached(lan: &Lan, web: &Container, family: Family) -> [bool; 2] {
    let inside = udp_in(&web.ns(), web.addr(family), 5_000);
    let one = udp_in(&lan.remote, Lan::host(family), 7_001);
    inside.send_to(b"hello", one.local_addr().unwrap()).unwrap();
    let (_, seen) = one.recv_from(&mut [0; 16]).unwrap();
    let port = udp_in(&lan.remote, Lan::host(family), 7_002);
    let other = udp_in(&lan.remote, stranger(family), 7_001);
    [arrives(&port, seen, &inside), arrives(&other, seen, &inside)]
}

#[test]
fn who_may_send_to_an_outside_port_is_as_the_uplink_says() {
    in_world("nat::who_may_send_to_an_outside_port_is_as_the_uplink_says", |dir| {
        let (world, lan, web) = world(dir, "--filtering endpoint-independent --nat66");
        let packet = world.json("uplink ls --json")[0]["kind"]["packet"].clone();
        assert_eq!(packet["filtering"], "endpoint-independent");
        assert_eq!(
            (&packet["mapping"], &packet["nat66"]),
            (&"endpoint-independent".into(), &true.into())
        );
        for family in FAMILIES {
            assert_eq!(reached(&lan, &web, family), [true, true]);
        }
    });
}

#[test]
fn a_stranger_is_not_heard_by_default() {
    in_world("nat::a_stranger_is_not_heard_by_default", |dir| {
        let (world, lan, web) = world(dir, "");
        for family in FAMILIES {
            assert_eq!(reached(&lan, &web, family), [true, false]);
        }
        assert!(world.drops("default", "filtered") > 0);
        let wrong =
            world.refused("uplink create two --packet nic0 --address dhcp --filtering none");
        assert_eq!(wrong.code, 2);
        assert!(wrong.text.contains("address-and-port-dependent"), "{}", wrong.text);
    });
}

#[test]
fn flows_are_filtered_counted_flushed_and_followed() {
    in_world("nat::flows_are_filtered_counted_flushed_and_followed", |dir| {
        let (world, lan, web) = world(dir, "");
        serve_whoami(&lan.remote, 7_000);
        let mut follower = world.command(&["flows", "--follow", "--proto", "udp"]);
        let mut follower = follower.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
        // The follower hears what begins after it has been heard itself.
        std::thread::sleep(NEVER);
        let to = (Lan::host(Family::V4), 7_000).into();
        let seen = whoami_udp(&web.ns(), to, PATIENCE).unwrap();
        let mut event = || -> Value {
            let line = lines.next().unwrap().unwrap();
            serde_json::from_str(&line).expect("a JSON object a line")
        };
        let begun = event();
        assert_eq!((&begun["event"], &begun["from"]), (&"begin".into(), &"web".into()));
        assert_eq!(begun["initiator"][1], seen.client.port());
        let port = seen.client.port();
        let found = world.json(&format!("flows --json --port {port} --addr 192.0.2.9"));
        assert_eq!(found.as_array().unwrap().len(), 1);
        assert_eq!(world.json("flows --json --port 1"), Value::Array(Vec::new()));
        let counts = world.json("flows --counts --json");
        let streams = counts.as_array().unwrap().iter().find(|c| c["state"] == "udp-stream");
        assert_eq!(streams.unwrap()["flows"], 1);
        assert!(world.ok("flows --counts").contains("udp-stream"));
        assert_eq!(world.ok(&format!("flows flush --port {port} --proto udp")), "1");
        let ended = event();
        assert_eq!((&ended["event"], &ended["why"]), (&"end".into(), &"flushed".into()));
        assert!(ended["bytes"][0].as_u64().unwrap() > 0 && ended["packets"][1] == 1);
        assert!(ended["duration_ms"].is_u64() && ended["time_ms"].is_u64());
        follower.kill().unwrap();
        follower.wait().unwrap();
    });
}
