//! The removal of a node that somebody asked for.

use ipnet::IpNet;

use crate::base::time::Span;

/// A node that was removed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Removed {
    /// Its name.
    pub name: String,
    /// What it owned.
    pub subnets: Vec<IpNet>,
    /// How long that is nobody's.
    pub quarantine: Span,
}

/// Why a node is not removed.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum ErrandError {
    /// There is none of that name.
    #[error("there is no such node")]
    NoNode,
    /// It is alive.
    #[error("it is alive, and its containers use its subnet")]
    Alive,
    /// The store went away; the node may have been removed or not.
    #[error("the cluster's store did not answer")]
    Lost,
    /// The layout has no such thing.
    #[error("Flannel's leases end by themselves")]
    Flannel,
    /// It changes faster than it can be removed.
    #[error("it changed while it was being removed")]
    Busy,
}

/// How often a removal begins anew because the node changed.
const ATTEMPTS: u8 = 3;

/// A removal on its way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Errand {
    pub(super) name: String,
    pub(super) lease: Option<u64>,
    pub(super) subnets: Vec<IpNet>,
    attempts: u8,
    outcome: Option<Result<Removed, ErrandError>>,
}

impl Errand {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), lease: None, subnets: Vec::new(), attempts: 0, outcome: None }
    }

    pub(super) fn is_over(&self) -> bool {
        self.outcome.is_some()
    }

    pub(super) fn fail(&mut self, error: ErrandError) {
        self.outcome.get_or_insert(Err(error));
    }

    pub(super) fn succeed(&mut self, quarantine: Span) {
        let removed =
            Removed { name: self.name.clone(), subnets: self.subnets.clone(), quarantine };
        self.outcome.get_or_insert(Ok(removed));
    }

    pub(super) fn retry(&mut self) {
        self.attempts += 1;
        if self.attempts >= ATTEMPTS {
            self.fail(ErrandError::Busy);
        }
    }

    pub(super) fn take_outcome(&mut self) -> Option<Result<Removed, ErrandError>> {
        self.outcome.take()
    }
}
