//! Layer 2: owned memory, and what is said about one frame.
//!
//! A frame lives in a batch's arena ([`FrameBatch`]) from the read that brought it to the write that
//! takes it away; it is copied only when it must outlive the batch ([`PacketBuf`]). Its offload
//! metadata ([`Offload`]) travels beside it, so that a 64 KiB super-frame with an unfinished checksum
//! passes from one TAP to another unsplit and unsummed.

mod batch;
pub mod bpf;
mod buf;
mod drop_reason;
pub mod finish;
pub mod ip_link;
mod key;
pub mod merge;
mod offload;
pub mod parse;
pub mod rewrite;
pub mod split;
#[cfg(test)]
mod tests;

pub use batch::FrameBatch;
pub use buf::{FrameMut, PacketBuf};
pub use drop_reason::DropReason;
pub use key::{FlowKey, Scope};
pub use offload::{Csum, Gso, Offload};
pub use parse::{Fragment, L3, Parsed};
pub use rewrite::Rewrite;
