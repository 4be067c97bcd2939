//! What was decided about a frame.

use super::DropReason;
use crate::base::ids::PortId;

/// The decision, in one word. The socket uplink and tunnels are ports like any other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Out of this port.
    Forward(PortId),
    /// To every port of its domain but the one it came from.
    Flood,
    /// The frame has been turned into the answer; back where it came from.
    Reply,
    /// Kept until a neighbour is resolved or a first fragment arrives.
    Hold,
    /// For a service inside the switch.
    Local(Service),
    /// Nowhere, and why.
    Drop(DropReason),
}

/// Services that the switch answers itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    /// Names, on the gateway's port 53.
    Dns,
    /// Address configuration of guests (DHCP), and the client's side on an uplink.
    Dhcp,
    /// Neighbour and router discovery that taught the switch something.
    Discovery,
}
