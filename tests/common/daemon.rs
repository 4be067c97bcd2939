//! A daemon in directories of its own, for tests that run the built program.
#![allow(dead_code, reason = "no test uses all of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use serde_json::Value;

/// How long a test waits for what should take no time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A daemon in directories of its own, ended with the test however that ends.
pub(crate) struct Daemon {
    dir: tempfile::TempDir,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        let daemon = Self::not_started();
        daemon.start_again();
        daemon
    }

    pub(crate) fn not_started() -> Self {
        let daemon = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::write(daemon.path("wharf.toml"), "").unwrap();
        daemon
    }

    pub(crate) fn start_again(&self) {
        let output = self.try_start();
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stdout(&output), "ready\n");
    }

    pub(crate) fn try_start(&self) -> Output {
        self.command(&["daemon", "--background"]).args(self.places()).output().unwrap()
    }

    pub(crate) fn places(&self) -> [String; 4] {
        let path = |name| self.path(name).to_str().unwrap().to_owned();
        ["--state-dir".to_owned(), path("state"), "--config".to_owned(), path("wharf.toml")]
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
        command.args(arguments).env("WHARF_RUNTIME_DIR", self.path("run")).stdin(Stdio::null());
        command
    }

    pub(crate) fn wharf(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.wharf(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(arguments)).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn pid(&self) -> Pid {
        let pid = self.json(&["status", "--json"])["pid"].as_i64().unwrap();
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
    }

    /// One request by hand: status and body.
    pub(crate) fn request(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(self.path("run/api.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        // A body that is too long is refused before it was read to its end.
        let _ = write!(
            stream,
            "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: \
             {length}\r\n\r\n{body}"
        );
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_default();
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        (status, body.unwrap_or_default())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.command(&["daemon", "stop", "--release"]).output();
    }
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits until it is so.
#[allow(clippy::disallowed_methods, reason = "a test's patience is real time")]
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
