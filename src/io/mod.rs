//! Layer 6: the operating system behind safe functions. The only place with `unsafe`.
//!
//! Nothing here decides anything about traffic: a file opens one kind of descriptor or makes one
//! kind of request, says in words why the kernel refused it, and gives back plain values. Nothing
//! here is asynchronous and nothing logs; the caller does.
//!
//! Two rules hold throughout. A call that concerns *the network namespace of the calling thread*
//! says so, and [`netns::in_namespace`] is the one way to run it in another; a thread that is
//! reused is never moved between namespaces. And every descriptor is opened close-on-exec.

pub mod fdpass;
pub mod features;
mod host_calls;
mod host_datagrams;
mod host_errors;
mod host_gather;
mod host_inbox;
pub mod host_listen;
mod host_outbox;
mod host_ping;
pub mod host_sockets;
mod host_stream;
pub mod inherit;
pub mod netdev;
pub mod netfilter;
pub mod netlink;
pub mod netns;
pub mod own_process;
pub mod packet;
pub mod pcap_filter;
pub mod poller;
pub mod probe;
pub mod process;
pub mod random;
pub mod reserved_ports;
pub mod sandbox;
pub mod sock_diag;
pub mod sysctl;
pub mod tap;
pub mod tunnel;
pub mod watch;
pub mod wireguard;
