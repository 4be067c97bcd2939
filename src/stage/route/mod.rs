//! Routing: which way ([`lpm`]), to which MAC ([`neighbour`]), in which size ([`mtu`],
//! [`fragments`]), and what to say when it cannot be ([`icmp_error`], [`tcp_reset`]).

pub mod fragments;
pub mod icmp_error;
pub mod ip_id;
pub mod lpm;
pub mod mtu;
pub mod neighbour;
pub mod tcp_reset;
