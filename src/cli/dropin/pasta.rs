//! `pasta`: a namespace that believes to be on the host's own LAN, with the host's address.

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use ipnet::IpNet;

use super::auto;
use super::ends::{self, Ends};
use super::pasta_options::{self, Asked, HELP, Mapped, Pasta, Target};
use super::ports;
use super::switch::{self, GUEST, Instead, Plan, Switch};
use super::template::{self, Template};
use super::user::{self, User};
use crate::attach::client::Manner;
use crate::attach::protocol::AttachRequest;
use crate::cli::daemon::log::{self, LogFormat};
use crate::cli::options::DEFAULT_NETWORK;
use crate::cli::output::{Failure, Outcome, line};
use crate::cli::run;
use crate::config::{Guise, Stands};
use crate::control::model::Proto;
use crate::io::netns::NetNs;
use crate::io::process::{SignalFd, into_background};
use crate::io::sandbox;
use crate::wire::addr::Addr;
use crate::wire::ipv6;

/// The interface's name where the host has none to copy.
const IFNAME: &str = "tap0";

/// Runs it.
pub(super) fn run(words: &[String]) -> Outcome {
    match pasta_options::read(words) {
        Ok(Asked::Help) => line(HELP.trim_end()).map(|()| 0),
        Ok(Asked::Version) => {
            line(&format!("pasta of wharf {}", env!("CARGO_PKG_VERSION")))?;
            Ok(0)
        }
        Ok(Asked::Serve(pasta)) => serve(&pasta),
        Err(why) => Err(Failure::new(why).hint("`pasta --help` lists the options")),
    }
}

fn serve(pasta: &Pasta) -> Outcome {
    for warning in pasta.warnings.iter().filter(|_| !pasta.quiet) {
        eprintln!("{warning}");
    }
    let open = |path: &PathBuf| {
        let failed = |error| Failure::new(format!("cannot write {}: {error}", path.display()));
        File::create(path).map_err(failed)
    };
    let pid_file = pasta.pid_file.as_ref().map(open).transpose()?;
    let log_file = pasta.log_file.as_ref().map(open).transpose()?;
    let user = user::wanted(pasta.runas.as_deref())?;
    let templates = template::find(pasta.interface.as_deref())?;
    let plan = plan(pasta, &templates)?;
    let path = match &pasta.target {
        Target::Command(words) => return run_command(pasta, &plan, words, pid_file),
        Target::Pid(pid) => format!("/proc/{pid}/ns/net").into(),
        Target::Path(path) => path.clone(),
    };
    let background = if pasta.foreground { None } else { Some(into_background()?) };
    let signals = SignalFd::new(&ends::SIGNALS)?;
    start_log(pasta);

    let ends = Ends::new();
    let ns = NetNs::open(&path)?;
    let become_user = || user.map_or(Ok(()), confine);
    let switch = switch::serve_namespace(&plan, &ns, &ends.sender(), become_user)?;
    // It would keep the namespace alive.
    drop(ns);
    forward(pasta, &switch)?;
    ends.at_signal(signals)?;
    write_pid(pid_file)?;
    background.map_or(Ok(()), |background| background.ready(log_file.as_ref()))?;
    ends.wait(pasta.stay)
}

/// A command in a namespace of its own. It leaves the terminal to the command, and ends with it.
fn run_command(pasta: &Pasta, plan: &Plan, words: &[String], pid_file: Option<File>) -> Outcome {
    let signals = SignalFd::new(&SignalFd::FORWARDED)?;
    start_log(pasta);
    let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
    let mut command = match words.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        }
        None => Command::new(shell),
    };
    let ends = Ends::new();
    let (switch, child) = switch::serve_command(plan, &mut command, &ends.sender())?;
    let of_command = Pasta { target: Target::Pid(child.process().pid()), ..pasta.clone() };
    forward(&of_command, &switch)?;
    write_pid(pid_file)?;
    run::wait(&child, &signals)
}

fn start_log(pasta: &Pasta) {
    log::start(LogFormat::Text, u8::from(pasta.debug), !pasta.debug);
}

fn write_pid(file: Option<File>) -> Result<(), Failure> {
    if let Some(mut file) = file {
        writeln!(file, "{}", std::process::id())?;
    }
    Ok(())
}

