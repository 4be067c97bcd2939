use simple_dns::{Packet, PacketFlag, RCODE, TYPE};

use super::*;
use crate::base::limits::{NAMES_CACHED_MAX, NAMES_CACHED_PER_PORT_MAX};
use crate::stage::dns::testing::{Says, query};
use crate::stage::dns::{Datagram, Peer, StreamId};

/// A resolver and what it has asked and answered.
struct Scene {
    resolver: Resolver,
    now: Time,
    out: Vec<Action>,
}

/// What was asked of whom.
#[derive(Clone, Debug)]
struct Query {
    exchange: Exchange,
    server: Addr,
    message: Vec<u8>,
}

fn servers(n: usize) -> Vec<Addr> {
    let all = ["192.0.2.1", "2001:db8::2", "192.0.2.3"];
    all[..n].iter().map(|a| a.parse().unwrap()).collect()
}

fn client(port: u16) -> Client {
    let peer = Peer::Datagram(Datagram::new(&crate::packet::Parsed::NOTHING));
    Client { port: PortId(port), peer }
}

fn ms(n: u64) -> Span {
    Span::from_millis(n)
}

impl Scene {
    fn new(n: usize) -> Self {
        let mut resolver = Resolver::new(Seed(1));
        resolver.set_servers(&servers(n));
        Self { resolver, now: Time(1), out: Vec::new() }
    }

    fn ask(&mut self, id: u16, name: &str) {
        self.ask_as(client(1), &query(id, name, TYPE::A, Some(1232))).unwrap();
    }

    fn ask_as(&mut self, client: Client, query: &[u8]) -> Result<(), DropReason> {
        self.resolver.ask(self.now, client, query, &mut self.out)
    }

    /// The queries that went out since, and nothing else but sockets that were closed.
    fn asked(&mut self) -> Vec<Query> {
        let mut asked = Vec::new();
        self.out.retain(|action| match action {
            Action::Ask { exchange, server, message } => {
                let (exchange, server, message) = (*exchange, *server, message.clone());
                asked.push(Query { exchange, server, message });
                false
            }
            _ => true,
        });
        asked
    }

    fn asked_once(&mut self) -> Query {
        let mut asked = self.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked.remove(0)
    }

    fn answers(&mut self) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        self.out.retain(|action| match action {
            Action::Answer(_, message) => {
                answers.push(message.clone());
                false
            }
            _ => true,
        });
        answers
    }

    /// The one answer that was given: code, addresses, TTL of the first.
    fn answered(&mut self) -> (RCODE, usize, Option<u32>) {
        let answers = self.answers();
        assert_eq!(answers.len(), 1, "{answers:?}");
        let reply = Packet::parse(&answers[0]).unwrap();
        assert!(reply.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_AVAILABLE));
        (reply.rcode(), reply.answers.len(), reply.answers.first().map(|r| r.ttl))
    }

    fn reply(&mut self, to: &Query, message: &[u8]) {
        self.reply_from((to.server, PORT), to, message);
    }

    fn reply_from(&mut self, from: (Addr, u16), to: &Query, message: &[u8]) {
        self.resolver.reply(self.now, to.exchange, from, message, &mut self.out);
    }

    fn says(&mut self, to: &Query, says: Says) {
        self.reply(to, &says.to(&to.message));
    }

    /// Time passes, deadline by deadline.
    fn pass(&mut self, span: Span) {
        let end = self.now + span;
        while let Some(at) = self.resolver.next_deadline().filter(|at| *at <= end) {
            self.now = at;
            self.resolver.tick(at, &mut self.out);
        }
        self.now = end;
    }

    /// Nothing is being asked, waited for, or left open.
    #[track_caller]
    fn assert_quiet(&self) {
        assert_eq!(self.resolver.sizes().0, 0);
        assert!(self.resolver.asked.is_empty() && self.resolver.waiting.is_empty());
        assert!(self.resolver.timers.is_empty() && self.resolver.by_key.is_empty());
    }
}

