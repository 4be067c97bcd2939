//! From a query to an answer (RFC 1035, EDNS of RFC 6891).

use simple_dns::rdata::{PTR, RData, SRV};
use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};

use super::message::{self, Edns, Message};
use super::zone::Service;
use super::{EDNS_SIZE, Zone};
use crate::wire::addr::Addr;

/// Containers come and go: an answer is good for this many seconds.
const TTL: u32 = 5;

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

/// Records of an answer: those that were asked for, and what whoever asks will ask next.
#[derive(Default)]
struct Found<'a> {
    answers: Vec<ResourceRecord<'a>>,
    additional: Vec<ResourceRecord<'a>>,
}

/// Answers a query from what the zone knows; `stream` says that it came on a connection.
pub fn answer(zone: &Zone, query: &[u8], stream: bool) -> Answer {
    let Some(view) = Message::new(query) else { return malformed(query) };
    let Some(records) = view.records() else { return malformed(query) };
    if view.is_response() {
        return Answer::Nonsense;
    }
    let edns = view.edns(&records);
    if edns.is_some_and(|edns| edns.version != 0) {
        return Answer::Known(message::bad_version(&view));
    }
    let Ok(packet) = Packet::parse(query) else { return malformed(query) };
    let [question] = packet.questions.as_slice() else { return malformed(query) };
    let internet = matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY);
    if packet.opcode() != OPCODE::StandardQuery || !internet {
        return Answer::Forward;
    }
    let Some((code, found)) = find(zone, question) else { return Answer::Forward };
    finish(&packet, code, found, Asked { edns, stream })
}

/// The answer of somebody who will not say: there is nobody to ask.
pub fn refuse(query: &[u8]) -> Option<Vec<u8>> {
    let view = Message::new(query)?;
    let edns = view.edns(&view.records()?);
    let packet = Packet::parse(query).ok()?;
    match finish(&packet, RCODE::Refused, Found::default(), Asked { edns, stream: true }) {
        Answer::Known(bytes) => Some(bytes),
        Answer::Forward | Answer::Nonsense => None,
    }
}

/// What looks like a query and cannot be read is told so; an answer is never answered.
fn malformed(query: &[u8]) -> Answer {
    message::format_error(query).map_or(Answer::Nonsense, Answer::Known)
}

fn find<'a>(zone: &Zone, question: &Question<'a>) -> Option<(RCODE, Found<'a>)> {
    let name = name_of(question);
    if let Some(addr) = reverse(&name).filter(|_| question.qtype == QTYPE::TYPE(TYPE::PTR)) {
        return by_addr(zone, question, addr);
    }
    if let Some(addrs) = zone.addrs(&name) {
        let answers = addresses(&question.qname, question.qtype, addrs);
        return Some((RCODE::NoError, Found { answers, ..Found::default() }));
    }
    let services = zone.services(&name)?;
    Some((RCODE::NoError, by_service(zone, question, services)))
}

fn name_of(question: &Question<'_>) -> String {
    let labels = question.qname.get_labels().iter().map(ToString::to_string);
    let mut name = labels.collect::<Vec<_>>().join(".");
    name.make_ascii_lowercase();
    name
}

fn addresses<'a>(name: &Name<'a>, kind: QTYPE, addrs: &[Addr]) -> Vec<ResourceRecord<'a>> {
    let wanted = |v4: bool| match kind {
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
    let record = |data| ResourceRecord::new(name.clone(), CLASS::IN, TTL, data);
    wanted.filter_map(data).map(record).collect()
}

fn by_service<'a>(zone: &Zone, question: &Question<'a>, services: &[Service]) -> Found<'a> {
    let mut found = Found::default();
    if !matches!(question.qtype, QTYPE::TYPE(TYPE::SRV) | QTYPE::ANY) {
        return found;
    }
    for service in services {
        let Ok(target) = Name::new(&service.target).map(Name::into_owned) else { continue };
        let addrs = zone.addrs(&service.target).unwrap_or_default();
        found.additional.extend(addresses(&target, QTYPE::ANY, addrs));
        let data = SRV { priority: 0, weight: 0, port: service.port, target };
        let (name, data) = (question.qname.clone(), RData::SRV(data));
        found.answers.push(ResourceRecord::new(name, CLASS::IN, TTL, data));
    }
    found
}

