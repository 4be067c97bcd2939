//! `wharf attach` and `wharf detach`: network namespaces that others made.

use std::path::PathBuf;

use clap::Args;

use super::join::{Join, Joined};
use super::options::{DEFAULT_NETWORK, EndpointOptions, Global};
use super::output::{Failure, Outcome};
use crate::attach::client::AttachError;
use crate::io::netns::NetNs;
use crate::io::process::may_make_namespaces;

/// `wharf attach`
#[derive(Args, Debug)]
pub(crate) struct Attach {
    /// File of the network namespace: /run/netns/NAME, /proc/PID/ns/net
    #[arg(long, value_name = "PATH")]
    netns: PathBuf,
    /// Name of the container; chosen if none is given
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Network; may be repeated
    #[arg(long = "network", value_name = "NAME", default_value = DEFAULT_NETWORK)]
    networks: Vec<String>,
    /// Name of the interface inside; further networks count on
    #[arg(long, value_name = "NAME", default_value = "eth0")]
    ifname: String,
    #[command(flatten)]
    endpoint: EndpointOptions,
}

/// `wharf detach`
#[derive(Args, Debug)]
pub(crate) struct Detach {
    /// The container
    name: String,
    /// Only from this network
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
}

/// Runs `wharf attach`.
pub(crate) fn attach(global: &Global, args: &Attach) -> Outcome {
    let target = NetNs::open(&args.netns)?;
    let join = Join {
        socket: global.runtime_dir().attach_socket(),
        name: args.name.as_deref(),
        networks: &args.networks,
        ifname: &args.ifname,
        options: &args.endpoint,
        pid: None,
    };
    join_and_print(global, &join, &target)
}

/// Connects the namespace of a running process (`wharf run --pid`).
pub(super) fn attach_process(global: &Global, join: &Join<'_>, pid: u32) -> Outcome {
    join_and_print(global, join, &NetNs::of_pid(pid)?)
}

/// Runs `wharf detach`.
pub(crate) fn detach(global: &Global, args: &Detach) -> Outcome {
    global.client().detach(&args.name, args.network.as_deref())?;
    Ok(0)
}

fn join_and_print(global: &Global, join: &Join<'_>, target: &NetNs) -> Outcome {
    // Asked before anything is made: the most frequent mistake gets the plainest answer.
    global.client().status()?;
    if !may_make_namespaces() {
        target.enter_owner()?;
    }
    let mut joined = Joined::default();
    if let Err(error) = join.attach(target, &mut joined) {
        joined.undo(global);
        return Err(explain(error));
    }
    joined.tell(global);
    joined.print_name()?;
    Ok(0)
}

fn explain(error: AttachError) -> Failure {
    match error {
        AttachError::Refused(refusal) => Failure::new(refusal.message),
        other => other.into(),
    }
}
