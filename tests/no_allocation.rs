//! A frame whose flow is known costs no allocation, whatever it is and wherever it goes. One program
//! of its own, since it brings an allocator that counts what each thread asks for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unsafe_code, reason = "an allocator that counts is an allocator")]

#[path = "common/world.rs"]
mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use wharf::base::ids::PortId;
use wharf::datapath::Output;
use wharf::packet::{FrameBatch, Offload};
use wharf::wire::addr::Family;
use wharf::wire::ipv6::{TCP, UDP};
use wharf::wire::mac::Mac;
use world::*;

struct Counting;

thread_local! {
    /// Neither made nor dropped at run time, so that the allocator itself may use it.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.with(|n| n.set(n.get() + 1));
}

// SAFETY: every call is handed to the system's allocator unchanged; counting touches no memory of
// the caller's and cannot fail.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `alloc` above, which is the system's.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as for `dealloc`; the caller's promise about `size` is passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const BATCHES: u64 = 10;
const FRAMES: u64 = 32;

/// Processes full batches of one frame, all of which must be hits, and counts.
fn assert_free_of_allocations(what: &str, world: &mut World, port: PortId, frame: &[u8]) {
    let (mut batch, mut out) = (FrameBatch::new(), Output::default());
    let mut round = |world: &mut World| {
        batch.clear();
        out.clear();
        (0..FRAMES).for_each(|_| assert!(batch.push(frame, Offload::NONE)));
        world.dp.frames(world.now, port, &mut batch, &mut out);
        assert_eq!(out.frames.len() as u64, FRAMES, "{what}: all leave");
    };
    round(world); // Vectors grow to their working size once.
    let hits = world.dp.worker_stats().hits;
    let before = ALLOCATIONS.get();
    (0..BATCHES).for_each(|_| round(world));
    let allocations = ALLOCATIONS.get() - before;
    assert_eq!(world.dp.worker_stats().hits - hits, BATCHES * FRAMES, "{what}: all are hits");
    assert_eq!(allocations, 0, "{what}: {} frames", BATCHES * FRAMES);
}

/// A packet from the middle of a conversation.
fn packet(proto: u8, from: &Host, via: Mac, sport: u16, to: (std::net::IpAddr, u16)) -> Vec<u8> {
    match proto {
        TCP => tcp(from, via, sport, to, "A", (1, 1), b"payload"),
        _ => udp(from, via, sport, to, b"payload"),
    }
}

fn bridged(family: Family, proto: u8) {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let (a, b) = (world.endpoint(net), world.endpoint(net));
    let frame = packet(proto, &a, b.mac, 5_000, (b.addr(family), 7_000));
    world.pass(a.port, &frame);
    assert_free_of_allocations("bridged", &mut world, a.port, &frame);
}

fn routed(family: Family, proto: u8) {
    let mut world = World::new();
    let open = NetworkOptions { open: true, ..NetworkOptions::default() };
    let (one, two) = (world.network(open), world.network(open));
    let (a, b) = (world.endpoint(one), world.endpoint(two));
    let frame = packet(proto, &a, a.router, 5_000, (b.addr(family), 7_000));
    world.pass(a.port, &frame);
    assert_free_of_allocations("routed", &mut world, a.port, &frame);
}

fn masqueraded(family: Family, proto: u8) {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let (a, remote) = (world.endpoint(net), world.uplink());
    let frame = packet(proto, &a, a.router, 5_000, (remote.addr(family), 7_000));
    let there = world.pass_resolving(a.port, &frame, &remote);
    assert_free_of_allocations("masqueraded", &mut world, a.port, &frame);
    let answer = packet(proto, &remote, UPLINK_MAC, 7_000, there.src());
    assert_free_of_allocations("its answer", &mut world, UPLINK_PORT, &answer);
}

fn published(family: Family, proto: u8) {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let (web, remote) = (world.endpoint(net), world.uplink());
    world.publish(1, proto, 1180, &web, 5_000);
    let frame = packet(proto, &remote, UPLINK_MAC, 40_000, (own(family), 1180));
    world.pass(UPLINK_PORT, &frame);
    assert_free_of_allocations("published", &mut world, UPLINK_PORT, &frame);
}

#[test]
fn a_frame_of_a_known_flow_allocates_nothing() {
    for family in FAMILIES {
        for proto in [UDP, TCP] {
            bridged(family, proto);
            routed(family, proto);
            masqueraded(family, proto);
            published(family, proto);
        }
    }
}
