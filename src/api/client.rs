//! The API from the outside: one method for each thing that can be asked, synchronous.

use std::path::PathBuf;

use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::http::{self, HttpError, Lines, Reply};
use super::paths::RuntimeDir;
use super::types::{InterfaceQuery, NetworkQuery, StopRequest, UnpublishQuery};
use crate::control::model::{
    CaptureSpec, Deleted, EndpointInfo, EndpointUpdate, ErrorBody, EventInfo, FdbView, FlowQuery,
    FlowView, NeighbourView, NetworkInfo, NetworkSpec, NetworkUpdate, NodeEndpoint, NodeInfo,
    NodeRemoved, PolicyApplied, PolicyFile, PolicyInfo, PolicyTest, PolicyTestReport,
    PublicationInfo, PublishRequest, PublishSpec, ServiceInfo, ServiceSpec, ServiceUpdate,
    StatsInfo, StatusInfo, TraceQuery, UplinkInfo, UplinkSpec,
};
use crate::datapath::inspect::{FlowCount, RouteInfo, TraceReport};

/// Speaks to one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why something could not be had from the daemon.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The daemon could not be spoken to.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The daemon said no.
    #[error("{}", .0.message)]
    Refused(ErrorBody),
    /// The daemon's answer was not understood.
    #[error("the daemon's answer ({status}) was not understood: {why}")]
    NotUnderstood {
        /// Its status.
        status: StatusCode,
        /// What is wrong with it.
        why: String,
    },
}

impl ClientError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Http(HttpError::NoDaemon(_)) => {
                "start one with `wharf daemon --background`, or name another one's directory with \
                 `--runtime-dir` (root's is /run/wharf)"
            }
            Self::Http(HttpError::NotAllowed(_)) => {
                "be root, the user it runs as, or a member of the group `wharf` \
                 (`usermod -aG wharf NAME`, then log in anew)"
            }
            Self::Http(HttpError::TimedOut) => {
                "its log says more; `wharf status` shows where it is"
            }
            Self::Http(_) => return None,
            Self::Refused(body) => return body.hint.clone(),
            Self::NotUnderstood { .. } => {
                "run the same version of wharf on both sides (`wharf version`)"
            }
        };
        Some(text.to_owned())
    }

    /// Whether nobody listens at the socket.
    pub fn is_no_daemon(&self) -> bool {
        matches!(self, Self::Http(HttpError::NoDaemon(_)))
    }
}

type Result<T> = std::result::Result<T, ClientError>;

impl Client {
    /// A client of the daemon there. Nothing is connected yet.
    pub fn new(dir: &RuntimeDir) -> Self {
        Self { socket: dir.api_socket() }
    }

    /// How the daemon is.
    pub fn status(&self) -> Result<StatusInfo> {
        self.get("/v1/status")
    }

    /// Asks the daemon to end.
    pub fn stop(&self, request: &StopRequest) -> Result<()> {
        self.exchange(Method::POST, "/v1/stop", Some(request)).map(drop)
    }

    /// All networks.
    pub fn networks(&self) -> Result<Vec<NetworkInfo>> {
        self.get("/v1/networks")
    }

    /// One network.
    pub fn network(&self, name: &str) -> Result<NetworkInfo> {
        self.get(&format!("/v1/networks/{}", encode(name)))
    }

    /// Makes a network.
    pub fn create_network(&self, spec: &NetworkSpec) -> Result<NetworkInfo> {
        self.send(Method::POST, "/v1/networks", spec)
    }

    /// Changes a network.
    pub fn update_network(&self, name: &str, update: &NetworkUpdate) -> Result<NetworkInfo> {
        self.send(Method::PATCH, &format!("/v1/networks/{}", encode(name)), update)
    }

    /// Removes a network; with `force`, its endpoints too.
    pub fn remove_network(&self, name: &str, force: bool) -> Result<()> {
        self.delete(&format!("/v1/networks/{}?force={force}", encode(name)))
    }

    /// All services.
    pub fn services(&self) -> Result<Vec<ServiceInfo>> {
        self.get("/v1/services")
    }

