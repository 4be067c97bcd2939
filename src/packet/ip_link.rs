//! A link for TCP that ends in the switch itself: IP packets in, IP packets out.
//!
//! smoltcp serves such connections, each with an interface of its own, so that nothing is shared between
//! them. It is fed packets without their Ethernet header; which stations those went between is known to
//! whoever feeds it.

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use super::parse::L3_OFFSET;
use super::{Csum, DropReason, FrameMut, Parsed};
use crate::base::time::Time;
use crate::wire::{checksum, ipv6};

/// The link of one connection.
#[derive(Debug)]
pub struct IpLink {
    mtu: usize,
    received: Option<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

/// A packet that came in.
#[derive(Debug)]
pub struct Received(pub Vec<u8>);

/// Where a packet goes out.
#[derive(Debug)]
pub struct Sending<'a>(pub &'a mut Vec<Vec<u8>>);

impl IpLink {
    /// One that takes packets of this size.
    pub fn new(mtu: u16) -> Self {
        Self { mtu: mtu.into(), received: None, sent: Vec::new() }
    }

    /// Puts a packet before the interface, which is asked for its answer next.
    pub fn receive(&mut self, packet: Vec<u8>) {
        self.received = Some(packet);
    }

    /// What the interface sent.
    pub fn sent(&mut self) -> impl Iterator<Item = Vec<u8>> {
        self.sent.drain(..)
    }
}

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push(packet);
        result
    }
}

impl Device for IpLink {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        Some((Received(self.received.take()?), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        // Those of what comes have been checked, or are not finished yet.
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }
}

/// The packet with a TCP segment in it, without Ethernet header and padding. Its checksum is checked here,
/// since smoltcp knows nothing of unfinished ones.
///
/// # Errors
/// `Malformed` if that is wrong.
pub fn segment(parsed: &Parsed, frame: &FrameMut<'_>) -> Result<Vec<u8>, DropReason> {
    let l4 = parsed.l4_bytes(frame.bytes());
    let pseudo = checksum::pseudo_header(parsed.src, parsed.dst, ipv6::TCP, l4.len() as u32);
    let unverified = frame.offload().csum == Csum::Unverified;
    if unverified && checksum::add(pseudo, checksum::sum(l4)) != 0xffff {
        return Err(DropReason::Malformed);
    }
    let end = L3_OFFSET + parsed.ip_len as usize;
    Ok(frame.bytes().get(L3_OFFSET..end).unwrap_or_default().to_vec())
}

/// A moment as smoltcp has it.
pub fn instant(now: Time) -> Instant {
    Instant::from_micros((now.0 / 1_000) as i64)
}

/// A moment of smoltcp's.
pub fn time(at: Instant) -> Time {
    Time((at.total_micros() as u64).saturating_mul(1_000))
}
