//! Every route, once: the router and the OpenAPI description are both made from this list.
//!
//! A handler reads its parameters, asks [`Control`] and turns the answer into JSON; it decides
//! nothing. Control may wait for a worker, so it is asked on a thread where waiting is allowed.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, patch, post};

use super::body::{Body, Query};
use super::server::{Problem, Service};
use super::types::{
    EventsQuery, ForceQuery, InterfaceQuery, NameQuery, NetworkQuery, StopRequest, UnpublishQuery,
};
use crate::control::model::{
    CaptureSpec, Deleted, EndpointUpdate, FlowQuery, NetworkSpec, NetworkUpdate, PolicyFile,
    PolicyTest, PublishRequest, ServiceSpec, ServiceUpdate, TraceQuery, UplinkSpec,
};
use crate::control::{Control, ControlError, removal_failed};

/// One route.
pub(super) struct Route {
    /// In capitals.
    pub(super) method: &'static str,
    /// With `{name}` for parameters, as both axum and OpenAPI write it.
    pub(super) path: &'static str,
    /// What it does.
    pub(super) summary: &'static str,
    /// Query parameters, by name.
    pub(super) query: &'static [&'static str],
    /// Schema of the request's body.
    pub(super) request: Option<&'static str>,
    /// Schema of the answer's body; an array of them if it ends in `[]`.
    pub(super) answer: Option<&'static str>,
    /// What answers.
    pub(super) handler: MethodRouter<Service>,
}

const FLOW_FILTERS: &[&str] = &["endpoint", "proto", "state", "to", "addr", "port", "limit"];

