//! Messages for tests, made and read by a codec that knows nothing of our own views.

use simple_dns::rdata::{A, OPT, RData, SOA};
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};

/// A query; `edns` is the size it tells.
pub(super) fn query(id: u16, name: &str, kind: TYPE, edns: Option<u16>) -> Vec<u8> {
    let mut query = Packet::new_query(id);
    let name = Name::new(name).unwrap();
    query.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    query.set_flags(PacketFlag::RECURSION_DESIRED);
    *query.opt_mut() =
        edns.map(|udp_packet_size| OPT { opt_codes: Vec::new(), udp_packet_size, version: 0 });
    query.build_bytes_vec().unwrap()
}

/// What a resolver says to a query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Says {
    pub(super) code: RCODE,
    /// So many addresses, with this TTL.
    pub(super) addrs: u32,
    pub(super) ttl: u32,
    /// The least TTL of negative answers, if it says one.
    pub(super) negative: Option<u32>,
    pub(super) truncated: bool,
}

impl Says {
    pub(super) const ADDRESS: Self =
        Self { code: RCODE::NoError, addrs: 1, ttl: 60, negative: None, truncated: false };

    pub(super) const fn code(code: RCODE) -> Self {
        Self { code, addrs: 0, ..Self::ADDRESS }
    }

    pub(super) fn to(self, query: &[u8]) -> Vec<u8> {
        let query = Packet::parse(query).unwrap();
        let question = &query.questions[0];
        let mut reply = Packet::new_reply(query.id());
        reply.questions.clone_from(&query.questions);
        *reply.rcode_mut() = self.code;
        reply.set_flags(PacketFlag::RECURSION_AVAILABLE | PacketFlag::RECURSION_DESIRED);
        if self.truncated {
            reply.set_flags(PacketFlag::TRUNCATION);
        }
        let record = |data| ResourceRecord::new(question.qname.clone(), CLASS::IN, self.ttl, data);
        let addr = |n| RData::A(A { address: 0x0a00_0000 + n });
        reply.answers = (0..self.addrs).map(|n| record(addr(n))).collect();
        if let Some(minimum) = self.negative {
            let name = Name::new_unchecked("test");
            let (mname, rname) = (name.clone(), name.clone());
            let (serial, refresh, retry, expire) = (1, 2, 3, 4);
            let soa = SOA { mname, rname, serial, refresh, retry, expire, minimum };
            let record = ResourceRecord::new(name, CLASS::IN, 3_600, RData::SOA(soa));
            reply.name_servers.push(record);
        }
        if let Some(opt) = query.opt() {
            let udp_packet_size = opt.udp_packet_size;
            *reply.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size, version: 0 });
        }
        reply.build_bytes_vec_compressed().unwrap()
    }
}
