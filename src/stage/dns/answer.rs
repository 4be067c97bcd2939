//! From a query to an answer (RFC 1035, EDNS of RFC 6891).

use simple_dns::rdata::{OPT, PTR, RData};
use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};

use super::Zone;
use crate::wire::addr::Addr;

/// Containers come and go: an answer is good for this many seconds.
const TTL: u32 = 5;
/// The largest datagram that passes everywhere without fragments (DNS flag day 2020).
const EDNS_SIZE: u16 = 1232;

/// What became of a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// This is the answer.
    Known(Vec<u8>),
    /// Somebody else's business.
    Forward,
    /// Not a query at all.
    Nonsense,
}

/// Answers a query from what the zone knows.
pub fn answer(zone: &Zone, query: &[u8]) -> Answer {
    let Ok(packet) = Packet::parse(query) else { return Answer::Nonsense };
    if packet.has_flags(PacketFlag::RESPONSE) {
        return Answer::Nonsense;
    }
    let [question] = packet.questions.as_slice() else { return Answer::Forward };
    let internet = matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY);
    if packet.opcode() != OPCODE::StandardQuery || !internet {
        return Answer::Forward;
    }
    let name = name_of(question);
    let known = match reverse(&name) {
        Some(addr) if question.qtype == QTYPE::TYPE(TYPE::PTR) => by_addr(zone, question, addr),
        _ => zone.addrs(&name).map(|addrs| (RCODE::NoError, records(question, addrs))),
    };
    let Some((code, answers)) = known else { return Answer::Forward };
    finish(&packet, code, answers)
}

/// The answer of somebody who will not say: there is nobody to forward it to.
pub fn refuse(query: &[u8]) -> Option<Vec<u8>> {
    let packet = Packet::parse(query).ok()?;
    match finish(&packet, RCODE::Refused, Vec::new()) {
        Answer::Known(bytes) => Some(bytes),
        Answer::Forward | Answer::Nonsense => None,
    }
}

fn name_of(question: &Question<'_>) -> String {
    let labels = question.qname.get_labels().iter().map(ToString::to_string);
    let mut name = labels.collect::<Vec<_>>().join(".");
    name.make_ascii_lowercase();
    name
}

fn records<'a>(question: &Question<'a>, addrs: &[Addr]) -> Vec<ResourceRecord<'a>> {
    let wanted = |v4: bool| match question.qtype {
        QTYPE::TYPE(TYPE::A) => v4,
        QTYPE::TYPE(TYPE::AAAA) => !v4,
        QTYPE::ANY => true,
        _ => false,
    };
    let data = |addr: &Addr| match addr.v4() {
        Some(ip) => Some(RData::A(ip.into())),
        None => addr.v6().map(|ip| RData::AAAA(ip.into())),
    };
    let wanted = addrs.iter().filter(|addr| wanted(addr.is_v4()));
    let record = |data| ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL, data);
    wanted.filter_map(data).map(record).collect()
}

fn by_addr<'a>(
    zone: &Zone,
    question: &Question<'a>,
    addr: Addr,
) -> Option<(RCODE, Vec<ResourceRecord<'a>>)> {
    let Some(name) = zone.name(addr) else {
        return zone.contains(addr).then(|| (RCODE::NameError, Vec::new()));
    };
    let data = RData::PTR(PTR(Name::new(name).ok()?.into_owned()));
    let record = ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL, data);
    Some((RCODE::NoError, vec![record]))
}

/// The address in a name below `in-addr.arpa` or `ip6.arpa` (RFC 3596 2.5).
fn reverse(name: &str) -> Option<Addr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let mut bytes = [0; 4];
        let mut labels = labels.rsplit('.');
        for byte in &mut bytes {
            *byte = labels.next()?.parse().ok()?;
        }
        return labels.next().is_none().then(|| Addr::from_v4_bytes(bytes));
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let mut bytes = [0; 16];
    let mut nibbles = labels.rsplit('.').map(|label| {
        let digit = (label.len() == 1).then(|| label.chars().next()?.to_digit(16)).flatten();
        digit.map(|digit| digit as u8)
    });
    for byte in &mut bytes {
        *byte = nibbles.next()?? << 4 | nibbles.next()??;
    }
    nibbles.next().is_none().then(|| Addr::from_v6_bytes(bytes))
}