/// All routes.
#[rustfmt::skip]
pub(super) fn all() -> Vec<Route> {
    let route = |method, path, summary, request, answer, handler| {
        Route { method, path, summary, query: &[], request, answer, handler }
    };
    let with_query = |query, route: Route| Route { query, ..route };
    vec![
        route("GET", "/v1/status", "How the daemon is", None, Some("StatusInfo"), get(status)),
        route("POST", "/v1/stop", "End the daemon", Some("StopRequest"), None, post(stop)),
        route("GET", "/v1/networks", "List networks", None, Some("NetworkInfo[]"), get(networks)),
        route("POST", "/v1/networks", "Make a network", Some("NetworkSpec"), Some("NetworkInfo"), post(create_network)),
        route("GET", "/v1/networks/{name}", "Show a network", None, Some("NetworkInfo"), get(network)),
        route("PATCH", "/v1/networks/{name}", "Change a network", Some("NetworkUpdate"), Some("NetworkInfo"), patch(update_network)),
        with_query(&["force"], route("DELETE", "/v1/networks/{name}", "Remove a network", None, None, delete(remove_network))),
        route("GET", "/v1/uplinks", "List uplinks", None, Some("UplinkInfo[]"), get(uplinks)),
        route("POST", "/v1/uplinks", "Make an uplink", Some("UplinkSpec"), Some("UplinkInfo"), post(create_uplink)),
        route("GET", "/v1/uplinks/{name}", "Show an uplink", None, Some("UplinkInfo"), get(uplink)),
        route("DELETE", "/v1/uplinks/{name}", "Remove an uplink", None, None, delete(remove_uplink)),
        route("GET", "/v1/endpoints", "List endpoints", None, Some("EndpointInfo[]"), get(endpoints)),
        route("GET", "/v1/endpoints/{name}", "Show the endpoints of a container", None, Some("EndpointInfo[]"), get(endpoint)),
        with_query(&["network"], route("PATCH", "/v1/endpoints/{name}", "Change name, labels and aliases of a container", Some("EndpointUpdate"), Some("EndpointInfo[]"), patch(update_endpoint))),
        with_query(&["network"], route("DELETE", "/v1/endpoints/{name}", "Detach a container", None, Some("EndpointInfo[]"), delete(detach))),
        with_query(&["ifname"], route("GET", "/v1/containers/{id}", "Show what an engine's container has, by the engine's name for it", None, Some("EndpointInfo[]"), get(endpoints_of))),
        with_query(&["ifname"], route("DELETE", "/v1/containers/{id}", "Detach an engine's container; no error if there is nothing", None, Some("EndpointInfo[]"), delete(detach_container))),
        with_query(&["network"], route("POST", "/v1/endpoints/{name}/publications", "Publish ports of a container", Some("PublishRequest"), Some("PublicationInfo[]"), post(publish))),
        with_query(&["spec", "network"], route("DELETE", "/v1/endpoints/{name}/publications", "Take published ports back", None, Some("PublicationInfo[]"), delete(unpublish))),
        route("GET", "/v1/nodes", "List the nodes of the cluster", None, Some("NodeInfo[]"), get(nodes)),
        route("GET", "/v1/nodes/{name}", "Show a node", None, Some("NodeInfo"), get(node)),
        route("DELETE", "/v1/nodes/{name}", "Remove a silent node, or this one", None, Some("NodeRemoved"), delete(remove_node)),
        route("GET", "/v1/cluster/endpoints", "List the endpoints of all nodes", None, Some("NodeEndpoint[]"), get(node_endpoints)),
        route("GET", "/v1/publications", "List published ports", None, Some("PublicationInfo[]"), get(publications)),
        route("GET", "/v1/services", "List services", None, Some("ServiceInfo[]"), get(services)),
        route("POST", "/v1/services", "Make a service", Some("ServiceSpec"), Some("ServiceInfo"), post(create_service)),
        route("GET", "/v1/services/{name}", "Show a service", None, Some("ServiceInfo"), get(service_named)),
        route("PATCH", "/v1/services/{name}", "Change a service", Some("ServiceUpdate"), Some("ServiceInfo"), patch(update_service)),
        route("DELETE", "/v1/services/{name}", "Remove a service", None, None, delete(remove_service)),
        with_query(FLOW_FILTERS, route("GET", "/v1/flows", "List tracked flows", None, Some("FlowView[]"), get(flows))),
        with_query(FLOW_FILTERS, route("DELETE", "/v1/flows", "Forget flows", None, Some("Deleted"), delete(flush_flows))),
        route("GET", "/v1/flows/counts", "Flows by state", None, Some("FlowCount[]"), get(count_flows)),
        with_query(FLOW_FILTERS, route("GET", "/v1/flows/events", "Flows as they begin and end, one JSON object a line", None, Some("FlowEventView"), get(flow_events))),
        route("GET", "/v1/fdb", "List MAC addresses", None, Some("FdbView[]"), get(fdb)),
        route("GET", "/v1/neighbours", "List neighbours", None, Some("NeighbourView[]"), get(neighbours)),
        route("GET", "/v1/routes", "List routes", None, Some("RouteInfo[]"), get(routes)),
        route("GET", "/metrics", "All counters, as text for Prometheus", None, None, get(metrics)),
        route("GET", "/v1/stats", "Counters of ports and workers", None, Some("StatsInfo"), get(stats)),
        route("GET", "/v1/policies", "List policies", None, Some("PolicyInfo[]"), get(policies)),
        route("POST", "/v1/policies", "Apply a file of policies", Some("PolicyFile"), Some("PolicyApplied"), post(apply_policies)),
        with_query(&["name"], route("DELETE", "/v1/policies", "Remove a policy", None, None, delete(remove_policy))),
        route("POST", "/v1/policies/test", "Which rules decide about a flow", Some("PolicyTest"), Some("PolicyTestReport"), post(test_policy)),
        route("POST", "/v1/trace", "Which way a packet would go", Some("TraceQuery"), Some("TraceReport"), post(trace)),
        route("POST", "/v1/capture", "Copies of frames as they pass, in pcapng or one JSON object a line", Some("CaptureSpec"), Some("FrameView"), post(capture)),
        with_query(&["follow"], route("GET", "/v1/events", "What happened, one JSON object a line", None, Some("EventInfo"), get(events))),
        route("GET", "/openapi.json", "This description", None, None, get(openapi)),
    ]
}

type Answer = Result<Response, Problem>;

/// Asks control and answers 200 with what it said.
async fn ask<T, F>(service: Service, question: F) -> Answer
where
    T: serde::Serialize + Send + 'static,
    F: FnOnce(&mut Control) -> Result<T, ControlError> + Send + 'static,
{
    Ok(Json(service.with_control(question).await?).into_response())
}

