//! Captures: from a request to blocks of frames.

use std::sync::{Arc, Weak};

use crossbeam_channel::{Receiver, bounded};

use super::Control;
use super::error::ControlError;
use super::model::{CaptureSide, CaptureSpec};
use crate::base::ids::PortId;
use crate::base::limits::{CAPTURE_BLOCKS_MAX, CAPTURES_MAX};
use crate::packet::bpf::{Instruction, Program};
use crate::worker::capture::{Block, CaptureRequest, Reader, Side};
use crate::worker::command::Command;

/// A capture that goes on until this is dropped, or has all the frames it was asked for.
#[derive(Debug)]
pub struct Capture {
    /// Frames as they come.
    pub blocks: Receiver<Block>,
    _alive: Arc<()>,
}

impl Control {
    /// Begins a capture.
    pub fn capture(&mut self, spec: &CaptureSpec) -> Result<Capture, ControlError> {
        self.captures.retain(|alive| alive.strong_count() > 0);
        if self.captures.len() >= CAPTURES_MAX {
            return Err(ControlError::Exhausted { what: "captures", limit: CAPTURES_MAX });
        }
        let request = self.capture_request(spec)?;
        let (sender, blocks) = bounded(CAPTURE_BLOCKS_MAX);
        let alive = Arc::new(());
        let reader = Reader { blocks: sender, alive: Arc::downgrade(&alive) };
        self.captures.push(Weak::clone(&reader.alive));
        self.outside.dataplane.send(Command::Capture(Box::new(request), reader));
        Ok(Capture { blocks, _alive: alive })
    }

    fn capture_request(&self, spec: &CaptureSpec) -> Result<CaptureRequest, ControlError> {
        let mut ports = Vec::new();
        for name in &spec.ports {
            ports.extend(self.ports_called(name)?);
        }
        let filter = if spec.filter.is_empty() {
            None
        } else {
            let code = spec.filter.iter().map(|(op, jt, jf, k)| Instruction(*op, *jt, *jf, *k));
            let bad =
                |error| ControlError::invalid(format!("{error}"), "give it as libpcap wrote it");
            Some(Program::new(code.collect()).map_err(bad)?)
        };
        Ok(CaptureRequest {
            ports,
            drops: spec.drops,
            side: spec.side.map(|side| match side {
                CaptureSide::Ingress => Side::Ingress,
                CaptureSide::Egress => Side::Egress,
            }),
            snap: spec.snap.map_or(usize::MAX, |snap| snap as usize),
            count: spec.count.unwrap_or(u64::MAX),
            filter,
        })
    }

    /// The ports of a container, an uplink's, or the host's own of that name.
    fn ports_called(&self, name: &str) -> Result<Vec<PortId>, ControlError> {
        let uplink = self.state.uplinks.values().find(|uplink| uplink.record.spec.name == name);
        if let Some(uplink) = uplink {
            return Ok(vec![uplink.record.port]);
        }
        let hosts = self.state.networks.values().filter_map(|network| network.record.host.as_ref());
        let host = hosts.filter(|host| host.ifname == name).map(|host| host.port).next();
        if let Some(port) = host {
            return Ok(vec![port]);
        }
        Ok(self.find(name, None)?.into_iter().map(|endpoint| endpoint.record.port).collect())
    }

    /// What people call a port.
    pub fn name_of_port(&self, port: PortId) -> String {
        self.port_name(port)
    }
}
