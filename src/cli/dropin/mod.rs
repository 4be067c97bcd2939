//! Standing in for `slirp4netns` and `pasta`: called by their names, with their options.
//!
//! RootlessKit, Podman and others start these programs to give a namespace a network, and talk to them
//! through their command line, inherited descriptors and a small socket. Here each is a thin shell: its
//! command line becomes a plain struct, that becomes a network of a switch of this process's own
//! ([`switch`]), with one endpoint and the socket uplink, and [`ends`] says when it is over. Addresses are
//! those of the original, which its callers take for granted: the network wears a guise
//! ([`crate::config::Guise`]).
//!
//! What an option of the original does and Wharf does not is refused in words where it would matter for
//! security or reachability, and accepted with a warning where nobody could tell the difference.

mod api;
mod auto;
mod ends;
mod getopt;
mod pasta;
mod pasta_options;
mod port_spec;
mod ports;
mod slirp;
mod slirp_options;
mod switch;
mod template;
mod user;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use clap::Args;

use super::output::{Failure, Outcome};
use crate::io::inherit;

/// The words of a foreign command line.
#[derive(Args, Debug)]
pub(crate) struct Words {
    /// Options and operands of the original
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORD")]
    pub(crate) words: Vec<String>,
}

/// A program that Wharf stands in for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// `slirp4netns`
    Slirp,
    /// `pasta`
    Pasta,
}

impl Role {
    /// The program that this one is called as, by its own name or by its first word, and its arguments.
    pub(crate) fn of_line(words: &[String]) -> Option<(Self, &[String])> {
        let (argv0, arguments) = words.split_first()?;
        let name = Path::new(argv0).file_name()?.to_str()?;
        if let Some(role) = Self::named(name) {
            return Some((role, arguments));
        }
        let (first, rest) = arguments.split_first()?;
        Some((Self::named(first)?, rest))
    }

    fn named(name: &str) -> Option<Self> {
        match name {
            "slirp4netns" => Some(Self::Slirp),
            "pasta" => Some(Self::Pasta),
            _ => None,
        }
    }

    /// Runs it with these arguments.
    pub(crate) fn run(self, arguments: &[String]) -> u8 {
        let (name, outcome) = match self {
            Self::Slirp => ("slirp4netns", slirp::run(arguments)),
            Self::Pasta => ("pasta", pasta::run(arguments)),
        };
        report(name, outcome)
    }
}

/// Failures are told in the name that the caller knows.
fn report(name: &str, outcome: Outcome) -> u8 {
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{name}: {}", failure.what);
            if let Some(hint) = failure.hint {
                eprintln!("hint: {hint}");
            }
            failure.exit
        }
    }
}

/// A descriptor that the caller has left open for us. Before anything else is opened.
fn inherited(number: i32, option: &str) -> Result<OwnedFd, Failure> {
    let taken = match number {
        0 => std::io::stdin().as_fd().try_clone_to_owned(),
        1 => std::io::stdout().as_fd().try_clone_to_owned(),
        2 => std::io::stderr().as_fd().try_clone_to_owned(),
        _ => inherit::take(number),
    };
    taken.map_err(|error| Failure::new(format!("{option}={number} is not open: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_it_is_called_by_says_what_it_is() {
        for (line, expected) in [
            ("slirp4netns -c 1 tap0", Some((Role::Slirp, 3))),
            ("/usr/bin/slirp4netns --help", Some((Role::Slirp, 1))),
            ("wharf slirp4netns -v", Some((Role::Slirp, 1))),
            ("../bin/wharf run slirp4netns", None),
            ("slirp4netns/wharf -c", None),
            ("pasta --netns x", Some((Role::Pasta, 2))),
            ("wharf pasta -f 1", Some((Role::Pasta, 2))),
            ("wharf", None),
        ] {
            let words: Vec<String> = line.split(' ').map(ToOwned::to_owned).collect();
            let found = Role::of_line(&words).map(|(role, rest)| (role, rest.len()));
            assert_eq!(found, expected, "{line}");
        }
    }
}
