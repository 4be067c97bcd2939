//! Services: published ports, and virtual addresses with several backends.
//!
//! A published port leads to one endpoint ([`publish`]). A service ([`ServiceTable`]) has addresses of its
//! own and any number of backends; which one serves a connection is looked up in a table ([`Maglev`]). Whether they do is found out by [`health`].

mod affinity;
pub mod health;
mod maglev;
pub mod publish;
mod table;

pub use maglev::{Maglev, identity};
pub use publish::{Publication, PublishError, PublishTable};
pub use table::{Backend, Found, Front, Pool, Service, ServiceTable, Traffic};
