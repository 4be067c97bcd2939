//! Which addresses an answer gives for the name that was asked for.

use simple_dns::rdata::RData;
use simple_dns::{Packet, PacketFlag};

use crate::wire::addr::Addr;

/// Aliases followed; resolvers give up sooner.
const ALIASES_MAX: usize = 16;

/// The name, in lower case and without a last dot, and its addresses with the seconds that they are good
/// for. Aliases are followed as they stand in the answer; an address of any other name is nobody's.
pub fn given(answer: &[u8]) -> Option<(String, Vec<(Addr, u32)>)> {
    let packet = Packet::parse(answer).ok()?;
    if !packet.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    let [question] = packet.questions.as_slice() else { return None };
    let name = question.qname.to_string().to_ascii_lowercase();
    let mut known = vec![name.clone()];
    let mut addrs = Vec::new();
    for record in &packet.answers {
        if !known.iter().any(|name| record.name.to_string().eq_ignore_ascii_case(name)) {
            continue;
        }
        match &record.rdata {
            RData::A(a) => addrs.push((Addr::from_v4_bits(a.address), record.ttl)),
            RData::AAAA(a) => {
                let addr = Addr::from_v6_bytes(a.address.to_be_bytes());
                // One that means IPv4 is no packet's destination.
                if !addr.is_v4() {
                    addrs.push((addr, record.ttl));
                }
            }
            RData::CNAME(alias) if known.len() < ALIASES_MAX => {
                known.push(alias.0.to_string().to_ascii_lowercase());
            }
            _ => {}
        }
    }
    Some((name, addrs))
}

#[cfg(test)]
mod tests {
    use simple_dns::rdata::{A, AAAA, CNAME};
    use simple_dns::{CLASS, Name, QCLASS, QTYPE, Question, ResourceRecord, TYPE};

    use super::*;

    fn name(text: &str) -> Name<'_> {
        Name::new(text).unwrap()
    }

    fn answer(records: Vec<(&'static str, RData<'static>)>) -> Vec<u8> {
        let mut packet = Packet::new_reply(7);
        let (qtype, class) = (QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN));
        packet.questions.push(Question::new(name("WWW.example.org"), qtype, class, false));
        let record = |(of, data)| ResourceRecord::new(name(of), CLASS::IN, 60, data);
        packet.answers = records.into_iter().map(record).collect();
        packet.build_bytes_vec_compressed().unwrap()
    }

    #[test]
    fn addresses_of_the_name_and_its_aliases_are_given_and_no_others() {
        let a = |n: u32| RData::A(A { address: 0xc000_0200 + n });
        let bytes = answer(vec![
            ("www.example.org", RData::CNAME(CNAME(name("cdn.example.net")))),
            ("cdn.Example.net", a(1)),
            ("cdn.example.net", RData::AAAA(AAAA { address: 1 << 96 })),
            ("bank.example.com", a(2)),
        ]);
        let (asked, addrs) = given(&bytes).unwrap();
        assert_eq!(asked, "www.example.org");
        let v4 = Addr::from_v4_bits(0xc000_0201);
        assert_eq!(addrs, [(v4, 60), ("0:1::".parse().unwrap(), 60)]);
    }

    #[test]
    fn what_is_no_answer_gives_nothing() {
        assert_eq!(given(&[]), None);
        let mut query = answer(Vec::new());
        query[2] &= 0x7f;
        assert_eq!(given(&query), None);
        assert_eq!(given(&answer(Vec::new())).unwrap().1, []);
    }
}
