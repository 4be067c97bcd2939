//! Connecting a network namespace to networks: what `run` and `attach` have in common.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::names;
use super::options::{EndpointOptions, Global};
use super::output::line;
use crate::attach::client::{AttachError, Attachment, attach};
use crate::attach::protocol::RefusalCode;
use crate::io::netns::NetNs;

/// How often another random name is tried when one is taken.
const NAME_ATTEMPTS: usize = 5;

/// What is to be connected.
#[derive(Debug)]
pub(crate) struct Join<'a> {
    /// The daemon's attach socket.
    pub(crate) socket: PathBuf,
    /// Name of the container; chosen if none.
    pub(crate) name: Option<&'a str>,
    /// The networks, in the order of their interfaces.
    pub(crate) networks: &'a [String],
    /// Name of the first interface: `eth0`. The next ones count on.
    pub(crate) ifname: &'a str,
    /// What is wished.
    pub(crate) options: &'a EndpointOptions,
    /// A process inside.
    pub(crate) pid: Option<u32>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Joined {
    /// Name of the container.
    pub(crate) name: String,
    /// Identities of its endpoints.
    pub(crate) endpoints: Vec<String>,
    /// Its addresses.
    pub(crate) addresses: Vec<IpNet>,
    /// Its published ports, chosen ones filled in.
    pub(crate) published: Vec<String>,
    /// Name servers for it.
    pub(crate) dns: Vec<IpAddr>,
    /// Domains in which names are looked up.
    pub(crate) search: Vec<String>,
    /// What could not be done and only costs comfort.
    pub(crate) warnings: Vec<String>,
}

impl Join<'_> {
    /// Attaches `target` to each network. If one fails, those before it are attached still:
    /// [`Joined::undo`] takes them back.
    pub(crate) fn attach(&self, target: &NetNs, done: &mut Joined) -> Result<(), AttachError> {
        for (index, network) in self.networks.iter().enumerate() {
            let attachment = if index == 0 {
                self.attach_first(target, network)?
            } else {
                let ifname = nth_interface(self.ifname, index);
                let mut request = self.options.request(network, &ifname, false);
                (request.name, request.pid) = (Some(done.name.clone()), self.pid);
                attach(&self.socket, target, request)?
            };
            done.add(attachment);
        }
        Ok(())
    }

    /// The first network settles the name.
    fn attach_first(&self, target: &NetNs, network: &str) -> Result<Attachment, AttachError> {
        let mut attempts = 0;
        loop {
            let mut request = self.options.request(network, self.ifname, true);
            request.name = Some(self.name.map_or_else(names::random, ToOwned::to_owned));
            request.pid = self.pid;
            attempts += 1;
            match attach(&self.socket, target, request) {
                Err(AttachError::Refused(refusal))
                    if self.name.is_none()
                        && refusal.code == RefusalCode::Conflict
                        && attempts < NAME_ATTEMPTS => {}
                other => return other,
            }
        }
    }
}

impl Joined {
    fn add(&mut self, attachment: Attachment) {
        let Attachment { attached, warnings } = attachment;
        self.name = attached.name;
        self.endpoints.push(attached.endpoint);
        self.addresses.extend(attached.addresses);
        self.published.extend(attached.published);
        for addr in attached.dns {
            push_new(&mut self.dns, addr);
        }
        for domain in attached.search {
            push_new(&mut self.search, domain);
        }
        self.warnings.extend(warnings);
    }

    /// Tells what a person wants to know, on standard error.
    pub(crate) fn tell(&self, global: &Global) {
        for warning in &self.warnings {
            global.note(format_args!("wharf: warning: {warning}"));
        }
        if global.verbose > 0 {
            let addresses = super::human::list(self.addresses.iter().map(IpNet::addr));
            global.note(format_args!("wharf: {} is {addresses}", self.name));
        }
        for published in &self.published {
            global.note(format_args!("wharf: {}: published {published}", self.name));
        }
    }

    /// Prints the name alone, for use in other commands.
    pub(crate) fn print_name(&self) -> Result<(), super::output::Failure> {
        line(&self.name)
    }

    /// Takes the endpoints back, as far as the daemon still has them.
    pub(crate) fn undo(&self, global: &Global) {
        let client = global.client();
        for endpoint in &self.endpoints {
            // The daemon may have seen the namespace's end before us.
            let _ = client.detach(endpoint, None);
        }
    }
}

fn push_new<T: PartialEq>(items: &mut Vec<T>, item: T) {
    if !items.contains(&item) {
        items.push(item);
    }
}

/// `eth0` → `eth1`; a name that does not end in a number gets one.
fn nth_interface(first: &str, index: usize) -> String {
    let stem = first.trim_end_matches(|c: char| c.is_ascii_digit());
    let number: usize = first[stem.len()..].parse().unwrap_or(0);
    format!("{stem}{}", number + index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_interfaces_count_on() {
        assert_eq!(nth_interface("eth0", 1), "eth1");
        assert_eq!(nth_interface("eth9", 2), "eth11");
        assert_eq!(nth_interface("lan", 1), "lan1");
    }

    #[test]
    fn two_networks_with_one_name_server_name_it_once() {
        let mut dns = vec!["10.0.0.1".parse::<IpAddr>().unwrap()];
        push_new(&mut dns, "10.0.0.1".parse().unwrap());
        push_new(&mut dns, "fd00::1".parse().unwrap());
        assert_eq!(dns.len(), 2);
    }
}
