//! A node in either layout: what the agent drives and control looks at.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::ask::{Change, Listing, Request, Response};
use super::errand::{ErrandError, Removed};
use super::flannel::Flannel;
use super::member::{Me, Member, Wish};
use super::mirror::Reachable;
use super::problem::Problem;
use super::records::{Backend, EndpointRecord};
use super::settings::Layout;
use super::view;
use crate::base::time::Time;
use crate::control::model::{NodeEndpoint, NodeInfo};

/// A node's part in its cluster.
#[derive(Clone, Debug)]
pub enum Machine {
    /// Our own layout.
    Wharf(Box<Member>),
    /// Flannel's.
    Flannel(Box<Flannel>),
}

impl Machine {
    /// A node that knows nothing yet.
    pub fn new(layout: Layout, me: Me, wish: Wish, held: Option<Vec<IpNet>>) -> Self {
        match layout {
            Layout::Wharf => Self::Wharf(Box::new(Member::new(me, wish, held))),
            Layout::Flannel => Self::Flannel(Box::new(Flannel::new(me, wish, held))),
        }
    }

    /// Who it is.
    pub fn me(&self) -> &Me {
        match self {
            Self::Wharf(member) => member.me(),
            Self::Flannel(flannel) => flannel.me(),
        }
    }

    /// Why it gets no further, if so.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Wharf(member) => member.problem(),
            Self::Flannel(flannel) => flannel.problem(),
        }
    }

    /// The subnets it owns, as far as it knows.
    pub fn owned(&self) -> Option<Vec<IpNet>> {
        match self {
            Self::Wharf(member) => member.owned(),
            Self::Flannel(flannel) => flannel.owned(),
        }
    }

    /// Whether what this node's network has cannot be its own.
    pub fn is_homeless(&self) -> bool {
        match self {
            Self::Wharf(member) => member.is_homeless(),
            Self::Flannel(flannel) => flannel.is_homeless(),
        }
    }

    /// The network of this node has these subnets now, or none.
    pub fn hold(&mut self, held: Option<Vec<IpNet>>) {
        match self {
            Self::Wharf(member) => member.hold(held),
            Self::Flannel(flannel) => flannel.hold(held),
        }
    }

    /// Tunnels to this node end there now.
    pub fn reach(&mut self, addresses: Vec<IpAddr>) {
        match self {
            Self::Wharf(member) => member.reach(addresses),
            Self::Flannel(flannel) => flannel.reach(addresses),
        }
    }

    /// An endpoint of this node, or that it is gone. Flannel's layout has no place for them.
    pub fn endpoint(&mut self, id: &str, record: Option<EndpointRecord>) {
        if let Self::Wharf(member) = self {
            member.endpoint(id, record);
        }
    }

    /// The store was listed.
    pub fn listed(&mut self, now: Time, listing: &Listing) {
        match self {
            Self::Wharf(member) => member.listed(now, listing),
            Self::Flannel(flannel) => flannel.listed(now, listing),
        }
    }

    /// The watch tells.
    pub fn changed(&mut self, now: Time, change: &Change) {
        match self {
            Self::Wharf(member) => member.changed(now, change),
            Self::Flannel(flannel) => flannel.changed(now, change),
        }
    }

    /// The store is away.
    pub fn lost(&mut self) {
        match self {
            Self::Wharf(member) => member.lost(),
            Self::Flannel(flannel) => flannel.lost(),
        }
    }

    /// When to ask for the next question again, if nothing happens before.
    pub fn deadline(&self, now: Time) -> Option<Time> {
        match self {
            Self::Wharf(member) => member.deadline(now),
            Self::Flannel(flannel) => flannel.deadline(now),
        }
    }

    /// The next question, if there is one now.
    pub fn next(&mut self, now: Time) -> Option<Request> {
        match self {
            Self::Wharf(member) => member.next(now),
            Self::Flannel(flannel) => flannel.next(now),
        }
    }

    /// The answer to the last question.
    pub fn answered(&mut self, now: Time, response: &Response) {
        match self {
            Self::Wharf(member) => member.answered(now, response),
            Self::Flannel(flannel) => flannel.answered(now, response),
        }
    }

    /// Begins to remove a node; none can be in Flannel's layout, whose leases end by themselves.
    pub fn remove(&mut self, name: &str) -> Result<(), ErrandError> {
        match self {
            Self::Wharf(member) => member.remove(name),
            Self::Flannel(_) => return Err(ErrandError::Flannel),
        }
        Ok(())
    }

    /// How a removal ended, once.
    pub fn errand(&mut self) -> Option<Result<Removed, ErrandError>> {
        match self {
            Self::Wharf(member) => member.errand(),
            Self::Flannel(_) => None,
        }
    }

    /// The other nodes, if they may have changed since this was last asked.
    pub fn moved_peers(&mut self, now: Time) -> Option<BTreeMap<String, Reachable>> {
        match self {
            Self::Wharf(member) => {
                let name = member.me().name.clone();
                let moved = member.mirror_mut().take_moved(now);
                moved.then(|| member.mirror().peers(&name))
            }
            Self::Flannel(flannel) => flannel.take_moved().then(|| flannel.peers()),
        }
    }

    /// Keys of the store that cannot be read, and why.
    pub fn faults(&self) -> &BTreeMap<String, String> {
        match self {
            Self::Wharf(member) => member.mirror().faults(),
            Self::Flannel(flannel) => flannel.faults(),
        }
    }

    /// All nodes, for people.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        match self {
            Self::Wharf(member) => view::nodes(member.mirror(), &member.me().name),
            Self::Flannel(flannel) => view::leases(flannel),
        }
    }

    /// All endpoints, for people.
    pub fn endpoints(&self) -> Vec<NodeEndpoint> {
        match self {
            Self::Wharf(member) => view::endpoints(member.mirror()),
            Self::Flannel(_) => Vec::new(),
        }
    }

    /// This node's end of the tunnels, once it is known.
    pub fn end(&self) -> Option<&Backend> {
        match self {
            Self::Wharf(member) => member.end(),
            Self::Flannel(flannel) => flannel.end(),
        }
    }

    /// How the cluster's network is cut.
    pub fn plan(&self) -> Option<super::Plan> {
        match self {
            Self::Wharf(member) => member.mirror().plan().cloned(),
            Self::Flannel(flannel) => flannel.plan().cloned(),
        }
    }
}
