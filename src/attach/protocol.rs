//! What attacher and daemon say to each other: JSON in sequenced packets.
//!
//! Every side sends its version and refuses another one in words. Within a version, fields may be
//! added when their absence has a meaning; unknown ones are ignored.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::io::netns::NetNsId;
use crate::wire::mac::Mac;
use crate::wire::vnet;

/// The version of the protocol that this program speaks.
pub const VERSION: u32 = 1;

/// The kind of TAP that both sides mean. One kind exists; another one would be another number.
pub const TAP_KIND: &str = "tap/no-pi/vnet-hdr";

/// The daemon's first message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Greeting {
    /// Go on.
    Hello(Hello),
    /// Not with you.
    Refused(Refusal),
}

/// What the daemon is and what it wants to be handed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The version of the protocol.
    pub version: u32,
    /// How many queues of the TAP it reads.
    pub queues: usize,
    /// [`TAP_KIND`].
    pub tap_kind: String,
    /// Bytes of the header before each frame.
    pub vnet_header_len: usize,
}

impl Hello {
    /// The hello of this version.
    pub fn new(queues: usize) -> Self {
        Self {
            version: VERSION,
            queues,
            tap_kind: TAP_KIND.to_owned(),
            vnet_header_len: vnet::HEADER_LEN,
        }
    }
}

/// What an attacher wants. Names, addresses and specifications are checked by the daemon.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AttachRequest {
    /// The version of the protocol.
    pub version: u32,
    /// The container's name; the daemon finds one if there is none.
    #[serde(default)]
    pub name: Option<String>,
    /// The network's name.
    pub network: String,
    /// The interface's name inside the container.
    pub ifname: String,
    /// A wished IPv4 address.
    #[serde(default)]
    pub ip: Option<Ipv4Addr>,
    /// A wished IPv6 address.
    #[serde(default)]
    pub ip6: Option<Ipv6Addr>,
    /// A wished MAC address.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// The container's labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Further names of the container on this network.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Ports to publish, each in Docker's words: `8080:80/tcp`.
    #[serde(default)]
    pub publish: Vec<String>,
    /// The identity that the container's engine gave it.
    #[serde(default)]
    pub container_id: Option<String>,
    /// The container's network namespace.
    #[serde(default)]
    pub netns: Option<NetNsId>,
    /// The container's first process, if the attacher started it.
    #[serde(default)]
    pub pid: Option<u32>,
    /// Where in the network's subnets addresses are to be chosen; anywhere if empty.
    #[serde(default)]
    pub within: Vec<AddressSpan>,
    /// How fast it may receive and send.
    #[serde(default, rename = "limits")]
    pub rate: RateLimits,
}

impl AttachRequest {
    /// A request for an address on this network, under this interface name, and nothing more.
    pub fn new(network: &str, ifname: &str) -> Self {
        Self {
            version: VERSION,
            name: None,
            network: network.to_owned(),
            ifname: ifname.to_owned(),
            ip: None,
            ip6: None,
            mac: None,
            labels: BTreeMap::new(),
            aliases: Vec::new(),
            publish: Vec::new(),
            container_id: None,
            netns: None,
            pid: None,
            within: Vec::new(),
            rate: RateLimits::default(),
        }
    }
}

/// Addresses of one family, from `first` to `last`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AddressSpan {
    /// The first one.
    pub first: IpAddr,
    /// The last one.
    pub last: IpAddr,
}

/// Rate limits, from the container's point of view.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RateLimits {
    /// Of what it receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<RateLimit>,
    /// Of what it sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<RateLimit>,
}

/// A rate limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RateLimit {
    /// Bits a second.
    pub rate: u64,
    /// Bits at once after a pause; chosen by the daemon if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
}

/// The daemon's answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachReply {
    /// The endpoint exists and its port forwards.
    Attached(Attached),
    /// It does not.
    Refused(Refusal),
}

/// What the container's end of the link has to become.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attached {
    /// What the daemon calls the endpoint.
    pub endpoint: String,
    /// The container's name, chosen by the daemon if the request had none.
    pub name: String,
    /// The link's MAC address.
    pub mac: Mac,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Default routes, one a family; not set where the container has one already.
    pub gateways: Vec<IpAddr>,
    /// Further routes.
    #[serde(default)]
    pub routes: Vec<RouteSpec>,
    /// Name servers.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// Domains in which names are looked up.
    #[serde(default)]
    pub search: Vec<String>,
    /// The largest packet.
    pub mtu: u32,
    /// Frames that wait in the TAP's ring for the switch.
    pub txqueuelen: u32,
    /// Published ports as they are now, chosen host ports filled in.
    #[serde(default)]
    pub published: Vec<String>,
}

