//! The cluster this node is part of, if the config file names one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ipnet::IpNet;

use super::attaching::lock;
use crate::cli::output::Failure;
use crate::control::Control;
use crate::control::cluster::{Reachable, Sink};

/// Tells control what the cluster's store says.
struct Told(Arc<Mutex<Control>>);

impl Sink for Told {
    fn owned(&self, subnets: &[IpNet]) -> Option<Vec<IpNet>> {
        lock(&self.0).cluster_owned(subnets)
    }

    fn homeless(&self) -> Option<Vec<IpNet>> {
        lock(&self.0).cluster_homeless()
    }

    fn peers(&self, peers: &BTreeMap<String, Reachable>) {
        lock(&self.0).cluster_peers(peers);
    }

    fn trouble(&self, words: Option<&str>) {
        lock(&self.0).cluster_trouble(words);
    }
}

/// Joins. The daemon serves meanwhile, and without the store, too.
pub(super) fn join(control: &Arc<Mutex<Control>>) -> Result<(), Failure> {
    let cluster = lock(control).join()?;
    if let Some(cluster) = cluster {
        cluster.start(Box::new(Told(Arc::clone(control))))?;
    }
    Ok(())
}
