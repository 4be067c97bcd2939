//! What nodes write into the store, as JSON, and how it is read: by somebody else, of another version, or
//! by hand. What cannot be read is named, and counts as taken rather than free.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::plan::Plan;
use crate::base::key::PublicKey;
use crate::base::limits::{CLUSTER_RECORD_BYTES_MAX, LABELS_MAX, NAME_MAX};
use crate::wire::mac::Mac;

/// The version of these records. Another one is refused in words.
pub const VERSION: u32 = 1;

/// Where everything is, below the prefix.
pub(super) const PLAN: &str = "plan";
pub(super) const SUBNETS: &str = "subnets/";
pub(super) const NODES: &str = "nodes/";
pub(super) const ALIVE: &str = "alive/";
pub(super) const ENDPOINTS: &str = "endpoints/";

/// `plan`
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct PlanRecord {
    /// [`VERSION`].
    pub v: u32,
    /// The plan.
    #[serde(flatten)]
    pub plan: Plan,
}

/// `subnets/S`: whose it is. Without a lease while a node owns it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum SubnetRecord {
    /// A node's.
    Owned {
        /// Its name.
        node: String,
        /// Its identity.
        identity: String,
    },
    /// Nobody's yet: it was this node's. Under a lease, with whose end the key goes.
    Quarantined {
        /// Whose it was.
        node: String,
        /// Its identity.
        identity: String,
    },
    /// Set aside by hand, or not to be read.
    Reserved {
        /// Why.
        #[serde(default)]
        note: String,
    },
}

/// `nodes/N`: a name belongs to one identity, and to it at most one subnet. Without a lease.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct NodeRecord {
    /// [`VERSION`].
    pub v: u32,
    /// Random, made at the node's first start.
    pub identity: String,
    /// Key of the subnet that it owns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
}

/// `alive/N`: how a node is reached. Under the node's lease.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct AliveRecord {
    /// [`VERSION`].
    pub v: u32,
    /// As in its node's record.
    pub identity: String,
    /// Random, made at each start of the daemon.
    pub instance: String,
    /// The boot of the machine: a restarted daemon has the same.
    pub seat: String,
    /// Where tunnels to it end, the best first.
    pub addresses: Vec<IpAddr>,
    /// What tunnels it takes.
    #[serde(default)]
    pub backend: Option<Backend>,
    /// Version of its program, for people.
    #[serde(default)]
    pub program: String,
    /// When it joined, in milliseconds since 1970 by its own clock, for people.
    #[serde(default)]
    pub since_ms: u64,
}

/// How tunnels end at a node.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Backend {
    /// RFC 7348.
    Vxlan {
        /// Network identifier.
        vni: u32,
        /// UDP port.
        port: u16,
        /// MAC of the node's tunnel end.
        mac: Mac,
    },
    /// WireGuard.
    Wireguard {
        /// Public key.
        key: PublicKey,
        /// UDP port.
        port: u16,
    },
}

/// `endpoints/N/ID`: an endpoint of a node. Without a lease; it goes with the endpoint or the node.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// Its name.
    pub name: String,
    /// Its network.
    pub network: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its MAC.
    pub mac: Mac,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// One key, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// `plan`
    Plan(PlanRecord),
    /// `subnets/S`
    Subnet(String, SubnetRecord),
    /// `nodes/N`
    Node(String, NodeRecord),
    /// `alive/N`
    Alive(String, AliveRecord),
    /// `endpoints/N/ID`
    Endpoint(String, String, EndpointRecord),
}

/// Why a key is not read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadRecord {
    /// Not a key of ours.
    #[error("no such key is known")]
    Key,
    /// Too long.
    #[error("it has {0} bytes, more than any record")]
    Long(usize),
    /// Not the record it should be.
    #[error("{0}")]
    Json(String),
    /// A later program's.
    #[error("it is of version {0}, and this program knows {VERSION}")]
    Version(u32),
}