#[test]
fn an_answer_is_passed_on_and_kept_as_long_as_it_says() {
    let mut scene = Scene::new(1);
    scene.ask(7, "Example.Test");
    let asked = scene.asked_once();
    scene.says(&asked, Says::ADDRESS);
    let answers = scene.answers();
    let reply = Packet::parse(&answers[0]).unwrap();
    assert_eq!((reply.id(), reply.questions[0].qname.to_string()), (7, "Example.Test".to_owned()));
    assert!(reply.opt().is_some(), "it asked with EDNS");
    scene.assert_quiet();
    scene.pass(Span::from_secs(20));
    scene.ask(8, "example.TEST");
    assert_eq!(scene.answered(), (RCODE::NoError, 1, Some(40)));
    scene.pass(Span::from_secs(40));
    scene.ask(9, "example.test");
    assert_eq!(scene.asked().len(), 1, "its time is over");
}

#[test]
fn that_there_is_no_such_name_is_kept_as_long_as_its_zone_says() {
    for (says, kept) in [
        (Says { negative: Some(30), ..Says::code(RCODE::NameError) }, Some(30)),
        (Says { negative: Some(30), ..Says::code(RCODE::NoError) }, Some(30)),
        (Says { negative: Some(1 << 20), ..Says::code(RCODE::NameError) }, Some(300)),
        (Says::code(RCODE::NameError), None),
    ] {
        let mut scene = Scene::new(1);
        scene.ask(1, "no.test");
        let asked = scene.asked_once();
        scene.says(&asked, says);
        assert_eq!(scene.answered(), (says.code, 0, None));
        scene.pass(Span::from_secs(kept.unwrap_or(1) - 1));
        scene.ask(2, "no.test");
        assert_eq!(scene.asked().is_empty(), kept.is_some(), "{says:?}");
        scene.pass(Span::from_secs(1));
        scene.answers();
        scene.ask(3, "no.test");
        assert!(kept.is_none() || scene.asked().len() == 1, "{says:?}");
    }
}

#[test]
fn who_asks_what_is_being_asked_waits_with_the_others() {
    let mut scene = Scene::new(2);
    scene.ask(1, "a.test");
    let asked = scene.asked_once();
    scene.ask_as(client(2), &query(2, "A.test", TYPE::A, None)).unwrap();
    scene.ask(1, "a.test");
    assert!(scene.asked().is_empty());
    scene.says(&asked, Says::ADDRESS);
    let answers = scene.answers();
    let ids: Vec<_> = answers.iter().map(|a| Packet::parse(a).unwrap().id()).collect();
    assert_eq!(ids, [1, 2], "once each, also who was impatient");
    assert!(Packet::parse(&answers[1]).unwrap().opt().is_none());
    scene.assert_quiet();
}

#[test]
fn a_resolver_that_asks_us_in_turn_makes_no_storm() {
    let mut scene = Scene::new(1);
    scene.ask(1, "loop.test");
    let mut sent = 0;
    for id in 0..100 {
        for asked in scene.asked() {
            sent += 1;
            // It comes back from the host, as a client of ours.
            let _ = scene.ask_as(client(9), &query(id, "loop.test", TYPE::A, None));
            drop(asked);
        }
        scene.pass(ms(100));
    }
    assert!(sent <= 6 + 6, "{sent} queries: two rounds of one name");
    scene.pass(Span::from_secs(5));
    let failed = scene.answers();
    assert!(failed.iter().all(|a| Packet::parse(a).unwrap().rcode() == RCODE::ServerFailure));
}

#[test]
fn the_next_one_is_asked_when_the_first_is_silent_and_then_first_for_a_while() {
    let mut scene = Scene::new(3);
    scene.ask(1, "a.test");
    assert_eq!(scene.asked_once().server, servers(3)[0]);
    scene.pass(ms(399));
    assert!(scene.asked().is_empty());
    scene.pass(ms(1));
    let second = scene.asked_once();
    assert_eq!(second.server, servers(3)[1]);
    scene.pass(ms(5));
    scene.says(&second, Says::ADDRESS);
    assert_eq!(scene.answered(), (RCODE::NoError, 1, Some(60)));
    scene.assert_quiet();
    scene.ask(2, "b.test");
    let asked = scene.asked_once();
    assert_eq!(asked.server, servers(3)[1], "it is remembered who answers");
    scene.says(&asked, Says::ADDRESS);
    scene.pass(Span::from_secs(3));
    scene.ask(3, "c.test");
    assert_eq!(scene.asked_once().server, servers(3)[0], "but not for ever");
}

