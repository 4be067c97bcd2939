//! Being called by a container engine: as a CNI plugin, or as one of netavark.

use std::io::{stdin, stdout};
use std::path::Path;

use crate::adapters::cni::{self, Environment, NEWEST, SUPPORTED};
use crate::adapters::netavark;
use crate::api::paths::RuntimeDir;

/// The name under which the program is nothing else.
const NAME: &str = "wharf-cni";

/// Serves the call if this is one: `CNI_COMMAND` is set and nothing is on the command line, as runtimes
/// have it, or the program has the plugin's name. The exit code.
pub(super) fn serve(words: &[String]) -> Option<u8> {
    let named =
        words.first().and_then(|word| Path::new(word).file_name()).is_some_and(|n| n == NAME);
    if words.get(1).is_some_and(|word| netavark::is_call(word)) {
        let dir = std::env::var_os("WHARF_RUNTIME_DIR").filter(|dir| !dir.is_empty());
        let dir = dir.map_or_else(RuntimeDir::of_this_user, RuntimeDir::new);
        return Some(netavark::serve(&words[1..], &dir, stdin().lock(), stdout().lock()));
    }
    let environment = Environment::of_process();
    if named && !environment.is_call() {
        eprintln!("CNI plugin wharf {}", env!("CARGO_PKG_VERSION"));
        eprintln!("CNI protocol versions supported: {} (newest: {NEWEST})", SUPPORTED.join(", "));
        return Some(0);
    }
    let called = environment.is_call() && (named || words.len() <= 1);
    called.then(|| cni::serve(&environment, stdin().lock(), stdout().lock()))
}
