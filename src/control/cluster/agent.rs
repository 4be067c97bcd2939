//! The thread that keeps a node in its cluster: carries [`Machine`]'s questions to etcd and back, one member
//! of etcd after the other, and tells control what that means.
//!
//! Nothing here is lost for good when etcd is away: what is wanted is kept in the machine, what is known
//! stays as it was, and each session begins with a list of everything.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::ask::Listing;
use super::errand::{ErrandError, Removed};
use super::machine::Machine;
use super::member::{Me, Wish};
use super::mirror::Reachable;
use super::records::EndpointRecord;
use super::settings::ClusterConfig;
use crate::base::key::PublicKey;
use crate::base::time::{Span, Time};
use crate::control::store::etcd::{Endpoint, EtcdError, Login, Session, Watch};
use crate::worker::clock::Clock;

/// How long to wait when every member has failed in a row; doubles up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long to sleep when nothing is to be done.
const IDLE: Duration = Duration::from_hours(1);
/// How long somebody waits for a removal.
const REMOVAL: Duration = Duration::from_secs(10);

/// Whom the agent tells.
pub trait Sink: Send {
    /// The node owns these subnets; the answer is what its network has.
    fn owned(&self, subnets: &[IpNet]) -> Option<Vec<IpNet>>;

    /// The node cannot have what its network has; the answer is what that has now, if it could not go.
    fn homeless(&self) -> Option<Vec<IpNet>>;

    /// The other nodes that can be reached.
    fn peers(&self, peers: &BTreeMap<String, Reachable>);

    /// What keeps the node out of the cluster, or that nothing does any more.
    fn trouble(&self, words: Option<&str>);
}

/// How the store is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StoreState {
    /// The member that is spoken to.
    pub member: Option<String>,
    /// Why there is none.
    pub failure: Option<String>,
}

/// A node's hold on its agent.
#[derive(Clone, Debug)]
pub struct Cluster(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: ClusterConfig,
    members: Vec<Endpoint>,
    clock: Clock,
    member: Mutex<Machine>,
    store: Mutex<StoreState>,
    wake: Notify,
    removal: Mutex<Option<SyncSender<Result<Removed, ErrandError>>>>,
    told: Mutex<Told>,
    /// Where tunnels may end if the way to etcd does not say.
    fallback: Vec<IpAddr>,
}

/// What the sink was told last.
#[derive(Debug, Default)]
struct Told {
    owned: Option<Vec<IpNet>>,
    peers: BTreeMap<String, Reachable>,
    trouble: Option<String>,
}

/// What a node begins with.
#[derive(Debug)]
pub struct Beginning {
    /// Who it is.
    pub me: Me,
    /// What its network has from an earlier life.
    pub held: Option<Vec<IpNet>>,
    /// The host's addresses.
    pub addresses: Vec<IpAddr>,
    /// Now, in milliseconds since 1970.
    pub since_ms: u64,
    /// Its public key, if it encrypts.
    pub key: Option<PublicKey>,
}

impl Cluster {
    /// A node that has not begun to speak yet.
    pub fn new(config: &ClusterConfig, beginning: Beginning) -> Result<Self, String> {
        let wish = Wish {
            plan: config.plan()?,
            subnet: config.subnet,
            liveness: config.liveness(),
            quarantine: config.quarantine(),
            addresses: config.addresses.clone(),
            backend: Some(config.end(&beginning.me.identity, beginning.key)),
            since_ms: beginning.since_ms,
        };
        Ok(Self(Arc::new(Shared {
            config: config.clone(),
            members: config.members()?,
            clock: Clock::new(),
            member: Mutex::new(Machine::new(config.layout, beginning.me, wish, beginning.held)),
            store: Mutex::default(),
            wake: Notify::new(),
            removal: Mutex::default(),
            told: Mutex::default(),
            fallback: beginning.addresses,
        })))
    }

    /// Begins, on a thread of its own that ends with the process.
    pub fn start(&self, sink: Box<dyn Sink>) -> std::io::Result<()> {
        let shared = Arc::clone(&self.0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("cluster".to_owned()).spawn(move || {
            runtime.block_on(shared.run(&*sink));
        })?;
        Ok(())
    }

    /// Looks at what is known.
    pub fn look<T>(&self, look: impl FnOnce(&Machine) -> T) -> T {
        look(&lock(&self.0.member))
    }

    /// How the store is.
    pub fn store(&self) -> StoreState {
        lock(&self.0.store).clone()
    }

    /// What this was made of.
    pub fn config(&self) -> &ClusterConfig {
        &self.0.config
    }

    /// An endpoint of this node, or that it is gone.
    pub fn endpoint(&self, id: &str, record: Option<EndpointRecord>) {
        lock(&self.0.member).endpoint(id, record);
        self.0.wake.notify_one();
    }

    /// What this node's network has now.
    pub fn hold(&self, held: Option<Vec<IpNet>>) {
        lock(&self.0.member).hold(held);
        self.0.wake.notify_one();
    }

    /// Removes a node, and waits for it.
    pub fn remove(&self, name: &str) -> Result<Removed, ErrandError> {
        if lock(&self.0.store).member.is_none() {
            return Err(ErrandError::Lost);
        }
        let (sender, receiver) = sync_channel(1);
        {
            let mut waiting = lock(&self.0.removal);
            if waiting.is_some() {
                return Err(ErrandError::Busy);
            }
            lock(&self.0.member).remove(name)?;
            *waiting = Some(sender);
        }
        self.0.wake.notify_one();
        let outcome = receiver.recv_timeout(REMOVAL);
        lock(&self.0.removal).take();
        outcome.unwrap_or(Err(ErrandError::Lost))
    }
}

impl Shared {
    fn now(&self) -> Time {
        self.clock.now()
    }