#[test]
fn a_late_answer_of_the_first_still_counts() {
    let mut scene = Scene::new(2);
    scene.ask(1, "a.test");
    let first = scene.asked_once();
    scene.pass(ms(450));
    assert_eq!(scene.asked().len(), 1);
    scene.says(&first, Says::ADDRESS);
    assert_eq!(scene.answered().0, RCODE::NoError);
    let closed = scene.out.iter().filter(|a| matches!(a, Action::Close(_))).count();
    assert_eq!(closed, 2, "both sockets");
    scene.assert_quiet();
}

#[test]
fn a_failure_makes_the_next_one_be_asked_at_once_and_the_last_one_is_the_answer() {
    let mut scene = Scene::new(3);
    scene.ask(1, "a.test");
    let asked = scene.asked_once();
    scene.says(&asked, Says::code(RCODE::ServerFailure));
    let asked = scene.asked_once();
    scene.resolver.failed(scene.now, asked.exchange, &mut scene.out);
    let asked = scene.asked_once();
    assert_eq!(asked.server, servers(3)[2]);
    scene.says(&asked, Says::code(RCODE::Refused));
    assert_eq!(scene.answered().0, RCODE::ServerFailure);
    scene.assert_quiet();
    scene.ask(2, "a.test");
    assert_eq!(scene.answered().0, RCODE::ServerFailure, "for a second");
    scene.pass(Span::from_secs(1));
    scene.ask(3, "a.test");
    assert_eq!(scene.asked().len(), 1);
}

#[test]
fn when_nobody_answers_the_client_is_told_before_it_gives_up() {
    let mut scene = Scene::new(2);
    scene.ask(1, "a.test");
    scene.pass(ms(4_499));
    assert!(scene.answers().is_empty());
    assert_eq!(scene.asked().len(), usize::from(NAMES_ATTEMPTS_MAX));
    scene.pass(ms(1));
    assert_eq!(scene.answered().0, RCODE::ServerFailure);
    scene.assert_quiet();
}

#[test]
fn a_forged_answer_is_ignored_and_the_true_one_counts() {
    let mut scene = Scene::new(1);
    scene.ask(1, "bank.test");
    let asked = scene.asked_once();
    let good = Says::ADDRESS.to(&asked.message);
    let bend = |at: usize, bit: u8| {
        let mut bent = good.clone();
        bent[at] ^= bit;
        bent
    };
    let stranger = "192.0.2.66".parse().unwrap();
    scene.reply_from((stranger, PORT), &asked, &good);
    scene.reply_from((asked.server, 5353), &asked, &good);
    let question_end = 12 + "\u{4}bank\u{4}test\0".len() + 4;
    for bent in [bend(0, 1), bend(1, 1), bend(2, 0x80), bend(14, 1), bend(question_end - 3, 2)] {
        scene.reply(&asked, &bent);
    }
    for cut in 0..question_end {
        scene.reply(&asked, &good[..cut]);
    }
    assert!(scene.out.is_empty(), "{:?}", scene.out);
    scene.reply(&asked, &good);
    assert_eq!(scene.answered(), (RCODE::NoError, 1, Some(60)));
}

#[test]
fn the_case_of_each_letter_is_chance_and_numbers_do_not_repeat() {
    let mut scene = Scene::new(1);
    let (mut cases, mut ids) = (std::collections::HashSet::new(), std::collections::HashSet::new());
    for n in 0..64 {
        scene.ask(n, &format!("abcdefghijklmnop.n{n}.test"));
        let asked = scene.asked_once();
        ids.insert(asked.message[..2].to_vec());
        cases.insert(asked.message[13..29].to_vec());
    }
    assert!(ids.len() > 60 && cases.len() > 60, "{} {}", ids.len(), cases.len());
}

#[test]
fn a_resolver_that_changes_the_case_is_asked_again_in_plain_case_and_so_from_then_on() {
    let mut scene = Scene::new(1);
    let plain = |asked: &Query| asked.message.iter().all(|byte| !byte.is_ascii_uppercase());
    scene.ask(1, "quite-a-long-name.test");
    let asked = scene.asked_once();
    assert!(!plain(&asked));
    scene.says(&Query { message: asked.message.to_ascii_lowercase(), ..asked }, Says::ADDRESS);
    assert!(scene.answers().is_empty());
    let again = scene.asked_once();
    assert!(plain(&again));
    scene.says(&again, Says::ADDRESS);
    assert_eq!(scene.answered().0, RCODE::NoError);
    scene.ask(2, "another-long-name.test");
    assert!(plain(&scene.asked_once()));
    scene.pass(Span::from_secs(700));
    scene.asked();
    scene.ask(3, "a-third-long-name.test");
    assert!(!plain(&scene.asked_once()), "it may be another program by now");
}

