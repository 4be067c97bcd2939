//! `wharf run`: a command on networks of its own.
//!
//! The command is forked into new namespaces by [`process::spawn`]. Before it starts, the child
//! attaches its own namespace to the daemon, and what came of that travels back to the parent. So
//! whatever fails, fails before the command has run, and takes its namespace with it.
//!
//! The parent stays in the command's process group: the terminal's keys reach the command directly,
//! and other signals are passed on.

use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::Args;

use super::join::{Join, Joined};
use super::options::{EndpointOptions, Global, NetworkMode, Plan};
use super::output::{Failure, Outcome};
use crate::io::netns::NetNs;
use crate::io::process::{
    self, Child, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_OURS, Isolation, Network, SignalFd,
    SpawnError, overlay_file, prepare_network,
};

/// `wharf run`
#[derive(Args, Debug)]
#[command(
    after_help = "The exit status is the command's own; 125 when Wharf failed, 126 when the \
                        command cannot be executed, 127 when there is no such command."
)]
pub(crate) struct Run {
    /// Name of the container; chosen if none is given
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// NAME, host, none, or container:NAME; may be repeated for several networks
    #[arg(long = "network", value_name = "NETWORK")]
    networks: Vec<NetworkMode>,
    #[command(flatten)]
    endpoint: EndpointOptions,
    /// Name server of the container instead of the network's; may be repeated
    #[arg(long, value_name = "ADDR")]
    dns: Vec<IpAddr>,
    /// Return when the network is ready, and print the name
    ///
    /// The command keeps running without a terminal; what it writes goes nowhere unless it redirects
    /// it itself.
    #[arg(long, short)]
    detach: bool,
    /// Connect a running process's namespace instead of starting a command, and print the name
    #[arg(
        long,
        value_name = "PID",
        conflicts_with_all = ["detach", "dns", "command"],
        required_unless_present = "command"
    )]
    pid: Option<u32>,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs `wharf run`.
pub(crate) fn run(global: &Global, args: &Run) -> Outcome {
    let plan = Plan::of(&args.networks)?;
    check(args, &plan)?;
    if let (Some(pid), Plan::Networks(networks)) = (args.pid, &plan) {
        let join = args.join(global, networks, Some(pid));
        return super::attach::attach_process(global, &join, pid).map_err(ours);
    }
    match plan {
        Plan::Host => run_on_host(args),
        Plan::None => supervise(global, args, Network::New, || {
            prepare_network().map_err(text)?;
            let mut joined = Joined::default();
            joined.warnings.extend(write_resolver(&args.dns, &[]));
            Ok(joined)
        }),
        Plan::Container(name) => {
            let pid = super::exec::process_of(global, &name).map_err(ours)?.pid();
            supervise(global, args, Network::Of(pid), || Ok(Joined::default()))
        }
        Plan::Networks(networks) => {
            super::daemon::ensure(global).map_err(ours)?;
            supervise(global, args, Network::New, || {
                prepare_network().map_err(text)?;
                let own = NetNs::current().map_err(text)?;
                let mut joined = Joined::default();
                let join = args.join(global, &networks, Some(std::process::id()));
                join.attach(&own, &mut joined).map_err(text)?;
                let dns = if args.dns.is_empty() { &joined.dns } else { &args.dns };
                joined.warnings.extend(write_resolver(dns, &joined.search));
                Ok(joined)
            })
        }
    }
}

impl Run {
    fn join<'a>(&'a self, global: &Global, networks: &'a [String], pid: Option<u32>) -> Join<'a> {
        Join {
            socket: global.runtime_dir().attach_socket(),
            name: self.name.as_deref(),
            networks,
            ifname: "eth0",
            options: &self.endpoint,
            pid,
        }
    }

    fn command(&self) -> Command {
        let (program, arguments) = match self.command.split_first() {
            Some((program, arguments)) => (program.as_str(), arguments),
            // The parser demands one, unless `--pid` is given.
            None => ("", &[][..]),
        };
        let mut command = Command::new(program);
        command.args(arguments);
        command
    }
}

/// What only makes sense on a network of ours.
fn check(args: &Run, plan: &Plan) -> Result<(), Failure> {
    if matches!(plan, Plan::Networks(_)) {
        return Ok(());
    }
    let given = [
        (args.name.is_some(), "--name"),
        (args.pid.is_some(), "--pid"),
        (!args.dns.is_empty() && *plan != Plan::None, "--dns"),
    ];
    let option = given.into_iter().find(|(given, _)| *given).map(|(_, name)| name);
    match option.or(args.endpoint.first_wish()) {
        None => Ok(()),
        Some(option) => Err(Failure::usage(format!("{option} needs a network of Wharf's own"))
            .hint("leave it out, or name a network with --network")),
    }
}

/// Without namespaces there is nothing to look after: the command takes our place.
fn run_on_host(args: &Run) -> Outcome {
    if args.detach {
        let mut command = args.command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let isolation =
            Isolation { network: Network::Host, die_with_parent: false, new_session: true };
        process::spawn(&mut command, isolation, || Ok(Vec::new())).map_err(spawn_failure)?;
        return Ok(0);
    }
    let mut command = args.command();
    let program = command.get_program().to_string_lossy().into_owned();
    let source = command.exec();
    Err(spawn_failure(match source.kind() {
        std::io::ErrorKind::NotFound => SpawnError::NotFound { program },
        _ => SpawnError::NotExecutable { program, source },
    }))
}