/// As root: nobody, but for what low ports and pings take.
fn confine(user: User) -> Result<(), Failure> {
    sandbox::become_user(user.uid, user.gid)?;
    Ok(sandbox::give_up_capabilities()?)
}

/// Publishes what shall be reachable from the host's side.
fn forward(pasta: &Pasta, switch: &Switch) -> Result<(), Failure> {
    let mut followed = Vec::new();
    for (proto, forward) in [(Proto::Tcp, &pasta.tcp), (Proto::Udp, &pasta.udp)] {
        if ports::publish(switch, proto, forward)? {
            followed.push(proto);
        }
    }
    match pasta.target {
        _ if followed.is_empty() => Ok(()),
        Target::Pid(pid) => auto::follow(switch.clone(), pid, followed),
        Target::Path(_) | Target::Command(_) => {
            // A file says nothing about what is listened for behind it.
            if !pasta.quiet {
                eprintln!(
                    "ports are not followed where --netns names a file: give them with -t and -u"
                );
            }
            Ok(())
        }
    }
}

/// One family of the namespace's interface.
struct Own {
    address: IpNet,
    gateway: Option<IpAddr>,
}

fn own(pasta: &Pasta, templates: &[Option<Template>; 2], at: usize) -> Option<Own> {
    if !pasta.families[at] {
        return None;
    }
    let template = templates[at].as_ref();
    let address = match pasta.address[at] {
        Some((addr, len)) => {
            let same = template.filter(|template| template.address.addr() == addr);
            let len = len.or(same.map(|template| template.address.prefix_len()));
            IpNet::new(addr, len.unwrap_or_else(|| template::default_len(addr))).ok()?
        }
        None => template?.address,
    };
    let gateway = pasta.gateway[at].or(template.and_then(|template| template.gateway));
    Some(Own { address, gateway })
}

fn plan(pasta: &Pasta, templates: &[Option<Template>; 2]) -> Result<Plan, Failure> {
    let families: Vec<Own> = (0..2).filter_map(|at| own(pasta, templates, at)).collect();
    if families.is_empty() {
        let what = "the host has no default route whose addresses could be used";
        return Err(Failure::new(what).hint("give some with --address and --gateway"));
    }
    let nets: Vec<_> =
        families.iter().map(|own| template::subnet(own.address, own.gateway)).collect();
    let named = templates.iter().flatten().next().map(|template| template.ifname.as_str());
    let ifname = pasta.ifname.as_deref().or(named).unwrap_or(IFNAME);
    let mut request = AttachRequest::new(DEFAULT_NETWORK, ifname);
    request.name = Some(GUEST.to_owned());
    request.mac = pasta.mac;
    for own in &families {
        match own.address.addr() {
            IpAddr::V4(addr) => request.ip = Some(addr),
            IpAddr::V6(addr) => request.ip6 = Some(addr),
        }
    }
    let (subnets, nominal): (Vec<_>, Vec<_>) = nets.into_iter().unzip();
    let routers = families.iter().zip(&nominal);
    let instead = Instead {
        addresses: Some(families.iter().map(|own| own.address).collect()),
        gateways: Some(routers.map(|(own, nominal)| own.gateway.unwrap_or(*nominal)).collect()),
    };
    let v6 = families.iter().any(|own| own.address.addr().is_ipv6());
    Ok(Plan {
        network: switch::network(subnets, nominal, pasta.mtu),
        guise: Guise {
            also: stand_ins(pasta, templates, instead.gateways.as_deref().unwrap_or_default()),
            transparent: true,
            advertises: v6 && !pasta.configure,
            without: without(pasta),
        },
        resolvers: pasta.dns.clone(),
        request,
        manner: if pasta.configure { Manner::Whole } else { Manner::Bare },
        instead,
        loopback: true,
    })
}

