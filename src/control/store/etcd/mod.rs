//! etcd 3.4 and later over its own JSON gateway: requests of HTTP/1.1, no gRPC.
//!
//! A [`Session`] is with one member: one connection for questions, one for the watch. When either fails, or
//! a lease cannot be kept, the session is over and the next member's turn comes. What fails is a value; when
//! to try again is for the caller to say.

mod address;
mod connection;
mod error;
mod messages;
mod tls;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use self::address::Endpoint;
use self::connection::{Connection, Lines};
pub use self::error::EtcdError;
use self::error::{NOT_FOUND, OUT_OF_RANGE, UNAUTHENTICATED};
use self::messages::{Authenticated, Event, Granted, Kept, KeyValue, Range, Refusal, Txn, Watched};
pub use self::tls::TlsFiles;
use crate::base::base64;
use crate::base::limits::CLUSTER_PAGE;
use crate::control::cluster::ask::{Change, Compare, Entry, Listing, Op, Request, Response};

/// Who this node is to etcd, and where its keys are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login {
    /// Certificates.
    pub tls: TlsFiles,
    /// Name and password, if etcd asks for them.
    pub user: Option<(String, String)>,
    /// What all keys begin with; ends in a slash.
    pub prefix: String,
}

/// A conversation with one member.
#[derive(Debug)]
pub struct Session {
    login: Login,
    endpoint: Endpoint,
    connection: Connection,
}

impl Session {
    /// Connects, and says who we are.
    pub async fn open(endpoint: &Endpoint, login: &Login) -> Result<Self, EtcdError> {
        let connection = Connection::open(endpoint, &login.tls).await?;
        let mut session = Self { login: login.clone(), endpoint: endpoint.clone(), connection };
        session.authenticate().await?;
        Ok(session)
    }

    /// Our own address towards etcd.
    pub fn local(&self) -> std::net::IpAddr {
        self.connection.local.ip()
    }

    async fn authenticate(&mut self) -> Result<(), EtcdError> {
        let Some((name, password)) = &self.login.user else { return Ok(()) };
        let body = json!({ "name": name, "password": password });
        self.connection.token = None;
        let answer: Authenticated = self.once("/v3/auth/authenticate", &body).await?;
        self.connection.token = Some(answer.token);
        Ok(())
    }

    /// All keys below the prefix at one revision, in pages.
    pub async fn list(&mut self) -> Result<Listing, EtcdError> {
        let prefix = self.login.prefix.clone();
        let mut listing = Listing::default();
        let mut from = prefix.clone().into_bytes();
        let end = base64::encode(&end_of(&prefix));
        loop {
            let mut body =
                json!({ "key": base64::encode(&from), "range_end": end, "limit": CLUSTER_PAGE });
            if listing.revision != 0 {
                body["revision"] = json!(listing.revision);
            }
            let page: Range = self.call("/v3/kv/range", &body).await?;
            if listing.revision == 0 {
                listing.revision = page.header.revision as u64;
            }
            let Some(last) = page.kvs.last() else { return Ok(listing) };
            from.clone_from(&last.key);
            from.push(0);
            for kv in page.kvs {
                if let Some(key) = self.below(&kv) {
                    listing.entries.insert(key, kv.entry());
                }
            }
            if !page.more {
                return Ok(listing);
            }
        }
    }

    /// One key that lies outside of the prefix or in it, whole.
    pub async fn get(&mut self, key: &str) -> Result<Option<Entry>, EtcdError> {
        let page: Range =
            self.call("/v3/kv/range", &json!({ "key": base64::encode(key.as_bytes()) })).await?;
        Ok(page.kvs.into_iter().next().map(KeyValue::entry))
    }

    /// Carries a question out.
    pub async fn ask(&mut self, request: &Request) -> Result<Response, EtcdError> {
        match request {
            Request::Grant(seconds) => {
                let granted: Granted =
                    self.call("/v3/lease/grant", &json!({ "TTL": seconds })).await?;
                Ok(Response::Granted(granted.id as u64))
            }
            Request::Keep(lease) => {
                let body = json!({ "ID": lease.to_string() });
                let kept: Kept = self.call("/v3/lease/keepalive", &body).await?;
                if let Some(refusal) = kept.error {
                    return Err(refused(&self.endpoint, refusal));
                }
                Ok(if kept.result.ttl > 0 { Response::Kept } else { Response::LeaseGone })
            }
            Request::Txn(compare, ops) => self.transact(compare, ops).await,
        }
    }

