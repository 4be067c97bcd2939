//! `pasta`'s way to say which ports are forwarded: `none`, `auto`, `all`, or
//! `[ADDRESS/]PORT[-PORT][:PORT[-PORT]],…` with exclusions `~PORT[-PORT]`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::control::model::{PortRange, Proto, PublishSpec};

/// What is forwarded of one protocol.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Forward {
    /// Nothing.
    #[default]
    None,
    /// What is listened for at any moment.
    Auto,
    /// Every port that can be had, but for these.
    All {
        /// At this address of the host.
        addr: Option<IpAddr>,
        /// Left out.
        except: BTreeSet<u16>,
    },
    /// These.
    Ports(Vec<Mapping>),
}

/// A port of the host and the port that it leads to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Mapping {
    pub(super) addr: Option<IpAddr>,
    pub(super) from: u16,
    pub(super) to: u16,
}

impl Mapping {
    /// As Wharf publishes it.
    pub(super) fn publication(&self, proto: Proto) -> PublishSpec {
        PublishSpec {
            host_addr: self.addr,
            host_ports: Some(PortRange::single(self.from)),
            ports: PortRange::single(self.to),
            proto,
        }
    }
}

impl Forward {
    /// Reads all specifications of one option, in order.
    pub(super) fn read<'a>(
        specs: impl Iterator<Item = &'a str>,
        default: Self,
    ) -> Result<Self, String> {
        let mut forward = None;
        for spec in specs {
            forward = Some(match (spec, forward) {
                ("none", None) => Self::None,
                ("auto", None) => Self::Auto,
                ("all", None) => Self::All { addr: None, except: BTreeSet::new() },
                ("none" | "auto" | "all", Some(_)) | (_, Some(Self::None | Self::Auto)) => {
                    return Err(format!("`{spec}` contradicts another specification"));
                }
                (list, before) => join(before, read_list(list)?)?,
            });
        }
        Ok(forward.unwrap_or(default))
    }
}

fn join(before: Option<Forward>, next: Forward) -> Result<Forward, String> {
    match (before, next) {
        (None, next) => Ok(next),
        (Some(Forward::Ports(mut all)), Forward::Ports(more)) => {
            all.extend(more);
            Ok(Forward::Ports(all))
        }
        _ => Err("all ports are forwarded already".to_owned()),
    }
}

/// One list. Exclusions alone mean all the others.
fn read_list(text: &str) -> Result<Forward, String> {
    let wrong = || {
        format!(
            "`{text}` is no specification of ports: none, auto, all, or such as 22,80:8080,127.0.0.1/5000-5010,~5005"
        )
    };
    let (addr, list) = match text.rsplit_once('/') {
        Some((addr, list)) => (Some(address(addr)?), list),
        None => (None, text),
    };
    let (mut mappings, mut except) = (Vec::new(), BTreeSet::new());
    for part in list.split(',') {
        if let Some(excluded) = part.strip_prefix('~') {
            let range: PortRange = excluded.parse().map_err(|_| wrong())?;
            except.extend(range.first()..=range.last());
            continue;
        }
        let (from, to) = part.split_once(':').unwrap_or((part, part));
        let from: PortRange = from.parse().map_err(|_| wrong())?;
        let to: PortRange = to.parse().map_err(|_| wrong())?;
        if from.count() != to.count() {
            return Err(format!("`{part}`: the ranges differ in length"));
        }
        let pairs = (from.first()..=from.last()).zip(to.first()..=to.last());
        mappings.extend(pairs.map(|(from, to)| Mapping { addr, from, to }));
    }
    if mappings.is_empty() {
        return Ok(Forward::All { addr, except });
    }
    mappings.retain(|mapping| !except.contains(&mapping.from));
    Ok(Forward::Ports(mappings))
}

fn address(text: &str) -> Result<IpAddr, String> {
    if text.contains('%') || text.parse::<IpAddr>().is_err() && !text.contains(['.', ':']) {
        return Err(format!(
            "`{text}`: ports at one interface only are not served by Wharf; give an address of it"
        ));
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse().map_err(|_| format!("`{text}` is no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(specs: &[&str]) -> Result<Forward, String> {
        Forward::read(specs.iter().copied(), Forward::Auto)
    }

    fn ports(specs: &[&str]) -> Vec<(Option<String>, u16, u16)> {
        match read(specs) {
            Ok(Forward::Ports(all)) => {
                all.iter().map(|m| (m.addr.map(|a| a.to_string()), m.from, m.to)).collect()
            }
            other => panic!("{specs:?}: {other:?}"),
        }
    }

    #[test]
    fn the_manual_s_examples_mean_what_it_says() {
        assert_eq!(ports(&["22"]), [(None, 22, 22)]);
        assert_eq!(ports(&["22:23"]), [(None, 22, 23)]);
        assert_eq!(ports(&["22,25"]), [(None, 22, 22), (None, 25, 25)]);
        assert_eq!(ports(&["22-24:32-34"]), [(None, 22, 32), (None, 23, 33), (None, 24, 34)]);
        let at = Some("192.0.2.1".to_owned());
        assert_eq!(ports(&["192.0.2.1/22"]), [(at.clone(), 22, 22)]);
        assert_eq!(ports(&["192.0.2.1/24-26,~25"]), [(at.clone(), 24, 24), (at, 26, 26)]);
        let six = Some("::1".to_owned());
        assert_eq!(ports(&["::1/22"]), [(six.clone(), 22, 22)]);
        assert_eq!(ports(&["[::1]/22"]), [(six, 22, 22)]);
        let except = (20000..=20010).collect();
        assert_eq!(read(&["~20000-20010"]), Ok(Forward::All { addr: None, except }));
    }

    #[test]
    fn several_options_add_up() {
        assert_eq!(ports(&["22", "25:26"]), [(None, 22, 22), (None, 25, 26)]);
        assert_eq!(read(&[]), Ok(Forward::Auto));
        assert_eq!(read(&["none"]), Ok(Forward::None));
        assert_eq!(read(&["all"]), Ok(Forward::All { addr: None, except: BTreeSet::new() }));
    }

    #[test]
    fn what_podman_writes_is_understood() {
        assert_eq!(
            ports(&["127.0.0.1/8080-8080:80-80"]),
            [(Some("127.0.0.1".to_owned()), 8080, 80)]
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for specs in [
            &["22-21"][..],
            &["22-24:1-2"],
            &["x"],
            &[""],
            &["0"],
            &["65536"],
            &["none", "22"],
            &["22", "auto"],
            &["192.0.2.1%eth0/22"],
            &["eth0/22"],
            &["300.0.0.1/22"],
        ] {
            assert!(read(specs).is_err(), "{specs:?}");
        }
    }
}
