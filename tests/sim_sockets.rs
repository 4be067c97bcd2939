//! The socket uplink's TCP in a simulation: smoltcp hosts inside, the flow machines in the middle, host
//! sockets in memory outside; virtual time, seeded loss, duplication and reordering on the container's
//! link, slow readers, half-closes, resets. What arrives is compared byte by byte with what was sent.
//!
//! Each run prints its seed; `WHARF_SIM_SEED=n cargo test --test sim_sockets` repeats one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "sim_sockets/host.rs"]
mod host;
#[path = "sim_sockets/inside.rs"]
mod inside;
#[path = "sim_sockets/world.rs"]
mod world;

use world::{End, Scenario, World};

/// A small, good generator (splitmix64): the same numbers everywhere.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }

    /// True `per_mille` times in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

/// Runs a kind of scenario under several seeds, or under the one that the environment names.
fn run(name: &str, seeds: u64, make: impl Fn(&mut Dice) -> Scenario) {
    let chosen = std::env::var("WHARF_SIM_SEED").ok().map(|text| text.parse().unwrap());
    let seeds = chosen.map_or(1..=seeds, |seed| seed..=seed);
    for seed in seeds {
        println!("{name}: seed {seed}");
        let mut dice = Dice(seed);
        let scenario = make(&mut dice);
        World::new(dice, scenario).run();
    }
}

fn base(dice: &mut Dice) -> Scenario {
    Scenario {
        v4: dice.chance(500),
        inbound: dice.chance(500),
        connections: 1 + dice.below(4) as usize,
        bytes: [dice.below(300_000) as usize, dice.below(300_000) as usize],
        loss: 0,
        duplication: 0,
        reordering: 0,
        reordering_out: 0,
        host_buffers: [8_000 + dice.below(200_000) as usize, 8_000 + dice.below(200_000) as usize],
        inside_buffers: 2_000 + dice.below(100_000) as usize,
        slow: false,
        end: End::Close,
        refuse: false,
    }
}

#[test]
fn streams_arrive_whole_on_a_good_link() {
    run("good link", 12, base);
}

#[test]
fn streams_arrive_whole_through_loss_duplication_and_reordering() {
    run("bad link", 12, |dice| Scenario {
        loss: dice.below(15),
        duplication: dice.below(60),
        reordering: dice.below(15),
        bytes: [dice.below(100_000) as usize, dice.below(100_000) as usize],
        ..base(dice)
    });
}

/// What the container sends arrives in another order, up to three milliseconds late: it is put together
/// again, and not one byte has to be sent twice.
#[test]
fn what_the_container_reorders_is_put_together_and_nothing_is_sent_again() {
    run("reordering", 24, |dice| Scenario {
        reordering_out: 20 + dice.below(400),
        bytes: [100_000 + dice.below(300_000) as usize, dice.below(50_000) as usize],
        ..base(dice)
    });
}

#[test]
fn slow_readers_stop_their_senders_and_lose_nothing() {
    run("slow readers", 4, |dice| Scenario {
        slow: true,
        loss: dice.below(20),
        host_buffers: [9_000 + dice.below(9_000) as usize, 3_000 + dice.below(9_000) as usize],
        inside_buffers: 2_000 + dice.below(4_000) as usize,
        bytes: [dice.below(30_000) as usize, dice.below(30_000) as usize],
        ..base(dice)
    });
}

#[test]
fn a_reset_by_the_peer_reaches_the_container() {
    run("reset by peer", 12, |dice| Scenario {
        end: End::PeerResets,
        loss: dice.below(30),
        ..base(dice)
    });
}

#[test]
fn a_reset_by_the_container_reaches_the_peer() {
    run("reset by container", 12, |dice| Scenario {
        end: End::ContainerResets,
        loss: dice.below(30),
        ..base(dice)
    });
}

#[test]
fn a_refused_connection_is_refused_inside_too() {
    run("refusal", 10, |dice| Scenario { refuse: true, inbound: false, ..base(dice) });
}
