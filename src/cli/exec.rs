//! `wharf exec` and `wharf stop`: the process that a container was started with.

use std::process::Command;
use std::time::Duration;

use clap::Args;
use rustix::io::Errno;
use rustix::process::Signal;

use super::options::Global;
use super::output::{Failure, Outcome, line};
use super::run::{ours, spawn_failure, wait};
use crate::api::client::Client;
use crate::control::model::EndpointInfo;
use crate::io::netns::NetNs;
use crate::io::process::{self, Isolation, Network, Process, SignalFd};

/// `wharf exec`
#[derive(Args, Debug)]
pub(crate) struct Exec {
    /// The container
    name: String,
    /// The command and its arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true,
        value_name = "COMMAND"
    )]
    command: Vec<String>,
}

/// `wharf stop`
#[derive(Args, Debug)]
pub(crate) struct Stop {
    /// Containers
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Seconds between the request to end (SIGTERM) and the end (SIGKILL)
    #[arg(long, short, value_name = "SECONDS", default_value_t = 10)]
    time: u32,
}

/// Runs `wharf exec`.
pub(crate) fn exec(global: &Global, args: &Exec) -> Outcome {
    let process = process_of(global, &args.name).map_err(ours)?;
    let signals = SignalFd::new(&SignalFd::FORWARDED).map_err(|error| ours(error.into()))?;
    let mut command = Command::new(&args.command[0]);
    command.args(&args.command[1..]);
    let network = Network::Of(process.pid());
    let isolation = Isolation { network, die_with_parent: true, new_session: false };
    let child =
        process::spawn(&mut command, isolation, || Ok(Vec::new())).map_err(spawn_failure)?;
    wait(&child, &signals)
}

/// Runs `wharf stop`. All are asked to end before any is waited for.
pub(crate) fn stop(global: &Global, args: &Stop) -> Outcome {
    let processes: Vec<Process> =
        args.names.iter().map(|name| process_of(global, name)).collect::<Result<_, _>>()?;
    for process in &processes {
        signal(process, Signal::TERM)?;
    }
    let client = global.client();
    for (name, process) in args.names.iter().zip(&processes) {
        if !process.ended_within(Duration::from_secs(u64::from(args.time)))? {
            signal(process, Signal::KILL)?;
            process.ended_within(Duration::from_secs(5))?;
        }
        forget(&client, name);
        if args.names.len() > 1 {
            line(name)?;
        }
    }
    Ok(0)
}

/// The daemon sees the namespace end by itself; but "stopped" should mean that the name is free.
fn forget(client: &Client, name: &str) {
    for endpoint in client.endpoint(name).unwrap_or_default() {
        if running(&endpoint).is_err() {
            let _ = client.detach(&endpoint.id, None);
        }
    }
}

/// The running process that a container was attached with.
pub(crate) fn process_of(global: &Global, name: &str) -> Result<Process, Failure> {
    let endpoints = global.client().endpoint(name)?;
    let Some(endpoint) = endpoints.first() else {
        return Err(Failure::new(format!("there is no container `{name}`")).hint("see `wharf ps`"));
    };
    running(endpoint)
}

/// Process numbers are given out anew, so the namespace must be the one that was attached.
fn running(endpoint: &EndpointInfo) -> Result<Process, Failure> {
    let name = &endpoint.name;
    let Some(pid) = endpoint.pid else {
        let what = format!("{name} was attached by its namespace, so its process is not known");
        return Err(Failure::new(what).hint("`nsenter --net=PATH` enters a namespace"));
    };
    let ended = || Failure::new(format!("the process of {name} ({pid}) has ended"));
    let process = Process::open(pid).map_err(|_| ended())?;
    let Some(expected) = endpoint.netns else { return Ok(process) };
    let found = NetNs::of_pid(pid)
        .map_err(|error| Failure::new(error).hint("be root, or the user who started it"))?
        .id()?;
    if (found.dev, found.ino) == (expected.dev, expected.ino) { Ok(process) } else { Err(ended()) }
}

/// Who has ended meanwhile need not be told.
fn signal(process: &Process, signal: Signal) -> Result<(), Failure> {
    match process.signal(signal) {
        Err(error) if error.raw_os_error() != Some(Errno::SRCH.raw_os_error()) => {
            Err(Failure::new(format!("cannot stop process {}: {error}", process.pid()))
                .hint("be root, or the user who started it"))
        }
        _ => Ok(()),
    }
}
