//! Docker Engine with networks of the driver `wharf`, beside its own bridge.
//!
//! Each test has a host of its own: network, mount and process namespaces with dockerd, Wharf and its
//! plugin, and one remote host on a LAN. The machine's own firewall, which dockerd would change, is not
//! in sight.

mod basic;
mod ports;
mod scenarios;
mod survival;
mod world;
