//! ARP (RFC 826) with the probes of RFC 5227.

use zerocopy::{FromBytes, IntoBytes};

pub use super::Question;
use crate::packet::parse::L3_OFFSET;
use crate::packet::{DropReason, FrameMut, Offload, PacketBuf};
use crate::wire::addr::Addr;
use crate::wire::arp::{self, Arp};
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::ipv4::v4_bytes;
use crate::wire::mac::Mac;

/// What a frame asks. `None` for replies and announcements (sender and target address the same),
/// which ask nothing.
///
/// A probe asks, with the sender's address unspecified: whether anybody *else* has the target. So
/// the caller must not answer it if the target is the asker's own address.
pub fn question(frame: &[u8]) -> Result<Option<Question>, DropReason> {
    let arp = read(frame)?;
    if arp.oper != arp::REQUEST || arp.spa == arp.tpa {
        return Ok(None);
    }
    let target = Addr::from_v4_bytes(arp.tpa);
    let sender = (arp.sha, Addr::from_v4_bytes(arp.spa));
    Ok(Some(Question { target, sender }))
}

/// Turns the request in the frame into the reply "the target is at `mac`".
pub fn answer(frame: &mut FrameMut<'_>, mac: Mac) {
    *frame.offload_mut() = Offload::NONE;
    let Ok((eth, packet)) = Ethernet::mut_from_prefix(frame.bytes_mut()) else { return };
    let Ok((arp, _)) = Arp::mut_from_prefix(packet) else { return };
    eth.dst = arp.sha;
    eth.src = mac;
    arp.oper = arp::REPLY.into();
    (arp.tha, arp.sha) = (arp.sha, mac);
    std::mem::swap(&mut arp.spa, &mut arp.tpa);
}

/// The question "who has `target`", to everybody or (to see whether it is still there) to one MAC.
/// From an unspecified address it is a probe.
pub fn request(our: (Mac, Addr), target: Addr, to: Option<Mac>) -> PacketBuf {
    let mut arp = Arp::new(arp::REQUEST, (our.0, [0; 4].into()), (Mac::ZERO, [0; 4].into()));
    // `::` stands for "none" too, and its last four bytes are those of 0.0.0.0.
    arp.spa = v4_bytes(our.1);
    arp.tpa = v4_bytes(target);
    let dst = to.unwrap_or(Mac::BROADCAST);
    let eth = Ethernet { dst, src: our.0, ethertype: ethernet::ARP.into() };
    PacketBuf::new(&[eth.as_bytes(), arp.as_bytes()].concat(), Offload::NONE)
}

/// What an ARP packet, request or reply, teaches about its sender; a probe teaches nothing.
pub fn reply_seen(frame: &[u8]) -> Option<(Addr, Mac)> {
    let arp = read(frame).ok()?;
    (arp.spa != [0; 4]).then_some((Addr::from_v4_bytes(arp.spa), arp.sha))
}

/// Whether an ARP packet is a reply to a question of ours: that, and only that, proves that the
/// way to the sender and back works.
pub fn is_solicited(frame: &[u8], our: Mac) -> bool {
    read(frame).is_ok_and(|arp| arp.oper == arp::REPLY && arp.tha == our && arp.spa != arp.tpa)
}