    async fn transact(&mut self, compare: &[Compare], ops: &[Op]) -> Result<Response, EtcdError> {
        let prefix = self.login.prefix.clone();
        let key = |key: &str| base64::encode(format!("{prefix}{key}").as_bytes());
        let conditions: Vec<Value> = compare
            .iter()
            .map(|c| match c {
                Compare::Absent(name) => json!({ "key": key(name), "target": "VERSION", "result": "EQUAL", "version": "0" }),
                Compare::At(name, revision) => json!({
                    "key": key(name), "target": "MOD", "result": "EQUAL", "mod_revision": revision.to_string(),
                }),
            })
            .collect();
        let changes: Vec<Value> = ops
            .iter()
            .map(|op| match op {
                Op::Put { key: name, value, lease } => json!({ "request_put": {
                    "key": key(name), "value": base64::encode(value.as_bytes()), "lease": lease.to_string(),
                } }),
                Op::Delete(name) => json!({ "request_delete_range": { "key": key(name) } }),
                Op::DeleteAll(start) => json!({ "request_delete_range": {
                    "key": key(start), "range_end": base64::encode(&end_of(&format!("{prefix}{start}"))),
                } }),
            })
            .collect();
        let look: Vec<Value> =
            compare.iter().map(|c| json!({ "request_range": { "key": key(c.key()) } })).collect();
        let body = json!({ "compare": conditions, "success": changes, "failure": look });
        let done: Txn = match self.call("/v3/kv/txn", &body).await {
            // The only thing that a put can miss is its lease.
            Err(EtcdError::Refused { code: NOT_FOUND, .. }) => return Ok(Response::LeaseGone),
            other => other?,
        };
        let revision = done.header.revision as u64;
        if done.succeeded {
            return Ok(Response::Done(revision));
        }
        let found = done
            .responses
            .into_iter()
            .map(|r| r.response_range.unwrap_or_default().kvs.into_iter().next());
        let names = compare.iter().map(|c| c.key().to_owned());
        Ok(Response::Otherwise(
            revision,
            names.zip(found.map(|kv| kv.map(KeyValue::entry))).collect(),
        ))
    }

    /// Everything that happens below the prefix after a revision.
    pub async fn watch(&mut self, after: u64) -> Result<Watch, EtcdError> {
        let mut connection = Connection::open(&self.endpoint, &self.login.tls).await?;
        connection.token.clone_from(&self.connection.token);
        let body = json!({ "create_request": {
            "key": base64::encode(self.login.prefix.as_bytes()),
            "range_end": base64::encode(&end_of(&self.login.prefix)),
            "start_revision": (after + 1).to_string(),
            "fragment": true,
        } });
        let lines = connection.stream("/v3/watch", &body).await?;
        Ok(Watch { prefix: self.login.prefix.clone(), lines })
    }

    /// Asks; once more with a new token if the old one is not known any more.
    async fn call<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &Value,
    ) -> Result<T, EtcdError> {
        match self.once(path, body).await {
            Err(EtcdError::Refused { code, message, .. })
                if self.login.user.is_some()
                    && (code == UNAUTHENTICATED || message.contains("invalid auth token")) =>
            {
                self.authenticate().await?;
                self.once(path, body).await
            }
            other => other,
        }
    }

    async fn once<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &Value,
    ) -> Result<T, EtcdError> {
        let why = |e: serde_json::Error| EtcdError::Foreign {
            endpoint: self.endpoint.clone(),
            why: e.to_string(),
        };
        match self.connection.call(path, body).await? {
            Ok(answer) => serde_json::from_slice(&answer).map_err(why),
            Err(answer) => {
                // The gateway itself says in plain words what it does not like.
                let words = || String::from_utf8_lossy(&answer).trim().chars().take(200).collect();
                let refusal = serde_json::from_slice(&answer);
                let refusal = refusal.unwrap_or_else(|_| Refusal { code: 0, message: words() });
                Err(refused(&self.endpoint, refusal))
            }
        }
    }

    fn below(&self, kv: &KeyValue) -> Option<String> {
        below(&self.login.prefix, &kv.key)
    }
}