    /// One service.
    pub fn service(&self, name: &str) -> Result<ServiceInfo> {
        self.get(&format!("/v1/services/{}", encode(name)))
    }

    /// Makes a service.
    pub fn create_service(&self, spec: &ServiceSpec) -> Result<ServiceInfo> {
        self.send(Method::POST, "/v1/services", spec)
    }

    /// Changes a service.
    pub fn update_service(&self, name: &str, update: &ServiceUpdate) -> Result<ServiceInfo> {
        self.send(Method::PATCH, &format!("/v1/services/{}", encode(name)), update)
    }

    /// Removes a service.
    pub fn remove_service(&self, name: &str) -> Result<()> {
        self.delete(&format!("/v1/services/{}", encode(name)))
    }

    /// All uplinks.
    pub fn uplinks(&self) -> Result<Vec<UplinkInfo>> {
        self.get("/v1/uplinks")
    }

    /// One uplink.
    pub fn uplink(&self, name: &str) -> Result<UplinkInfo> {
        self.get(&format!("/v1/uplinks/{}", encode(name)))
    }

    /// Makes an uplink.
    pub fn create_uplink(&self, spec: &UplinkSpec) -> Result<UplinkInfo> {
        self.send(Method::POST, "/v1/uplinks", spec)
    }

    /// Removes an uplink.
    pub fn remove_uplink(&self, name: &str) -> Result<()> {
        self.delete(&format!("/v1/uplinks/{}", encode(name)))
    }

    /// All endpoints.
    pub fn endpoints(&self) -> Result<Vec<EndpointInfo>> {
        self.get("/v1/endpoints")
    }

    /// The endpoints of one container, one for each network it is on.
    pub fn endpoint(&self, name: &str) -> Result<Vec<EndpointInfo>> {
        self.get(&format!("/v1/endpoints/{}", encode(name)))
    }

    /// All nodes of the cluster.
    pub fn nodes(&self) -> Result<Vec<NodeInfo>> {
        self.get("/v1/nodes")
    }

    /// One node.
    pub fn node(&self, name: &str) -> Result<NodeInfo> {
        self.get(&format!("/v1/nodes/{}", encode(name)))
    }

    /// Removes a silent node, or the daemon's own.
    pub fn remove_node(&self, name: &str) -> Result<NodeRemoved> {
        self.reply(Method::DELETE, &format!("/v1/nodes/{}", encode(name)), NOTHING)
    }

    /// The endpoints of all nodes.
    pub fn node_endpoints(&self) -> Result<Vec<NodeEndpoint>> {
        self.get("/v1/cluster/endpoints")
    }

    /// Detaches a container from one network or from all.
    pub fn detach(&self, name: &str, network: Option<&str>) -> Result<Vec<EndpointInfo>> {
        let query = query_string(&NetworkQuery { network: network.map(ToOwned::to_owned) });
        self.reply(Method::DELETE, &format!("/v1/endpoints/{}{query}", encode(name)), NOTHING)
    }

    /// Changes name, labels and aliases of a container, on all its networks.
    pub fn update_endpoint(
        &self,
        name: &str,
        update: &EndpointUpdate,
    ) -> Result<Vec<EndpointInfo>> {
        self.send(Method::PATCH, &format!("/v1/endpoints/{}", encode(name)), update)
    }

    /// What an engine's container has: all of it, or one interface.
    pub fn endpoints_of(
        &self,
        container_id: &str,
        ifname: Option<&str>,
    ) -> Result<Vec<EndpointInfo>> {
        let query = query_string(&InterfaceQuery { ifname: ifname.map(ToOwned::to_owned) });
        self.get(&format!("/v1/containers/{}{query}", encode(container_id)))
    }

    /// Detaches what an engine's container has; says what it was, which may be nothing.
    pub fn detach_container(
        &self,
        container_id: &str,
        ifname: Option<&str>,
    ) -> Result<Vec<EndpointInfo>> {
        let query = query_string(&InterfaceQuery { ifname: ifname.map(ToOwned::to_owned) });
        let target = format!("/v1/containers/{}{query}", encode(container_id));
        self.reply(Method::DELETE, &target, NOTHING)
    }

