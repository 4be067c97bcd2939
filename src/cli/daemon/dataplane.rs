//! Control's workers, with threads behind them.

use std::io;
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, unbounded};

use super::attaching::lock;
use crate::base::hash::Seed;
use crate::cli::output::Failure;
use crate::control::Control;
use crate::control::config::Config;
use crate::control::outside::{Dataplane, DataplaneError};
use crate::io::random;
use crate::worker::{Answer, Command, Notice, Query, Worker};

/// The one worker there is.
#[derive(Debug)]
struct One(Worker);

impl Dataplane for One {
    fn send(&self, command: Command) {
        if let Err(error) = self.0.send(command) {
            tracing::error!(%error, "a worker was not told");
        }
    }

    fn query(&self, query: Query) -> Result<Vec<Answer>, DataplaneError> {
        let failed = |error: io::Error| DataplaneError { worker: 0, why: error.to_string() };
        Ok(vec![self.0.query(query).map_err(failed)?])
    }

    fn workers(&self) -> usize {
        1
    }
}

/// Starts the workers. What they notice comes out of the receiver.
pub(super) fn start(config: &Config) -> Result<(Box<dyn Dataplane>, Receiver<Notice>), Failure> {
    if config.workers.is_some_and(|workers| workers > 1) {
        return Err(Failure::new("this version has one worker").hint("leave `workers` out"));
    }
    let (sender, notices) = unbounded();
    let worker = Worker::start(Seed::new(random::number()?), sender)?;
    Ok((Box::new(One(worker)), notices))
}

/// Tells control what workers notice, from now on.
pub(super) fn listen(
    notices: Receiver<Notice>,
    control: &Arc<Mutex<Control>>,
) -> Result<(), Failure> {
    let control = Arc::clone(control);
    std::thread::Builder::new().name("notices".to_owned()).spawn(move || {
        for notice in notices {
            lock(&control).handle_notice(notice);
        }
    })?;
    Ok(())
}