/// Reads what is written at a key below the prefix.
pub fn read(key: &str, value: &[u8]) -> Result<Record, BadRecord> {
    if value.len() > CLUSTER_RECORD_BYTES_MAX {
        return Err(BadRecord::Long(value.len()));
    }
    if key == PLAN {
        let record: PlanRecord = json(value)?;
        return versioned(record.v, Record::Plan(record));
    }
    if let Some(name) = named(key, SUBNETS) {
        // Who sets a subnet aside by hand need not know our JSON, and what we do not understand is taken.
        let read = json(value).unwrap_or_else(|e| SubnetRecord::Reserved { note: e.to_string() });
        return Ok(Record::Subnet(name.to_owned(), read));
    }
    if let Some(name) = named(key, NODES) {
        let record: NodeRecord = json(value)?;
        return versioned(record.v, Record::Node(name.to_owned(), record));
    }
    if let Some(name) = named(key, ALIVE) {
        let record: AliveRecord = json(value)?;
        if record.addresses.len() > ADDRESSES_MAX {
            return Err(BadRecord::Json(format!("{} addresses", record.addresses.len())));
        }
        return versioned(record.v, Record::Alive(name.to_owned(), record));
    }
    let Some((node, id)) = key.strip_prefix(ENDPOINTS).and_then(|rest| rest.split_once('/')) else {
        return Err(BadRecord::Key);
    };
    if !is_node_name(node) || id.is_empty() || id.len() > NAME_MAX {
        return Err(BadRecord::Key);
    }
    let record: EndpointRecord = json(value)?;
    if record.addresses.len() > ADDRESSES_MAX || record.labels.len() > LABELS_MAX {
        return Err(BadRecord::Json("more addresses or labels than an endpoint has".to_owned()));
    }
    Ok(Record::Endpoint(node.to_owned(), id.to_owned(), record))
}

/// Addresses of a node or an endpoint: a few of each family.
const ADDRESSES_MAX: usize = 16;

fn named<'a>(key: &'a str, folder: &str) -> Option<&'a str> {
    key.strip_prefix(folder).filter(|name| folder == SUBNETS || is_node_name(name))
}

/// Whether this can be a node's name: a host's, with its dots.
pub fn is_node_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !name.is_empty()
        && name.len() <= NAME_MAX
        && name.bytes().all(allowed)
        && !name.starts_with('.')
}

fn versioned(v: u32, record: Record) -> Result<Record, BadRecord> {
    if v == VERSION { Ok(record) } else { Err(BadRecord::Version(v)) }
}

fn json<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, BadRecord> {
    serde_json::from_slice(value).map_err(|e| BadRecord::Json(e.to_string()))
}

/// A record as it is written. Plain data with text keys: there is nothing in it that JSON cannot say.
pub(super) fn text<T: Serialize>(record: &T) -> String {
    serde_json::to_string(record).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let node =
            NodeRecord { v: VERSION, identity: "1".into(), subnet: Some("10.0.0.0-24".into()) };
        let written = text(&node);
        assert_eq!(read("nodes/a", written.as_bytes()), Ok(Record::Node("a".into(), node)));
        let owned = SubnetRecord::Owned { node: "a".into(), identity: "1".into() };
        let written = text(&owned);
        assert_eq!(written, r#"{"state":"owned","node":"a","identity":"1"}"#);
        assert_eq!(
            read("subnets/x-24", written.as_bytes()),
            Ok(Record::Subnet("x-24".into(), owned))
        );
    }

    #[test]
    fn a_subnet_that_cannot_be_read_is_taken_and_not_free() {
        for value in [&b""[..], b"mine", b"{}", b"\xff", br#"{"state":"owned"}"#] {
            let record = read("subnets/10.0.0.0-24", value).unwrap();
            assert!(
                matches!(record, Record::Subnet(_, SubnetRecord::Reserved { .. })),
                "{record:?}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (key, value, words) in [
            ("nodes/a", r#"{"v":2,"identity":"1"}"#, "version 2"),
            ("nodes/a", "{", "EOF"),
            ("nodes/a/b", "{}", "no such key"),
            ("alive/", "{}", "no such key"),
            ("else", "{}", "no such key"),
            ("endpoints/a", "{}", "no such key"),
            ("endpoints/a/x", r#"{"name":"web"}"#, "missing field"),
            ("plan", r#"{"v":1,"network":[]}"#, "one range"),
        ] {
            let error = read(key, value.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(words), "{key}: {error}");
        }
        let long = vec![b' '; CLUSTER_RECORD_BYTES_MAX + 1];
        assert_eq!(read("plan", &long), Err(BadRecord::Long(long.len())));
    }
}
