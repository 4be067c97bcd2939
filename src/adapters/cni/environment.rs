//! What a runtime says in the environment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::error::{CniError, Code};

/// Longest name of an interface (`IFNAMSIZ` less its end).
const IFNAME_MAX: usize = 15;

/// A verb of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// The variables of one call. Empty ones count as absent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Environment {
    command: Option<String>,
    container_id: Option<String>,
    netns: Option<String>,
    ifname: Option<String>,
    args: Option<String>,
    path: Option<String>,
    netns_override: Option<String>,
    runtime_dir: Option<String>,
}

impl Environment {
    /// Reads the variables with `get`.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        Self {
            command: get("CNI_COMMAND"),
            container_id: get("CNI_CONTAINERID"),
            netns: get("CNI_NETNS"),
            ifname: get("CNI_IFNAME"),
            args: get("CNI_ARGS"),
            path: get("CNI_PATH"),
            netns_override: get("CNI_NETNS_OVERRIDE"),
            runtime_dir: get("WHARF_RUNTIME_DIR"),
        }
    }

    /// This process's own.
    pub fn of_process() -> Self {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Whether this is a call of a runtime at all.
    pub fn is_call(&self) -> bool {
        self.command.is_some()
    }

    pub(super) fn verb(&self) -> Result<Verb, CniError> {
        Ok(match self.command.as_deref() {
            Some("ADD") => Verb::Add,
            Some("DEL") => Verb::Del,
            Some("CHECK") => Verb::Check,
            Some("GC") => Verb::Gc,
            Some("STATUS") => Verb::Status,
            Some("VERSION") => Verb::Version,
            Some(other) => return Err(wrong(format!("unknown CNI_COMMAND: {other}"))),
            None => return Err(missing(&["CNI_COMMAND"])),
        })
    }

    /// Whether all is there that the verb needs, and is what it should be.
    pub(super) fn check(&self, verb: Verb) -> Result<(), CniError> {
        let needed: &[(&str, &Option<String>)] = match verb {
            Verb::Add | Verb::Check => &[
                ("CNI_CONTAINERID", &self.container_id),
                ("CNI_NETNS", &self.netns),
                ("CNI_IFNAME", &self.ifname),
            ],
            Verb::Del => &[("CNI_CONTAINERID", &self.container_id), ("CNI_IFNAME", &self.ifname)],
            Verb::Gc => &[("CNI_PATH", &self.path)],
            Verb::Status | Verb::Version => &[],
        };
        let absent: Vec<&str> =
            needed.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| *name).collect();
        if !absent.is_empty() {
            return Err(missing(&absent));
        }
        if needed.len() > 1 {
            check_container_id(self.container_id())?;
            check_ifname("CNI_IFNAME", self.ifname())?;
        }
        Ok(())
    }

    pub(super) fn container_id(&self) -> &str {
        self.container_id.as_deref().unwrap_or_default()
    }

    pub(super) fn ifname(&self) -> &str {
        self.ifname.as_deref().unwrap_or_default()
    }

    pub(super) fn netns(&self) -> Option<PathBuf> {
        self.netns.as_ref().map(PathBuf::from)
    }

    /// Whether the container's namespace may be the runtime's own.
    pub(super) fn may_be_own_netns(&self) -> bool {
        let yes = ["1", "t", "true", "yes"];
        self.netns_override.as_deref().is_some_and(|v| yes.contains(&v.to_lowercase().as_str()))
    }

    pub(super) fn plugin_dirs(&self) -> Vec<PathBuf> {
        let dirs = self.path.as_deref().unwrap_or_default().split(':');
        dirs.filter(|dir| !dir.is_empty()).map(PathBuf::from).collect()
    }

    pub(super) fn runtime_dir(&self) -> Option<PathBuf> {
        self.runtime_dir.as_ref().map(PathBuf::from)
    }

    /// `CNI_ARGS`: `K=V;K=V`.
    pub(super) fn args(&self) -> Result<BTreeMap<&str, &str>, CniError> {
        let pairs = self.args.as_deref().unwrap_or_default().split(';');
        let pairs = pairs.map(str::trim).filter(|pair| !pair.is_empty()).map(|pair| {
            pair.split_once('=')
                .ok_or_else(|| wrong(format!("CNI_ARGS: `{pair}` is not KEY=VALUE")))
        });
        pairs.collect()
    }
}

fn missing(names: &[&str]) -> CniError {
    wrong(format!("required env variables [{}] missing", names.join(",")))
}

fn wrong(msg: String) -> CniError {
    CniError::new(Code::InvalidEnvironment, msg)
}

fn check_container_id(id: &str) -> Result<(), CniError> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if id.starts_with(|c: char| c.is_ascii_alphanumeric()) && id.bytes().all(inner) {
        return Ok(());
    }
    Err(wrong("invalid characters in CNI_CONTAINERID".to_owned()).details(id))
}

/// What libcni demands of a name.
pub(super) fn check_ifname(what: &str, name: &str) -> Result<(), CniError> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
    let fine = !name.is_empty() && name.len() <= IFNAME_MAX && name != "." && name != "..";
    if fine && !name.contains(bad) {
        return Ok(());
    }
    Err(wrong(format!("{what}={name} cannot be the name of an interface")))
}
