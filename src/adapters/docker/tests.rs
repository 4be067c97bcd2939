//! The plugin before a daemon that only writes down what it is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::problem::Problem;
use super::switch::Switch;
use super::{Plugin, State, Store};
use crate::attach::protocol::{AttachRequest, Attached};
use crate::base::ids::PublicationId;
use crate::control::ipam::Claim;
use crate::control::model::{
    EndpointUpdate, ErrorCode, NetworkSpec, PortRange, PublicationInfo, PublishSpec,
};

const NET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const END: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
const KEY: &str = "/var/run/docker/netns/1a2b3c4d5e6f";

/// What the daemon has, and whether it is there at all.
#[derive(Debug, Default)]
struct World {
    gone: bool,
    networks: BTreeMap<String, NetworkSpec>,
    endpoints: BTreeMap<String, AttachRequest>,
    published: BTreeSet<(String, String)>,
    count: u32,
}

#[derive(Clone, Debug, Default)]
struct Fake(Arc<Mutex<World>>);

fn refuse(code: ErrorCode, message: &str) -> Problem {
    Problem::Wharf { code: Some(code), message: message.to_owned() }
}

impl Fake {
    fn world<T>(&self, ask: impl FnOnce(&mut World) -> Result<T, Problem>) -> Result<T, Problem> {
        let mut world = self.0.lock().unwrap();
        if world.gone {
            return Err(Problem::Wharf { code: None, message: "no daemon is running".to_owned() });
        }
        ask(&mut world)
    }
}

impl Switch for Fake {
    fn create_network(&self, spec: &NetworkSpec) -> Result<(), Problem> {
        self.world(|world| {
            if world.networks.contains_key(&spec.name) {
                return Err(refuse(ErrorCode::Exists, "the network exists"));
            }
            world.networks.insert(spec.name.clone(), spec.clone());
            Ok(())
        })
    }

    fn remove_network(&self, name: &str) -> Result<(), Problem> {
        self.world(|world| {
            let removed = world.networks.remove(name).map(drop);
            removed.ok_or_else(|| refuse(ErrorCode::NotFound, "there is no such network"))
        })
    }

    fn claims(&self) -> Result<Vec<Claim>, Problem> {
        self.world(|world| {
            let nets = world.networks.values().flat_map(|network| network.subnets.clone());
            Ok(nets.map(|net| Claim { net, holder: "wharf".to_owned() }).collect())
        })
    }

    fn attach(&self, request: AttachRequest) -> Result<Attached, Problem> {
        self.world(|world| {
            if !world.networks.contains_key(&request.network) {
                return Err(refuse(ErrorCode::NotFound, "there is no such network"));
            }
            world.count += 1;
            let endpoint = format!("{:016x}", world.count);
            world.endpoints.insert(endpoint.clone(), request.clone());
            Ok(Attached {
                endpoint,
                name: request.name.unwrap_or_default(),
                mac: request.mac.unwrap(),
                addresses: Vec::new(),
                gateways: Vec::new(),
                routes: Vec::new(),
                dns: Vec::new(),
                search: Vec::new(),
                mtu: 1500,
                txqueuelen: 1000,
                published: Vec::new(),
            })
        })
    }

    fn detach(&self, endpoint: &str) -> Result<(), Problem> {
        self.world(|world| {
            let detached = world.endpoints.remove(endpoint).map(drop);
            detached.ok_or_else(|| refuse(ErrorCode::NotFound, "there is no such endpoint"))
        })
    }

    fn has_endpoint(&self, endpoint: &str) -> Result<bool, Problem> {
        self.world(|world| Ok(world.endpoints.contains_key(endpoint)))
    }

    fn has_link(&self, name: &str) -> bool {
        self.world(|world| Ok(world.endpoints.values().any(|e| e.ifname == name))).unwrap_or(false)
    }

