use super::*;
use crate::control::model::{EventInfo, NodeSpec, PeerSpec};
use crate::datapath::inspect::{PeerInfo, PortStats};
use crate::worker::command::Notice;

/// Attaches a container that runs as process 7.
fn with_process(control: &mut Control) -> PortId {
    let request = AttachRequest { pid: Some(7), ..request("web") };
    control.attach(&request, Vec::new()).unwrap();
    control.endpoint("web").unwrap()[0].port
}

fn stats(port: PortId, sent: u64, drops: &[(&str, u64)]) -> PortStats {
    let drops = drops.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
    PortStats { port: Some(port), tx_frames: sent, drops, ..PortStats::default() }
}

/// A worker has been busy and counts this; gives what is told of it.
fn looked(daemon: &Daemon, control: &mut Control, answers: &[Answer]) -> Vec<EventInfo> {
    let next = control.events(0).last().map_or(0, |event| event.seq + 1);
    daemon.fake.world().answers = answers.to_vec();
    control.notice(Notice::Busy);
    control.events(next)
}

#[test]
fn a_full_ring_is_told_once_until_it_is_over_with_what_to_do() {
    let (daemon, mut control) = running();
    let port = with_process(&mut control);
    daemon.fake.world().rings.insert(7, 0);
    let mut look = |sent, ring| {
        daemon.fake.world().rings.insert(7, ring);
        looked(&daemon, &mut control, &[Answer::Ports(vec![stats(port, sent, &[])])])
    };
    assert_eq!(look(500, 0), []);
    let told = look(1_000, 40);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].kind, told[0].endpoint.as_deref()), (EventKind::QueueFull, Some("web")));
    assert!(told[0].text.contains("40 frames"), "{}", told[0].text);
    assert!(told[0].hint.as_ref().unwrap().contains("--rate"));
    assert_eq!(look(2_000, 90), [], "it goes on");
    assert_eq!(look(2_500, 90), [], "it is over");
    assert_eq!(look(3_000, 91).len(), 1);
}

#[test]
fn what_a_ring_had_lost_before_the_daemon_was_there_is_no_news() {
    let (daemon, mut control) = running();
    let port = with_process(&mut control);
    drop(control);
    daemon.fake.world().rings.insert(7, 1_000);
    let mut control = daemon.start().unwrap();
    assert_eq!(looked(&daemon, &mut control, &[Answer::Ports(vec![stats(port, 9, &[])])]), []);
    assert!(control.events(0).iter().any(|e| e.text.contains("started again; 1 endpoints are")));
}

#[test]
fn a_queue_of_our_own_and_a_mac_in_two_places_are_told_too() {
    let (daemon, mut control) = running();
    let port = with_process(&mut control);
    let counted = stats(port, 5, &[("egress-full", 3), ("mac-flapping", 2)]);
    let told = looked(&daemon, &mut control, &[Answer::Ports(vec![counted])]);
    let kinds: Vec<_> = told.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::QueueFull, EventKind::MacConflict]);
    assert!(told.iter().all(|event| event.hint.is_some()));
}

#[test]
fn a_peer_is_up_when_it_answers_and_down_when_it_does_not() {
    let (daemon, mut control) = running();
    let node: NodeSpec = toml::from_str("subnets = [\"10.244.1.0/24\"]").unwrap();
    control.set_node(&node).unwrap();
    let two: PeerSpec =
        toml::from_str("name = \"two\"\naddress = \"192.0.2.2\"\nsubnets = [\"10.244.2.0/24\"]")
            .unwrap();
    control.put_peer(&two).unwrap();
    let id = daemon.fake.world().tables.peers().next().unwrap().id;
    let mut look = |received, sent| {
        let stats = PortStats { rx_frames: received, tx_frames: sent, ..PortStats::default() };
        let info = PeerInfo { id, mtu: 1450, heard_ms: None, stats };
        let told = looked(&daemon, &mut control, &[Answer::Peers(vec![info])]);
        told.into_iter().map(|event| event.kind).collect::<Vec<_>>()
    };
    assert_eq!(look(0, 0), []);
    assert_eq!(look(0, 10), [], "its answer may be on the way");
    assert_eq!(look(5, 20), [EventKind::PeerUp]);
    assert_eq!(look(5, 20), [], "nobody asks");
    assert_eq!(look(5, 30), []);
    assert_eq!(look(5, 40), [EventKind::PeerDown]);
    assert_eq!(look(5, 50), []);
    assert_eq!(look(6, 60), [EventKind::PeerUp]);
}

#[test]
fn a_shortage_says_whose_it_is_and_what_to_do() {
    let (_daemon, mut control) = running();
    let port = with_process(&mut control);
    control.notice(Notice::Shortage(port, crate::packet::DropReason::FlowShare));
    let event = control.events(0).pop().unwrap();
    assert_eq!(event.endpoint.as_deref(), Some("web"));
    assert!(event.hint.unwrap().contains("limits.flows_per_endpoint"));
}
