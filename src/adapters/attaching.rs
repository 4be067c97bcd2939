//! Attaching for engines: a network that is not there yet is made, a name that is taken makes way, and an
//! ordinary user acts as root of the container's user namespace.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::api::client::{Client, ClientError};
use crate::api::paths::RuntimeDir;
use crate::attach::client::{AttachError, Manner, attach_over};
use crate::attach::protocol::{AttachRequest, Attached, RefusalCode};
use crate::control::model::{ErrorCode, NetworkSpec};
use crate::io::fdpass::Connection;
use crate::io::netlink::{Netlink, NetlinkError};
use crate::io::netns::{NetNs, in_namespace};
use crate::io::process::{may_make_namespaces, run_as_owner_of};

/// Why there is no attachment.
#[derive(Debug)]
pub(super) enum Failure {
    /// The attacher's side, or the daemon's refusal.
    Attach(Trouble),
    /// The network could not be made.
    Network(ClientError),
}

/// What can go wrong in the container's namespace; crosses a process for who is not root.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Trouble {
    /// The daemon said no.
    Refused(RefusalCode, String),
    /// The daemon is not there.
    NoDaemon(String),
    /// It speaks otherwise.
    Protocol(String),
    /// The container has an interface of that name.
    NameTaken(String),
    /// The interface could not be made or configured.
    Interface(String),
}

impl From<AttachError> for Trouble {
    fn from(error: AttachError) -> Self {
        let text = error.to_string();
        match error {
            AttachError::Refused(refusal) => Self::Refused(refusal.code, refusal.message),
            AttachError::Daemon(_) => Self::NoDaemon(text),
            AttachError::BadMessage(_) | AttachError::TapKind(_) => Self::Protocol(text),
            AttachError::NameTaken(name) => Self::NameTaken(name),
            AttachError::Tap(_) | AttachError::Namespace(_) | AttachError::Netlink(_) => {
                Self::Interface(text)
            }
        }
    }
}

/// What is attached to what.
pub(super) struct Wish<'a> {
    /// Where the daemon is.
    pub(super) dir: &'a RuntimeDir,
    /// The container's namespace.
    pub(super) target: &'a NetNs,
    /// What is asked for.
    pub(super) request: AttachRequest,
    /// A name that is the container's own for certain, should the one in the request be somebody else's.
    pub(super) own_name: Option<String>,
    /// The network, to be made if the daemon does not know it.
    pub(super) network: Option<NetworkSpec>,
}

/// Attaches; `amend` has the last word on what the interface becomes.
pub(super) fn attach(wish: Wish<'_>, amend: &dyn Fn(&mut Attached)) -> Result<Attached, Failure> {
    let Wish { dir, target, mut request, mut own_name, mut network } = wish;
    loop {
        let trouble = match attempt(&dir.attach_socket(), target, &request, amend) {
            Ok(attached) => return Ok(attached),
            Err(trouble) => trouble,
        };
        match &trouble {
            Trouble::Refused(RefusalCode::NotFound, _) if network.is_some() => {
                if let Some(spec) = network.take() {
                    make(dir, &spec).map_err(Failure::Network)?;
                }
            }
            Trouble::Refused(RefusalCode::Conflict, _) if own_name.is_some() => {
                request.name = own_name.take();
            }
            _ => return Err(Failure::Attach(trouble)),
        }
    }
}

fn attempt(
    socket: &Path,
    target: &NetNs,
    request: &AttachRequest,
    amend: &dyn Fn(&mut Attached),
) -> Result<Attached, Trouble> {
    let once = || {
        let connection = Connection::connect(socket).map_err(AttachError::from)?;
        let done = attach_over(&connection, target, request.clone(), Manner::Whole, amend)?;
        Ok::<_, Trouble>(done.attached)
    };
    if may_make_namespaces() {
        return once();
    }
    let report =
        run_as_owner_of(target, || serde_json::to_vec(&once()).map_err(|error| error.to_string()));
    let report = report.map_err(|error| Trouble::Interface(error.to_string()))?;
    serde_json::from_slice(&report).unwrap_or_else(|e| Err(Trouble::Protocol(e.to_string())))
}

/// Makes a network. Another call may have made it meanwhile.
fn make(dir: &RuntimeDir, spec: &NetworkSpec) -> Result<(), ClientError> {
    match Client::new(dir).create_network(spec) {
        Err(ClientError::Refused(body)) if body.code == ErrorCode::Exists => Ok(()),
        made => made.map(drop),
    }
}

/// Waits for an interface to go, by removing it. Only one with such a MAC is ours: an engine tears down
/// after an attempt that found somebody else's interface, too.
pub(super) fn remove_interface(netns: &Path, ifname: &str, macs: &[String]) {
    let Ok(target) = NetNs::open(netns) else { return };
    if macs.is_empty() {
        return;
    }
    let remove = || {
        let mut netlink = Netlink::open()?;
        let link = netlink.link(ifname)?;
        if link.mac.is_some_and(|mac| macs.contains(&mac.to_string())) {
            netlink.delete_link(link.index)?;
        }
        Ok::<_, NetlinkError>(())
    };
    if may_make_namespaces() {
        let _ = in_namespace(&target, remove);
    } else {
        let _ = run_as_owner_of(&target, || {
            let _ = in_namespace(&target, remove);
            Ok(Vec::new())
        });
    }
}
