//! Layer 7: the loop that joins the pure data path to descriptors. Nothing else is decided here.
//!
//! One worker is one thread with its own [`Datapath`](crate::datapath::Datapath), poller and
//! descriptors. It collects what is ready, applies commands, reads the clock once, processes one
//! batch of each ready port in turn, and writes what leaves.

mod busy;
pub mod capture;
pub mod clock;
pub mod command;
mod down;
mod ports;
mod run;
mod sealing;
mod sockets;
mod tunnels;

use std::io;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::base::hash::Seed;
use crate::io::poller::{Poller, Token, Waker};

pub use self::clock::Clock;
pub use self::command::{Answer, Command, Notice, Query};

/// The waker's token; ports have theirs below it.
const WAKER: Token = Token(u64::MAX);

/// A handle to a running worker. Dropping it ends the worker.
#[derive(Debug)]
pub struct Worker {
    commands: Sender<Command>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a worker. What it notices goes to `notices`.
    pub fn start(seed: Seed, notices: Sender<Notice>) -> io::Result<Self> {
        let poller = Poller::new()?;
        let waker = poller.waker(WAKER)?;
        let (commands, inbox) = unbounded();
        let thread = std::thread::Builder::new()
            .name("worker-0".to_owned())
            .spawn(move || run::Loop::new(seed, poller, inbox, notices).run())?;
        Ok(Self { commands, waker, thread: Some(thread) })
    }

    /// Sends a command; it is handled between two batches.
    ///
    /// # Errors
    /// The worker has ended, or its waker is broken.
    pub fn send(&self, command: Command) -> io::Result<()> {
        let gone = |_| io::Error::other("the worker has ended");
        self.commands.send(command).map_err(gone)?;
        self.waker.wake()
    }

    /// Asks a question and waits for the answer.
    pub fn query(&self, query: Query) -> io::Result<Answer> {
        let (reply, answer): (_, Receiver<Answer>) = bounded(1);
        self.send(Command::Query(query, reply))?;
        answer.recv().map_err(|_| io::Error::other("the worker has ended"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A worker that has ended already cannot be told to, which is as well.
        let _ = self.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
