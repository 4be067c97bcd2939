//! A view of a message as it is on the wire (RFC 1035 4.1), for what is passed on.
//!
//! What others answer is not taken apart and put together again: record types that nobody here has
//! heard of, compression and order stay as they were. Only the header, the question, the place of each
//! TTL and the OPT record (RFC 6891), which belongs to one hop, are looked at. No name is ever
//! followed through its compression pointers, so none can loop.

/// Length of the header.
pub(super) const HEADER: usize = 12;
/// Largest datagram of a client that says nothing of its size (RFC 1035 2.3.4).
pub(super) const PLAIN_SIZE: usize = 512;
/// Response.
pub(super) const QR: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
/// Authoritative answer.
pub(super) const AA: u16 = 0x0400;
/// Truncated.
pub(super) const TC: u16 = 0x0200;
/// Recursion desired.
pub(super) const RD: u16 = 0x0100;
/// Recursion available.
pub(super) const RA: u16 = 0x0080;
/// Authentic data (RFC 6840 5.7: in a query, that the client understands it).
pub(super) const AD: u16 = 0x0020;
/// Checking disabled.
pub(super) const CD: u16 = 0x0010;
const RCODE: u16 = 0x000f;

/// Codes of answers that mean something here.
pub(super) const NO_ERROR: u16 = 0;
/// The server did not understand.
pub(super) const FORMAT_ERROR: u16 = 1;
/// The server could not.
pub(super) const SERVER_FAILURE: u16 = 2;
/// There is no such name.
pub(super) const NAME_ERROR: u16 = 3;
/// The server knows no such operation.
pub(super) const NOT_IMPLEMENTED: u16 = 4;

const SOA: u16 = 6;
const OPT: u16 = 41;
const OPT_LEN: usize = 11;
/// The bit of an OPT record's TTL by which DNSSEC's records are asked for (RFC 3225).
const DNSSEC_OK: u32 = 0x8000;

/// What a message says by its OPT record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Edns {
    /// Largest datagram its sender takes.
    pub(super) size: u16,
    pub(super) version: u8,
    /// The upper bits of the code.
    pub(super) code: u8,
    pub(super) dnssec: bool,
}

/// A message with a header and one question whose name is written out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    bytes: &'a [u8],
    question_end: usize,
}

/// A record's place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// 0 answer, 1 authority, 2 additional.
    section: usize,
    kind: u16,
    ttl_at: usize,
    end: usize,
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(room) = bytes.get_mut(at..at + value.len()) {
        room.copy_from_slice(value);
    }
}

/// Where a name ends that is written out; `None` if it is none.
fn name_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let start = at;
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1).filter(|end| end - start <= 255),
            len @ 1..=63 => at += 1 + usize::from(len),
            _ => return None,
        }
    }
}

/// Where a name ends that may go on elsewhere.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            len @ 1..=63 => at += 1 + usize::from(len),
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

impl<'a> Message<'a> {
    /// Reads header and question.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        if half(bytes, 4)? != 1 {
            return None;
        }
        let question_end = name_end(bytes, HEADER)? + 4;
        (question_end <= bytes.len()).then_some(Self { bytes, question_end })
    }

    pub(super) fn id(&self) -> u16 {
        half(self.bytes, 0).unwrap_or(0)
    }

    pub(super) fn flags(&self) -> u16 {
        half(self.bytes, 2).unwrap_or(0)
    }

    pub(super) fn is_response(&self) -> bool {
        self.flags() & QR != 0
    }

    pub(super) fn is_truncated(&self) -> bool {
        self.flags() & TC != 0
    }

    /// Whether it is an ordinary query and not an update, a notification or the like.
    pub(super) fn is_standard(&self) -> bool {
        self.flags() & OPCODE == 0
    }

    /// Name, type and class.
    pub(super) fn question(&self) -> &'a [u8] {
        &self.bytes[HEADER..self.question_end]
    }

    /// The type asked for.
    pub(super) fn kind(&self) -> u16 {
        half(self.bytes, self.question_end - 4).unwrap_or(0)
    }

    /// All records, if they are as many as the header says and lie within the message.
    pub(super) fn records(&self) -> Option<Vec<Record>> {
        let mut records = Vec::new();
        let mut at = self.question_end;
        for section in 0..3 {
            for _ in 0..half(self.bytes, 6 + 2 * section)? {
                let name = skip_name(self.bytes, at)?;
                let end = name + 10 + usize::from(half(self.bytes, name + 8)?);
                if end > self.bytes.len() {
                    return None;
                }
                let kind = half(self.bytes, name)?;
                records.push(Record { section, kind, ttl_at: name + 4, end });
                at = end;
            }
        }
        Some(records)
    }

    /// The OPT record among those.
    pub(super) fn edns(&self, records: &[Record]) -> Option<Edns> {
        let opt = records.iter().find(|r| r.section == 2 && r.kind == OPT)?;
        let ttl = word(self.bytes, opt.ttl_at)?;
        Some(Edns {
            size: half(self.bytes, opt.ttl_at - 2)?,
            version: (ttl >> 16) as u8,
            code: (ttl >> 24) as u8,
            dnssec: ttl & DNSSEC_OK != 0,
        })
    }

    /// The whole code.
    pub(super) fn code(&self, edns: Option<Edns>) -> u16 {
        self.flags() & RCODE | edns.map_or(0, |edns| u16::from(edns.code) << 4)
    }
}

