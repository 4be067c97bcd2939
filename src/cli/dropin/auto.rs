//! Ports that follow what is listened for in the namespace (`-t auto`, `-u auto`).
//!
//! `/proc/PID/net/tcp` and its like show the sockets of a process's namespace to everybody. They are read
//! once a second, as the original does; there is no event to wait for. A port that the host has given
//! away is tried again every time: its holder may have gone.

use std::collections::BTreeSet;
use std::time::Duration;

use super::port_spec::Mapping;
use super::switch::{GUEST, Switch};
use crate::cli::daemon::attaching::lock;
use crate::cli::output::Failure;
use crate::control::model::Proto;

const TICK: Duration = Duration::from_secs(1);
/// `TCP_LISTEN`, and what an unconnected UDP socket is in.
const LISTENING: &str = "0A";
const UNCONNECTED: &str = "07";
/// Where the kernel begins to choose ports by itself: those are clients.
const EPHEMERAL: u16 = 32_768;

/// Follows the ports of a process's namespace, of these protocols.
pub(super) fn follow(switch: Switch, pid: u32, protos: Vec<Proto>) -> Result<(), Failure> {
    std::thread::Builder::new().name("ports".to_owned()).spawn(move || {
        let mut published = BTreeSet::new();
        while let Some(wanted) = listened(pid, &protos) {
            adjust(&switch, &mut published, &wanted);
            std::thread::sleep(TICK);
        }
    })?;
    Ok(())
}

fn adjust(
    switch: &Switch,
    published: &mut BTreeSet<(Proto, u16)>,
    wanted: &BTreeSet<(Proto, u16)>,
) {
    let spec = |(proto, port): &(Proto, u16)| {
        Mapping { addr: None, from: *port, to: *port }.publication(*proto)
    };
    for gone in published.difference(wanted).copied().collect::<Vec<_>>() {
        let _ = lock(switch).unpublish(GUEST, None, &[spec(&gone)]);
        published.remove(&gone);
    }
    for new in wanted.difference(published).copied().collect::<Vec<_>>() {
        match lock(switch).publish(GUEST, None, &[spec(&new)]) {
            Ok(_) => drop(published.insert(new)),
            Err(error) => tracing::debug!("{error}"),
        }
    }
}

/// What is listened for; nothing if the process is gone.
fn listened(pid: u32, protos: &[Proto]) -> Option<BTreeSet<(Proto, u16)>> {
    let mut all = BTreeSet::new();
    for proto in protos {
        let (name, state) = match proto {
            Proto::Tcp => ("tcp", LISTENING),
            Proto::Udp => ("udp", UNCONNECTED),
            Proto::Sctp => continue,
        };
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).ok()?;
        let v6 = std::fs::read_to_string(format!("/proc/{pid}/net/{name}6")).unwrap_or_default();
        for table in [table, v6] {
            all.extend(ports(&table, state).map(|port| (*proto, port)));
        }
    }
    Some(all)
}

/// The ports of a table's sockets in a state. Those on loopback are the namespace's own business.
fn ports<'a>(table: &'a str, state: &'a str) -> impl Iterator<Item = u16> + 'a {
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_whitespace().skip(1);
        let (address, port) = fields.next()?.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let right = fields.nth(1)? == state && (state == LISTENING || port < EPHEMERAL);
        (right && !is_loopback(address)).then_some(port)
    })
}

/// Addresses are words of the host's byte order: 127.0.0.1 is `0100007F`.
fn is_loopback(address: &str) -> bool {
    let v4 = address.len() == 8 && address.ends_with("7F");
    v4 || address == "00000000000000000000000001000000"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_found_but_for_those_on_loopback() {
        let tcp = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   2: 6402000A:1F92 0202000A:C350 01 00000000:00000000 00:00000000 00000000     0        0 1 1";
        assert_eq!(ports(tcp, LISTENING).collect::<Vec<_>>(), [8080]);
        let v6 = "\
  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0 0
   1: 00000000000000000000000001000000:0051 00000000000000000000000000000000:0000 0A 0:0 0";
        assert_eq!(ports(v6, LISTENING).collect::<Vec<_>>(), [80]);
        let udp = "\
  sl  local_address rem_address   st
   0: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000
   1: 00000000:C350 00000000:0000 07 00000000:00000000 00:00000000";
        assert_eq!(ports(udp, UNCONNECTED).collect::<Vec<_>>(), [53]);
    }

    #[test]
    fn a_process_that_is_gone_listens_for_nothing_and_ends_it() {
        assert!(listened(std::process::id(), &[Proto::Tcp, Proto::Udp]).is_some());
        assert_eq!(listened(0, &[Proto::Tcp]), None);
    }
}