/// Reads a line of a watch, whatever is in it.
pub fn read_line(prefix: &str, line: &[u8]) -> Vec<Change> {
    let watched: Watched = serde_json::from_slice(line).unwrap_or_default();
    watched.result.events.into_iter().filter_map(|event| change(prefix, event)).collect()
}

/// A watch that is open.
#[derive(Debug)]
pub struct Watch {
    prefix: String,
    lines: Lines,
}

impl Watch {
    /// What happened next. [`EtcdError::Compacted`] if the past it began at is forgotten: then everything has
    /// to be listed anew. May be dropped and called again.
    pub async fn next(&mut self) -> Result<Vec<Change>, EtcdError> {
        let line = self.lines.next().await?;
        let endpoint = || self.lines.endpoint.clone();
        let watched: Watched = serde_json::from_slice(&line)
            .map_err(|e| EtcdError::Foreign { endpoint: endpoint(), why: e.to_string() })?;
        if let Some(refusal) = watched.error {
            return Err(refused(&endpoint(), refusal));
        }
        let result = watched.result;
        if result.compact_revision > 0 {
            return Err(EtcdError::Compacted);
        }
        if result.canceled {
            return Err(EtcdError::Broken { endpoint: endpoint(), why: result.cancel_reason });
        }
        Ok(result.events.into_iter().filter_map(|event| change(&self.prefix, event)).collect())
    }
}

fn change(prefix: &str, event: Event) -> Option<Change> {
    let key = below(prefix, &event.kv.key)?;
    let revision = event.kv.mod_revision as u64;
    let now = (event.kind != "DELETE").then(|| event.kv.entry());
    Some(Change { key, revision, now })
}

/// A key without the prefix. One that is no text is none of ours.
fn below(prefix: &str, key: &[u8]) -> Option<String> {
    let key = key.strip_prefix(prefix.as_bytes())?;
    String::from_utf8(key.to_vec()).ok()
}

/// The first key after all that begin so.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end;
        }
    }
    // Everything.
    vec![0]
}

fn refused(endpoint: &Endpoint, refusal: Refusal) -> EtcdError {
    if refusal.code == OUT_OF_RANGE && refusal.message.contains("compacted") {
        return EtcdError::Compacted;
    }
    EtcdError::Refused { endpoint: endpoint.clone(), code: refusal.code, message: refusal.message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_first_key_that_does_not_begin_so() {
        assert_eq!(end_of("/wharf/"), b"/wharf0");
        assert_eq!(end_of(""), [0]);
    }

    #[test]
    fn a_watch_s_line_becomes_changes_and_foreign_keys_are_left_out() {
        let line = r#"{"result":{"header":{"revision":"8"},"events":[
            {"kv":{"key":"L3doYXJmL25vZGVzL2E=","create_revision":"8","mod_revision":"8","version":"1","value":"e30="}},
            {"type":"DELETE","kv":{"key":"L3doYXJmL2FsaXZlL2I=","mod_revision":"8"}},
            {"kv":{"key":"L290aGVy","mod_revision":"8"}}]}}"#;
        let watched: Watched = serde_json::from_str(line).unwrap();
        let changes: Vec<Change> =
            watched.result.events.into_iter().filter_map(|e| change("/wharf/", e)).collect();
        let entry = Entry { value: b"{}".to_vec(), revision: 8, lease: 0 };
        assert_eq!(changes[0], Change { key: "nodes/a".into(), revision: 8, now: Some(entry) });
        assert_eq!(changes[1], Change { key: "alive/b".into(), revision: 8, now: None });
        assert_eq!(changes.len(), 2);
    }

    #[test]
    fn the_gateway_s_refusals_are_understood() {
        let endpoint: Endpoint = "http://a".parse().unwrap();
        let text = r#"{"error":"etcdserver: mvcc: required revision has been compacted","message":"etcdserver: mvcc: required revision has been compacted","code":11}"#;
        let refusal: Refusal = serde_json::from_str(text).unwrap();
        assert!(matches!(refused(&endpoint, refusal), EtcdError::Compacted));
    }
}