/// Addresses that stand for something on the host.
fn stand_ins(
    pasta: &Pasta,
    templates: &[Option<Template>; 2],
    gateways: &[IpAddr],
) -> Vec<(Addr, Stands)> {
    let loopback = |addr: IpAddr| {
        Stands::Host(if addr.is_ipv4() { Addr::LOOPBACK_V4 } else { Addr::LOOPBACK_V6 })
    };
    let names = pasta.dns_forward.iter().map(|addr| ((*addr).into(), Stands::NameServer));
    let mut all: Vec<(Addr, Stands)> = names.collect();
    match pasta.host_loopback {
        Mapped::Nothing => {}
        Mapped::Default => {
            all.extend(gateways.iter().map(|addr| ((*addr).into(), loopback(*addr))));
        }
        Mapped::At(addrs) => {
            all.extend(addrs.into_iter().flatten().map(|addr| (addr.into(), loopback(addr))));
        }
    }
    if let Mapped::At(addrs) = pasta.host_address {
        for (addr, template) in addrs.into_iter().zip(templates) {
            let own = template.as_ref().map(|template| template.address.addr());
            all.extend(addr.zip(own).map(|(addr, own)| (addr.into(), Stands::Host(own.into()))));
        }
    }
    all
}

fn without(pasta: &Pasta) -> Vec<u8> {
    let all = [
        (pasta.no_tcp, ipv6::TCP),
        (pasta.no_udp, ipv6::UDP),
        (pasta.no_icmp, ipv6::ICMP),
        (pasta.no_icmp, ipv6::ICMPV6),
    ];
    all.into_iter().filter(|(off, _)| *off).map(|(_, proto)| proto).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(line: &str, templates: &[Option<Template>; 2]) -> Result<Plan, Failure> {
        let words: Vec<String> = line.split_whitespace().map(ToOwned::to_owned).collect();
        match pasta_options::read(&words) {
            Ok(Asked::Serve(pasta)) => plan(&pasta, templates),
            other => panic!("{line}: {other:?}"),
        }
    }

    fn host() -> [Option<Template>; 2] {
        let template = |address: &str, gateway: &str| {
            Some(Template {
                ifname: "wlan0".to_owned(),
                address: address.parse().unwrap(),
                gateway: Some(gateway.parse().unwrap()),
            })
        };
        [template("192.0.2.2/24", "192.0.2.1"), template("2001:db8::2/64", "fe80::1")]
    }

    fn texts<T: ToString>(items: Option<Vec<T>>) -> Vec<String> {
        items.into_iter().flatten().map(|item| item.to_string()).collect()
    }

    #[test]
    fn the_host_s_addresses_and_routers_are_copied() {
        let plan = planned("--config-net 7", &host()).unwrap();
        assert_eq!(texts(plan.instead.addresses), ["192.0.2.2/24", "2001:db8::2/64"]);
        assert_eq!(texts(plan.instead.gateways), ["192.0.2.1", "fe80::1"]);
        assert_eq!(plan.request.ifname, "wlan0");
        assert!(plan.guise.transparent && !plan.guise.advertises);
        // Both routers' addresses lead to the host's loopback.
        assert_eq!(plan.guise.also.len(), 2);
        let v4 = planned("--config-net -4 --no-map-gw 7", &host()).unwrap();
        assert_eq!(texts(v4.instead.addresses), ["192.0.2.2/24"]);
        assert!(v4.guise.also.is_empty());
    }

    #[test]
    fn a_host_without_a_way_out_needs_addresses() {
        let failure = planned("--config-net 7", &[None, None]).unwrap_err();
        assert!(failure.hint.unwrap().contains("--address"));
        let line = "--config-net -a 10.0.2.100 -n 24 -g 10.0.2.2 7";
        let plan = planned(line, &[None, None]).unwrap();
        assert_eq!(texts(plan.instead.addresses), ["10.0.2.100/24"]);
        assert_eq!(plan.request.ifname, "tap0");
    }

    #[test]
    fn stand_ins_are_where_they_are_asked_for() {
        let line = "--no-map-gw --dns-forward 169.254.1.1 --map-guest-addr 169.254.1.2 \
                    --map-host-loopback 10.9.9.9 --no-icmp 7";
        let plan = planned(line, &host()).unwrap();
        let addr = |text: &str| text.parse::<Addr>().unwrap();
        assert_eq!(
            plan.guise.also,
            [
                (addr("169.254.1.1"), Stands::NameServer),
                (addr("10.9.9.9"), Stands::Host(Addr::LOOPBACK_V4)),
                (addr("169.254.1.2"), Stands::Host(addr("192.0.2.2"))),
            ]
        );
        assert_eq!(plan.guise.without, [ipv6::ICMP, ipv6::ICMPV6]);
    }
}
