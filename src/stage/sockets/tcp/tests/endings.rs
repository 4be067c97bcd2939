//! Ends that come between a question and its answer.

use super::published::publication;
use super::*;

#[test]
fn a_container_that_goes_while_a_client_is_being_accepted_leaves_nothing_behind() {
    let mut rig = Rig::new(true);
    rig.flows.publish_tcp(publication(&rig));
    rig.event(SocketEvent::Incoming { listener: ListenerId(9) });
    let calls = rig.calls();
    let [SocketCall::Accept { socket, .. }] = calls[..] else { panic!("{calls:?}") };
    rig.flows.remove_port(rig.now, PortId(3), &mut rig.out);
    rig.flows.unpublish(ListenerId(9));
    rig.flows.publish_tcp(publication(&rig));
    rig.calls();
    let peer = SockAddr { addr: rig.outside.0, port: rig.outside.1 };
    rig.event(SocketEvent::Accepted { socket, client: peer, local: peer, room: ROOM });
    assert!(rig.calls().contains(&SocketCall::Close { socket, reset: true }));
    assert!(rig.flows.tcp.second_tries.is_empty(), "nor a word about a second try");
}

#[test]
fn a_flow_that_ended_in_this_batch_is_not_asked_for_by_a_timer_of_before() {
    let (mut rig, socket) = Rig::accepted(true);
    rig.event(SocketEvent::Failed { socket, error: SocketError::Reset });
    rig.wait(Span::from_secs(1));
    assert_eq!(rig.segments().iter().map(|seen| seen.flags).collect::<Vec<_>>(), [RST]);
    assert_eq!(rig.flows.counts()[0], 0);
}
