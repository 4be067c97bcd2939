//! The real workers behind [`Dataplane`].

use std::io;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::outside::{Dataplane, DataplaneError};
use crate::base::hash::Seed;
use crate::io::random;
use crate::worker::Worker;
use crate::worker::command::{Answer, Command, Notice, Query};

/// Running workers. Dropping them ends them.
#[derive(Debug)]
pub struct Workers(Vec<Worker>);

/// Why no worker runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// More than one was asked for.
    #[error("{0} workers were asked for, and this version runs one")]
    Count(usize),
    /// The kernel refused a thread or a poller.
    #[error("starting a worker: {0}")]
    Kernel(#[from] io::Error),
}

impl Workers {
    /// Starts `count` workers; what they notice comes out of the receiver, and what
    /// others send.
    pub fn start(count: usize) -> Result<(Self, Sender<Notice>, Receiver<Notice>), StartError> {
        if count != 1 {
            return Err(StartError::Count(count));
        }
        let (sender, notices) = unbounded();
        let seed = Seed(random::number()?);
        Ok((Self(vec![Worker::start(seed, sender.clone())?]), sender, notices))
    }
}

impl Dataplane for Workers {
    fn send(&self, command: Command) {
        // One worker: every command is for it. A worker that has ended said so by a notice.
        if let Some(worker) = self.0.first() {
            let _ = worker.send(command);
        }
    }

    fn query(&self, query: Query) -> Result<Vec<Answer>, DataplaneError> {
        let answers = self.0.iter().enumerate().map(|(number, worker)| {
            let why = |error: io::Error| DataplaneError { worker: number, why: error.to_string() };
            worker.query(query.clone()).map_err(why)
        });
        answers.collect()
    }

    fn workers(&self) -> usize {
        self.0.len()
    }
}
