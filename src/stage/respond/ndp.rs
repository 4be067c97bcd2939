//! Neighbour discovery (RFC 4861): what ARP is for IPv4, and routers.
//!
//! A message counts only if it was sent on this link (hop limit 255), is whole (RFC 6980), and its
//! checksum and options are right (RFC 4861 6.1, 7.1). The kernel of a container may leave the
//! checksum of its own messages to us: then the field holds the sum of the pseudo-header, and such a
//! message is taken as right, since nothing lay between the sender and us that could spoil it.

use zerocopy::{FromBytes, IntoBytes};

pub use super::Question;
use crate::packet::{DropReason, Fragment, FrameMut, L3, Offload, PacketBuf, Parsed};
use crate::wire::addr::Addr;
use crate::wire::checksum;
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::icmp::v6;
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::mac::Mac;
use crate::wire::ndp::{self, Neighbour};
pub use crate::wire::router::{Prefix, RouterAdvertisement};

/// Where the options of a solicitation or advertisement begin: type, code, checksum, [`Neighbour`].
const NEIGHBOUR_LEN: usize = 24;
pub(super) const ALL_NODES: Addr = group(1);
const ALL_ROUTERS: Addr = group(2);

const fn group(id: u64) -> Addr {
    Addr::from_prefix_and_id(0xff02 << 48, id)
}

/// `ff02::1:ffXX:XXXX` (RFC 4291 2.7.1).
fn solicited_node(target: Addr) -> Addr {
    group(0x1_ff00_0000 | (target.words()[1] & 0x00ff_ffff))
}

/// What a frame asks; `None` if it is no solicitation.
///
/// Duplicate address detection asks with the sender's address unspecified: whether anybody *else*
/// has the target. So the caller must not answer it if the target is the asker's own address.
pub fn question(frame: &[u8], parsed: &Parsed) -> Result<Option<Question>, DropReason> {
    if kind(frame, parsed) != Some(v6::NEIGHBOUR_SOLICITATION) {
        return Ok(None);
    }
    let (neighbour, options) = neighbour(frame, parsed)?;
    let link_layer = ndp::link_layer_option(options, ndp::SOURCE_LINK_LAYER);
    if parsed.src.is_unspecified()
        && (link_layer.is_some() || parsed.dst != solicited_node(neighbour.target_addr()))
    {
        return Err(DropReason::Malformed);
    }
    let sender = (link_layer.unwrap_or(parsed.src_mac), parsed.src);
    if !sender.0.is_unicast() {
        return Err(DropReason::Malformed);
    }
    Ok(Some(Question { target: neighbour.target_addr(), sender }))
}

/// Turns the solicitation in the frame into the advertisement "the target is at `mac`".
pub fn answer(frame: &mut FrameMut<'_>, mac: Mac, router: bool) {
    let Ok(parsed) = Parsed::new(frame.bytes()) else { return };
    let Ok(Some(asked)) = question(frame.bytes(), &parsed) else { return };
    let duplicate = parsed.src.is_unspecified();
    // RFC 4861 7.2.4: an answer to "nobody" goes to everybody and is not solicited.
    let (to, to_mac, solicited) = if duplicate {
        (ALL_NODES, multicast(ALL_NODES), 0)
    } else {
        (parsed.src, asked.sender.0, ndp::SOLICITED)
    };
    let flags = ndp::OVERRIDE | solicited | if router { ndp::ROUTER } else { 0 };
    let body = Neighbour { flags: flags.into(), target: asked.target.bytes() };
    let option = Some((ndp::TARGET_LINK_LAYER, mac));
    let (from, to) = ((mac, asked.target), (to_mac, to));
    let message = build(from, to, v6::NEIGHBOUR_ADVERTISEMENT, body.as_bytes(), option);
    replace(frame, &message);
}

/// Puts other bytes into a frame's place. It may have to grow by an option: to the front, where
/// there is always room.
fn replace(frame: &mut FrameMut<'_>, bytes: &[u8]) {
    let missing = bytes.len().saturating_sub(frame.len());
    if missing > 0 && frame.prepend(missing).is_none() && !frame.resize(bytes.len()) {
        return;
    }
    frame.truncate(bytes.len());
    frame.bytes_mut().copy_from_slice(bytes);
    *frame.offload_mut() = Offload::NONE;
}

/// The question "who has `target`", to its solicited-node group or (to see whether it is still
/// there) to one MAC. From an unspecified address it is duplicate address detection.
pub fn solicitation(our: (Mac, Addr), target: Addr, to: Option<Mac>) -> PacketBuf {
    let group = solicited_node(target);
    let to = to.map_or((multicast(group), group), |mac| (mac, target));
    let body = Neighbour { flags: 0.into(), target: target.bytes() };
    let kind = v6::NEIGHBOUR_SOLICITATION;
    PacketBuf::new(&build(our, to, kind, body.as_bytes(), source(our)), Offload::NONE)
}

/// The question "is there a router".
pub fn router_solicitation(our: (Mac, Addr)) -> PacketBuf {
    let to = (multicast(ALL_ROUTERS), ALL_ROUTERS);
    let message = build(our, to, v6::ROUTER_SOLICITATION, &[0; 4], source(our));
    PacketBuf::new(&message, Offload::NONE)
}

