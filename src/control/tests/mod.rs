//! Control against workers, a host and a keeper that write down what they hear. The workers' side is
//! the real tables, so that a test sees what the data path would see.

mod endpoints;
mod networks;
mod nodes;
mod policy;
mod publications;
mod queries;
mod restart;
mod services;
mod share;
mod uplinks;
mod watching;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use super::config::{Config, Paths};
use super::ipam::Claim;
use super::model::{ErrorCode, EventKind, NetworkSpec};
use super::outside::{
    Dataplane, DataplaneError, Host, HostError, HostInterface, HostShare, HostWatch, Keeper,
    OpenedPacket, OpenedShare, SeenHost, ShareRequest,
};
use super::store::Store;
use super::store::memory::MemoryStore;
use super::{Control, ControlError, Outside, Settings};
use crate::attach::protocol::{AttachRequest, Attached};
use crate::base::ids::{PortId, UplinkId};
use crate::config::Tables;
use crate::datapath::Lan;
use crate::io::host_listen::{ListenError, Listener, Transport};
use crate::io::netfilter::table::Held;
use crate::io::netns::NetNsId;
use crate::io::tap::Tap;
use crate::io::tunnel::TunnelSockets;
use crate::stage::sockets::{ListenerId, Published};
use crate::wire::mac::Mac;
use crate::worker::command::{Answer, Command, Query};

/// What the outside has heard and how it shall behave.
#[derive(Debug, Default)]
struct World {
    tables: Tables,
    closed: Vec<PortId>,
    configured: Vec<UplinkId>,
    asked: Vec<Query>,
    answers: Vec<Answer>,
    kept: BTreeSet<String>,
    routes: Vec<(&'static str, &'static str)>,
    addresses: Vec<IpAddr>,
    interfaces: BTreeMap<String, HostInterface>,
    /// Ports that other programs of the host have.
    busy: BTreeSet<u16>,
    /// What was bound, in order.
    bound: Vec<(Option<IpAddr>, u16, Transport)>,
    /// What tunnels were bound to, in order.
    tunnels: Vec<(Vec<IpAddr>, u16)>,
    /// Listeners that a worker serves.
    listening: BTreeMap<ListenerId, Published>,
    opened: Vec<(String, Mac)>,
    shared: SharedHost,
    /// What the ring of a container's interface could not take, by its process.
    rings: BTreeMap<u32, u64>,
    /// Why the host refuses everything that needs a right.
    denied: Option<&'static str>,
}

#[derive(Clone, Debug, Default)]
struct Fake(Arc<Mutex<World>>);

impl Fake {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    fn check(&self) -> Result<(), HostError> {
        self.world().denied.map_or(Ok(()), |why| Err(HostError::Denied(why.to_owned())))
    }
}

impl Dataplane for Fake {
    fn send(&self, command: Command) {
        let mut world = self.world();
        match command {
            Command::Deltas(deltas) => deltas.iter().for_each(|d| world.tables.apply(d)),
            Command::RemoveIo(port) => world.closed.push(port),
            Command::Configure(uplink, _) => world.configured.push(uplink),
            Command::AddListener(_, published) => {
                assert!(world.tables.port(published.target.port).is_some(), "the port comes first");
                world.listening.insert(published.listener, published);
            }
            Command::Retarget(ids, target) => {
                for id in ids {
                    let known = world.listening.get_mut(&ListenerId(id)).unwrap();
                    known.target = Arc::clone(&target);
                }
            }
            Command::RemoveListener(id) => drop(world.listening.remove(&id).unwrap()),
            _ => {}
        }
    }

    fn query(&self, query: Query) -> Result<Vec<Answer>, DataplaneError> {
        let mut world = self.world();
        world.asked.push(query);
        Ok(world.answers.clone())
    }

    fn workers(&self) -> usize {
        1
    }
}

impl Keeper for Fake {
    fn keep(&mut self, key: &str, _: &[Tap]) -> Result<(), String> {
        self.world().kept.insert(key.to_owned());
        Ok(())
    }

    fn forget(&mut self, key: &str) -> Result<(), String> {
        self.world().kept.remove(key);
        Ok(())
    }

    fn recover(&mut self) -> Result<Vec<(String, Vec<Tap>)>, String> {
        Ok(self.world().kept.iter().map(|key| (key.clone(), Vec::new())).collect())
    }
}