/// The same with 201.
async fn make<T, F>(service: Service, question: F) -> Answer
where
    T: serde::Serialize + Send + 'static,
    F: FnOnce(&mut Control) -> Result<T, ControlError> + Send + 'static,
{
    let made = Json(service.with_control(question).await?);
    Ok((StatusCode::CREATED, made).into_response())
}

/// The same with 204 and no body.
async fn act<F>(service: Service, question: F) -> Answer
where
    F: FnOnce(&mut Control) -> Result<(), ControlError> + Send + 'static,
{
    service.with_control(question).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn status(State(service): State<Service>) -> Answer {
    ask(service, |control| Ok(control.status())).await
}

async fn stop(State(service): State<Service>, Body(request): Body<StopRequest>) -> Answer {
    service.stop(request);
    Ok(StatusCode::ACCEPTED.into_response())
}

async fn networks(State(service): State<Service>) -> Answer {
    ask(service, |control| Ok(control.networks())).await
}

async fn network(State(service): State<Service>, Path(name): Path<String>) -> Answer {
    ask(service, move |control| control.network(&name)).await
}

async fn create_network(State(service): State<Service>, Body(spec): Body<NetworkSpec>) -> Answer {
    make(service, move |control| control.create_network(&spec)).await
}

async fn update_network(
    State(service): State<Service>,
    Path(name): Path<String>,
    Body(update): Body<NetworkUpdate>,
) -> Answer {
    ask(service, move |control| control.update_network(&name, &update)).await
}

async fn remove_network(
    State(service): State<Service>,
    Path(name): Path<String>,
    Query(query): Query<ForceQuery>,
) -> Answer {
    act(service, move |control| control.remove_network(&name, query.force)).await
}

async fn uplinks(State(service): State<Service>) -> Answer {
    ask(service, |control| Ok(control.uplinks())).await
}

async fn uplink(State(service): State<Service>, Path(name): Path<String>) -> Answer {
    ask(service, move |control| control.uplink(&name)).await
}

async fn create_uplink(State(service): State<Service>, Body(spec): Body<UplinkSpec>) -> Answer {
    make(service, move |control| control.create_uplink(&spec)).await
}

async fn remove_uplink(State(service): State<Service>, Path(name): Path<String>) -> Answer {
    act(service, move |control| control.remove_uplink(&name)).await
}

async fn endpoints(State(service): State<Service>) -> Answer {
    ask(service, |control| Ok(control.endpoints())).await
}

async fn endpoint(State(service): State<Service>, Path(name): Path<String>) -> Answer {
    ask(service, move |control| control.endpoint(&name)).await
}

async fn update_endpoint(
    State(service): State<Service>,
    Path(name): Path<String>,
    Query(query): Query<NetworkQuery>,
    Body(update): Body<EndpointUpdate>,
) -> Answer {
    let network = query.network;
    ask(service, move |control| control.update_endpoint(&name, network.as_deref(), &update)).await
}

async fn detach(
    State(service): State<Service>,
    Path(name): Path<String>,
    Query(query): Query<NetworkQuery>,
) -> Answer {
    let network = query.network;
    ask(service, move |control| control.detach(&name, network.as_deref(), "as asked for")).await
}

async fn endpoints_of(
    State(service): State<Service>,
    Path(id): Path<String>,
    Query(query): Query<InterfaceQuery>,
) -> Answer {
    ask(service, move |control| Ok(control.endpoints_of(&id, query.ifname.as_deref()))).await
}

async fn detach_container(
    State(service): State<Service>,
    Path(id): Path<String>,
    Query(query): Query<InterfaceQuery>,
) -> Answer {
    ask(service, move |control| control.detach_container(&id, query.ifname.as_deref())).await
}

async fn publish(
    State(service): State<Service>,
    Path(name): Path<String>,
    Query(query): Query<NetworkQuery>,
    Body(request): Body<PublishRequest>,
) -> Answer {
    let network = query.network;
    make(service, move |control| control.publish(&name, network.as_deref(), &request.publish)).await
}

async fn unpublish(
    State(service): State<Service>,
    Path(name): Path<String>,
    Query(query): Query<UnpublishQuery>,
) -> Answer {
    let spec = query.spec.parse().map_err(Problem::invalid)?;
    let network = query.network;
    ask(service, move |control| control.unpublish(&name, network.as_deref(), &[spec])).await
}

async fn nodes(State(service): State<Service>) -> Answer {
    ask(service, |control| control.nodes()).await
}

async fn node(State(service): State<Service>, Path(name): Path<String>) -> Answer {
    ask(service, move |control| control.node(&name)).await
}

async fn node_endpoints(State(service): State<Service>) -> Answer {
    ask(service, |control| control.node_endpoints()).await
}

/// Waits for the cluster's store, and that without control, which others need meanwhile.
async fn remove_node(State(service): State<Service>, Path(name): Path<String>) -> Answer {
    let asked = name.clone();
    let cluster = service.with_control(move |control| {
        control.check_removal(&asked)?;
        control.cluster()
    });
    let cluster = cluster.await?;
    let removal = tokio::task::spawn_blocking(move || {
        cluster.remove(&name).map_err(|error| removal_failed(&name, &error))
    });
    let removed = removal.await.map_err(|_| Problem::failed())??;
    ask(service, move |control| control.node_removed(&removed)).await
}

async fn publications(State(service): State<Service>) -> Answer {
    ask(service, |control| control.ports(None)).await
}

async fn services(State(service): State<Service>) -> Answer {
    ask(service, |control| Ok(control.services())).await
}

async fn service_named(State(service): State<Service>, Path(name): Path<String>) -> Answer {
    ask(service, move |control| control.service(&name)).await
}

async fn create_service(State(service): State<Service>, Body(spec): Body<ServiceSpec>) -> Answer {
    make(service, move |control| control.create_service(&spec)).await
}

async fn update_service(
    State(service): State<Service>,
    Path(name): Path<String>,
    Body(update): Body<ServiceUpdate>,
) -> Answer {
    ask(service, move |control| control.update_service(&name, &update)).await
}

async fn remove_service(State(service): State<Service>, Path(name): Path<String>) -> Answer {
    act(service, move |control| control.remove_service(&name)).await
}

async fn flows(State(service): State<Service>, Query(query): Query<FlowQuery>) -> Answer {
    ask(service, move |control| control.flows(&query)).await
}

async fn flush_flows(State(service): State<Service>, Query(query): Query<FlowQuery>) -> Answer {
    ask(service, move |control| control.flush_flows(&query).map(|count| Deleted { count })).await
}

async fn count_flows(State(service): State<Service>) -> Answer {
    ask(service, |control| control.count_flows()).await
}

async fn flow_events(State(service): State<Service>, Query(query): Query<FlowQuery>) -> Answer {
    service.flow_events(query).await
}

async fn fdb(State(service): State<Service>) -> Answer {
    ask(service, |control| control.fdb()).await
}

async fn neighbours(State(service): State<Service>) -> Answer {
    ask(service, |control| control.neighbours()).await
}

async fn routes(State(service): State<Service>) -> Answer {
    ask(service, |control| control.routes()).await
}

async fn stats(State(service): State<Service>) -> Answer {
    ask(service, |control| control.stats()).await
}

async fn metrics(State(service): State<Service>) -> Answer {
    service.metrics().await
}

async fn capture(State(service): State<Service>, Body(spec): Body<CaptureSpec>) -> Answer {
    service.capture(spec).await
}

async fn policies(State(service): State<Service>) -> Answer {
    ask(service, |control| Ok(control.policies())).await
}

async fn apply_policies(State(service): State<Service>, Body(file): Body<PolicyFile>) -> Answer {
    ask(service, move |control| control.apply_policies(&file.yaml)).await
}

async fn remove_policy(State(service): State<Service>, Query(query): Query<NameQuery>) -> Answer {
    act(service, move |control| control.remove_policy(&query.name)).await
}

async fn test_policy(State(service): State<Service>, Body(test): Body<PolicyTest>) -> Answer {
    ask(service, move |control| control.test_policy(&test)).await
}

async fn trace(State(service): State<Service>, Body(query): Body<TraceQuery>) -> Answer {
    ask(service, move |control| control.trace(&query)).await
}

async fn events(State(service): State<Service>, Query(query): Query<EventsQuery>) -> Answer {
    service.events(query.follow).await
}

async fn openapi() -> Answer {
    Ok(Json(super::openapi::document()).into_response())
}