#[test]
fn a_truncated_answer_is_asked_for_by_tcp_and_each_client_gets_what_fits() {
    let mut scene = Scene::new(1);
    scene.ask(1, "many.test");
    let stream = Client { peer: Peer::Stream(StreamId::NOTHING), ..client(2) };
    scene.ask_as(stream, &query(2, "many.test", TYPE::A, Some(512))).unwrap();
    let asked = scene.asked_once();
    scene.says(&asked, Says { truncated: true, addrs: 0, ..Says::ADDRESS });
    let asked = scene.asked_once();
    assert!(asked.exchange.stream);
    scene.says(&asked, Says { addrs: 200, ..Says::ADDRESS });
    let answers = scene.answers();
    let [small, large] = [0, 1].map(|n| Packet::parse(&answers[n]).unwrap());
    assert!(small.has_flags(PacketFlag::TRUNCATION) && answers[0].len() < 100);
    assert_eq!((small.answers.len(), large.answers.len()), (0, 200));
    assert!(!large.has_flags(PacketFlag::TRUNCATION));
    scene.ask_as(stream, &query(3, "many.test", TYPE::A, Some(512))).unwrap();
    assert_eq!(scene.answered().1, 200, "who comes back by TCP finds it in the cache");
}

#[test]
fn where_tcp_is_blocked_the_truncated_answer_is_better_than_none() {
    let mut scene = Scene::new(1);
    scene.ask(1, "many.test");
    let asked = scene.asked_once();
    scene.says(&asked, Says { truncated: true, ..Says::ADDRESS });
    let asked = scene.asked_once();
    scene.resolver.failed(scene.now, asked.exchange, &mut scene.out);
    let answers = scene.answers();
    let reply = Packet::parse(&answers[0]).unwrap();
    assert!(reply.has_flags(PacketFlag::TRUNCATION));
    assert_eq!(reply.rcode(), RCODE::NoError);
    scene.assert_quiet();
    assert_eq!(scene.resolver.sizes().1, 0, "and it is not kept");
}

#[test]
fn the_size_a_client_tells_is_kept_to() {
    for (edns, fits) in [(None, false), (Some(512), false), (Some(1232), true), (Some(9000), true)]
    {
        let mut scene = Scene::new(1);
        scene.ask_as(client(1), &query(1, "a.test", TYPE::A, edns)).unwrap();
        let asked = scene.asked_once();
        let told = Packet::parse(&asked.message).unwrap().opt().map(|o| o.udp_packet_size);
        assert_eq!(told, Some(1232), "we take as much, whoever asks");
        scene.says(&asked, Says { addrs: 60, ..Says::ADDRESS });
        let answers = scene.answers();
        let reply = Packet::parse(&answers[0]).unwrap();
        assert_eq!(reply.has_flags(PacketFlag::TRUNCATION), !fits, "{edns:?}");
        assert_eq!(reply.opt().is_some(), edns.is_some());
    }
}

#[test]
fn a_resolver_without_edns_is_asked_without() {
    for code in [RCODE::FormatError, RCODE::NotImplemented] {
        let mut scene = Scene::new(1);
        scene.ask(1, "a.test");
        let asked = scene.asked_once();
        scene.says(&asked, Says::code(code));
        let asked = scene.asked_once();
        assert!(Packet::parse(&asked.message).unwrap().opt().is_none());
        scene.says(&asked, Says::ADDRESS);
        assert_eq!(scene.answered().0, RCODE::NoError);
    }
}

#[test]
fn dnssec_s_bit_is_passed_on_and_makes_another_question() {
    let mut scene = Scene::new(1);
    let mut wants = query(1, "a.test", TYPE::A, Some(1232));
    let flags = wants.len() - 4;
    wants[flags] |= 0x80;
    scene.ask_as(client(1), &wants).unwrap();
    let asked = scene.asked_once();
    assert_eq!(asked.message[asked.message.len() - 4], 0x80);
    scene.ask(2, "a.test");
    let other = scene.asked_once();
    assert_eq!(other.message[other.message.len() - 4], 0);
}