    /// All publications.
    pub fn publications(&self) -> Result<Vec<PublicationInfo>> {
        self.get("/v1/publications")
    }

    /// Publishes ports of a container, on one of its networks if one is named.
    pub fn publish(
        &self,
        name: &str,
        network: Option<&str>,
        request: &PublishRequest,
    ) -> Result<Vec<PublicationInfo>> {
        let query = query_string(&NetworkQuery { network: network.map(ToOwned::to_owned) });
        let target = format!("/v1/endpoints/{}/publications{query}", encode(name));
        self.send(Method::POST, &target, request)
    }

    /// Takes a publication back.
    pub fn unpublish(
        &self,
        name: &str,
        network: Option<&str>,
        spec: &PublishSpec,
    ) -> Result<Vec<PublicationInfo>> {
        let network = network.map(ToOwned::to_owned);
        let query = query_string(&UnpublishQuery { spec: spec.to_string(), network });
        let target = format!("/v1/endpoints/{}/publications{query}", encode(name));
        self.reply(Method::DELETE, &target, NOTHING)
    }

    /// Flows that match.
    pub fn flows(&self, query: &FlowQuery) -> Result<Vec<FlowView>> {
        self.get(&format!("/v1/flows{}", query_string(query)))
    }

    /// Forgets flows that match.
    pub fn flush_flows(&self, query: &FlowQuery) -> Result<Deleted> {
        self.reply(Method::DELETE, &format!("/v1/flows{}", query_string(query)), NOTHING)
    }

    /// MAC addresses.
    pub fn fdb(&self) -> Result<Vec<FdbView>> {
        self.get("/v1/fdb")
    }

    /// Neighbours.
    pub fn neighbours(&self) -> Result<Vec<NeighbourView>> {
        self.get("/v1/neighbours")
    }

    /// Routes.
    pub fn routes(&self) -> Result<Vec<RouteInfo>> {
        self.get("/v1/routes")
    }

    /// Counters.
    pub fn stats(&self) -> Result<StatsInfo> {
        self.get("/v1/stats")
    }

    /// All policies.
    pub fn policies(&self) -> Result<Vec<PolicyInfo>> {
        self.get("/v1/policies")
    }

    /// Applies a file of policies.
    pub fn apply_policies(&self, file: &PolicyFile) -> Result<PolicyApplied> {
        self.send(Method::POST, "/v1/policies", file)
    }

    /// Removes a policy.
    pub fn remove_policy(&self, name: &str) -> Result<()> {
        self.delete(&format!("/v1/policies?name={}", encode(name)))
    }

    /// Which rules decide about a flow.
    pub fn test_policy(&self, test: &PolicyTest) -> Result<PolicyTestReport> {
        self.send(Method::POST, "/v1/policies/test", test)
    }

    /// Which way a packet would go.
    pub fn trace(&self, query: &TraceQuery) -> Result<TraceReport> {
        self.send(Method::POST, "/v1/trace", query)
    }

    /// What happened lately; and with `follow`, what happens from now on, without an end.
    pub fn events(&self, follow: bool) -> Result<Events> {
        let (status, mut lines) =
            http::lines(&self.socket, &format!("/v1/events?follow={follow}"))?;
        if status.is_success() {
            return Ok(Events { lines });
        }
        let body = lines.next().transpose()?.unwrap_or_default();
        Err(problem(status, body.as_bytes()))
    }

    /// Copies of frames as they pass, in the form that was asked for.
    pub fn capture(&self, spec: &CaptureSpec) -> Result<impl Iterator<Item = Result<Bytes>>> {
        let body = serde_json::to_vec(spec).unwrap_or_default();
        let (status, mut chunks) = http::stream(&self.socket, "/v1/capture", body)?;
        if status.is_success() {
            return Ok(chunks.map(|chunk| chunk.map_err(Into::into)));
        }
        let body = chunks.next().transpose()?.unwrap_or_default();
        Err(problem(status, &body))
    }

    /// Flows by state.
    pub fn count_flows(&self) -> Result<Vec<FlowCount>> {
        self.get("/v1/flows/counts")
    }

