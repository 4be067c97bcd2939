//! TCP's states and windows.

use super::flow::Direction;
use super::timeouts::Class;
use crate::packet::DropReason;

/// State of one TCP connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, packed(2))]
pub struct TcpState {
    end: [u32; 2],
    ack: [u32; 2],
    window: [u16; 2],
    scales: u8,
    phase: u8,
}

impl TcpState {
    /// The class.
    pub fn class(&self) -> Option<Class> {
        None
    }
}

/// A segment.
#[derive(Clone, Copy, Debug)]
pub struct TcpSegment;
/// What a segment changed.
#[derive(Clone, Copy, Debug)]
pub struct Transition;