/// Puts an OPT record behind a message that has none.
pub(super) fn append_opt(bytes: &mut Vec<u8>, size: u16, dnssec: bool) {
    let ttl = if dnssec { DNSSEC_OK } else { 0 };
    bytes.push(0);
    bytes.extend(OPT.to_be_bytes());
    bytes.extend(size.to_be_bytes());
    bytes.extend(ttl.to_be_bytes());
    bytes.extend([0; 2]);
    let count = half(bytes, 10).unwrap_or(0).saturating_add(1);
    put(bytes, 10, &count.to_be_bytes());
}

/// Largest answer that a client takes.
pub(super) fn room(edns: Option<Edns>, stream: bool) -> usize {
    if stream {
        return usize::from(u16::MAX);
    }
    edns.map_or(PLAIN_SIZE, |edns| usize::from(edns.size.min(super::EDNS_SIZE)).max(PLAIN_SIZE))
}

/// Tells whoever sent something like a query that it cannot be read; `None` if it is nothing like one.
pub(super) fn format_error(query: &[u8]) -> Option<Vec<u8>> {
    let flags = half(query.get(..HEADER)?, 2).filter(|flags| flags & QR == 0)?;
    let flags = QR | RA | flags & (OPCODE | RD | CD) | FORMAT_ERROR;
    let id = query.get(..2)?;
    Some([id, &flags.to_be_bytes(), &[0; 8]].concat())
}

/// Tells a client that its version of EDNS is not spoken here (RFC 6891 6.1.3).
pub(super) fn bad_version(query: &Message<'_>) -> Vec<u8> {
    const BAD_VERSION: u8 = 16;
    let flags = QR | RA | query.flags() & (RD | CD);
    let mut bytes =
        self::query(query.id(), flags, query.question(), Some((super::EDNS_SIZE, false)));
    // The upper bits of the code are the first byte of the record's TTL, six before its end.
    let upper = bytes.len() - 6;
    put(&mut bytes, upper, &[BAD_VERSION >> 4]);
    bytes
}

/// A query; `edns` says the largest answer by datagram and whether DNSSEC's records are wanted.
pub(super) fn query(id: u16, flags: u16, question: &[u8], edns: Option<(u16, bool)>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + question.len() + OPT_LEN);
    bytes.extend(id.to_be_bytes());
    bytes.extend(flags.to_be_bytes());
    bytes.extend([0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend(question);
    if let Some((size, dnssec)) = edns {
        append_opt(&mut bytes, size, dnssec);
    }
    bytes
}

/// Gives each letter of a name one of its two cases by a bit of chance (draft-vixie-dnsext-dns0x20): a
/// forger must guess them all.
pub(super) fn mix_case(question: &mut [u8], mut chance: impl FnMut() -> u64) {
    let name = question.len().saturating_sub(4);
    for chunk in question[..name].chunks_mut(64) {
        let bits = chance();
        for (n, byte) in chunk.iter_mut().enumerate() {
            // A label's length is below 64 and so no letter.
            if byte.is_ascii_alphabetic() && bits >> n & 1 != 0 {
                *byte ^= 0x20;
            }
        }
    }
}

/// An answer as it is kept: without its hop's OPT record, ready to be given to whoever asks the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stored {
    bytes: Vec<u8>,
    question_end: usize,
    ttls: Vec<u16>,
}

/// Whom a stored answer is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker<'a> {
    pub(super) id: u16,
    /// Its own question, letter by letter.
    pub(super) question: &'a [u8],
    /// Its flags; what is echoed of them is.
    pub(super) flags: u16,
    /// Whether it speaks EDNS, and then whether it wants DNSSEC's records.
    pub(super) edns: Option<bool>,
    /// Largest message it takes.
    pub(super) room: usize,
}

