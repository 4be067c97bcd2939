//! What the plugin must know over its own end: which of Docker's identities is what of Wharf's, and who
//! has which address. One file, written whole and put in place by a rename.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::pools::Pools;
use super::problem::Problem;
use crate::control::model::{NetworkSpec, PublishSpec};
use crate::wire::mac::Mac;

/// Everything.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    /// By Docker's identity.
    pub(super) networks: BTreeMap<String, Network>,
    /// By Docker's identity.
    pub(super) endpoints: BTreeMap<String, Endpoint>,
    /// Of the IPAM driver.
    pub(super) pools: Pools,
}

/// A network of Docker's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Network {
    /// What it is in Wharf: should it be gone there, it is made again.
    pub(super) spec: NetworkSpec,
    /// Where ports are published that name no address.
    #[serde(default)]
    pub(super) host_binding: Option<IpAddr>,
}

/// An endpoint of Docker's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Endpoint {
    /// Docker's identity of its network.
    pub(super) network: String,
    /// Its addresses.
    pub(super) addresses: Vec<IpNet>,
    /// Its MAC.
    pub(super) mac: Mac,
    /// Where it is, once it is somewhere.
    #[serde(default)]
    pub(super) joined: Option<Membership>,
    /// What it publishes, at Docker's word.
    #[serde(default)]
    pub(super) published: Vec<PublishSpec>,
}

/// A container's interface.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Membership {
    /// Docker's sandbox.
    pub(super) sandbox: String,
    /// The link's name outside the container.
    pub(super) link: String,
    /// Wharf's identity of it.
    pub(super) endpoint: String,
}

/// Where it is kept.
#[derive(Debug)]
pub(super) struct Store {
    /// None where nothing is to be kept.
    path: Option<PathBuf>,
}

impl Store {
    /// The file, and what is in it; nothing if there is none.
    pub(super) fn open(path: &Path) -> io::Result<(Self, State)> {
        if let Some(dir) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let state = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                io::Error::other(format!(
                    "{} is not what wharf wrote ({error}): move it away; Docker's networks of the \
                     driver wharf have to be created again then",
                    path.display()
                ))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
            Err(error) => return Err(error),
        };
        Ok((Self { path: Some(path.to_owned()) }, state))
    }

    /// Keeps nothing.
    pub(super) const fn nowhere() -> Self {
        Self { path: None }
    }

    /// Writes all of it. Not flushed to the disk: after the machine's own end no container is left, and
    /// filesystems order a rename after the data.
    pub(super) fn write(&self, state: &State) -> Result<(), Problem> {
        let Some(path) = &self.path else { return Ok(()) };
        let temporary = path.with_extension("new");
        let written = || {
            let mut file = File::create(&temporary)?;
            file.write_all(&serde_json::to_vec(state)?)?;
            std::fs::rename(&temporary, path)
        };
        written().map_err(|source| Problem::Store { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/docker.json");
        let (store, mut state) = Store::open(&path).unwrap();
        assert_eq!(state, State::default());
        let spec = NetworkSpec::named("docker-0123456789ab");
        let host_binding = Some("127.0.0.1".parse().unwrap());
        state.networks.insert("0123".to_owned(), Network { spec, host_binding });
        let endpoint = Endpoint {
            network: "0123".to_owned(),
            addresses: vec!["10.1.0.2/16".parse().unwrap(), "fd01::2/64".parse().unwrap()],
            mac: "02:42:0a:01:00:02".parse().unwrap(),
            joined: None,
            published: vec!["8080:80".parse().unwrap()],
        };
        state.endpoints.insert("4567".to_owned(), endpoint);
        store.write(&state).unwrap();
        assert_eq!(Store::open(&path).unwrap().1, state);
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.json");
        std::fs::write(&path, "precious").unwrap();
        let error = Store::open(&path).unwrap_err().to_string();
        assert!(error.contains("move it away"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
