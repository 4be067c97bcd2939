//! Rate limits, on the wire.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use wharf::io::netns::{NetNs, in_namespace};
use wharf::wire::addr::Family;

use crate::support::{PATIENCE, in_world};
use crate::traffic::ping;
use crate::world::{BLUE, FAMILIES, World};

/// What TCP carries from one namespace to another within a while, in megabits a second.
fn rate(from: &NetNs, to: &NetNs, address: IpAddr) -> u64 {
    const LENGTH: Duration = Duration::from_secs(3);
    let listener = in_namespace(to, || TcpListener::bind((address, 0))).unwrap().unwrap();
    let target = listener.local_addr().unwrap();
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut bytes, mut buffer) = (0_u64, vec![0; 1 << 16]);
        let start = Instant::now();
        while let Ok(n) = stream.read(&mut buffer) {
            bytes += n as u64;
            if n == 0 || start.elapsed() > LENGTH {
                break;
            }
        }
        bytes * 8 / start.elapsed().as_micros() as u64
    });
    let mut stream = in_namespace(from, || TcpStream::connect(target)).unwrap().unwrap();
    let data = vec![0; 1 << 16];
    while stream.write_all(&data).is_ok() {}
    reader.join().unwrap()
}

#[test]
fn tcp_comes_near_its_limit_in_each_direction_and_not_above_it() {
    in_world("rates::tcp_comes_near_its_limit_in_each_direction_and_not_above_it", |dir| {
        let world = World::new(dir);
        world.ok(&format!("network create blue {BLUE}"));
        let free = world.container("free", "--network blue");
        let slow = world.container("slow", "--network blue --rate 80M/40M");
        let seen = &world.json("inspect slow")[0]["rate"];
        assert_eq!(seen["ingress"]["rate"], 80_000_000);
        assert_eq!(seen["egress"]["rate"], 40_000_000);
        for family in FAMILIES {
            let down = rate(&free.ns(), &slow.ns(), slow.addr(family));
            let up = rate(&slow.ns(), &free.ns(), free.addr(family));
            // The burst counts once, within three seconds; a busy machine may take some of the time.
            assert!((40..=86).contains(&down), "{family:?}: {down} of 80 Mbit/s");
            assert!((20..=43).contains(&up), "{family:?}: {up} of 40 Mbit/s");
        }
        assert_eq!(world.drops("free", "rate-limited"), 0);
        let refused = world.refused("run --network blue --rate 1k -- true");
        assert!(refused.text.contains("too small"), "{refused:?}");
    });
}

#[test]
fn a_limit_holds_for_datagrams_and_after_a_restart() {
    in_world("rates::a_limit_holds_for_datagrams_and_after_a_restart", |dir| {
        let world = World::new(dir);
        world.ok(&format!("network create blue {BLUE}"));
        let free = world.container("free", "--network blue");
        let slow = world.container("slow", "--network blue --rate -/1M");
        world.kill_daemon();
        world.start("");
        let to = free.addr(Family::V4);
        let receiver = in_namespace(&free.ns(), || UdpSocket::bind((to, 0))).unwrap().unwrap();
        let sender = in_namespace(&slow.ns(), || UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
        // Who waits for a neighbour's answer is dropped by the sender's own kernel.
        ping(&slow.ns(), to, PATIENCE).unwrap();
        // 128 KiB at once, 256 frames that wait, and the rest is too much.
        let target = receiver.local_addr().unwrap();
        let counter = std::thread::spawn(move || {
            receiver.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let (mut buffer, mut received) = ([0; 2000], 0);
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(1) && receiver.recv(&mut buffer).is_ok() {
                received += 1;
            }
            received
        });
        for _ in 0..1000 {
            sender.send_to(&[0; 1000], target).unwrap();
        }
        let received = counter.join().unwrap();
        assert!((150..=300).contains(&received), "{received} of 1000");
        assert!(world.drops("slow", "rate-limited") > 300);
    });
}
