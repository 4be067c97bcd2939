//! What the kernel's packet filter is told and asked: the table that keeps it from answering for what is
//! ours, and the connections that it tracks itself.

pub mod conntrack;
pub mod table;

/// NETLINK_NETFILTER.
const NETFILTER: isize = 12;

/// `struct nfgenmsg`: family, version, and the resource in network byte order.
const fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}