impl Host for Fake {
    fn routes(&self) -> Result<Vec<Claim>, HostError> {
        let claim = |(net, holder): &(&str, &str)| Claim {
            net: net.parse().unwrap(),
            holder: (*holder).to_owned(),
        };
        Ok(self.world().routes.iter().map(claim).collect())
    }

    fn addresses(&self) -> Result<Vec<IpAddr>, HostError> {
        Ok(self.world().addresses.clone())
    }

    fn name_servers(&self) -> Vec<IpAddr> {
        vec!["192.0.2.53".parse().unwrap()]
    }

    fn open_packet(&self, interface: &str, mac: Mac) -> Result<OpenedPacket, HostError> {
        self.check()?;
        if interface == "nosuch0" {
            return Err(HostError::Failed("there is no interface `nosuch0`".to_owned()));
        }
        self.world().opened.push((interface.to_owned(), mac));
        Ok(OpenedPacket { sockets: Vec::new(), mtu: 1500, uso: false })
    }

    fn share(&self, request: &ShareRequest<'_>) -> Result<OpenedShare, HostError> {
        self.check()?;
        let mut world = self.world();
        world.shared.held.extend(request.held.iter().copied());
        Ok(OpenedShare {
            sockets: Vec::new(),
            ports: request.ports.unwrap_or("61440-65535".parse().unwrap()),
            notes: Vec::new(),
            seen: world.shared.seen(),
            host: Box::new(FakeShare(self.clone())),
        })
    }

    fn watch(&self, _: PortId) -> Result<Box<dyn HostWatch>, HostError> {
        #[derive(Debug)]
        struct Nobody;
        impl HostWatch for Nobody {}
        Ok(Box::new(Nobody))
    }

    fn listen(
        &self,
        addr: Option<IpAddr>,
        port: u16,
        transport: Transport,
    ) -> Result<Listener, ListenError> {
        if self.world().busy.contains(&port) {
            let address = addr.map_or_else(|| "all addresses".to_owned(), |ip| ip.to_string());
            return Err(ListenError::InUse { address, port });
        }
        self.world().bound.push((addr, port, transport));
        Listener::bind(Some(ip("127.0.0.1")), 0, transport)
    }

    fn open_tunnels(
        &self,
        addrs: &[IpAddr],
        port: u16,
        one_port: bool,
    ) -> Result<TunnelSockets, ListenError> {
        let mut world = self.world();
        world.tunnels.push((addrs.to_vec(), port));
        if world.busy.contains(&port) {
            return Err(ListenError::InUse { address: "all addresses".to_owned(), port });
        }
        TunnelSockets::bind(addrs, 0, one_port)
    }

    fn path_mtu(&self, to: IpAddr, _: u16) -> Option<u16> {
        // The way to this host is narrower than usual, and that to all others is not known.
        (to == IpAddr::from([192, 0, 2, 99])).then_some(1400)
    }

    fn make_interface(&self, wanted: &HostInterface) -> Result<Vec<Tap>, HostError> {
        self.check()?;
        self.world().interfaces.insert(wanted.name.clone(), wanted.clone());
        Ok(Vec::new())
    }

    fn interfaces(&self) -> Result<Vec<String>, HostError> {
        Ok(vec!["lo".to_owned(), "eth0".to_owned()])
    }

    fn ring_drops(&self, pid: u32, _ifname: &str) -> Option<u64> {
        self.world().rings.get(&pid).copied()
    }
}

/// The MAC of the host's NIC.
const HOST_MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);

/// The host's address as one that shares it sees it.
#[derive(Debug, Default)]
struct SharedHost {
    lan: Lan,
    /// What the kernel does not answer for.
    held: BTreeSet<Held>,
    /// Who else uses ports of the range.
    users: Vec<String>,
}

impl SharedHost {
    fn seen(&self) -> SeenHost {
        SeenHost { lan: self.lan.clone(), mac: HOST_MAC, mtu: 1500 }
    }
}

#[derive(Debug)]
struct FakeShare(Fake);

impl HostShare for FakeShare {
    fn hold(&mut self, more: &[Held], less: &[Held]) -> Result<(), HostError> {
        let held = &mut self.0.world().shared.held;
        for one in more {
            assert!(held.insert(*one), "{one:?} is held already");
        }
        for one in less {
            assert!(held.remove(one), "{one:?} is not held");
        }
        Ok(())
    }