    fn publish(
        &self,
        endpoint: &str,
        specs: &[PublishSpec],
    ) -> Result<Vec<PublicationInfo>, Problem> {
        self.world(|world| {
            let info = |spec: &PublishSpec| PublicationInfo {
                id: PublicationId(1),
                endpoint: endpoint.to_owned(),
                network: String::new(),
                host_addr: spec.host_addr,
                host_ports: spec.host_ports.unwrap_or(PortRange::single(32_768)),
                ports: spec.ports,
                proto: spec.proto,
            };
            let infos: Vec<_> = specs.iter().map(info).collect();
            let texts = infos.iter().map(|info| (endpoint.to_owned(), info.to_string()));
            world.published.extend(texts);
            Ok(infos)
        })
    }

    fn update_endpoint(&self, endpoint: &str, update: &EndpointUpdate) -> Result<(), Problem> {
        self.world(|world| {
            let Some(known) = world.endpoints.get_mut(endpoint) else {
                return Err(refuse(ErrorCode::NotFound, "there is no such endpoint"));
            };
            known.name.clone_from(&update.name);
            Ok(())
        })
    }

    fn unpublish(&self, endpoint: &str, spec: &PublishSpec) -> Result<(), Problem> {
        self.world(|world| {
            let there = world.published.remove(&(endpoint.to_owned(), spec.to_string()));
            there.then_some(()).ok_or_else(|| refuse(ErrorCode::Invalid, "not published"))
        })
    }
}

/// A plugin, the daemon behind it, and its directory.
struct Case {
    plugin: Plugin,
    fake: Fake,
    dir: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::default());
        Self { plugin: Self::open(&dir, &fake), fake, dir }
    }

    fn open(dir: &tempfile::TempDir, fake: &Fake) -> Plugin {
        let (store, state) = Store::open(&dir.path().join("docker.json")).unwrap();
        Plugin { switch: Box::new(fake.clone()), store, state: Mutex::new(state) }
    }

    /// The plugin ends and starts again.
    fn restart(&mut self) {
        self.plugin = Self::open(&self.dir, &self.fake);
    }

    fn call(&self, path: &str, body: &Value) -> Value {
        let answer = self.plugin.answer(path, body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.body
    }

    /// The call succeeds.
    fn ok(&self, path: &str, body: &Value) -> Value {
        let answer = self.call(path, body);
        assert!(answer.get("Err").is_none() && answer.get("Error").is_none(), "{path}: {answer}");
        answer
    }

    /// The call fails, with the error in the network driver's field.
    fn err(&self, path: &str, body: &Value) -> String {
        let answer = self.call(path, body);
        answer["Err"].as_str().unwrap_or_else(|| panic!("{path}: {answer}")).to_owned()
    }

    fn create_network(&self) {
        self.ok("/NetworkDriver.CreateNetwork", &network());
    }

    fn create_endpoint(&self) {
        self.ok("/NetworkDriver.CreateEndpoint", &endpoint());
    }

    fn joined(&self) -> Value {
        self.ok("/NetworkDriver.Join", &join(KEY))
    }

    fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.fake.0.lock().unwrap()
    }
}

fn network() -> Value {
    json!({
        "NetworkID": NET,
        "Options": {"com.docker.network.enable_ipv6": true, "com.docker.network.generic": {}},
        "IPv4Data": [{"AddressSpace": "wharf-local", "Pool": "10.1.0.0/16", "Gateway": "10.1.0.1/16"}],
        "IPv6Data": [{"AddressSpace": "wharf-local", "Pool": "fd01::/64", "Gateway": "fd01::1/64"}],
    })
}

fn endpoint() -> Value {
    json!({
        "NetworkID": NET,
        "EndpointID": END,
        "Interface": {"Address": "10.1.0.2/16", "AddressIPv6": "fd01::2/64", "MacAddress": ""},
        "Options": {"com.docker.network.endpoint.exposedports": [], "com.docker.network.portmap": []},
    })
}

fn of(endpoint: &str) -> Value {
    json!({"NetworkID": NET, "EndpointID": endpoint})
}

fn join(sandbox: &str) -> Value {
    json!({"NetworkID": NET, "EndpointID": END, "SandboxKey": sandbox, "Options": {}})
}

fn ports(port: u16) -> Value {
    json!({
        "NetworkID": NET, "EndpointID": END,
        "Options": {"com.docker.network.portmap": [
            {"Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": port, "HostPortEnd": port},
        ]},
    })
}

