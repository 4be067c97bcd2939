//! What a VXLAN datagram says before its frame is looked at.

use zerocopy::FromBytes;

use crate::packet::DropReason;
use crate::wire::ethernet::Ethernet;
use crate::wire::mac::Mac;
use crate::wire::vxlan::Vxlan;

/// A datagram's network, stations and frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inner<'a> {
    /// The network.
    pub vni: u32,
    /// Whom the frame is for.
    pub dst: Mac,
    /// Whose it is.
    pub src: Mac,
    /// The frame.
    pub frame: &'a [u8],
}

/// Opens a datagram.
///
/// # Errors
/// [`DropReason::TunnelHeader`].
#[inline]
pub fn open(datagram: &[u8]) -> Result<Inner<'_>, DropReason> {
    let (header, frame) = Vxlan::ref_from_prefix(datagram).map_err(|_| DropReason::TunnelHeader)?;
    let vni = header.vni().ok_or(DropReason::TunnelHeader)?;
    let (eth, _) = Ethernet::ref_from_prefix(frame).map_err(|_| DropReason::TunnelHeader)?;
    Ok(Inner { vni, dst: eth.dst, src: eth.src, frame })
}