fn by_addr<'a>(zone: &Zone, question: &Question<'a>, addr: Addr) -> Option<(RCODE, Found<'a>)> {
    let Some(name) = zone.name(addr) else {
        return zone.contains(addr).then(|| (RCODE::NameError, Found::default()));
    };
    let data = RData::PTR(PTR(Name::new(name).ok()?.into_owned()));
    let answers = vec![ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL, data)];
    Some((RCODE::NoError, Found { answers, ..Found::default() }))
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

/// How a query was asked.
#[derive(Clone, Copy)]
struct Asked {
    edns: Option<Edns>,
    stream: bool,
}

fn finish<'a>(query: &Packet<'a>, code: RCODE, found: Found<'a>, asked: Asked) -> Answer {
    let mut reply = Packet::new_reply(query.id());
    *reply.opcode_mut() = query.opcode();
    *reply.rcode_mut() = code;
    reply.questions.clone_from(&query.questions);
    (reply.answers, reply.additional_records) = (found.answers, found.additional);
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    for flag in [PacketFlag::RECURSION_DESIRED, PacketFlag::CHECKING_DISABLED] {
        if query.has_flags(flag) {
            reply.set_flags(flag);
        }
    }
    let room = message::room(asked.edns, asked.stream);
    loop {
        let Ok(mut bytes) = reply.build_bytes_vec_compressed() else { return Answer::Nonsense };
        if let Some(edns) = asked.edns {
            // RFC 6891 7: who asks with it is answered with it.
            message::append_opt(&mut bytes, EDNS_SIZE, edns.dnssec);
        }
        if bytes.len() <= room {
            return Answer::Known(bytes);
        }
        if !reply.additional_records.is_empty() {
            reply.additional_records.clear();
            continue;
        }
        if reply.answers.is_empty() {
            return Answer::Nonsense;
        }
        // More than fits, which takes dozens of containers behind one alias: some of them will do for
        // those who do not come back by TCP.
        reply.set_flags(PacketFlag::TRUNCATION);
        let fewer = reply.answers.len() / 2;
        reply.answers.truncate(fewer);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use simple_dns::rdata::OPT;

    use super::*;
    use crate::base::ids::PortId;
    use crate::stage::dns::Named;

    fn addr(text: &str) -> Addr {
        text.parse().unwrap()
    }

    fn zone() -> Zone {
        let mut zone = Zone::new(vec![(addr("10.20.0.0"), 24), (addr("fd20::"), 64)]);
        for (name, at) in [("web", "10.20.0.2"), ("web", "fd20::2"), ("four", "10.20.0.4")] {
            zone.add(name, addr(at));
        }
        let web = Named {
            names: Vec::new(),
            whole: "web.blue".to_owned(),
            addrs: vec![addr("10.20.0.2"), addr("fd20::2")],
            ..Named::default()
        };
        zone.put(PortId(1), Some(web.into()));
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
        let Answer::Known(bytes) = answer(&zone(), &ask(name, QTYPE::TYPE(qtype), false), false)
        else {
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
            let Answer::Known(bytes) = answer(&zone(), &query, false) else { panic!() };
            assert_eq!(Packet::parse(&bytes).unwrap().opt().is_some(), edns);
        }
    }

    #[test]
    fn an_alias_of_more_containers_than_fit_gives_some_of_them() {
        let mut zone = Zone::default();
        (0..200).for_each(|n| zone.add("all", Addr::from_v4_bytes([10, 0, 0, n])));
        let Answer::Known(bytes) = answer(&zone, &ask("all", QTYPE::TYPE(TYPE::A), false), false)
        else {
            panic!()
        };
        assert!(bytes.len() <= 512);
        let reply = Packet::parse(&bytes).unwrap();
        assert!(reply.answers.len() > 10 && reply.has_flags(PacketFlag::TRUNCATION));
        let query = ask("all", QTYPE::TYPE(TYPE::A), false);
        let Answer::Known(bytes) = answer(&zone, &query, true) else { panic!() };
        let reply = Packet::parse(&bytes).unwrap();
        assert_eq!(reply.answers.len(), 200, "a connection takes them all");
        assert!(!reply.has_flags(PacketFlag::TRUNCATION));
    }

    #[test]
    fn a_service_is_found_with_its_port_and_the_addresses_that_will_be_asked_for_next() {
        let mut zone = zone();
        for target in ["web", "four"] {
            zone.add_service("_http._tcp.shop", Service { port: 8080, target: target.to_owned() });
        }
        let query = ask("_HTTP._tcp.Shop", QTYPE::TYPE(TYPE::SRV), true);
        let Answer::Known(bytes) = answer(&zone, &query, false) else { panic!() };
        let reply = Packet::parse(&bytes).unwrap();
        let target = |record: &ResourceRecord<'_>| match &record.rdata {
            RData::SRV(srv) => (srv.port, srv.target.to_string()),
            other => panic!("{other:?}"),
        };
        let targets: Vec<_> = reply.answers.iter().map(target).collect();
        assert_eq!(targets, [(8080, "web".to_owned()), (8080, "four".to_owned())]);
        assert_eq!(reply.additional_records.len(), 3, "two of `web`, one of `four`");
        let query = ask("_http._tcp.shop", QTYPE::TYPE(TYPE::A), false);
        let Answer::Known(bytes) = answer(&zone, &query, false) else { panic!() };
        let reply = Packet::parse(&bytes).unwrap();
        assert_eq!((reply.rcode(), reply.answers.len()), (RCODE::NoError, 0));
    }

    #[test]
    fn dnssec_s_bit_comes_back_and_an_unknown_version_is_refused() {
        let mut query = ask("web", QTYPE::TYPE(TYPE::A), true);
        let flags = query.len() - 4;
        query[flags] |= 0x80;
        let Answer::Known(bytes) = answer(&zone(), &query, false) else { panic!() };
        let reply = Message::new(&bytes).unwrap();
        assert!(reply.edns(&reply.records().unwrap()).unwrap().dnssec);
        query[flags - 1] = 1;
        let Answer::Known(bytes) = answer(&zone(), &query, false) else { panic!() };
        let reply = Message::new(&bytes).unwrap();
        assert_eq!(reply.code(reply.edns(&reply.records().unwrap())), 16);
    }

    #[test]
    fn a_query_that_cannot_be_read_is_told_so() {
        let mut query = ask("web", QTYPE::TYPE(TYPE::A), false);
        query[5] = 2;
        let Answer::Known(bytes) = answer(&zone(), &query, false) else { panic!() };
        assert_eq!(bytes, [0, 77, 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]);
        query[2] |= 0x80;
        assert_eq!(answer(&zone(), &query, false), Answer::Nonsense);
    }

    #[test]
    fn what_cannot_be_forwarded_is_refused_and_an_answer_is_no_question() {
        let query = ask("example.com", QTYPE::TYPE(TYPE::A), true);
        let refusal = refuse(&query).unwrap();
        assert_eq!(Packet::parse(&refusal).unwrap().rcode(), RCODE::Refused);
        assert_eq!(answer(&zone(), &refusal, false), Answer::Nonsense);
        assert_eq!(answer(&zone(), &query[..7], false), Answer::Nonsense);
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_survived(
            query in proptest::collection::vec(any::<u8>(), 0..64),
            at in 0_usize..40,
            byte: u8,
        ) {
            answer(&zone(), &query, false);
            let mut bent = ask("web", QTYPE::TYPE(TYPE::A), true);
            let at = at % bent.len();
            bent[at] = byte;
            answer(&zone(), &bent, true);
            refuse(&bent);
        }
    }
}
