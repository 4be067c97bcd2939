//! Plugins that give addresses (`host-local`, `static`, `dhcp`), started as a runtime would start them:
//! the same environment, the same configuration on standard input.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::Value;

use super::environment::Environment;
use super::error::{CniError, Code};

/// Bytes of an answer that are read.
const OUTPUT_MAX: u64 = 1024 * 1024;

/// A plugin's error, in its own words.
#[derive(Deserialize)]
struct Said {
    code: u32,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

/// Runs the plugin `kind` with this verb; its answer, which is nothing for most verbs.
pub(super) fn run(
    environment: &Environment,
    kind: &str,
    verb: &str,
    input: &[u8],
) -> Result<Option<Value>, CniError> {
    let path = find(environment, kind)?;
    let failed = |error: std::io::Error| {
        CniError::io(format!("cannot run the plugin {}: {error}", path.display()))
    };
    let mut child = Command::new(&path)
        .env("CNI_COMMAND", verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that needs no more of it closes early; its answer says what came of it.
        let _ = stdin.write_all(input);
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(OUTPUT_MAX).read_to_end(&mut output).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        return Err(match serde_json::from_slice::<Said>(&output) {
            Ok(said) => CniError {
                code: said.code,
                msg: format!("{kind}: {}", said.msg),
                details: said.details,
            },
            Err(_) => {
                CniError::new(Code::Daemon, format!("{kind} failed ({status}) and said nothing"))
            }
        });
    }
    if output.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let answer = serde_json::from_slice(&output);
    answer
        .map(Some)
        .map_err(|e| CniError::new(Code::Daemon, format!("{kind}'s answer is not JSON: {e}")))
}

fn find(environment: &Environment, kind: &str) -> Result<PathBuf, CniError> {
    if kind.contains('/') {
        return Err(CniError::configuration(format!("ipam.type `{kind}` is a path, not a name")));
    }
    let dirs = environment.plugin_dirs();
    let found = dirs.iter().map(|dir| dir.join(kind)).find(|path| Path::is_file(path));
    found.ok_or_else(|| {
        let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        CniError::configuration(format!(
            "ipam.type: failed to find plugin \"{kind}\" in path [{}]",
            dirs.join(" ")
        ))
    })
}
