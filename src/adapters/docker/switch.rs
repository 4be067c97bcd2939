//! What the driver wants of Wharf's daemon, as a trait, so that tests can stand in for it; and the real one.

use std::fmt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use super::problem::Problem;
use crate::api::client::{Client, ClientError};
use crate::api::paths::RuntimeDir;
use crate::attach::client::{AttachError, attach_link};
use crate::attach::protocol::{AttachRequest, Attached};
use crate::control::ipam::Claim;
use crate::control::model::{
    EndpointUpdate, NetworkSpec, PublicationInfo, PublishRequest, PublishSpec,
};
use crate::control::netstate::host_routes;
use crate::io::fdpass::FdPassError;
use crate::io::netlink::Netlink;

/// A daemon that is replaced is away for a moment: so often it is tried again, and after such a pause.
/// Docker wants its answer within a second.
const ATTEMPTS: u32 = 16;
const PAUSE: Duration = Duration::from_millis(50);

/// Wharf's daemon and the host, as far as the driver needs them.
pub(super) trait Switch: Send + Sync + fmt::Debug {
    /// Makes a network.
    fn create_network(&self, spec: &NetworkSpec) -> Result<(), Problem>;
    /// Removes a network.
    fn remove_network(&self, name: &str) -> Result<(), Problem>;
    /// Ranges that are somebody's: of networks and of the host's routes.
    fn claims(&self) -> Result<Vec<Claim>, Problem>;
    /// Makes a link in this process's own namespace and attaches it.
    fn attach(&self, request: AttachRequest) -> Result<Attached, Problem>;
    /// Detaches an endpoint; its link disappears.
    fn detach(&self, endpoint: &str) -> Result<(), Problem>;
    /// Whether the daemon knows the endpoint.
    fn has_endpoint(&self, endpoint: &str) -> Result<bool, Problem>;
    /// Whether the link is still in this process's own namespace.
    fn has_link(&self, name: &str) -> bool;
    /// Publishes ports of an endpoint.
    fn publish(
        &self,
        endpoint: &str,
        specs: &[PublishSpec],
    ) -> Result<Vec<PublicationInfo>, Problem>;
    /// Changes what an endpoint is called.
    fn update_endpoint(&self, endpoint: &str, update: &EndpointUpdate) -> Result<(), Problem>;
    /// Takes a publication back.
    fn unpublish(&self, endpoint: &str, spec: &PublishSpec) -> Result<(), Problem>;
}

/// The daemon of a runtime directory.
#[derive(Debug)]
pub(super) struct Daemon {
    client: Client,
    attach_socket: PathBuf,
}

impl Daemon {
    /// Nothing is connected yet.
    pub(super) fn new(dir: &RuntimeDir) -> Self {
        Self { client: Client::new(dir), attach_socket: dir.attach_socket() }
    }

    fn ask<T>(&self, question: impl Fn(&Client) -> Result<T, ClientError>) -> Result<T, Problem> {
        Ok(patiently(|| question(&self.client), ClientError::is_no_daemon)?)
    }
}

/// Asks again while nobody is there.
fn patiently<T, E>(
    mut ask: impl FnMut() -> Result<T, E>,
    nobody: impl Fn(&E) -> bool,
) -> Result<T, E> {
    for _ in 1..ATTEMPTS {
        match ask() {
            Err(error) if nobody(&error) => sleep(PAUSE),
            other => return other,
        }
    }
    ask()
}

impl Switch for Daemon {
    fn create_network(&self, spec: &NetworkSpec) -> Result<(), Problem> {
        self.ask(|client| client.create_network(spec)).map(drop)
    }

    fn remove_network(&self, name: &str) -> Result<(), Problem> {
        self.ask(|client| client.remove_network(name, false))
    }

    fn claims(&self) -> Result<Vec<Claim>, Problem> {
        let unreadable = |error| Problem::Unfit(format!("cannot read the host's routes: {error}"));
        let mut claims = host_routes().map_err(unreadable)?;
        for network in self.ask(Client::networks)? {
            let holder = format!("wharf's network {}", network.name);
            let claim = |net| Claim { net, holder: holder.clone() };
            claims.extend(network.subnets.iter().map(|subnet| claim(subnet.subnet)));
        }
        Ok(claims)
    }

    fn attach(&self, request: AttachRequest) -> Result<Attached, Problem> {
        let nobody = |error: &AttachError| {
            matches!(error, AttachError::Daemon(FdPassError::NotListening { .. }))
        };
        Ok(patiently(|| attach_link(&self.attach_socket, request.clone()), nobody)?)
    }

    fn detach(&self, endpoint: &str) -> Result<(), Problem> {
        self.ask(|client| client.detach(endpoint, None)).map(drop)
    }

    fn has_endpoint(&self, endpoint: &str) -> Result<bool, Problem> {
        match self.ask(|client| client.endpoint(endpoint)) {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn has_link(&self, name: &str) -> bool {
        Netlink::open().is_ok_and(|mut netlink| netlink.link(name).is_ok())
    }

    fn publish(
        &self,
        endpoint: &str,
        specs: &[PublishSpec],
    ) -> Result<Vec<PublicationInfo>, Problem> {
        let request = PublishRequest { publish: specs.to_vec() };
        self.ask(|client| client.publish(endpoint, None, &request))
    }

    fn update_endpoint(&self, endpoint: &str, update: &EndpointUpdate) -> Result<(), Problem> {
        self.ask(|client| client.update_endpoint(endpoint, update)).map(drop)
    }

    fn unpublish(&self, endpoint: &str, spec: &PublishSpec) -> Result<(), Problem> {
        self.ask(|client| client.unpublish(endpoint, None, spec)).map(drop)
    }
}
