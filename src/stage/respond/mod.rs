//! Questions that the switch answers itself: the request in the frame becomes the answer in place
//! and goes back where it came from.
//!
//! Each protocol has the same verbs: `question` says what is asked (or that nothing is, or why the
//! frame is bad), `answer` turns the frame into the answer. The switch's own questions are made by
//! `request` and `solicitation`, and what others say of themselves is read by `reply_seen` and
//! `learned`.

pub mod arp;
pub mod dhcp;
pub mod dhcp6;
pub mod echo;
pub mod guest;
pub mod ndp;
pub mod ra;

/// Mappings of addresses to MACs asked about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    /// The address whose MAC is wanted.
    pub target: crate::wire::addr::Addr,
    /// Who asks. The address is unspecified in a probe for duplicates (RFC 5227, RFC 4862).
    pub sender: (crate::wire::mac::Mac, crate::wire::addr::Addr),
}
