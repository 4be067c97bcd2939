//! The plugin API of netavark, 1.0.0: `create`, `setup NETNS`, `teardown NETNS`, `info`.
//!
//! Podman 4.4 and later start netavark, and that starts a plugin by the name of the network's driver, once
//! for each call: a JSON object on standard input, another on standard output, an error as
//! `{"error": …}`. Where the network has subnets, Podman chooses addresses itself and gives them as
//! `static_ips`; else the daemon does. Names are served by the daemon: netavark starts no name server for
//! a plugin's networks.

mod types;

#[cfg(test)]
mod tests;

use std::io::{Read, Write};
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use self::types::{Exec, Network, SubnetOut};
use super::attaching::{self, Failure, Trouble, Wish};
use crate::api::client::{Client, ClientError};
use crate::api::paths::RuntimeDir;
use crate::attach::protocol::Attached;
use crate::control::model::{ErrorCode, NetworkSpec};
use crate::io::netns::NetNs;

pub use self::types::fuzz_input;

/// The version of the API.
const API_VERSION: &str = "1.0.0";
/// Bytes of a request that are read.
const INPUT_MAX: u64 = 4 * 1024 * 1024;

/// Whether this word is a call of netavark.
pub fn is_call(word: &str) -> bool {
    ["create", "setup", "teardown", "info"].contains(&word)
}

/// Serves a call, `words` being what stands behind the program's name; the exit code.
pub fn serve(
    words: &[String],
    runtime_dir: &RuntimeDir,
    stdin: impl Read,
    mut stdout: impl Write,
) -> u8 {
    let (text, code) = match answer(words, runtime_dir, stdin) {
        Ok(None) => return 0,
        Ok(Some(text)) => (text, 0),
        Err(message) => (json!({ "error": message }).to_string(), 1),
    };
    code | u8::from(writeln!(stdout, "{text}").is_err())
}

fn answer(words: &[String], dir: &RuntimeDir, stdin: impl Read) -> Result<Option<String>, String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] | ["info"] => {
            let version = env!("CARGO_PKG_VERSION");
            Ok(Some(json!({ "version": version, "api_version": API_VERSION }).to_string()))
        }
        ["create"] => create(dir, read(stdin)?).map(Some),
        ["setup", netns] => setup(dir, Path::new(netns), &read(stdin)?).map(Some),
        ["teardown", netns] => teardown(dir, Path::new(netns), &read(stdin)?).map(|()| None),
        _ => Err("the calls are: create, setup NETNS, teardown NETNS, info".to_owned()),
    }
}

fn read<T: serde::de::DeserializeOwned>(stdin: impl Read) -> Result<T, String> {
    let mut input = Vec::new();
    stdin
        .take(INPUT_MAX)
        .read_to_end(&mut input)
        .map_err(|error| format!("cannot read standard input: {error}"))?;
    serde_json::from_slice(&input)
        .map_err(|error| format!("standard input is not what it should be: {error}"))
}

fn in_words<T: Serialize>(value: &T) -> Result<String, String> {
    serde_json::to_string(value).map_err(|error| error.to_string())
}

/// Checks the description and makes the network, whose subnets are then known to Podman. Removing a
/// network is no call of the API, so one of this name that nobody is on is a removed one.
fn create(dir: &RuntimeDir, mut network: Network) -> Result<String, String> {
    let spec = network.spec()?;
    let client = Client::new(dir);
    let made = match client.create_network(&spec) {
        Err(ClientError::Refused(body)) if body.code == ErrorCode::Exists => {
            replace(&client, &spec)
        }
        made => made,
    };
    let made = made.map_err(|error| told(&error))?;
    if network.subnets.as_ref().is_none_or(Vec::is_empty) {
        let subnets = made.subnets.iter();
        network.subnets = Some(subnets.map(|s| types::Subnet::new(s.subnet, s.gateway)).collect());
    }
    network.ipv6_enabled = made.subnets.iter().any(|s| s.subnet.addr().is_ipv6());
    in_words(&network)
}

fn replace(
    client: &Client,
    spec: &NetworkSpec,
) -> Result<crate::control::model::NetworkInfo, ClientError> {
    client.remove_network(&spec.name, false)?;
    client.create_network(spec)
}

fn told(error: &ClientError) -> String {
    match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    }
}

fn setup(dir: &RuntimeDir, netns: &Path, exec: &Exec) -> Result<String, String> {
    let target = NetNs::open(netns).map_err(|error| error.to_string())?;
    let request = exec.request()?;
    let own: String = exec.container_id.chars().take(12).collect();
    let own_name = Some(own).filter(|own| request.name.as_ref() != Some(own));
    let network = Some(exec.network.spec()?);
    let routes = exec.network.routes();
    let amend = |attached: &mut Attached| {
        attached.routes.extend(routes.iter().copied());
    };
    let wish = Wish { dir, target: &target, request, own_name, network };
    let attached = attaching::attach(wish, &amend).map_err(|failure| match failure {
        Failure::Network(error) => told(&error),
        Failure::Attach(Trouble::NameTaken(name)) => {
            format!("the container has an interface `{name}` already")
        }
        Failure::Attach(
            Trouble::Refused(_, text)
            | Trouble::NoDaemon(text)
            | Trouble::Protocol(text)
            | Trouble::Interface(text),
        ) => text,
    })?;
    Ok(status(exec, &attached).to_string())
}

/// What netavark wants to know of the interface.
fn status(exec: &Exec, attached: &Attached) -> serde_json::Value {
    let subnets: Vec<SubnetOut> = attached
        .addresses
        .iter()
        .map(|net| {
            let v6 = net.addr().is_ipv6();
            let gateway = attached.gateways.iter().copied().find(|g| g.is_ipv6() == v6);
            SubnetOut { ipnet: *net, gateway }
        })
        .collect();
    let ifname = &exec.network_options.interface_name;
    let interface = json!({ "mac_address": attached.mac, "subnets": subnets });
    let mut status = json!({ "interfaces": { ifname: interface } });
    if exec.network.dns_enabled {
        status["dns_server_ips"] = json!(attached.dns);
        status["dns_search_domains"] = json!(attached.search);
    }
    status
}

/// May be asked for again and again, and when the namespace is gone.
fn teardown(dir: &RuntimeDir, netns: &Path, exec: &Exec) -> Result<(), String> {
    let ifname = &exec.network_options.interface_name;
    let gone = Client::new(dir)
        .detach_container(&exec.container_id, Some(ifname))
        .map_err(|error| told(&error))?;
    let macs: Vec<String> = gone.iter().map(|endpoint| endpoint.mac.to_string()).collect();
    attaching::remove_interface(netns, ifname, &macs);
    Ok(())
}
