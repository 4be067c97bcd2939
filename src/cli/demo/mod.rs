//! `wharf demo`: a small world of real kernel stacks around a real daemon, and traffic through it.
//!
//! The command itself only makes a directory and starts the same program once more in a network and
//! mount namespace (and, for an ordinary user, a user namespace) of its own, where the world is built:
//!
//! ```text
//!   app  web      db          three containers, each a process with a network namespace
//!    └─┬──┘       │
//!     blue      green         two networks of a daemon, which is a process of its own
//!      └───┬──────┘
//!        switch ──── lan0 ═══ eth0 remote     a veth pair is the LAN
//! ```
//!
//! Nothing outside is touched. Whatever ends the demo, the kernel ends what it made: containers and
//! daemon are killed with the process that started them, their interfaces go with their namespaces, and
//! the holder ends by itself when it holds nothing. The outer process removes the directory.

mod check;
mod daemon;
mod icmp;
mod keep;
mod orphans;
mod probe;
mod rate;
mod report;
mod story;
mod world;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Args;
use rustix::process::Signal;

use self::report::Report;
use self::world::World;
use super::options::{Format, Global};
use super::output::{EXIT_FAILURE, Failure, Outcome};
use crate::attach::holder::HolderClient;
use crate::io::process::{self, Isolation, Network, SignalFd, SpawnError, prepare_network};
use crate::io::random;

/// `wharf demo`
#[derive(Args, Debug)]
#[command(
    after_help = "Needs no privilege and no other program. The exit status is 1 if any check failed."
)]
pub(crate) struct Demo {
    /// Leave the world running until Enter or Ctrl-C, and say how to enter it
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    format: Format,
    /// Be the process inside the namespaces, with this directory
    #[arg(long, value_name = "DIR", hide = true)]
    inside: Option<PathBuf>,
    /// Be a process that does nothing but keep its namespaces
    #[arg(long, value_name = "NAME", hide = true)]
    hold: Option<String>,
}

/// What ends the demo early. From a terminal, the whole group gets it.
const ENDING: [Signal; 3] = [Signal::INT, Signal::TERM, Signal::HUP];

/// Runs `wharf demo`.
pub(crate) fn run(global: &Global, args: &Demo) -> Outcome {
    match (&args.hold, &args.inside) {
        (Some(_), _) => loop {
            std::thread::park();
        },
        (None, Some(dir)) => inside(global, args, dir),
        (None, None) => outside(global, args),
    }
}

/// Makes the directory and the namespaces, and waits.
fn outside(global: &Global, args: &Demo) -> Outcome {
    // Before anything else, so that a signal in between is not lost.
    let signals = SignalFd::new(&SignalFd::FORWARDED)?;
    orphans::adopt()?;
    let dir = Directory::make()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("demo").arg("--inside").arg(&dir.0);
    for (wished, option) in
        [(args.keep, "--keep"), (args.format.json, "--json"), (global.quiet, "--quiet")]
    {
        command.args(wished.then_some(option));
    }
    let isolation = Isolation { network: Network::New, die_with_parent: true, new_session: false };
    let child = process::spawn(&mut command, isolation, || {
        prepare_network().map(|()| Vec::new()).map_err(|error| error.to_string())
    })
    .map_err(|error| no_namespace(&error))?;
    let code = child.wait_forwarding(&signals)?;
    // An orderly end has left no holder; after any other it holds nothing that anybody could use.
    let holder = daemon::runtime_dir(&dir.0).holder_socket();
    let _ = HolderClient::connect(&holder).and_then(HolderClient::quit);
    orphans::collect();
    Ok(u8::try_from(code).unwrap_or(EXIT_FAILURE))
}

fn no_namespace(error: &SpawnError) -> Failure {
    let failure = Failure::new(error);
    match error {
        SpawnError::UserNamespace(_) | SpawnError::Namespaces(_) | SpawnError::IdMap(_) => failure
            .hint("the demo lives in namespaces of its own; `wharf doctor` says what is missing"),
        _ => failure,
    }
}

/// Builds the world, tells the story, and takes the world down.
fn inside(global: &Global, args: &Demo, dir: &Path) -> Outcome {
    let signals = SignalFd::new(&ENDING)?;
    let mut report = Report::new(args.format.json, global.quiet);
    let world = World::build(dir, &mut report)?;
    if let Some(signal) = story::tell(&world, &mut report, &signals)? {
        return Ok(128 + signal.as_raw() as u8);
    }
    report.end(&world.daemon.client)?;
    if args.keep {
        keep::wait(&world, &signals)?;
    }
    Ok(if report.failed() > 0 { EXIT_FAILURE } else { 0 })
}

/// The demo's directory, which goes with it.
struct Directory(PathBuf);

impl Directory {
    fn make() -> Result<Self, Failure> {
        let mut suffix = [0; 4];
        random::fill(&mut suffix)?;
        let name = format!("wharf-demo-{:08x}", u32::from_ne_bytes(suffix));
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            Failure::new(format!("cannot make the directory {}: {error}", path.display()))
                .hint("name a place for temporary files that can be written to: TMPDIR=DIR")
        })?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        match std::fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                eprintln!("wharf: cannot remove {}: {error}", self.0.display());
            }
            _ => {}
        }
    }
}

/// How long ago that was.
fn since(start: Duration) -> Duration {
    now().saturating_sub(start)
}

/// Time that passes evenly, from some start.
fn now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}