fn read(frame: &[u8]) -> Result<&Arp, DropReason> {
    let packet = frame.get(L3_OFFSET..).unwrap_or_default();
    let (arp, _) = Arp::ref_from_prefix(packet).map_err(|_| DropReason::Truncated)?;
    // A group as hardware address would turn one's traffic into a broadcast (RFC 1812 3.3.2).
    if arp.is_valid() && arp.sha.is_unicast() { Ok(arp) } else { Err(DropReason::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = Mac([0x02, 0x42, 172, 17, 0, 2]);
    const GATEWAY: Mac = Mac([0x02, 0x42, 172, 17, 0, 1]);

    fn addr(text: &str) -> Addr {
        text.parse().unwrap()
    }

    /// As Linux sends it: who has 172.17.0.1, tell 172.17.0.2.
    #[rustfmt::skip]
    const REQUEST: [u8; 42] = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0x42, 0xac, 0x11, 0x00, 0x02, 0x08, 0x06,
        0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01,
        0x02, 0x42, 0xac, 0x11, 0x00, 0x02, 0xac, 0x11, 0x00, 0x02,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xac, 0x11, 0x00, 0x01,
    ];
    #[rustfmt::skip]
    const REPLY: [u8; 42] = [
        0x02, 0x42, 0xac, 0x11, 0x00, 0x02, 0x02, 0x42, 0xac, 0x11, 0x00, 0x01, 0x08, 0x06,
        0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x02,
        0x02, 0x42, 0xac, 0x11, 0x00, 0x01, 0xac, 0x11, 0x00, 0x01,
        0x02, 0x42, 0xac, 0x11, 0x00, 0x02, 0xac, 0x11, 0x00, 0x02,
    ];

    #[test]
    fn a_request_becomes_the_reply_byte_for_byte() {
        let asked = question(&REQUEST).unwrap().unwrap();
        assert_eq!(asked, Question { target: addr("172.17.0.1"), sender: (A, addr("172.17.0.2")) });
        let mut buf = PacketBuf::new(&REQUEST, Offload::NONE);
        answer(&mut buf.frame(), GATEWAY);
        assert_eq!(buf.bytes(), REPLY);
    }

    #[test]
    fn our_own_request_is_what_linux_sends() {
        let ours = request((A, addr("172.17.0.2")), addr("172.17.0.1"), None);
        assert_eq!(ours.bytes(), REQUEST);
        let check = request((A, addr("172.17.0.2")), addr("172.17.0.1"), Some(GATEWAY));
        assert_eq!(check.bytes()[..6], GATEWAY.0);
    }

    #[test]
    fn a_probe_asks_without_an_address_and_is_answered_to_its_mac() {
        let probe = request((A, Addr::UNSPECIFIED), addr("172.17.0.1"), None);
        let asked = question(probe.bytes()).unwrap().unwrap();
        assert_eq!(asked.sender, (A, addr("0.0.0.0")));
        assert_eq!(reply_seen(probe.bytes()), None);
        let mut buf = probe;
        answer(&mut buf.frame(), GATEWAY);
        assert_eq!(buf.bytes()[..6], A.0);
        assert_eq!(reply_seen(buf.bytes()), Some((addr("172.17.0.1"), GATEWAY)));
    }

    #[test]
    fn replies_and_announcements_ask_nothing_but_teach() {
        assert_eq!(question(&REPLY), Ok(None));
        assert_eq!(reply_seen(&REPLY), Some((addr("172.17.0.1"), GATEWAY)));
        assert!(is_solicited(&REPLY, A) && !is_solicited(&REPLY, GATEWAY));
        let announcement = request((A, addr("172.17.0.2")), addr("172.17.0.2"), None);
        assert_eq!(question(announcement.bytes()), Ok(None));
        assert_eq!(reply_seen(announcement.bytes()), Some((addr("172.17.0.2"), A)));
        assert!(!is_solicited(announcement.bytes(), A));
    }

    #[test]
    fn bad_packets_are_named_and_never_answered_blindly() {
        assert_eq!(question(&REQUEST[..41]), Err(DropReason::Truncated));
        for (at, value) in [(15, 6), (17, 1), (18, 8), (19, 16), (21, 8), (22, 0x03)] {
            let mut frame = REQUEST;
            frame[at] = value;
            assert_eq!(question(&frame), Err(DropReason::Malformed), "byte {at}");
        }
        let mut short = PacketBuf::new(&REQUEST[..20], Offload::NONE);
        answer(&mut short.frame(), GATEWAY);
        assert_eq!(short.bytes(), &REQUEST[..20]);
    }
}
