//! The Container Network Interface, 1.1.0 back to 0.3.1.
//!
//! A runtime starts the program once for each verb, with the verb in `CNI_COMMAND`, the configuration on
//! standard input, and reads one JSON object from standard output: a result, an error, or nothing. All
//! state is the daemon's: an attachment is an endpoint that carries the runtime's container id, and in its
//! labels the network's and interface's names of the runtime, so that DEL and GC need nothing else. The
//! daemon sees by itself when a container's namespace ends, and finds out at its start which ones are
//! gone (a TAP outlives neither its namespace nor a boot), so an address is lost neither by a DEL that
//! never came nor by a reboot.
//!
//! Cost model: what is here runs for every container, so it does nothing that is not needed: no command
//! line is parsed, nothing is logged, and ADD is one conversation on the attach socket. The network is
//! made only after the daemon has said that it does not know it.

mod attach;
mod conf;
mod delegate;
mod environment;
mod error;
mod request;
mod result;
mod verbs;
mod version;

#[cfg(test)]
mod tests;

use std::io::{Read, Write};

pub use self::conf::fuzz_configuration;
pub use self::environment::Environment;
use self::environment::Verb;
pub use self::error::CniError;
pub use self::version::{NEWEST, SUPPORTED};

/// Bytes of a configuration that are read: a container with thousands of ports has some hundred thousand.
const INPUT_MAX: u64 = 4 * 1024 * 1024;

/// Serves one call: the exit code. What goes wrong is told on `stdout`, as the protocol wants it.
pub fn serve(environment: &Environment, stdin: impl Read, stdout: impl Write) -> u8 {
    let mut version = NEWEST.to_owned();
    match answer(environment, stdin, &mut version) {
        Ok(Some(text)) => print(stdout, &text),
        Ok(None) => 0,
        Err(error) => {
            print(stdout, &error.to_json(&version).to_string());
            1
        }
    }
}

fn print(mut stdout: impl Write, text: &str) -> u8 {
    // A runtime that no longer listens has given up on this call, and will say DEL.
    u8::from(writeln!(stdout, "{text}").is_err())
}

/// `version` becomes the configuration's as soon as that is known: errors are told in it.
fn answer(
    environment: &Environment,
    stdin: impl Read,
    version: &mut String,
) -> Result<Option<String>, CniError> {
    let verb = environment.verb()?;
    if verb != Verb::Version {
        environment.check(verb)?;
    }
    let mut input = Vec::new();
    stdin
        .take(INPUT_MAX)
        .read_to_end(&mut input)
        .map_err(|error| CniError::io(format!("cannot read the configuration: {error}")))?;
    if verb == Verb::Version {
        return version::report(&input).map(Some);
    }
    let conf = conf::parse(&input, version)?;
    verbs::run(verb, environment, &conf, &input)
}