/// What a solicitation teaches about its sender, or an advertisement about its target.
pub fn learned(frame: &[u8], parsed: &Parsed) -> Option<(Addr, Mac)> {
    let kind = kind(frame, parsed)?;
    let (neighbour, options) = match kind {
        v6::NEIGHBOUR_SOLICITATION | v6::NEIGHBOUR_ADVERTISEMENT => {
            neighbour(frame, parsed).ok()?
        }
        _ => return None,
    };
    let (addr, mac) = if kind == v6::NEIGHBOUR_ADVERTISEMENT {
        let mac = ndp::link_layer_option(options, ndp::TARGET_LINK_LAYER);
        // RFC 4861 7.2.3: an answer to one station may leave the option out.
        (neighbour.target_addr(), mac.unwrap_or(parsed.src_mac))
    } else {
        (parsed.src, ndp::link_layer_option(options, ndp::SOURCE_LINK_LAYER)?)
    };
    (mac.is_unicast() && !addr.is_unspecified()).then_some((addr, mac))
}

/// Whether a frame is an advertisement that answers a question: that, and only that, proves that
/// the way to the sender and back works. One to a group is lying (RFC 4861 7.1.2).
pub fn is_solicited(frame: &[u8], parsed: &Parsed) -> bool {
    kind(frame, parsed) == Some(v6::NEIGHBOUR_ADVERTISEMENT)
        && !parsed.dst.is_multicast_or_broadcast()
        && neighbour(frame, parsed).is_ok_and(|(n, _)| n.flags.get() & ndp::SOLICITED != 0)
}

/// Reads a router advertisement; `None` if it is none or must not be believed (RFC 4861 6.1.2).
pub fn parse_router_advertisement(frame: &[u8], parsed: &Parsed) -> Option<RouterAdvertisement> {
    if kind(frame, parsed) != Some(v6::ROUTER_ADVERTISEMENT) || !parsed.src.is_link_local() {
        return None;
    }
    let message = checked(frame, parsed).ok()?;
    let options = message.get(16..)?;
    if !ndp::options_are_valid(options) {
        return None;
    }
    RouterAdvertisement::parse(parsed.src, message.get(4..)?)
}

fn kind(frame: &[u8], parsed: &Parsed) -> Option<u8> {
    let ours = parsed.l3 == L3::V6 && parsed.proto == ipv6::ICMPV6;
    ours.then(|| parsed.l4_bytes(frame).first().copied()).flatten()
}

/// The ICMPv6 message, if it has passed the checks that all kinds share.
pub(super) fn checked<'a>(frame: &'a [u8], parsed: &Parsed) -> Result<&'a [u8], DropReason> {
    let message = parsed.l4_bytes(frame);
    let &[_, code, high, low, ..] = message else { return Err(DropReason::Truncated) };
    if parsed.ttl != 255 || code != 0 || parsed.fragment != Fragment::Whole {
        return Err(DropReason::Malformed);
    }
    let len = message.len() as u32;
    let pseudo = checksum::pseudo_header(parsed.src, parsed.dst, ipv6::ICMPV6, len);
    let unfinished = u16::from_be_bytes([high, low]) == pseudo;
    if !unfinished && checksum::add(pseudo, checksum::sum(message)) != 0xffff {
        return Err(DropReason::Malformed);
    }
    Ok(message)
}

/// A solicitation or advertisement and its options, checked (RFC 4861 7.1).
fn neighbour<'a>(
    frame: &'a [u8],
    parsed: &Parsed,
) -> Result<(&'a Neighbour, &'a [u8]), DropReason> {
    let message = checked(frame, parsed)?;
    let body = message.get(4..).unwrap_or_default();
    let (neighbour, options) =
        Neighbour::ref_from_prefix(body).map_err(|_| DropReason::Truncated)?;
    let target = neighbour.target_addr();
    let impossible = target.is_multicast_or_broadcast() || target.is_unspecified();
    if impossible || target.is_v4() || !ndp::options_are_valid(options) {
        return Err(DropReason::Malformed);
    }
    Ok((neighbour, options))
}

pub(super) fn multicast(group: Addr) -> Mac {
    group.v6().map_or(Mac::BROADCAST, Mac::from_ipv6_group)
}

/// RFC 4861 4.3: who has no address yet must not say its MAC.
fn source(our: (Mac, Addr)) -> Option<(u8, Mac)> {
    (!our.1.is_unspecified()).then_some((ndp::SOURCE_LINK_LAYER, our.0))
}

/// A whole frame: `body` is what follows the checksum.
pub(super) fn build(
    from: (Mac, Addr),
    to: (Mac, Addr),
    kind: u8,
    body: &[u8],
    option: Option<(u8, Mac)>,
) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend_from_slice(body);
    if let Some((kind, mac)) = option {
        message.extend_from_slice(&[kind, 1]);
        message.extend_from_slice(&mac.0);
    }
    let len = message.len() as u16;
    let pseudo = checksum::pseudo_header(from.1, to.1, ipv6::ICMPV6, len.into());
    let sum = !checksum::add(pseudo, checksum::sum(&message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let eth = Ethernet { dst: to.0, src: from.0, ethertype: ethernet::IPV6.into() };
    let mut ip = Ipv6::new(from.1, to.1, ipv6::ICMPV6, len);
    ip.hop_limit = 255;
    [eth.as_bytes(), ip.as_bytes(), &message].concat()
}

const _: () = assert!(NEIGHBOUR_LEN == 4 + size_of::<Neighbour>());

#[cfg(test)]
mod tests;