    fn look(&mut self) -> Result<SeenHost, HostError> {
        Ok(self.0.world().shared.seen())
    }

    fn conflicts(&self) -> Result<Vec<String>, HostError> {
        Ok(self.0.world().shared.users.clone())
    }
}

impl Drop for FakeShare {
    fn drop(&mut self) {
        self.0.world().shared.held.clear();
    }
}

/// A daemon that can be started again on the same store and world.
struct Daemon {
    fake: Fake,
    store: MemoryStore,
    config: Config,
    /// Its state directory, for what is not in the store.
    dir: tempfile::TempDir,
}

impl Daemon {
    fn new() -> Self {
        let config = Config { default_uplink: Some("none".to_owned()), ..Config::default() };
        let dir = tempfile::tempdir().unwrap();
        Self { fake: Fake::default(), store: MemoryStore::default(), config, dir }
    }

    /// Starts: the workers are new ones, all else is as it was.
    fn start(&self) -> Result<Control, ControlError> {
        self.start_on(Box::new(self.store.clone()))
    }

    fn start_on(&self, store: Box<dyn Store>) -> Result<Control, ControlError> {
        self.fake.world().tables = Tables::default();
        self.fake.world().listening.clear();
        let paths = Paths {
            runtime_dir: "/runtime".into(),
            state_dir: self.dir.path().into(),
            config_file: "/config".into(),
        };
        let config = self.config.clone();
        let settings = Settings {
            config,
            paths,
            clock: || 1_000,
            queues: 1,
            guise: crate::config::Guise::default(),
        };
        let outside = Outside {
            store,
            dataplane: Box::new(self.fake.clone()),
            keeper: Box::new(self.fake.clone()),
            host: Box::new(self.fake.clone()),
        };
        Control::new(settings, outside)
    }
}

/// A running daemon with the network `blue`, of both families.
fn running() -> (Daemon, Control) {
    let mut daemon = Daemon::new();
    let mut control = daemon.start().unwrap();
    // Said once: what a test makes its default uplink stays across a restart.
    daemon.config.default_uplink = None;
    control.create_network(&blue()).unwrap();
    (daemon, control)
}

fn blue() -> NetworkSpec {
    network("blue", &["10.20.0.0/24", "fd20::/64"])
}

fn network(name: &str, subnets: &[&str]) -> NetworkSpec {
    let subnets = subnets.iter().map(|s| s.parse().unwrap()).collect();
    NetworkSpec { subnets, ..NetworkSpec::named(name) }
}

fn request(name: &str) -> AttachRequest {
    AttachRequest { name: Some(name.to_owned()), ..AttachRequest::new("blue", "eth0") }
}

fn netns(ino: u64) -> NetNsId {
    NetNsId { dev: 4, ino }
}

fn attach(control: &mut Control, name: &str) -> Attached {
    control.attach(&request(name), Vec::new()).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The request is refused with this code and these words, in one line, and nothing has changed.
fn refused<T: std::fmt::Debug>(
    daemon: &Daemon,
    control: &mut Control,
    code: ErrorCode,
    words: &[&str],
    request: impl FnOnce(&mut Control) -> Result<T, ControlError>,
) {
    let before = everything(daemon, control);
    let error = request(control).expect_err("it should be refused");
    let body = error.body();
    let text = format!("{}; {}", body.message, body.hint.unwrap_or_default());
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    assert_eq!(body.code, code, "{text}");
    assert!(!text.contains('\n') && !text.contains("  "), "{text}");
    assert_eq!(everything(daemon, control), before, "something was left behind by: {text}");
}

/// All that a refused request could have changed.
fn everything(daemon: &Daemon, control: &Control) -> String {
    let services = control.services();
    let world = daemon.fake.world();
    let ports: Vec<_> = world.tables.ports().collect();
    let interfaces = world.interfaces.keys().collect::<Vec<_>>();
    format!(
        "{:?} {:?} {:?} {:?} {} {ports:?} {:?} {interfaces:?} {:?}",
        control.networks(),
        control.uplinks(),
        control.endpoints(),
        (control.ports(None).unwrap(), services),
        daemon.store.len(),
        world.kept,
        world.listening.keys(),
    )
}

fn kinds(control: &Control) -> Vec<EventKind> {
    control.events(0).iter().map(|e| e.kind).collect()
}
