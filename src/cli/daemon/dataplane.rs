//! Control's workers.

use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::attaching::lock;
use crate::cli::output::Failure;
use crate::control::Control;
use crate::control::config::Config;
use crate::control::outside::{Dataplane, DataplaneError};
use crate::worker::command::{Answer, Command, Notice, Query};

/// Stands in until the workers are there: knows nothing and forwards nothing.
#[derive(Debug)]
struct Idle(#[allow(dead_code, reason = "keeps the channel open")] Sender<Notice>);

impl Dataplane for Idle {
    fn send(&self, _command: Command) {}

    fn query(&self, query: Query) -> Result<Vec<Answer>, DataplaneError> {
        Ok(match query {
            Query::Flows(_) => vec![Answer::Flows(Vec::new())],
            Query::FlushFlows(_) => vec![Answer::Flushed(0)],
            Query::Fdb => vec![Answer::Fdb(Vec::new())],
            Query::Neighbours => vec![Answer::Neighbours(Vec::new())],
            Query::Routes => vec![Answer::Routes(Vec::new())],
            Query::Ports => vec![Answer::Ports(Vec::new())],
            Query::Worker | Query::Trace(_) => Vec::new(),
        })
    }

    fn workers(&self) -> usize {
        1
    }
}

/// Starts the workers. What they notice comes out of the receiver.
pub(super) fn start(_config: &Config) -> Result<(Box<dyn Dataplane>, Receiver<Notice>), Failure> {
    let (sender, notices) = unbounded();
    Ok((Box::new(Idle(sender)), notices))
}

/// Tells control what workers notice, from now on.
pub(super) fn listen(
    notices: Receiver<Notice>,
    control: &Arc<Mutex<Control>>,
) -> Result<(), Failure> {
    let control = Arc::clone(control);
    std::thread::Builder::new().name("notices".to_owned()).spawn(move || {
        for notice in notices {
            lock(&control).notice(notice);
        }
    })?;
    Ok(())
}
