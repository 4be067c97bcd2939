//! etcd's messages in JSON: 64-bit numbers are texts, keys and values base64, and what is zero is left out.

use serde::{Deserialize, Deserializer};

use crate::base::base64;
use crate::control::cluster::ask::Entry;

/// A number, as a text or as itself.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Number(i64),
    }
    match Either::deserialize(from)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
    base64::decode(&text).ok_or_else(|| serde::de::Error::custom("this is no base64"))
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(super) struct Header {
    #[serde(deserialize_with = "number")]
    pub(super) revision: i64,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(super) struct KeyValue {
    #[serde(deserialize_with = "bytes")]
    pub(super) key: Vec<u8>,
    #[serde(deserialize_with = "bytes")]
    pub(super) value: Vec<u8>,
    #[serde(deserialize_with = "number")]
    pub(super) mod_revision: i64,
    #[serde(deserialize_with = "number")]
    pub(super) lease: i64,
}

impl KeyValue {
    pub(super) fn entry(self) -> Entry {
        Entry { value: self.value, revision: self.mod_revision as u64, lease: self.lease as u64 }
    }
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(super) struct Range {
    pub(super) header: Header,
    pub(super) kvs: Vec<KeyValue>,
    pub(super) more: bool,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(super) struct Granted {
    #[serde(rename = "ID", deserialize_with = "number")]
    pub(super) id: i64,
}

/// `lease/keepalive` answers as a stream does.
#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(super) struct Kept {
    pub(super) result: KeptResult,
    pub(super) error: Option<Refusal>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(super) struct KeptResult {
    #[serde(rename = "TTL", deserialize_with = "number")]
    pub(super) ttl: i64,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(super) struct Txn {
    pub(super) header: Header,
    pub(super) succeeded: bool,
    pub(super) responses: Vec<TxnResponse>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(super) struct TxnResponse {
    pub(super) response_range: Option<Range>,
}

#[derive(Deserialize, Debug)]
pub(super) struct Authenticated {
    pub(super) token: String,
}

/// A line of a watch.
#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(super) struct Watched {
    pub(super) result: WatchResult,
    pub(super) error: Option<Refusal>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(super) struct WatchResult {
    pub(super) header: Header,
    pub(super) canceled: bool,
    pub(super) cancel_reason: String,
    #[serde(deserialize_with = "number")]
    pub(super) compact_revision: i64,
    pub(super) events: Vec<Event>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(super) struct Event {
    /// `DELETE`, or nothing for a put.
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) kv: KeyValue,
}

/// An answer that is an error.
#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(super) struct Refusal {
    #[serde(alias = "grpc_code")]
    pub(super) code: u32,
    pub(super) message: String,
}
