//! `slirp4netns`: serves a namespace that is there, until the caller goes.

use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::api::Api;
use super::ends::{self, Ends};
use super::inherited;
use super::slirp_options::{self, Asked, DNS_V6, GATEWAY_V6, HELP, PREFIX_V6, Slirp, Target};
use super::switch::{self, GUEST, Instead, Plan};
use crate::attach::client::Manner;
use crate::attach::protocol::AttachRequest;
use crate::cli::daemon::log::{self, LogFormat};
use crate::cli::options::DEFAULT_NETWORK;
use crate::cli::output::{Failure, Outcome, line};
use crate::config::{Guise, Stands};
use crate::io::netns::NetNs;
use crate::io::process::SignalFd;
use crate::io::sandbox;

/// The version whose behaviour this is.
const LIKE: &str = "1.3.1";

/// Runs it.
pub(super) fn run(words: &[String]) -> Outcome {
    match slirp_options::read(words) {
        Ok(Asked::Help) => line(HELP.trim_end()).map(|()| 0),
        Ok(Asked::Version) => {
            line(&format!("slirp4netns version {LIKE}+wharf{}", env!("CARGO_PKG_VERSION")))?;
            Ok(0)
        }
        Ok(Asked::Serve(slirp)) => serve(&slirp),
        Err(why) => {
            eprintln!("slirp4netns: {why}");
            line(HELP.trim_end())?;
            Ok(1)
        }
    }
}

fn serve(slirp: &Slirp) -> Outcome {
    let take = |fd: Option<i32>, option| fd.map(|fd| inherited(fd, option)).transpose();
    let exit_fd = take(slirp.exit_fd, "--exit-fd")?;
    let ready_fd = take(slirp.ready_fd, "--ready-fd")?;
    let signals = SignalFd::new(&ends::SIGNALS)?;
    log::start(LogFormat::Text, 0, true);
    let api = slirp.api_socket.as_deref().map(Api::bind).transpose()?;
    tell(slirp)?;

    let ends = Ends::new();
    let ns = NetNs::open(&path_of(&slirp.target))?;
    let own = api.as_ref().and_then(Api::directory);
    let confine = || confine(slirp, own);
    let switch = switch::serve_namespace(&plan(slirp), &ns, &ends.sender(), confine)?;
    // It would keep the namespace alive.
    drop(ns);
    let socket = api.map(|api| api.serve(switch.clone(), slirp.guest())).transpose()?;
    ends.at_signal(signals)?;
    if let Some(fd) = exit_fd {
        ends.at_close_of(fd)?;
    }
    ready(ready_fd);
    let outcome = ends.wait(false);
    drop(socket);
    outcome
}

/// Gives up what the caller wants given up. Where the kernel cannot, the caller is told, as he is by the
/// original, which makes do with less as well.
fn confine(slirp: &Slirp, own: Option<&Path>) -> Result<(), Failure> {
    if slirp.sandbox {
        sandbox::give_up_capabilities()?;
        match sandbox::give_up_files(own) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                eprintln!(
                    "WARNING: --enable-sandbox: the kernel has no Landlock, so files stay in reach"
                );
            }
            other => other?,
        }
    }
    if slirp.seccomp {
        sandbox::give_up_system_calls()?;
    }
    Ok(())
}

/// Tells who waits for it. He may have gone; then the end is not far.
fn ready(fd: Option<OwnedFd>) {
    if let Some(fd) = fd {
        let _ = std::fs::File::from(fd).write_all(b"1");
    }
}

fn path_of(target: &Target) -> PathBuf {
    match target {
        Target::Pid(pid) => format!("/proc/{pid}/ns/net").into(),
        Target::Path(path) => path.clone(),
    }
}

/// What the original says at its start.
fn tell(slirp: &Slirp) -> Result<(), Failure> {
    line("Starting slirp")?;
    line(&format!("* MTU:             {}", slirp.mtu))?;
    line(&format!("* Network:         {}", slirp.cidr.network()))?;
    line(&format!("* Netmask:         {}", slirp.cidr.netmask()))?;
    line(&format!("* Gateway:         {}", slirp.gateway()))?;
    line(&format!("* DNS:             {}", slirp.name_server()))?;
    line(&format!("* Recommended IP:  {}", slirp.guest()))?;
    if let Some(path) = &slirp.api_socket {
        line(&format!("* API Socket:      {}", path.display()))?;
    }
    if slirp.host_loopback {
        line(&format!(
            "WARNING: 127.0.0.1:* on the host is accessible as {} (set --disable-host-loopback to prohibit \
             connecting to 127.0.0.1:*)",
            slirp.gateway()
        ))?;
    }
    Ok(())
}

fn plan(slirp: &Slirp) -> Plan {
    let mut subnets = vec![slirp.cidr.into()];
    let mut gateways: Vec<IpAddr> = vec![slirp.gateway().into()];
    let mut name_servers: Vec<IpAddr> = vec![slirp.name_server().into()];
    let mut request = AttachRequest::new(DEFAULT_NETWORK, &slirp.tap);
    request.name = Some(GUEST.to_owned());
    request.ip = Some(slirp.guest());
    request.mac = slirp.mac;
    if slirp.ipv6 {
        subnets.push(PREFIX_V6.into());
        gateways.push(GATEWAY_V6.into());
        name_servers.push(DNS_V6.into());
    }
    if !slirp.dns {
        name_servers.clear();
    }
    let guest = ipnet::Ipv4Net::new(slirp.guest(), slirp.cidr.prefix_len());
    Plan {
        network: crate::control::model::NetworkSpec {
            host_loopback: slirp.host_loopback,
            ..switch::network(subnets, gateways, slirp.mtu)
        },
        guise: Guise {
            also: name_servers.into_iter().map(|addr| (addr.into(), Stands::NameServer)).collect(),
            transparent: false,
            advertises: slirp.ipv6,
            without: Vec::new(),
        },
        resolvers: Vec::new(),
        request,
        manner: match (slirp.configure, slirp.ipv6) {
            (false, _) => Manner::Bare,
            (true, true) => Manner::Autoconfigured,
            (true, false) => Manner::Whole,
        },
        // IPv6's are the container's own doing.
        instead: Instead {
            addresses: Some(guest.into_iter().map(Into::into).collect()),
            gateways: Some(vec![slirp.gateway().into()]),
        },
        loopback: slirp.configure,
    }
}