#[test]
fn docker_hears_that_the_plugin_is_both_drivers_of_one_host() {
    let case = Case::new();
    let activated = case.plugin.answer("/Plugin.Activate", b"");
    assert_eq!(activated.body["Implements"], json!(["NetworkDriver", "IpamDriver"]));
    let capabilities = case.plugin.answer("/NetworkDriver.GetCapabilities", b"").body;
    assert_eq!(capabilities, json!({"Scope": "local", "ConnectivityScope": "local"}));
    let capabilities = case.plugin.answer("/IpamDriver.GetCapabilities", b"").body;
    assert_eq!(capabilities["RequiresRequestReplay"], false);
    let spaces = case.plugin.answer("/IpamDriver.GetDefaultAddressSpaces", b"").body;
    assert_eq!(spaces["LocalDefaultAddressSpace"], "wharf-local");
    for call in ["AllocateNetwork", "FreeNetwork", "DiscoverNew", "DiscoverDelete"] {
        case.ok(&format!("/NetworkDriver.{call}"), &json!({}));
    }
}

#[test]
fn an_endpoint_lives_from_creation_to_deletion() {
    let case = Case::new();
    case.create_network();
    assert_eq!(case.world().networks["docker-0123456789ab"].subnets.len(), 2);
    let answer = case.ok("/NetworkDriver.CreateEndpoint", &endpoint());
    assert_eq!(answer, json!({"Interface": {"MacAddress": "02:42:0a:01:00:02"}}));
    let joined = json!({
        "InterfaceName": {"SrcName": "whfedcba98765", "DstPrefix": "eth"},
        "Gateway": "10.1.0.1", "GatewayIPv6": "fd01::1", "DisableGatewayService": false,
    });
    assert_eq!(case.joined(), joined);
    let request = case.world().endpoints.values().next().unwrap().clone();
    assert_eq!(request.name.as_deref(), Some("1a2b3c4d5e6f"));
    assert_eq!((request.ip, request.ip6), ("10.1.0.2".parse().ok(), "fd01::2".parse().ok()));
    assert_eq!(request.netns, None, "the link is in Docker's own namespace for a moment only");
    case.ok("/NetworkDriver.ProgramExternalConnectivity", &ports(8080));
    let published = [("0000000000000001".to_owned(), "8080:80/tcp".to_owned())].into();
    assert_eq!(case.world().published, published);
    let info = case.ok("/NetworkDriver.EndpointOperInfo", &of(END));
    assert_eq!(info["Value"]["wharf.published"], json!(["8080:80/tcp"]));
    case.ok("/NetworkDriver.RevokeExternalConnectivity", &of(END));
    assert!(case.world().published.is_empty());
    case.ok("/NetworkDriver.Leave", &of(END));
    assert_eq!(case.world().endpoints.len(), 1, "Docker has still to take the link out");
    case.ok("/NetworkDriver.DeleteEndpoint", &of(END));
    assert!(case.world().endpoints.is_empty());
    case.ok("/NetworkDriver.DeleteNetwork", &json!({"NetworkID": NET}));
    assert!(case.world().networks.is_empty());
    assert_eq!(*case.plugin.state(), State::default());
}

#[test]
fn a_call_that_comes_twice_does_nothing_the_second_time() {
    let case = Case::new();
    case.create_network();
    case.create_network();
    case.create_endpoint();
    case.create_endpoint();
    let first = case.joined();
    assert_eq!(case.joined(), first, "the first answer was lost, and the link is still outside");
    case.ok("/NetworkDriver.ProgramExternalConnectivity", &ports(8080));
    case.ok("/NetworkDriver.ProgramExternalConnectivity", &ports(8081));
    let published: Vec<String> = case.world().published.iter().map(|p| p.1.clone()).collect();
    assert_eq!(published, ["8081:80/tcp"]);
    assert_eq!(case.world().endpoints.len(), 1);
    for _ in 0..2 {
        case.ok("/NetworkDriver.Leave", &of(END)).as_object().unwrap();
    }
    for _ in 0..2 {
        case.ok("/NetworkDriver.DeleteEndpoint", &of(END));
    }
    for _ in 0..2 {
        case.ok("/NetworkDriver.DeleteNetwork", &json!({"NetworkID": NET}));
    }
}

