//! Layer 12: the command line. One file a command or a family of small ones; this one has the list
//! of them and nothing else. A command parses into a value, asks the daemon through
//! [`crate::api::client`], and prints with
//! `output`.

mod attach;
mod capture;
mod cni;
mod cni_install;
mod daemon;
mod demo;
mod docker_plugin;
mod doctor;
mod dropin;
mod events;
mod exec;
mod flows;

mod generate;
mod holder;
mod human;
mod join;
mod names;
mod network;
mod node;
mod options;
mod output;
mod policy;
mod ps;
mod publish;
mod run;
mod service;
mod stats;
mod status;
mod tables;
mod trace;
mod uplink;

use clap::{Parser, Subcommand};

use options::{Format, Global};
use output::Outcome;

/// A userspace virtual switch and router for containers.
#[derive(Parser, Debug)]
#[command(
    name = "wharf",
    version,
    about = "A userspace virtual switch and router for containers",
    disable_help_subcommand = true,
    arg_required_else_help = true,
    propagate_version = false,
    max_term_width = 100
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the switch
    Daemon(daemon::Daemon),
    /// Run a command on networks of its own
    Run(run::Run),
    /// Run a command in a container
    Exec(exec::Exec),
    /// End containers: SIGTERM, and SIGKILL after a while
    Stop(exec::Stop),
    /// Connect a network namespace that others made
    Attach(attach::Attach),
    /// Take a container off its networks
    Detach(attach::Detach),
    /// List containers and their endpoints
    Ps(ps::Ps),
    /// Show containers in full, as JSON
    Inspect(ps::Inspect),
    /// Make, change, list and remove networks
    #[command(subcommand, visible_alias = "networks")]
    Network(network::Command),
    /// Make, list and remove ways out of the switch
    #[command(subcommand, visible_alias = "uplinks")]
    Uplink(uplink::Command),
    /// List, show and remove the nodes of the cluster
    #[command(subcommand, visible_alias = "nodes")]
    Node(node::Command),
    /// Publish ports of a container on the host's addresses
    Publish(publish::Publish),
    /// Take published ports back
    Unpublish(publish::Publish),
    /// List published ports
    #[command(visible_alias = "ports")]
    Port(publish::Port),
    /// Make, change, list and remove services: an address and a name for several backends
    #[command(subcommand, visible_alias = "services")]
    Service(service::Command),
    /// Apply, list, test and remove policies: who may reach whom
    #[command(subcommand, visible_alias = "policies")]
    Policy(policy::Command),
    /// List the connections the switch tracks, or forget them
    Flows(flows::Flows),
    /// List MAC addresses and where they are
    Fdb(Format),
    /// List neighbours: addresses and their MACs
    Neigh(Format),
    /// List routes
    Routes(Format),
    /// Show counters of ports or workers
    Stats(stats::Stats),
    /// Show what happened, or follow what happens
    Events(events::Events),
    /// Copy frames as they pass: for Wireshark, or a line for each
    Capture(capture::Capture),
    /// Show which way a packet would go, and why it would be dropped
    Trace(trace::Trace),
    /// Show how the daemon is
    Status(Format),
    /// Show what this kernel and this user can do, and what that means
    Doctor(Format),
    /// Show the whole switch at work, in a world of its own
    Demo(demo::Demo),
    /// Serve a namespace as slirp4netns does, with its options; also when called by that name
    #[command(name = "slirp4netns", disable_help_flag = true)]
    Slirp(dropin::Words),
    /// Serve a namespace as pasta does, with its options; also when called by that name
    #[command(disable_help_flag = true)]
    Pasta(dropin::Words),
    /// Serve Docker's networks of the driver `wharf`
    DockerPlugin(docker_plugin::DockerPlugin),
    /// Be found by container runtimes as a CNI plugin
    #[command(subcommand)]
    Cni(cni_install::Command),
    /// Keep containers' interfaces while there is no daemon; started by it
    Holder(holder::Holder),
    /// Print a completion script
    Completions(generate::Completions),
    /// Write manual pages
    Man(generate::Man),
    /// Print the version
    Version,
}

/// Parses the arguments, runs the command and gives the exit code. Usage errors, `--help` and
/// `--version` are clap's own: it prints and exits with 2 or 0.
pub fn main() -> u8 {
    let words: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    // First of all: it runs once for every container.
    if let Some(code) = cni::serve(&words) {
        return code;
    }
    // Before our own parser, whose global options are not theirs.
    if let Some((role, arguments)) = dropin::Role::of_line(&words) {
        return role.run(arguments);
    }
    let mut cli = Cli::parse();
    cli.global.settle();
    match dispatch(cli) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn dispatch(cli: Cli) -> Outcome {
    let global = &cli.global;
    match cli.command {
        Command::Daemon(args) => daemon::run(global, &args),
        Command::Run(args) => run::run(global, &args),
        Command::Exec(args) => exec::exec(global, &args),
        Command::Stop(args) => exec::stop(global, &args),
        Command::Attach(args) => attach::attach(global, &args),
        Command::Detach(args) => attach::detach(global, &args),
        Command::Ps(args) => ps::ps(global, args),
        Command::Inspect(args) => ps::inspect(global, &args),
        Command::Network(command) => network::run(global, command),
        Command::Uplink(command) => uplink::run(global, command),
        Command::Node(command) => node::run(global, command),
        Command::Publish(args) => publish::publish(global, args),
        Command::Unpublish(args) => publish::unpublish(global, &args),
        Command::Port(args) => publish::port(global, &args),
        Command::Service(command) => service::run(global, command),
        Command::Policy(command) => policy::run(global, command),
        Command::Flows(args) => flows::run(global, args),
        Command::Fdb(format) => tables::fdb(global, format),
        Command::Neigh(format) => tables::neigh(global, format),
        Command::Routes(format) => tables::routes(global, format),
        Command::Stats(args) => stats::run(global, &args),
        Command::Events(args) => events::run(global, &args),
        Command::Capture(args) => capture::run(global, &args),
        Command::Trace(args) => trace::run(global, args),
        Command::Status(format) => status::run(global, format),
        Command::Doctor(format) => doctor::run(global, format),
        Command::Demo(args) => demo::run(global, &args),
        Command::Slirp(words) => Ok(dropin::Role::Slirp.run(&words.words)),
        Command::Pasta(words) => Ok(dropin::Role::Pasta.run(&words.words)),
        Command::DockerPlugin(args) => docker_plugin::run(global, &args),
        Command::Cni(command) => cni_install::run(global, &command),
        Command::Holder(args) => holder::run(global, &args),
        Command::Completions(args) => generate::completions(&args),
        Command::Man(args) => generate::man(global, &args),
        Command::Version => generate::version(global),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_contradict_nothing() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_option_says_what_it_is() {
        fn check(command: &clap::Command, path: &str) {
            assert!(command.get_about().is_some(), "{path} says nothing about itself");
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{path}: {} has no help", arg.get_id());
            }
            for sub in command.get_subcommands() {
                check(sub, &format!("{path} {}", sub.get_name()));
            }
        }
        let mut command = Cli::command();
        command.build();
        check(&command, "wharf");
    }
}
