//! Services: published ports.

pub mod publish;

pub use publish::{Publication, PublishError, PublishTable};
