//! Counters of an interface in another network namespace, as `/proc/PID/net/dev` shows them.
//!
//! A TAP's ring that is full makes the kernel drop what the container sends, and only the interface's
//! own counters say so (`tun_net_xmit`). The namespace is the container's; its `/proc` entry can be
//! read without any right over it.

use std::fs;

/// Packets that the interface `ifname` in the network namespace of `pid` could not send since it was
/// made. `None`: the process or the interface is gone.
pub fn transmit_drops(pid: u32, ifname: &str) -> Option<u64> {
    parse(&fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?, ifname)
}

/// Columns after the colon: eight of reception, then bytes, packets, errors and drops of sending.
fn parse(text: &str, ifname: &str) -> Option<u64> {
    const TRANSMIT_DROPS: usize = 8 + 3;
    let line = text.lines().find_map(|line| {
        let (name, rest) = line.split_once(':')?;
        (name.trim() == ifname).then_some(rest)
    })?;
    line.split_whitespace().nth(TRANSMIT_DROPS)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    1104      12    0    0    0     0          0         0     1104      12    0    0    0     0       0          0
  eth0:  507860    2911    0    3    0     0          0         0   190434    2008    0 1003    0     0       0          0
";

    #[test]
    fn what_the_interface_could_not_send_is_found() {
        assert_eq!(parse(TEXT, "eth0"), Some(1003));
        assert_eq!(parse(TEXT, "lo"), Some(0));
        assert_eq!(parse(TEXT, "eth1"), None);
        assert_eq!(parse("rubbish: 1 2", "rubbish"), None);
    }

    #[test]
    fn our_own_loopback_has_a_count() {
        assert!(transmit_drops(std::process::id(), "lo").is_some());
        assert_eq!(transmit_drops(u32::MAX, "lo"), None);
    }
}