/// A route.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RouteSpec {
    /// Where to.
    pub dst: IpNet,
    /// Through whom; on the link itself if through nobody.
    #[serde(default)]
    pub via: Option<IpAddr>,
}

/// Why the daemon says no.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// The kind of reason, for programs.
    pub code: RefusalCode,
    /// The reason, for people: what, why, and what to do.
    pub message: String,
}

/// Kinds of reasons.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The request makes no sense.
    Invalid,
    /// The version is not spoken.
    Version,
    /// The caller may not.
    NotPermitted,
    /// A network or the like does not exist.
    NotFound,
    /// A name, address or port is taken.
    Conflict,
    /// A pool or a bound is exhausted.
    Exhausted,
    /// The daemon could not.
    Internal,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// A message that is not what the protocol says.
#[derive(Debug, thiserror::Error)]
pub enum BadMessage {
    /// Another version.
    #[error(
        "the {who} speaks version {theirs} of the attach protocol, this program version {VERSION}: \
         run the same version of wharf on both sides"
    )]
    Version {
        /// The daemon or the attacher.
        who: &'static str,
        /// Its version.
        theirs: u32,
    },
    /// Not the JSON that was expected.
    #[error("the {who}'s message was not understood: {source}")]
    Json {
        /// The daemon or the attacher.
        who: &'static str,
        /// Why.
        source: serde_json::Error,
    },
}

/// What every version says first.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Reads the daemon's greeting: the version is looked at before anything else of it.
pub fn parse_greeting(bytes: &[u8]) -> Result<Greeting, BadMessage> {
    #[derive(Deserialize)]
    struct AnyHello {
        hello: Option<Versioned>,
    }
    let who = "daemon";
    let any: AnyHello = parse(bytes, who)?;
    if let Some(hello) = any.hello {
        check_version(hello.version, who)?;
    }
    parse(bytes, who)
}

/// Reads an attacher's request.
pub fn parse_request(bytes: &[u8]) -> Result<AttachRequest, BadMessage> {
    let who = "attacher";
    let any: Versioned = parse(bytes, who)?;
    check_version(any.version, who)?;
    parse(bytes, who)
}

/// Reads the daemon's reply.
pub fn parse_reply(bytes: &[u8]) -> Result<AttachReply, BadMessage> {
    parse(bytes, "daemon")
}

/// A message's bytes.
pub fn to_bytes(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).unwrap_or_default()
}

fn parse<T: DeserializeOwned>(bytes: &[u8], who: &'static str) -> Result<T, BadMessage> {
    serde_json::from_slice(bytes).map_err(|source| BadMessage::Json { who, source })
}

fn check_version(theirs: u32, who: &'static str) -> Result<(), BadMessage> {
    if theirs == VERSION { Ok(()) } else { Err(BadMessage::Version { who, theirs }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_round_trips() {
        let greeting = Greeting::Hello(Hello::new(2));
        assert_eq!(parse_greeting(&to_bytes(&greeting)).unwrap(), greeting);
        let mut request = AttachRequest::new("blue", "eth0");
        request.ip6 = Some("fd00::5".parse().unwrap());
        request.mac = Some("02:42:ac:11:00:02".parse().unwrap());
        request.netns = Some(NetNsId { dev: 4, ino: 4_026_531_840 });
        assert_eq!(parse_request(&to_bytes(&request)).unwrap(), request);
        let refused = AttachReply::Refused(Refusal::new(RefusalCode::Conflict, "taken"));
        assert_eq!(parse_reply(&to_bytes(&refused)).unwrap(), refused);
    }

    #[test]
    fn a_request_needs_little_and_unknown_fields_are_ignored() {
        let text = br#"{"version":1,"network":"blue","ifname":"eth0","new_in_a_later_one":7}"#;
        assert_eq!(parse_request(text).unwrap(), AttachRequest::new("blue", "eth0"));
    }

    #[test]
    fn another_version_is_refused_in_words_even_if_all_else_is_different() {
        let request = parse_request(br#"{"version":2,"net":{}}"#).unwrap_err();
        assert!(matches!(request, BadMessage::Version { theirs: 2, .. }));
        let greeting = parse_greeting(br#"{"hello":{"version":7}}"#).unwrap_err().to_string();
        assert!(greeting.contains("version 7") && greeting.contains("both sides"), "{greeting}");
    }

    #[test]
    fn rubbish_is_refused() {
        for text in [&b"{"[..], b"", b"[]", b"\xff", br#"{"version":"one"}"#] {
            assert!(matches!(parse_request(text), Err(BadMessage::Json { .. })), "{text:?}");
        }
    }
}