impl Stored {
    /// Takes what an answer says; `None` if its records are not what its header says.
    pub(super) fn new(message: &Message<'_>, records: &[Record]) -> Option<Self> {
        // What follows the OPT record is about this hop, too (TSIG, SIG(0)); names in it may point anywhere.
        let opt = records.iter().position(|r| r.section == 2 && r.kind == OPT);
        let kept = &records[..opt.unwrap_or(records.len())];
        let end = kept.last().map_or(message.question_end, |r| r.end);
        let mut bytes = message.bytes.get(..end)?.to_vec();
        let additional = kept.iter().filter(|r| r.section == 2).count() as u16;
        put(&mut bytes, 10, &additional.to_be_bytes());
        put(&mut bytes, 2, &(message.flags() & !AA | RA).to_be_bytes());
        let ttls = kept.iter().filter_map(|r| u16::try_from(r.ttl_at).ok()).collect();
        Some(Self { bytes, question_end: message.question_end, ttls })
    }

    /// An answer without records.
    pub(super) fn empty(question: &[u8], flags: u16, code: u16) -> Self {
        let bytes = query(0, QR | RA | flags & (RD | CD) | code & RCODE, question, None);
        Self { question_end: bytes.len(), bytes, ttls: Vec::new() }
    }

    /// How long it may be kept, in seconds: positive answers as long as their shortest record, negative
    /// ones as RFC 2308 5 has it. `None`: not at all.
    pub(super) fn lifetime(&self, caps: (u32, u32)) -> Option<u32> {
        let message = Message::new(&self.bytes)?;
        let records = message.records()?;
        let ttl =
            |r: &Record| word(&self.bytes, r.ttl_at).filter(|ttl| i32::try_from(*ttl).is_ok());
        let answers = records.iter().filter(|r| r.section == 0);
        let shortest = answers.map(|r| ttl(r).unwrap_or(0)).min();
        let is_wanted = |r: &&Record| {
            r.section == 0 && matches!(message.kind(), kind if kind == r.kind || kind == 255)
        };
        let negative = message.code(None) != NO_ERROR || !records.iter().any(|r| is_wanted(&r));
        if !negative {
            return shortest.map(|ttl| ttl.min(caps.0)).filter(|ttl| *ttl > 0);
        }
        let soa = records.iter().find(|r| r.section == 1 && r.kind == SOA)?;
        let minimum = word(&self.bytes, soa.end - 4)?;
        let all = [ttl(soa).unwrap_or(0), minimum, caps.1, shortest.unwrap_or(caps.1)];
        all.into_iter().min().filter(|ttl| *ttl > 0)
    }

    /// There is more than this.
    pub(super) fn set_truncated(&mut self) {
        let flags = half(&self.bytes, 2).unwrap_or(0) | TC;
        put(&mut self.bytes, 2, &flags.to_be_bytes());
    }

    /// Whether there is.
    pub(super) fn is_truncated(&self) -> bool {
        half(&self.bytes, 2).unwrap_or(0) & TC != 0
    }

    /// Bytes that it takes.
    pub(super) fn size(&self) -> usize {
        self.bytes.len() + self.ttls.len() * 2 + size_of::<Self>()
    }

    /// The answer to `asker`, `age` seconds later.
    pub(super) fn answer(&self, asker: &Asker<'_>, age: u32) -> Vec<u8> {
        let opt = if asker.edns.is_some() { OPT_LEN } else { 0 };
        let fits = self.bytes.len() + opt <= asker.room;
        let mut bytes = Vec::with_capacity(self.bytes.len() + opt);
        bytes.extend(&self.bytes[..if fits { self.bytes.len() } else { self.question_end }]);
        put(&mut bytes, 0, &asker.id.to_be_bytes());
        let own = half(&bytes, 2).unwrap_or(0) & !(RD | CD) | asker.flags & (RD | CD);
        put(&mut bytes, 2, &(if fits { own } else { own | TC }).to_be_bytes());
        put(&mut bytes, HEADER, asker.question);
        if fits {
            for at in self.ttls.iter().copied().map(usize::from) {
                let ttl = word(&bytes, at).unwrap_or(0).saturating_sub(age);
                put(&mut bytes, at, &ttl.to_be_bytes());
            }
        } else {
            put(&mut bytes, 6, &[0; 6]);
        }
        if let Some(dnssec) = asker.edns {
            append_opt(&mut bytes, super::EDNS_SIZE, dnssec);
        }
        bytes
    }
}
