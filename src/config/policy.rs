//! Network policy, as workers have it: the compiled rules, and what each port's endpoint is to them.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::base::ids::PortId;
use crate::stage::policy::{Policy, Subject};

/// All of it. A change of the rules replaces it whole, since what endpoints are to the rules changes with
/// them; an endpoint that comes, changes or goes replaces its own entry.
#[derive(Clone, Debug, Default)]
pub struct PolicyTables {
    /// The rules.
    pub policy: Arc<Policy>,
    /// Endpoints, by port.
    pub subjects: HashMap<PortId, Arc<Subject>>,
}

impl PolicyTables {
    /// What an endpoint is to the rules; `None`: they do not know it.
    #[inline]
    pub fn subject(&self, port: PortId) -> Option<&Subject> {
        self.subjects.get(&port).map(Arc::as_ref)
    }

    /// What an endpoint is from now on.
    pub(super) fn put(&mut self, port: PortId, subject: Option<&Arc<Subject>>) {
        match subject {
            Some(subject) => self.subjects.insert(port, Arc::clone(subject)),
            None => self.subjects.remove(&port),
        };
    }
}