#[test]
fn what_differs_from_the_first_call_is_refused() {
    let case = Case::new();
    case.create_network();
    let mut other = network();
    other["Options"]["com.docker.network.internal"] = json!(true);
    assert!(case.err("/NetworkDriver.CreateNetwork", &other).contains("other options"));
    case.create_endpoint();
    let mut other = endpoint();
    other["Interface"]["Address"] = json!("10.1.0.3/16");
    assert!(case.err("/NetworkDriver.CreateEndpoint", &other).contains("other addresses"));
    case.joined();
    let error = case.err("/NetworkDriver.Join", &join("/var/run/docker/netns/ffffffffffff"));
    assert!(error.contains("has joined the sandbox /var/run/docker/netns/1a2b3c4d5e6f"), "{error}");
}

#[test]
fn calls_in_the_wrong_order_are_refused_in_words_and_leave_nothing() {
    let case = Case::new();
    for (path, body) in [
        ("CreateEndpoint", endpoint()),
        ("Join", join(KEY)),
        ("ProgramExternalConnectivity", ports(80)),
    ] {
        let error = case.err(&format!("/NetworkDriver.{path}"), &body);
        assert!(error.contains("does not know the network 0123"), "{path}: {error}");
    }
    for path in ["Leave", "EndpointOperInfo"] {
        let error = case.err(&format!("/NetworkDriver.{path}"), &of(END));
        assert!(error.contains("does not know the endpoint fedc"), "{path}: {error}");
    }
    case.create_network();
    assert!(case.err("/NetworkDriver.Join", &join(KEY)).contains("CreateEndpoint comes first"));
    case.create_endpoint();
    let error = case.err("/NetworkDriver.ProgramExternalConnectivity", &ports(80));
    assert!(error.contains("Join comes first"), "{error}");
    case.ok("/NetworkDriver.RevokeExternalConnectivity", &of(END));
    case.ok("/NetworkDriver.DeleteEndpoint", &of("never created"));
    case.ok("/NetworkDriver.DeleteNetwork", &json!({"NetworkID": "never created"}));
    assert!(case.world().endpoints.is_empty() && case.world().published.is_empty());
}

#[test]
fn a_field_that_docker_filled_in_is_left_empty_in_the_answer() {
    let case = Case::new();
    case.create_network();
    let mut wish = endpoint();
    wish["Interface"]["MacAddress"] = json!("02:00:00:00:00:07");
    let answer = case.ok("/NetworkDriver.CreateEndpoint", &wish);
    assert_eq!(answer, json!({"Interface": {}}));
    case.joined();
    let request = case.world().endpoints.values().next().unwrap().clone();
    assert_eq!(request.mac.unwrap().to_string(), "02:00:00:00:00:07");
}

#[test]
fn a_gateway_or_a_word_against_docker_s_own_bridge_is_always_answered_but_on_internal_networks() {
    for (internal, families, wanted) in [
        (false, ["Address", "AddressIPv6"].as_slice(), (true, true, false)),
        (false, &["Address"], (true, false, false)),
        (false, &["AddressIPv6"], (false, true, false)),
        (true, &["Address", "AddressIPv6"], (false, false, false)),
    ] {
        let case = Case::new();
        let mut network = network();
        network["Options"]["com.docker.network.internal"] = json!(internal);
        case.ok("/NetworkDriver.CreateNetwork", &network);
        let mut endpoint = endpoint();
        for family in ["Address", "AddressIPv6"] {
            if !families.contains(&family) {
                endpoint["Interface"][family] = json!("");
            }
        }
        case.ok("/NetworkDriver.CreateEndpoint", &endpoint);
        let joined = case.joined();
        let has = |field: &str| joined.get(field).is_some();
        let disabled = joined["DisableGatewayService"].as_bool().unwrap();
        assert_eq!((has("Gateway"), has("GatewayIPv6"), disabled), wanted, "{families:?}");
    }
    let case = Case::new();
    let mut without = network();
    without["IPv4Data"][0]["Gateway"] = json!("");
    without["IPv6Data"] = Value::Null;
    case.ok("/NetworkDriver.CreateNetwork", &without);
    case.create_endpoint();
    assert_eq!(case.joined()["DisableGatewayService"], true);
}