    /// One member after the other, for ever.
    async fn run(&self, sink: &dyn Sink) {
        let mut pause = PAUSE.0;
        let mut failed = 0;
        for endpoint in self.members.iter().cycle() {
            let before = lock(&self.told).peers.len();
            let error = match self.config.login() {
                Ok(login) => match self.session(sink, endpoint, &login).await {
                    Ok(never) => match never {},
                    Err(error) => error.to_string(),
                },
                Err(error) => error,
            };
            let lasted = self.lost(&error);
            tracing::warn!(peers = before, "the cluster's store: {error}");
            self.tell(sink);
            failed = if lasted { 1 } else { failed + 1 };
            if lasted {
                pause = PAUSE.0;
            }
            // The others may be fine.
            if failed >= self.members.len() {
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
                failed = 0;
            }
        }
    }

    /// The store is away. Says whether it was there.
    fn lost(&self, why: &str) -> bool {
        let state = StoreState { member: None, failure: Some(why.to_owned()) };
        let before = std::mem::replace(&mut *lock(&self.store), state);
        lock(&self.member).lost();
        self.end_errand();
        before.member.is_some()
    }

    async fn session(
        &self,
        sink: &dyn Sink,
        endpoint: &Endpoint,
        login: &Login,
    ) -> Result<Infallible, EtcdError> {
        let mut session = Session::open(endpoint, login).await?;
        self.reach(session.local());
        let mut pause = Duration::ZERO;
        loop {
            let listing = match session.list().await {
                Err(EtcdError::Compacted) => Listing::default(),
                other => other?,
            };
            if listing.revision > 0 {
                let mut watch = session.watch(listing.revision).await?;
                self.listed(endpoint, &listing);
                drop(listing);
                match self.follow(sink, &mut session, &mut watch).await {
                    Err(EtcdError::Compacted) => {}
                    other => return other,
                }
            }
            tracing::info!(
                "the cluster's store has forgotten what this node had not read yet; all is read anew"
            );
            sleep(pause).await;
            pause = (pause + PAUSE.0).min(PAUSE.1);
        }
    }

    /// Where tunnels to this node end, if nobody said: our address on the way to etcd.
    fn reach(&self, local: IpAddr) {
        if !self.config.addresses.is_empty() {
            return;
        }
        let useful = if local.is_loopback() { self.fallback.clone() } else { vec![local] };
        lock(&self.member).reach(useful);
    }

    fn listed(&self, endpoint: &Endpoint, listing: &Listing) {
        lock(&self.member).listed(self.now(), listing);
        let keys = listing.entries.len();
        tracing::info!(%endpoint, revision = listing.revision, keys, "the cluster's store was read");
        *lock(&self.store) = StoreState { member: Some(endpoint.to_string()), failure: None };
    }

    /// Asks what is to be asked and listens to the watch, until one of both fails.
    async fn follow(
        &self,
        sink: &dyn Sink,
        session: &mut Session,
        watch: &mut Watch,
    ) -> Result<Infallible, EtcdError> {
        loop {
            loop {
                self.tell(sink);
                let Some(request) = lock(&self.member).next(self.now()) else { break };
                let response = session.ask(&request).await?;
                lock(&self.member).answered(self.now(), &response);
            }
            self.end_errand();
            self.tell(sink);
            let now = self.now();
            let idle = lock(&self.member).deadline(now).map_or(IDLE, |at| duration(at.since(now)));
            tokio::select! {
                changes = watch.next() => {
                    let changes = changes?;
                    let (mut member, now) = (lock(&self.member), self.now());
                    for change in &changes {
                        member.changed(now, change);
                    }
                }
                () = self.wake.notified() => {}
                _ = timeout(idle, std::future::pending::<()>()) => {}
            }
        }
    }

    fn end_errand(&self) {
        let Some(outcome) = lock(&self.member).errand() else { return };
        if let Some(sender) = lock(&self.removal).take() {
            // Nobody may be waiting any more.
            let _ = sender.send(outcome);
        }
    }

    /// Tells the sink what is different. Never with the machine locked: control may be looking at it.
    fn tell(&self, sink: &dyn Sink) {
        let now = self.now();
        let (owned, homeless, peers, trouble) = {
            let mut member = lock(&self.member);
            let peers = member.moved_peers(now);
            (member.owned(), member.is_homeless(), peers, member.problem().map(ToString::to_string))
        };
        let mut told = lock(&self.told);
        if let Some(owned) = owned.filter(|owned| told.owned.as_ref() != Some(owned)) {
            let held = sink.owned(&owned);
            // What could not be made now is tried again at the next change.
            told.owned = held.clone().filter(|held| *held == owned);
            lock(&self.member).hold(held);
        }
        if homeless {
            told.owned = sink.homeless();
            lock(&self.member).hold(told.owned.clone());
        }
        if let Some(peers) = peers.filter(|peers| *peers != told.peers) {
            sink.peers(&peers);
            told.peers = peers;
        }
        if trouble != told.trouble {
            sink.trouble(trouble.as_deref());
            told.trouble = trouble;
        }
    }
}

fn duration(span: Span) -> Duration {
    // A little later rather than a little earlier, which would only be asked again.
    Duration::from_millis(span.as_millis() + 1)
}

/// What a panic left is still the best that is known.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