/// Starts the command in its namespaces and waits for it, or returns when it is on its way.
fn supervise(
    global: &Global,
    args: &Run,
    network: Network,
    prepare: impl FnOnce() -> Result<Joined, String>,
) -> Outcome {
    // Before anything else, so that a signal in between is not lost. The command starts without it.
    let signals = SignalFd::new(&SignalFd::FORWARDED).map_err(|error| ours(error.into()))?;
    let mut command = args.command();
    if args.detach {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    }
    let isolation = Isolation { network, die_with_parent: !args.detach, new_session: args.detach };
    let child = process::spawn(&mut command, isolation, || {
        prepare().and_then(|joined| serde_json::to_vec(&joined).map_err(text))
    })
    .map_err(spawn_failure)?;
    let joined: Joined = serde_json::from_slice(&child.report).map_err(|e| ours(e.into()))?;
    joined.tell(global);
    if args.detach {
        if joined.endpoints.is_empty() {
            super::output::line(&child.process().pid().to_string())?;
        } else {
            joined.print_name()?;
        }
        return Ok(0);
    }
    let code = wait(&child, &signals);
    joined.undo(global);
    code
}

/// Waits for the command: its exit code, or 128 and the signal that ended it.
pub(super) fn wait(child: &Child, signals: &SignalFd) -> Outcome {
    let code = child.wait_forwarding(signals).map_err(|error| ours(error.into()))?;
    Ok(u8::try_from(code).unwrap_or(EXIT_OURS as u8))
}

/// Makes the container ask these name servers. One without a usable `/etc/resolv.conf` works all the
/// same, but for names.
fn write_resolver(dns: &[IpAddr], search: &[String]) -> Option<String> {
    if dns.is_empty() {
        return None;
    }
    let content = resolver(dns, search);
    overlay_file(Path::new("/etc/resolv.conf"), content.as_bytes()).err().map(|e| e.to_string())
}

/// `resolv.conf(5)`. Names without a dot are containers' before they are anything in a search domain.
fn resolver(dns: &[IpAddr], search: &[String]) -> String {
    let search =
        (!search.is_empty()).then(|| format!("search {}\noptions ndots:0\n", search.join(" ")));
    let servers = dns.iter().map(|server| format!("nameserver {server}\n"));
    search.into_iter().chain(servers).collect()
}

/// Docker's exit code for a failure that is not the command's.
pub(super) fn ours(failure: Failure) -> Failure {
    failure.exit(EXIT_OURS as u8)
}

/// Docker's exit codes for a command that did not start.
#[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(super) fn spawn_failure(error: SpawnError) -> Failure {
    let failure = Failure::new(&error).exit(error.exit_code() as u8);
    match error.exit_code() {
        EXIT_NOT_FOUND => failure.hint("is it installed, and in PATH?"),
        EXIT_NOT_EXECUTABLE => failure.hint("is it executable, and made for this machine?"),
        _ => failure,
    }
}

fn text(error: impl std::error::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }

    fn parse(words: &[&str]) -> Result<Run, clap::Error> {
        Line::try_parse_from(["run"].iter().chain(words)).map(|line| line.run)
    }

    #[test]
    fn options_after_the_command_are_the_command_s() {
        let run = parse(&["--name", "web", "curl", "-p", "80", "--name", "x"]).unwrap();
        assert_eq!(run.name.as_deref(), Some("web"));
        assert!(run.endpoint.publish.is_empty());
        assert_eq!(run.command, ["curl", "-p", "80", "--name", "x"]);
        let run = parse(&["-p", "8080:80", "--", "--odd"]).unwrap();
        assert_eq!(run.command, ["--odd"]);
    }

    #[test]
    fn either_a_command_or_a_process_is_needed() {
        assert!(parse(&[]).is_err());
        assert!(parse(&["--pid", "7"]).is_ok());
        assert!(parse(&["--pid", "7", "ls"]).is_err());
        assert!(parse(&["--pid", "7", "--detach"]).is_err());
    }

    #[test]
    fn wishes_for_a_network_of_ours_need_one() {
        for words in [
            &["--network", "host", "-p", "80", "ls"][..],
            &["--network", "none", "--name", "x", "ls"],
            &["--network", "container:web", "--dns", "9.9.9.9", "ls"],
            &["--network", "none", "--ip", "10.0.0.2", "ls"],
        ] {
            let run = parse(words).unwrap();
            let plan = Plan::of(&run.networks).unwrap();
            assert_eq!(check(&run, &plan).unwrap_err().exit, 2, "{words:?}");
        }
        let run = parse(&["--network", "none", "--dns", "9.9.9.9", "ls"]).unwrap();
        assert!(check(&run, &Plan::None).is_ok());
    }

    #[test]
    fn the_resolver_s_file_names_servers_of_both_families() {
        let dns = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let text = resolver(&dns, &["blue".to_owned(), "wharf".to_owned()]);
        assert_eq!(
            text,
            "search blue wharf\noptions ndots:0\nnameserver 10.0.0.1\nnameserver fd00::1\n"
        );
    }
}