#[test]
fn an_endpoint_without_an_address_is_refused() {
    let case = Case::new();
    case.create_network();
    let call = json!({"NetworkID": NET, "EndpointID": END, "Interface": {}});
    assert!(case.err("/NetworkDriver.CreateEndpoint", &call).contains("--ipam-driver"));
    let mut call = endpoint();
    call["EndpointID"] = json!("x");
    assert!(case.err("/NetworkDriver.CreateEndpoint", &call).contains("no identity"));
}

#[test]
fn everything_is_remembered_over_the_plugin_s_own_end() {
    let mut case = Case::new();
    case.create_network();
    case.create_endpoint();
    case.joined();
    case.ok("/NetworkDriver.ProgramExternalConnectivity", &ports(8080));
    let before = case.plugin.state().clone();
    case.restart();
    assert_eq!(*case.plugin.state(), before);
    case.ok("/NetworkDriver.RevokeExternalConnectivity", &of(END));
    case.ok("/NetworkDriver.Leave", &of(END));
    case.restart();
    case.ok("/NetworkDriver.DeleteEndpoint", &of(END));
    assert!(case.world().endpoints.is_empty() && case.world().published.is_empty());
}

#[test]
fn a_dead_daemon_is_an_error_that_says_so_and_changes_nothing() {
    let case = Case::new();
    case.create_network();
    case.create_endpoint();
    let before = case.plugin.state().clone();
    case.world().gone = true;
    let mut other = network();
    other["NetworkID"] = json!("f".repeat(64));
    for (path, body) in [("CreateNetwork", other), ("Join", join(KEY))] {
        let error = case.err(&format!("/NetworkDriver.{path}"), &body);
        assert!(error.contains("no daemon is running"), "{path}: {error}");
    }
    let pool = json!({"AddressSpace": "wharf-local", "Pool": "", "SubPool": "", "V6": false});
    let error = case.call("/IpamDriver.RequestPool", &pool);
    assert!(error["Error"].as_str().unwrap().contains("no daemon is running"), "{error}");
    assert_eq!(*case.plugin.state(), before);
    case.world().gone = false;
    case.joined();
    case.world().gone = true;
    assert!(case.err("/NetworkDriver.DeleteEndpoint", &of(END)).contains("no daemon"));
    assert!(
        case.err("/NetworkDriver.DeleteNetwork", &json!({"NetworkID": NET})).contains("no daemon")
    );
    case.world().gone = false;
    case.ok("/NetworkDriver.DeleteNetwork", &json!({"NetworkID": NET}));
    assert!(case.world().endpoints.is_empty() && case.world().networks.is_empty());
}

#[test]
fn a_network_that_wharf_lost_is_made_again_when_it_is_needed() {
    let case = Case::new();
    case.create_network();
    case.create_endpoint();
    case.world().networks.clear();
    case.joined();
    assert!(case.world().networks.contains_key("docker-0123456789ab"));
    // Its container's namespace died, and Wharf has detached it by itself.
    case.world().endpoints.clear();
    case.joined();
    case.world().endpoints.clear();
    case.ok("/NetworkDriver.Leave", &of(END));
    case.ok("/NetworkDriver.DeleteEndpoint", &of(END));
}