fn finish<'a>(query: &Packet<'a>, code: RCODE, answers: Vec<ResourceRecord<'a>>) -> Answer {
    let mut reply = Packet::new_reply(query.id());
    *reply.opcode_mut() = query.opcode();
    *reply.rcode_mut() = code;
    reply.questions.clone_from(&query.questions);
    reply.answers = answers;
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if query.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    if query.opt().is_some() {
        // RFC 6891 7: who asks with it is answered with it.
        let opt = OPT { opt_codes: Vec::new(), udp_packet_size: EDNS_SIZE, version: 0 };
        *reply.opt_mut() = Some(opt);
    }
    let room = query.opt().map_or(512, |opt| opt.udp_packet_size.clamp(512, EDNS_SIZE));
    match reply.build_bytes_vec_compressed() {
        Ok(bytes) if bytes.len() <= usize::from(room) => Answer::Known(bytes),
        // More than fits, which takes dozens of containers behind one alias: some of them will do.
        Ok(_) => {
            let fewer = reply.answers.len() / 2;
            let answers = reply.answers.drain(..fewer).collect();
            finish(query, code, answers)
        }
        Err(_) => Answer::Nonsense,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addr(text: &str) -> Addr {
        text.parse().unwrap()
    }

    fn zone() -> Zone {
        let mut zone = Zone::new(vec![(addr("10.20.0.0"), 24), (addr("fd20::"), 64)]);
        for (name, at) in [("web", "10.20.0.2"), ("web", "fd20::2"), ("four", "10.20.0.4")] {
            zone.add(name, addr(at));
            zone.add_reverse(addr(at), &format!("{name}.blue"));
        }
        zone
    }

    fn ask(name: &str, qtype: QTYPE, edns: bool) -> Vec<u8> {
        let mut query = Packet::new_query(77);
        let name = Name::new(name).unwrap();
        query.questions.push(Question::new(name, qtype, QCLASS::CLASS(CLASS::IN), false));
        query.set_flags(PacketFlag::RECURSION_DESIRED);
        if edns {
            let opt = OPT { opt_codes: Vec::new(), udp_packet_size: 4096, version: 0 };
            *query.opt_mut() = Some(opt);
        }
        query.build_bytes_vec().unwrap()
    }

    /// Code and data of the answer, in words; none if it is forwarded.
    fn asked(name: &str, qtype: TYPE) -> Option<(RCODE, Vec<String>)> {
        let Answer::Known(bytes) = answer(&zone(), &ask(name, QTYPE::TYPE(qtype), false)) else {
            return None;
        };
        let reply = Packet::parse(&bytes).unwrap();
        assert!(reply.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_DESIRED));
        assert_eq!((reply.id(), reply.questions.len()), (77, 1));
        let text = |record: &ResourceRecord<'_>| match &record.rdata {
            RData::A(a) => std::net::Ipv4Addr::from(a.address).to_string(),
            RData::AAAA(a) => std::net::Ipv6Addr::from(a.address).to_string(),
            RData::PTR(name) => name.0.to_string(),
            other => panic!("{other:?}"),
        };
        Some((reply.rcode(), reply.answers.iter().map(text).collect()))
    }

    fn found(data: &str) -> (RCODE, Vec<String>) {
        (RCODE::NoError, data.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn a_container_is_found_by_name_in_both_families_and_in_any_case() {
        assert_eq!(asked("web", TYPE::A), Some(found("10.20.0.2")));
        assert_eq!(asked("WEB", TYPE::AAAA), Some(found("fd20::2")));
        assert_eq!(asked("four", TYPE::AAAA), Some(found("")), "it exists, and has none");
        assert_eq!(asked("web", TYPE::MX), Some(found("")));
        assert_eq!(asked("example.com", TYPE::A), None, "somebody else's");
    }

    #[test]
    fn an_address_has_its_name_and_one_of_the_network_s_own_is_nobody_else_s() {
        let v6 = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.d.f.ip6.arpa";
        assert_eq!(asked("2.0.20.10.in-addr.arpa", TYPE::PTR), Some(found("web.blue")));
        assert_eq!(asked(v6, TYPE::PTR), Some(found("web.blue")));
        let nobody = Some((RCODE::NameError, Vec::new()));
        assert_eq!(asked("9.0.20.10.in-addr.arpa", TYPE::PTR), nobody);
        assert_eq!(asked("9.0.21.10.in-addr.arpa", TYPE::PTR), None);
        assert_eq!(asked("0.20.10.in-addr.arpa", TYPE::PTR), None);
    }

    #[test]
    fn who_asks_with_edns_is_answered_with_it() {
        for edns in [false, true] {
            let query = ask("web", QTYPE::TYPE(TYPE::A), edns);
            let Answer::Known(bytes) = answer(&zone(), &query) else { panic!() };
            assert_eq!(Packet::parse(&bytes).unwrap().opt().is_some(), edns);
        }
    }

    #[test]
    fn an_alias_of_more_containers_than_fit_gives_some_of_them() {
        let mut zone = Zone::default();
        (0..200).for_each(|n| zone.add("all", Addr::from_v4_bytes([10, 0, 0, n])));
        let Answer::Known(bytes) = answer(&zone, &ask("all", QTYPE::TYPE(TYPE::A), false)) else {
            panic!()
        };
        assert!(bytes.len() <= 512);
        assert!(Packet::parse(&bytes).unwrap().answers.len() > 10);
    }

    #[test]
    fn what_cannot_be_forwarded_is_refused_and_an_answer_is_no_question() {
        let query = ask("example.com", QTYPE::TYPE(TYPE::A), true);
        let refusal = refuse(&query).unwrap();
        assert_eq!(Packet::parse(&refusal).unwrap().rcode(), RCODE::Refused);
        assert_eq!(answer(&zone(), &refusal), Answer::Nonsense);
        assert_eq!(answer(&zone(), &query[..7]), Answer::Nonsense);
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_survived(
            query in proptest::collection::vec(any::<u8>(), 0..64),
            at in 0_usize..40,
            byte: u8,
        ) {
            answer(&zone(), &query);
            let mut bent = ask("web", QTYPE::TYPE(TYPE::A), true);
            let at = at % bent.len();
            bent[at] = byte;
            answer(&zone(), &bent);
            refuse(&bent);
        }
    }
}
