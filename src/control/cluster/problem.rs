//! What keeps a node out of its cluster, for people: what is wrong, and what to do.

use ipnet::IpNet;

/// Why a node gets no further.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Problem {
    /// Nobody has said what the cluster network is.
    #[error(
        "the cluster has no network yet: give `network` in the `[cluster]` of one node's config file"
    )]
    NoPlan,
    /// It is another one.
    #[error(
        "the cluster's network is {there}, this node's config file says {here}: leave `network`, `size` and `reserved` out, or name another prefix"
    )]
    OtherPlan {
        /// As the store has it.
        there: String,
        /// As the config file has it.
        here: String,
    },
    /// Another machine has the name.
    #[error(
        "another node is called `{name}`: choose another `node`, or, if that one is gone for good, `wharf node rm {name}`"
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A copy of this node is alive.
    #[error(
        "a copy of this node is alive, or this machine was restarted a moment ago: `{name}` waits until it falls silent; a copied machine needs a state directory of its own"
    )]
    Twin {
        /// The name.
        name: String,
    },
    /// Another daemon has taken this one's place.
    #[error(
        "another daemon with the same state took the place of `{name}`: this one is out of the cluster; end one of them"
    )]
    Superseded {
        /// The name.
        name: String,
    },
    /// Its subnet has another owner.
    #[error(
        "this node was removed from the cluster while it was away: {} belongs to {by} now; detach the containers on the cluster network, and it joins anew with another subnet",
        nets(held)
    )]
    Evicted {
        /// What its network has.
        held: Vec<IpNet>,
        /// Whose it is.
        by: String,
    },
    /// The network has other subnets than the node.
    #[error(
        "this node owns {}, but its network has {}: detach the containers on the cluster network, and it gets the new one",
        nets(owned),
        nets(held)
    )]
    Moved {
        /// What the network has.
        held: Vec<IpNet>,
        /// What the node owns.
        owned: Vec<IpNet>,
    },
    /// No subnets of this cluster.
    #[error("{} is no subnet of the cluster's network", nets(held))]
    Foreign {
        /// What was to be had.
        held: Vec<IpNet>,
    },
    /// What was wished for is taken.
    #[error("the wished subnet {wish} belongs to {by}: choose another `subnet`, or leave it out")]
    WishTaken {
        /// The wish.
        wish: IpNet,
        /// Whose it is.
        by: String,
    },
    /// No subnet is left.
    #[error("no subnet of {plan} is left: remove nodes that are gone (`wharf node rm`)")]
    Full {
        /// The plan.
        plan: String,
    },
    /// The store contradicts itself.
    #[error(
        "the store says both that this node owns {subnet} and that it belongs to {by}: somebody wrote there by hand; remove one of the keys"
    )]
    Contradiction {
        /// The subnet's key.
        subnet: String,
        /// Whose it is.
        by: String,
    },
    /// The node gave its place up.
    #[error("this node has left the cluster; restart the daemon to join again")]
    Left,
    /// The lease of its subnet is gone (Flannel's layout).
    #[error(
        "the lease of {subnet} expired and another node has it: detach the containers on the cluster network, and this node joins anew"
    )]
    LeaseLost {
        /// The subnet.
        subnet: IpNet,
    },
    /// The configuration of a Flannel cluster cannot be used.
    #[error("the Flannel configuration cannot be used: {0}")]
    Flannel(String),
}

fn nets(nets: &[IpNet]) -> String {
    nets.iter().map(IpNet::to_string).collect::<Vec<_>>().join(" and ")
}
