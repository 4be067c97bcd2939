//! `wharf attach` and `wharf detach`: network namespaces that others made.

use std::path::PathBuf;

use clap::Args;

use super::join::{Join, Joined};
use super::options::{DEFAULT_NETWORK, EndpointOptions, Global};
use super::output::{Failure, Outcome};
use crate::io::netns::{NetNs, NetNsError};
use crate::io::process::{may_make_namespaces, run_as_owner_of};

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
    let target = NetNs::open(&args.netns).map_err(|error| match error {
        NetNsError::Open { .. } => Failure::new(error).hint(
            "name a file such as /run/netns/NAME (`ip netns` lists them) or /proc/PID/ns/net",
        ),
        other => Failure::new(other),
    })?;
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
    let joined = if may_make_namespaces() {
        attach_all(global, join, target).map_err(Failure::new)?
    } else {
        // An ordinary user is root in the user namespace that the target belongs to.
        let report = run_as_owner_of(target, || {
            let joined = attach_all(global, join, target)?;
            serde_json::to_vec(&joined).map_err(|error| error.to_string())
        });
        serde_json::from_slice(&report?)?
    };
    joined.tell(global);
    joined.print_name()?;
    Ok(0)
}

/// All networks or none.
fn attach_all(global: &Global, join: &Join<'_>, target: &NetNs) -> Result<Joined, String> {
    let mut joined = Joined::default();
    match join.attach(target, &mut joined) {
        Ok(()) => Ok(joined),
        Err(error) => {
            joined.undo(global);
            Err(error.to_string())
        }
    }
}
