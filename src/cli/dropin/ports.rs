//! Publishing what `pasta`'s port specifications say.

use super::port_spec::{Forward, Mapping};
use super::switch::{GUEST, Switch};
use crate::cli::daemon::attaching::lock;
use crate::cli::output::Failure;
use crate::control::ControlError;
use crate::control::model::{Proto, PublishSpec};
use crate::io::process;

/// Where the kernel begins to choose ports by itself; `all` ends before.
const EPHEMERAL: u16 = 32_768;
/// Publications that are made at once.
const CHUNK: usize = 256;

/// Publishes one protocol's ports. `true`: they are to be followed instead.
pub(super) fn publish(switch: &Switch, proto: Proto, forward: &Forward) -> Result<bool, Failure> {
    match forward {
        Forward::None => Ok(false),
        Forward::Auto => Ok(true),
        Forward::Ports(mappings) => {
            let specs: Vec<_> = mappings.iter().map(|m| m.publication(proto)).collect();
            for chunk in specs.chunks(CHUNK) {
                try_publish(switch, chunk)?;
            }
            Ok(false)
        }
        Forward::All { addr, except } => {
            let ports = (1..EPHEMERAL).filter(|port| !except.contains(port));
            let mapping = |port| Mapping { addr: *addr, from: port, to: port };
            let specs: Vec<_> = ports.map(|port| mapping(port).publication(proto)).collect();
            publish_what_can_be(switch, &specs)?;
            Ok(false)
        }
    }
}

/// All that are free and permitted; none at all is a failure.
fn publish_what_can_be(switch: &Switch, specs: &[PublishSpec]) -> Result<(), Failure> {
    let limit = process::raise_open_files()?;
    // Connections need descriptors, too.
    if specs.len() as u64 > limit / 4 * 3 {
        let what = format!("{} ports are more than {limit} open files allow for", specs.len());
        return Err(Failure::new(what).hint("name fewer ports, or raise `ulimit -Hn`"));
    }
    let (mut done, mut failure) = (0, None);
    for chunk in specs.chunks(CHUNK) {
        if try_publish(switch, chunk).is_ok() {
            done += chunk.len();
            continue;
        }
        for spec in chunk {
            match try_publish(switch, std::slice::from_ref(spec)) {
                Ok(()) => done += 1,
                Err(error) => failure = Some(error),
            }
        }
    }
    match failure {
        Some(error) if done == 0 => Err(error.into()),
        _ => Ok(()),
    }
}

fn try_publish(switch: &Switch, specs: &[PublishSpec]) -> Result<(), ControlError> {
    lock(switch).publish(GUEST, None, specs).map(drop)
}
