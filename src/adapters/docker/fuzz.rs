//! The plugin's entrance under a fuzzer: what comes in is one call a line, its path before a blank and its
//! body after it, before a daemon that agrees to everything.

use std::sync::Mutex;

use super::problem::Problem;
use super::state::Store;
use super::switch::Switch;
use super::{Plugin, State};
use crate::attach::protocol::{AttachRequest, Attached};
use crate::control::ipam::Claim;
use crate::control::model::{EndpointUpdate, NetworkSpec, PublicationInfo, PublishSpec};
use crate::wire::mac::Mac;

#[derive(Debug)]
struct Agreeable;

impl Switch for Agreeable {
    fn create_network(&self, _: &NetworkSpec) -> Result<(), Problem> {
        Ok(())
    }

    fn remove_network(&self, _: &str) -> Result<(), Problem> {
        Ok(())
    }

    fn claims(&self) -> Result<Vec<Claim>, Problem> {
        Ok(Vec::new())
    }

    fn attach(&self, request: AttachRequest) -> Result<Attached, Problem> {
        Ok(Attached {
            endpoint: request.ifname,
            name: request.name.unwrap_or_default(),
            mac: request.mac.unwrap_or(Mac::ZERO),
            addresses: Vec::new(),
            gateways: Vec::new(),
            routes: Vec::new(),
            dns: Vec::new(),
            search: Vec::new(),
            mtu: 1500,
            txqueuelen: 1000,
            published: Vec::new(),
        })
    }

    fn detach(&self, _: &str) -> Result<(), Problem> {
        Ok(())
    }

    fn has_endpoint(&self, _: &str) -> Result<bool, Problem> {
        Ok(true)
    }

    fn has_link(&self, _: &str) -> bool {
        true
    }

    fn publish(&self, _: &str, _: &[PublishSpec]) -> Result<Vec<PublicationInfo>, Problem> {
        Ok(Vec::new())
    }

    fn update_endpoint(&self, _: &str, _: &EndpointUpdate) -> Result<(), Problem> {
        Ok(())
    }

    fn unpublish(&self, _: &str, _: &PublishSpec) -> Result<(), Problem> {
        Ok(())
    }
}

/// Every answer is one that Docker can read, and what is remembered can be written and read again.
pub fn fuzz(data: &[u8]) {
    let (switch, state) = (Box::new(Agreeable), Mutex::new(State::default()));
    let plugin = Plugin { switch, store: Store::nowhere(), state };
    for line in data.split(|b| *b == b'\n').take(64) {
        let blank = line.iter().position(|b| *b == b' ').unwrap_or(line.len());
        let (path, body) = line.split_at(blank);
        let answer = plugin.answer(&String::from_utf8_lossy(path), body);
        assert!(answer.body.is_object());
        let failed = ["Err", "Error"].iter().any(|field| answer.body.get(field).is_some());
        assert_eq!(answer.status != 200, answer.status == 404);
        assert!(answer.status == 200 || failed);
    }
    let state = plugin.state().clone();
    let written = serde_json::to_vec(&state).unwrap_or_default();
    let read: State = serde_json::from_slice(&written).unwrap_or_default();
    assert_eq!(read, state);
}
