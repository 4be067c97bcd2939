//! Many nodes, one flat network: who owns which subnet, who is alive, and where every endpoint is.

mod agent;
pub mod ask;
mod errand;
mod flannel;
mod flannel_records;
pub mod fuzz;
pub mod identity;
mod machine;
mod member;
mod mirror;
mod plan;
mod problem;
pub mod records;
mod settings;
pub mod subnet_env;
#[cfg(test)]
mod tests;
mod view;

pub use agent::{Beginning, Cluster, Sink, StoreState};
pub use errand::{ErrandError, Removed};
pub use machine::Machine;
pub use member::{Me, Member, Wish};
pub use mirror::{Mirror, Reachable};
pub use plan::{BadPlan, Plan, Slot};
pub use problem::Problem;
pub use settings::{ClusterConfig, Layout};