    /// Flows that match as they begin and end, one JSON object a line, without an end.
    pub fn flow_events(&self, query: &FlowQuery) -> Result<impl Iterator<Item = Result<String>>> {
        let target = format!("/v1/flows/events{}", query_string(query));
        let (status, mut lines) = http::lines(&self.socket, &target)?;
        if status.is_success() {
            return Ok(lines.map(|line| line.map_err(Into::into)));
        }
        let body = lines.next().transpose()?.unwrap_or_default();
        Err(problem(status, body.as_bytes()))
    }

    fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T> {
        self.reply(Method::GET, target, NOTHING)
    }

    fn delete(&self, target: &str) -> Result<()> {
        self.exchange(Method::DELETE, target, NOTHING).map(drop)
    }

    fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        self.reply(method, target, Some(body))
    }

    fn reply<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T> {
        let reply = self.exchange(method, target, body)?;
        serde_json::from_slice(&reply.body).map_err(|error| ClientError::NotUnderstood {
            status: reply.status,
            why: error.to_string(),
        })
    }

    fn exchange(
        &self,
        method: Method,
        target: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Reply> {
        let body = body.map(|body| serde_json::to_vec(body).unwrap_or_default());
        let reply = http::call(&self.socket, method, target, body)?;
        if reply.status.is_success() { Ok(reply) } else { Err(problem(reply.status, &reply.body)) }
    }
}

/// A request without a body.
const NOTHING: Option<&()> = None;

/// Events as they come.
#[derive(Debug)]
pub struct Events {
    lines: Lines,
}

impl Iterator for Events {
    type Item = Result<EventInfo>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = match self.lines.next()? {
            Ok(line) => line,
            Err(error) => return Some(Err(error.into())),
        };
        Some(serde_json::from_str(&line).map_err(|error| ClientError::NotUnderstood {
            status: StatusCode::OK,
            why: error.to_string(),
        }))
    }
}

fn problem(status: StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice(body) {
        Ok(body) => ClientError::Refused(body),
        Err(_) => ClientError::NotUnderstood {
            status,
            why: String::from_utf8_lossy(body).chars().take(200).collect(),
        },
    }
}

/// A query that is made of an object's fields; empty when all of them are absent.
fn query_string(query: &impl Serialize) -> String {
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(query) else {
        return String::new();
    };
    let pairs = fields.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        format!("{name}={}", encode(&text))
    });
    let pairs = pairs.collect::<Vec<_>>();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn encode(text: &str) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_odd_characters_stay_one_path_segment() {
        assert_eq!(encode("web-1.a_b~c"), "web-1.a_b~c");
        assert_eq!(encode("../a b?c#é"), "..%2Fa%20b%3Fc%23%C3%A9");
    }

    #[test]
    fn absent_fields_do_not_show_in_a_query() {
        let mut query = FlowQuery::default();
        assert_eq!(query_string(&query), "");
        query.to = Some("fd00::1".parse().unwrap());
        query.limit = Some(5);
        assert_eq!(query_string(&query), "?limit=5&to=fd00%3A%3A1");
    }

    #[test]
    fn a_missing_daemon_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = Client::new(&RuntimeDir::new(dir.path())).status().unwrap_err();
        assert!(error.is_no_daemon());
        assert!(error.to_string().starts_with("no daemon is running at "), "{error}");
        assert!(error.hint().unwrap().contains("wharf daemon"));
    }

    #[test]
    fn a_socket_that_nobody_listens_at_is_a_missing_daemon() {
        let dir = RuntimeDir::new(tempfile::tempdir().unwrap().keep());
        drop(std::os::unix::net::UnixListener::bind(dir.api_socket()).unwrap());
        assert!(Client::new(&dir).status().unwrap_err().is_no_daemon());
        std::fs::remove_dir_all(dir.path()).unwrap();
    }

    #[test]
    fn an_answer_that_is_no_json_is_quoted() {
        let error = problem(StatusCode::BAD_GATEWAY, b"<html>");
        assert!(error.to_string().contains("502 Bad Gateway"), "{error}");
        assert!(error.to_string().contains("<html>"));
    }
}
