//! Address configuration of an uplink that is a station on a LAN: the client's side of DHCP
//! ([`dhcp`]) and of stateless autoconfiguration ([`slaac`]).

pub mod dhcp;
pub mod slaac;