#[test]
fn addresses_are_given_taken_back_and_refused_in_the_ipam_driver_s_own_field() {
    let case = Case::new();
    let pool = json!({"AddressSpace": "wharf-local", "Pool": "10.1.0.0/24", "SubPool": "",
        "Options": null, "V6": false});
    let answer = case.ok("/IpamDriver.RequestPool", &pool);
    assert_eq!(answer["Pool"], "10.1.0.0/24");
    let id = answer["PoolID"].as_str().unwrap();
    let gateway = json!({"PoolID": id, "Address": "",
        "Options": {"RequestAddressType": "com.docker.network.gateway"}});
    assert_eq!(case.ok("/IpamDriver.RequestAddress", &gateway)["Address"], "10.1.0.1/24");
    let any = json!({"PoolID": id, "Address": "", "Options": {}});
    assert_eq!(case.ok("/IpamDriver.RequestAddress", &any)["Address"], "10.1.0.2/24");
    let wish = json!({"PoolID": id, "Address": "10.1.0.2", "Options": null});
    let error = case.call("/IpamDriver.RequestAddress", &wish);
    assert!(error.get("Err").is_none() && error["Error"].as_str().unwrap().contains("taken"));
    case.ok("/IpamDriver.ReleaseAddress", &wish);
    assert_eq!(case.ok("/IpamDriver.RequestAddress", &wish)["Address"], "10.1.0.2/24");
    case.ok("/IpamDriver.ReleasePool", &json!({"PoolID": id}));
    assert_eq!(*case.plugin.state(), State::default());
    for (pool, words) in [
        (json!({"AddressSpace": "", "Pool": "10.1.0.0/24"}), "address space"),
        (json!({"AddressSpace": "s", "SubPool": "10.1.0.0/25"}), "--subnet"),
        (json!({"AddressSpace": "s", "Pool": "10.1.0.7/24"}), "10.1.0.0/24"),
        (json!({"AddressSpace": "s", "Pool": "10.1.0.0/33"}), "10.1.0.0/33"),
    ] {
        let error = case.call("/IpamDriver.RequestPool", &pool);
        assert!(error["Error"].as_str().unwrap().contains(words), "{error}");
    }
}

#[test]
fn a_pool_that_nobody_named_avoids_what_wharf_s_networks_have() {
    let case = Case::new();
    let mut first = network();
    first["IPv4Data"][0]["Pool"] = json!("172.17.0.0/16");
    first["IPv4Data"][0]["Gateway"] = json!("172.17.0.1/16");
    case.ok("/NetworkDriver.CreateNetwork", &first);
    let pool = json!({"AddressSpace": "wharf-local", "Pool": "", "SubPool": "", "V6": false});
    assert_eq!(case.ok("/IpamDriver.RequestPool", &pool)["Pool"], "172.18.0.0/16");
    assert_eq!(case.ok("/IpamDriver.RequestPool", &pool)["Pool"], "172.19.0.0/16");
}

#[test]
fn what_is_not_json_is_an_error_and_what_is_no_call_is_not_found() {
    let case = Case::new();
    for call in [
        "CreateNetwork",
        "DeleteNetwork",
        "CreateEndpoint",
        "EndpointOperInfo",
        "DeleteEndpoint",
        "Join",
        "Leave",
        "ProgramExternalConnectivity",
        "RevokeExternalConnectivity",
    ] {
        for body in [&b""[..], b"{", b"[]", b"\xff\xfe", br#"{"NetworkID":7}"#, b"null"] {
            let answer = case.plugin.answer(&format!("/NetworkDriver.{call}"), body);
            let error = answer.body["Err"].as_str();
            assert!(
                answer.status == 200 && error.is_some_and(|e| e.contains("not understood")),
                "{call} {body:?}: {answer:?}"
            );
        }
    }
    for call in ["RequestPool", "ReleasePool", "RequestAddress", "ReleaseAddress"] {
        let answer = case.plugin.answer(&format!("/IpamDriver.{call}"), b"{");
        assert!(answer.body["Error"].is_string(), "{call}: {answer:?}");
    }
    for path in ["/", "", "/NetworkDriver.Fly", "/IpamDriver.", "/Volume.Mount", "/x.y.z"] {
        assert_eq!(case.plugin.answer(path, b"{}").status, 404, "{path}");
    }
    assert_eq!(*case.plugin.state(), State::default());
}

#[test]
fn a_file_that_cannot_be_written_takes_the_call_back() {
    let case = Case::new();
    std::fs::create_dir(case.dir.path().join("docker.new")).unwrap();
    assert!(case.err("/NetworkDriver.CreateNetwork", &network()).contains("cannot write"));
    assert!(case.world().networks.is_empty() && case.plugin.state().networks.is_empty());
}