#[test]
fn one_port_s_flood_leaves_the_others_their_queries() {
    let mut scene = Scene::new(1);
    let mut flood = |port: u16, n: u16| {
        scene.ask_as(client(port), &query(n, &format!("n{n}-{port}.test"), TYPE::A, None))
    };
    let passed = (0..1_000).filter(|n| flood(1, *n).is_ok()).count();
    assert_eq!(passed, NAMES_WAITING_PER_PORT_MAX as usize);
    assert_eq!(flood(1, 5_000), Err(DropReason::NameLimit));
    assert_eq!(flood(2, 1), Ok(()));
    let others = (3..8).flat_map(|port| (0..1_000).map(move |n| (port, n)));
    let passed = others.filter(|(port, n)| flood(*port, *n).is_ok()).count();
    assert_eq!(passed + 129, NAMES_ASKED_MAX);
    assert_eq!(scene.resolver.sizes().0, NAMES_ASKED_MAX);
    scene.pass(Span::from_secs(5));
    scene.assert_quiet();
}

#[test]
fn one_port_fills_its_own_share_of_the_cache_only() {
    let mut scene = Scene::new(1);
    let mut learn = |port: u16, n: usize| {
        scene.ask_as(client(port), &query(1, &format!("n{n}-{port}.test"), TYPE::A, None)).unwrap();
        if let [asked] = &scene.asked()[..] {
            scene.says(asked, Says::ADDRESS);
        }
        scene.out.clear();
        scene.resolver.sizes().1
    };
    learn(2, 0);
    for n in 0..NAMES_CACHED_MAX {
        assert!(learn(1, n) <= NAMES_CACHED_PER_PORT_MAX + 1);
    }
    let asked = scene.resolver.stats().asked;
    scene.ask_as(client(2), &query(1, "n0-2.test", TYPE::A, None)).unwrap();
    assert_eq!(scene.resolver.stats().asked, asked, "the neighbour's answer is still there");
}

#[test]
fn when_the_resolvers_change_what_the_former_ones_said_is_forgotten() {
    let mut scene = Scene::new(1);
    scene.ask(1, "a.test");
    let old = scene.asked_once();
    scene.ask(2, "b.test");
    let asked = scene.asked_once();
    scene.says(&asked, Says::ADDRESS);
    scene.resolver.set_servers(&servers(3)[1..]);
    scene.answers();
    scene.says(&old, Says::ADDRESS);
    assert_eq!(scene.answered().0, RCODE::NoError, "what was under way is answered");
    for name in ["a.test", "b.test"] {
        scene.ask(3, name);
        assert_eq!(scene.asked_once().server, servers(3)[1], "{name}");
    }
}

#[test]
fn a_question_under_way_goes_on_to_the_new_resolvers() {
    let mut scene = Scene::new(1);
    scene.ask(1, "a.test");
    scene.asked_once();
    scene.resolver.set_servers(&servers(3)[2..]);
    scene.pass(ms(400));
    let asked = scene.asked_once();
    assert_eq!(asked.server, servers(3)[2]);
    scene.says(&asked, Says::ADDRESS);
    assert_eq!(scene.answered().0, RCODE::NoError);
    scene.assert_quiet();
}

#[test]
fn what_is_no_query_is_not_asked_of_others() {
    let mut scene = Scene::new(1);
    let mut update = query(1, "a.test", TYPE::A, None);
    update[2] |= 5 << 3;
    scene.ask_as(client(1), &update).unwrap();
    assert_eq!(scene.answered().0, RCODE::NotImplemented);
    let mut transfer = query(1, "a.test", TYPE::A, None);
    let kind = transfer.len() - 3;
    transfer[kind] = 252;
    scene.ask_as(client(1), &transfer).unwrap();
    assert_eq!(scene.answered().0, RCODE::Refused);
    let mut answer = query(1, "a.test", TYPE::A, None);
    answer[2] |= 0x80;
    assert_eq!(scene.ask_as(client(1), &answer), Err(DropReason::Malformed));
    let mut counts = query(1, "a.test", TYPE::A, None);
    counts[11] = 1;
    assert_eq!(scene.ask_as(client(1), &counts), Err(DropReason::Malformed));
}

#[test]
fn an_answer_with_wrong_counts_is_a_failure() {
    let mut scene = Scene::new(1);
    scene.ask(1, "a.test");
    let asked = scene.asked_once();
    let mut lies = Says::ADDRESS.to(&asked.message);
    lies[7] = 200;
    scene.reply(&asked, &lies);
    assert_eq!(scene.answered().0, RCODE::ServerFailure);
    scene.assert_quiet();
}
